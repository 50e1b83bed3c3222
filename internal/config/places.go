package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
)

// http reads what concerns listening and addresses.
func (b *builder) http(s *Server) error {
	if l := b.file.Listen; l != nil {
		if err := CheckListen(*l); err != nil {
			return b.wrong("listen", "%w", err)
		}
		s.Listen = *l
	}
	for _, e := range []struct {
		key  string
		from *string
		to   *string
	}{
		{"api-endpoint", b.file.APIEndpoint, &s.APIEndpoint},
		{"substituter-endpoint", b.file.SubstituterEndpoint, &s.SubstituterEndpoint},
	} {
		if e.from == nil {
			continue
		}
		endpoint, err := parseEndpoint(*e.from)
		if err != nil {
			return b.wrong(e.key, "%w", err)
		}
		*e.to = endpoint
	}
	if b.file.APIEndpoint == nil {
		s.APIEndpoint = b.flyEndpoint()
	}
	if n := b.file.MaxNarInfoSize; n != nil {
		if *n < 0 {
			return b.wrong("max-nar-info-size", "%d is negative", *n)
		}
		s.MaxNarInfoSize = *n
	}
	return nil
}

// CheckListen checks an address to listen at: a numeric IP address and a port.
func CheckListen(s string) error {
	if _, err := netip.ParseAddrPort(s); err != nil {
		return fmt.Errorf("%q is not a numeric address and port, such as 127.0.0.1:8080 or [::]:8080", s)
	}
	return nil
}

// parseEndpoint returns the URL with the slash at its end that joining needs.
func parseEndpoint(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q is not a URL like https://cache.example.org/", s)
	}
	if !strings.HasSuffix(s, "/") {
		s += "/"
	}
	return s, nil
}

// Variables of the environment, all of them Attic's but the last.
const (
	envConfig      = "ATTIC_SERVER_CONFIG_BASE64"
	envDatabase    = "ATTIC_SERVER_DATABASE_URL"
	envRS256Public = "ATTIC_SERVER_TOKEN_RS256_PUBKEY_BASE64"
	envRS256Secret = "ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64"
	envHS256       = "ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64"
	envRootKey     = "ATTIC_SERVER_ROOT_KEY"
	envRecover     = "ATTIC_SERVER_RECOVER" // cmd/server's own

	// envPrevious at the end of a key's variable makes it a list of previous keys.
	envPrevious = "_PREVIOUS"
	// envOurs begins all of them.
	envOurs = "ATTIC_SERVER_"
)

// database finds the database, and with it the data directory.
func (b *builder) database(s *Server) error {
	from := envDatabase
	address := b.getenv(envDatabase)
	if d := b.file.Database; d != nil {
		s.Database.Heartbeat = d.Heartbeat
		if d.URL != nil {
			from, address = b.at("database.url"), *d.URL
		}
	}
	if address == "" && b.file.Database != nil {
		// An operator who names a database and forgets its URL must not get an empty one.
		return fmt.Errorf("%s: no url, and %s is not set", b.at("database"), envDatabase)
	}
	if address == "" {
		return b.defaultDatabase(s)
	}
	d, err := parseDatabase(address)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	d.Heartbeat = s.Database.Heartbeat
	s.Database = d
	if s.Data = b.data; s.Data == "" && d.File != memory {
		s.Data = filepath.Dir(d.File)
	}
	if s.Data == "" {
		s.Data = b.defaultData() // in memory: a storage without a path will ask again
	}
	return nil
}

func (b *builder) defaultDatabase(s *Server) error {
	if s.Data = b.data; s.Data == "" {
		s.Data = b.defaultData()
	}
	if s.Data == "" {
		return errNoData
	}
	file := filepath.Join(s.Data, "server.db")
	s.Database = Database{URL: "sqlite://" + (&url.URL{Path: file}).EscapedPath() + "?mode=rwc", File: file, Create: true}
	return nil
}

func (b *builder) defaultData() string {
	dir := xdg(b.getenv, "XDG_DATA_HOME", filepath.Join(".local", "share"))
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "attic-server")
}

var errNoData = errors.New("there is no place for data: set HOME or XDG_DATA_HOME, or give --data DIRECTORY")

const memory = ":memory:"

// parseDatabase reads sqlite://path[?mode=rwc], sqlite:path and the two forms of
// a database in memory. Errors don't quote the URL: those of PostgreSQL hold
// passwords.
func parseDatabase(address string) (Database, error) {
	if strings.HasPrefix(address, "postgres:") || strings.HasPrefix(address, "postgresql:") {
		return Database{}, errors.New("PostgreSQL is not supported yet by this version: use sqlite:///var/lib/atticd/server.db?mode=rwc, or the like")
	}
	rest, ok := strings.CutPrefix(address, "sqlite:")
	if !ok {
		return Database{}, errors.New("not a database URL: want sqlite:///path/server.db?mode=rwc")
	}
	path, query, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "?")
	path, err := url.PathUnescape(path)
	if err != nil || path == "" || strings.ContainsFunc(path, func(r rune) bool { return r < ' ' }) {
		return Database{}, errors.New("the database URL has no path of a file: want sqlite:///path/server.db?mode=rwc")
	}
	d := Database{URL: address, File: path}
	values, err := url.ParseQuery(query)
	if err != nil {
		return Database{}, errors.New("the database URL's parameters are malformed")
	}
	for name, value := range values {
		switch name + "=" + value[0] {
		case "mode=rw":
		case "mode=rwc":
			d.Create = true
		case "mode=memory":
			d.File = memory
		case "mode=ro":
			return Database{}, errors.New("the database URL says mode=ro, but the server has to write: want mode=rwc")
		case "cache=shared", "cache=private":
		default:
			return Database{}, fmt.Errorf("the database URL has the parameter %s: want mode=rwc or mode=rw", name)
		}
	}
	if d.File == memory {
		d.Create = true
	}
	return d, nil
}

func (b *builder) required(table, key string, value *string) (string, error) {
	if value == nil {
		return "", b.wrong(table, "no %s", key)
	}
	if *value == "" {
		return "", b.wrong(table+"."+key, "it is empty")
	}
	return *value, nil
}
