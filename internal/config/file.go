package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/org/attic-action/internal/trust"
)

// file is server.toml as written; nil is "not given".
type file struct {
	Listen              *string         `toml:"listen"`
	AllowedHosts        []string        `toml:"allowed-hosts"`
	APIEndpoint         *string         `toml:"api-endpoint"`
	SubstituterEndpoint *string         `toml:"substituter-endpoint"`
	SoftDeleteCaches    bool            `toml:"soft-delete-caches"`
	RequireProof        *bool           `toml:"require-proof-of-possession"`
	MaxNarInfoSize      *int64          `toml:"max-nar-info-size"`
	Database            *fileDatabase   `toml:"database"`
	Storage             *fileStorage    `toml:"storage"`
	Chunking            *fileChunking   `toml:"chunking"`
	Compression         *fileCompressed `toml:"compression"`
	GC                  *fileGC         `toml:"garbage-collection"`
	Verify              *fileVerify     `toml:"verify"` // ours
	JWT                 *fileJWT        `toml:"jwt"`
	OldHS256            *string         `toml:"token-hs256-secret-base64"` // before [jwt.signing]
	OIDC                *fileOIDC       `toml:"oidc"`
	Trust               []trust.Policy  `toml:"trust"`
	Rules               []fileRule      `toml:"cache-rules"`
	Pins                []filePin       `toml:"pins"`
	TrustedProxies      []string        `toml:"trusted-proxies"`
	Limits              *fileLimits     `toml:"limits"`
	Audit               *fileAudit      `toml:"audit"`
}

type fileDatabase struct {
	URL       *string `toml:"url"`
	Heartbeat bool    `toml:"heartbeat"`
}

type fileStorage struct {
	Type        *string          `toml:"type"`
	Path        *string          `toml:"path"`
	Region      *string          `toml:"region"`
	Bucket      *string          `toml:"bucket"`
	Endpoint    *string          `toml:"endpoint"`
	PathStyle   *bool            `toml:"path-style"`  // ours
	Redirect    *string          `toml:"redirect"`    // ours
	CacheBytes  *int64           `toml:"cache-bytes"` // ours
	Credentials *fileCredentials `toml:"credentials"`
}

type fileCredentials struct {
	AccessKeyID     *string `toml:"access_key_id"`
	SecretAccessKey *string `toml:"secret_access_key"`
}

type fileChunking struct {
	Threshold *int64 `toml:"nar-size-threshold"`
	Min       *int64 `toml:"min-size"`
	Avg       *int64 `toml:"avg-size"`
	Max       *int64 `toml:"max-size"`
}

type fileCompressed struct {
	Type  *string `toml:"type"`
	Level *int64  `toml:"level"`
}

type fileJWT struct {
	Issuer    *string       `toml:"token-bound-issuer"`
	Audiences []string      `toml:"token-bound-audiences"`
	Signing   *fileSigning  `toml:"signing"`
	Previous  []fileSigning `toml:"previous"`
}

type fileSigning struct {
	RS256Public *string `toml:"token-rs256-pubkey-base64"`
	RS256Secret *string `toml:"token-rs256-secret-base64"`
	HS256       *string `toml:"token-hs256-secret-base64"`
}

type fileOIDC struct {
	Audience *string      `toml:"audience"`
	MaxTTL   *string      `toml:"max-ttl"`
	Issuers  []fileIssuer `toml:"issuer"`
}

type fileIssuer struct {
	URL           string `toml:"url"`
	Kind          string `toml:"kind"`
	JWKSFile      string `toml:"jwks-file"`
	AllowInsecure bool   `toml:"allow-insecure"`
}

// builder turns a file into a Server.
type builder struct {
	name     string // of the file, for messages
	file     file
	keysAt   []keyAt
	getenv   func(string) string
	environ  func() []string // nil: unknown
	data     string
	warnings []string
}

// keyAt is a key of the file and its line. Elements of arrays of tables have
// their number in the key: trust[0].ref.
type keyAt struct {
	key  string
	line int
}

