package config

import (
	"slices"
	"strings"
)

// unused tells of keys that Attic knows, that are right, and that change nothing here.
// Those whose table is read elsewhere are told of there.
func (b *builder) unused(s *Server) error {
	f := &b.file
	if f.Database != nil && f.Database.Heartbeat {
		b.warn("database.heartbeat", "has no use here: SQLite has no connection to keep alive")
	}
	if st := f.Storage; st != nil {
		type key struct {
			name  string
			given bool
		}
		of := map[string][]key{
			Local: {{"region", st.Region != nil}, {"bucket", st.Bucket != nil}, {"endpoint", st.Endpoint != nil}, {"credentials", st.Credentials != nil},
				{"path-style", st.PathStyle != nil}, {"redirect", st.Redirect != nil}, {"cache-bytes", st.CacheBytes != nil}},
			S3: {{"path", st.Path != nil}},
		}
		for _, k := range of[s.Storage.Type] {
			if k.given {
				b.warn("storage."+k.name, "has no use with type = %q", s.Storage.Type)
			}
		}
	}
	return nil
}

// environment lists the variables that are read. Whoever adds one adds it here.
var environment = []string{
	envConfig, envDatabase, envRootKey, envRecover, envRedirect, envCacheBytes,
	envRS256Public, envRS256Secret, envHS256,
	envRS256Public + envPrevious, envRS256Secret + envPrevious, envHS256 + envPrevious,
}

// misspelt looks for variables that are ours by name and that nobody reads: a server
// whose secret has a slip in its name would make itself another one and say nothing.
// Their values are secrets and are not shown.
func (b *builder) misspelt(*Server) error {
	if b.environ == nil {
		return nil
	}
	for _, pair := range b.environ() {
		name, _, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, envOurs) || slices.Contains(environment, name) {
			continue
		}
		best := slices.MinFunc(environment, func(x, y string) int { return edits(name, x) - edits(name, y) })
		b.warnings = append(b.warnings, strings.Map(printable, name[:min(len(name), 100)])+": there is no such variable; did you mean "+best+"? It is ignored")
	}
	return nil
}

func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return '?'
	}
	return r
}
