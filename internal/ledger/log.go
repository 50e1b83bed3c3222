package ledger

import (
	"context"
	"errors"

	"github.com/org/attic-action/internal/blob"
)

// Log appends records to a bucket and reads them back.
type Log struct {
	Blobs interface {
		blob.Getter
		blob.Putter
		blob.Lister
	}
	Epoch uint64 // of what is appended; recovery raises it
}

// Pos is the place of a record's batch in the log.
type Pos struct{ Epoch, Seq uint64 }

var errTODO = errors.New("not written yet")

func (l *Log) Append(ctx context.Context, seq uint64, recs []Record) error { return errTODO }

func (l *Log) Replay(ctx context.Context, each func(Pos, Record) error) error { return errTODO }