// parse reads the text and notes where its keys are.
func parse(name string, text []byte) (*builder, error) {
	b := &builder{name: name}
	// A parser's own text is not shown where it could quote a secret.
	var fault *toml.DecodeError
	if err := toml.Unmarshal(text, &b.file); errors.As(err, &fault) {
		line, _ := fault.Position()
		return nil, b.explain(line, strings.Join(fault.Key(), "."), fault)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	b.keysAt = locate(text)
	return b, nil
}

// explain says what a value should have been, or what is wrong with the syntax.
func (b *builder) explain(line int, key string, fault *toml.DecodeError) error {
	want := wanted(key)
	// A syntax error may come with the key that it stands behind.
	mismatch := strings.Contains(fault.Error(), "cannot decode") || strings.Contains(fault.Error(), "cannot be stored")
	if key == "" || want == "" || !mismatch {
		return fmt.Errorf("%s:%d: not TOML: %s", b.name, line, strings.TrimPrefix(fault.Error(), "toml: "))
	}
	return fmt.Errorf("%s:%d: key %s: want %s", b.name, line, key, want)
}

// locate lists all keys of a document that has been parsed without error.
func locate(text []byte) []keyAt {
	l := locator{text: text, elements: map[string]int{}}
	l.parser.Reset(text)
	for l.parser.NextExpression() {
		switch e := l.parser.Expression(); e.Kind {
		case unstable.Table:
			l.table = l.note(l.resolve, "", e.Key())
		case unstable.ArrayTable:
			key := l.note(l.resolve, "", e.Key())
			l.elements[key]++
			l.table = fmt.Sprintf("%s[%d]", key, l.elements[key]-1)
			l.keys[len(l.keys)-1].key = l.table
		case unstable.KeyValue:
			l.value(l.table, e)
		}
	}
	return l.keys
}

type locator struct {
	text     []byte
	parser   unstable.Parser
	table    string         // the header above
	elements map[string]int // of arrays of tables
	keys     []keyAt
}

// note adds the key below parent and returns it.
func (l *locator) note(resolve func(string) string, parent string, parts unstable.Iterator) string {
	key, offset := parent, 0
	for parts.Next() {
		if key = resolve(key); key != "" {
			key += "."
		}
		key += string(parts.Node().Data)
		offset = int(parts.Node().Raw.Offset)
	}
	l.keys = append(l.keys, keyAt{key, 1 + bytes.Count(l.text[:min(offset, len(l.text))], []byte("\n"))})
	return key
}

// resolve makes a key that is an array of tables mean its last element.
func (l *locator) resolve(key string) string {
	if n := l.elements[key]; n > 0 {
		return fmt.Sprintf("%s[%d]", key, n-1)
	}
	return key
}

// value notes a key and those in inline tables behind it.
func (l *locator) value(parent string, kv *unstable.Node) {
	key := l.note(func(k string) string { return k }, parent, kv.Key())
	l.inside(key, kv.Value())
}

func (l *locator) inside(key string, v *unstable.Node) {
	switch v.Kind {
	case unstable.InlineTable:
		for it := v.Children(); it.Next(); {
			l.value(key, it.Node())
		}
	case unstable.Array:
		i := 0
		for it := v.Children(); it.Next(); i++ {
			l.inside(fmt.Sprintf("%s[%d]", key, i), it.Node())
		}
	}
}

// at says where a key stands: "server.toml:12: key listen".
func (b *builder) at(key string) string {
	for _, k := range b.keysAt {
		if k.key == key {
			return fmt.Sprintf("%s:%d: key %s", b.name, k.line, key)
		}
	}
	return fmt.Sprintf("%s: key %s", b.name, key)
}

func (b *builder) wrong(key, format string, args ...any) error {
	return fmt.Errorf("%s: "+format, append([]any{b.at(key)}, args...)...)
}

func (b *builder) warn(key, format string, args ...any) {
	b.warnings = append(b.warnings, b.wrong(key, format, args...).Error())
}
