package depot

import (
	"errors"
	"fmt"
	"sync"

	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/pack"
)

// Layouts is how the database's rows become records of a checkpoint, and records
// rows of a database that is being rebuilt: in records packs have keys, in rows ids.
// It implements meta.Layouts, for one database.
type Layouts struct {
	once    sync.Once
	rows    rowCodec
	indexes indexCache

	mu   sync.Mutex
	keys map[int64]string // of packs, some
	ids  map[string]int64 // the same, the other way
}

var _ meta.Layouts = (*Layouts)(nil)

// maxCachedKeys bounds what Layouts remembers of packs' names: about 8 MiB.
const maxCachedKeys = 30_000

func (l *Layouts) init() { l.once.Do(func() { l.rows = newRowCodec() }) }

// Index implements meta.Layouts.
func (l *Layouts) Index(row []byte) (*pack.Index, error) {
	l.init()
	frame, err := l.rows.decode(row)
	if err != nil {
		return nil, err
	}
	return pack.DecodeIndex(frame)
}

// EncodeIndex is the row of an index.
func (l *Layouts) EncodeIndex(ix *pack.Index) []byte {
	l.init()
	return l.rows.encode(ix.Encode())
}

// Spans implements meta.Layouts.
func (l *Layouts) Spans(tx *meta.Tx, row []byte) ([]ledger.Span, error) {
	lay, err := l.decode(row)
	if err != nil {
		return nil, err
	}
	keys := map[int64]string{}
	for _, id := range lay.packs() {
		if keys[id], err = l.key(tx, id); err != nil {
			return nil, err
		}
	}
	return lay.record(keys), nil
}

func (l *Layouts) decode(row []byte) (layout, error) {
	l.init()
	b, err := l.rows.decode(row)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errLayout, err)
	}
	return decodeLayout(b)
}

var errSpan = errors.New("a span that its pack has not")

// Row implements meta.Layouts. A span that its pack has not is an error.
func (l *Layouts) Row(tx *meta.Tx, spans []ledger.Span) ([]byte, error) {
	l.init()
	var lay layout
	for _, s := range spans {
		if s.Pack == "" {
			lay.add(span{kind: literalSpan, literal: s.Literal})
			continue
		}
		id, err := l.id(tx, s.Pack)
		if err != nil {
			return nil, err
		}
		p, err := loadPack(tx, id, &l.indexes, l.rows)
		if err != nil {
			return nil, err
		}
		switch n := len(p.index.Entries); {
		case s.Trailer:
			lay.add(p.trailer())
		case s.First < 0 || s.Count < 1 || s.First > n || s.Count > n-s.First:
			return nil, fmt.Errorf("%w: %d entries from %d of %s", errSpan, s.Count, s.First, s.Pack)
		default:
			lay.add(p.run(s.First, s.Count))
		}
	}
	return l.rows.encode(lay.encode()), nil
}

// Uses tells which entries of which packs a layout needs.
func (l *Layouts) Uses(row []byte, each func(pack int64, first, count int)) error {
	lay, err := l.decode(row)
	if err != nil {
		return err
	}
	for _, s := range lay {
		if s.kind == runSpan {
			each(s.pack, s.first, s.count)
		}
	}
	return nil
}

func (l *Layouts) key(tx *meta.Tx, id int64) (string, error) {
	l.mu.Lock()
	key, known := l.keys[id]
	l.mu.Unlock()
	if known {
		return key, nil
	}
	key, err := tx.PackKey(id)
	if err == nil {
		l.remember(id, key)
	}
	return key, err
}

func (l *Layouts) id(tx *meta.Tx, key string) (int64, error) {
	l.mu.Lock()
	id, known := l.ids[key]
	l.mu.Unlock()
	if known {
		return id, nil
	}
	id, err := tx.PackID(key)
	if err == nil {
		l.remember(id, key)
	}
	return id, err
}

func (l *Layouts) remember(id int64, key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keys == nil || len(l.keys) >= maxCachedKeys {
		l.keys, l.ids = map[int64]string{}, map[string]int64{}
	}
	l.keys[id], l.ids[key] = key, id
}
