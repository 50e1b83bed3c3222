package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/token"
)

// secret is a token. It prints as [redacted].
type secret string

func (secret) String() string   { return "[redacted]" }
func (secret) GoString() string { return "[redacted]" }

const (
	maxToken  = 64 << 10 // bytes of a token file; the token of a job is 2 KiB
	maxConfig = 1 << 20
)

// login is where to push, and with what right. Its fields are exported because
// fmt does not ask unexported ones how they want to be printed.
type login struct {
	Endpoint string
	Token    secret
	Cache    string
}

// sources are where a login comes from.
type sources struct {
	server    string // --server
	tokenFile string // --token-file
	getenv    func(string) string
	stdin     io.Reader // the token, when --token-file is "-"
}

// atticConfig is the stock client's configuration.
type atticConfig struct {
	DefaultServer string                 `toml:"default-server"`
	Servers       map[string]atticServer `toml:"servers"`
}

type atticServer struct {
	Endpoint  string `toml:"endpoint"`
	Token     secret `toml:"token"`
	TokenFile string `toml:"token-file"`
}

// resolve finds the login for ref, which is CACHE or SERVER:CACHE as the stock
// client knows it. A token goes only to the server it was given for.
func (s sources) resolve(ref string) (login, error) {
	name, cache, named := strings.Cut(ref, ":")
	if !named {
		name, cache = "", ref
	}
	if !token.ValidCacheName(cache) {
		return login{}, usagef("%.80q is not the name of a cache", cache)
	}
	if named && s.server != "" {
		return login{}, usagef("%s names a server, and so does --server", ref)
	}
	cfg, err := s.config()
	if err != nil {
		return login{}, err
	}
	out := login{Cache: cache}
	switch envServer := s.getenv("ATTIC_SERVER"); {
	case s.server != "":
		out.Endpoint = s.server
	case named:
		server, ok := cfg.Servers[name]
		if !ok {
			return login{}, fmt.Errorf("no server %q is in attic's configuration %s", name, s.configFile())
		}
		out.Endpoint = server.Endpoint
	case envServer != "":
		out.Endpoint = envServer
	default:
		if out.Endpoint, err = cfg.defaultEndpoint(s.configFile()); err != nil {
			return login{}, err
		}
	}
	if _, err := client.ParseEndpoint(out.Endpoint); err != nil {
		return login{}, err
	}
	out.Token, err = s.token(cfg, name, out.Endpoint)
	return out, err
}

// errNoServer is a push to nowhere.
var errNoServer = errors.New("no server is given")

// defaultEndpoint is that of default-server, or of the only server there is.
func (c *atticConfig) defaultEndpoint(file string) (string, error) {
	if c.DefaultServer != "" {
		server, ok := c.Servers[c.DefaultServer]
		if !ok {
			return "", fmt.Errorf("the default-server %q of %s is not among its servers", c.DefaultServer, file)
		}
		return server.Endpoint, nil
	}
	if len(c.Servers) == 1 {
		for _, server := range c.Servers {
			return server.Endpoint, nil
		}
	}
	return "", errNoServer
}

// token finds the token for endpoint. name is the server's in the
// configuration, if one was given.
func (s sources) token(cfg *atticConfig, name, endpoint string) (secret, error) {
	switch {
	case s.tokenFile == "-":
		return readToken(s.stdin, "standard input")
	case s.tokenFile != "":
		return readTokenFile(s.tokenFile)
	}
	// A token beside $ATTIC_SERVER is that server's and nobody else's.
	if server := s.getenv("ATTIC_SERVER"); s.getenv("ATTIC_TOKEN") != "" && (server == "" || client.SameEndpoint(server, endpoint)) {
		return readToken(strings.NewReader(s.getenv("ATTIC_TOKEN")), "$ATTIC_TOKEN")
	}
	if server, ok := cfg.Servers[name]; ok {
		return server.secret()
	}
	for _, name := range append([]string{cfg.DefaultServer}, sortedNames(cfg.Servers)...) {
		if server, ok := cfg.Servers[name]; ok && client.SameEndpoint(server.Endpoint, endpoint) {
			return server.secret()
		}
	}
	return "", nil
}

func (s atticServer) secret() (secret, error) {
	if s.TokenFile != "" {
		return readTokenFile(s.TokenFile)
	}
	if s.Token == "" {
		return "", nil
	}
	return readToken(strings.NewReader(string(s.Token)), "attic's configuration")
}

func (s sources) configFile() string {
	dir := s.getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) { // the XDG rules say to ignore others
		dir = filepath.Join(s.getenv("HOME"), ".config")
	}
	return filepath.Join(dir, "attic", "config.toml")
}

// config reads the stock client's configuration; there need not be one.
func (s sources) config() (*atticConfig, error) {
	file := s.configFile()
	b, err := readBounded(file, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return &atticConfig{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read attic's configuration: %w", err)
	}
	cfg := new(atticConfig)
	if err := toml.Unmarshal(b, cfg); err != nil {
		return nil, fmt.Errorf("read attic's configuration %s: %s", file, tomlError(err))
	}
	return cfg, nil
}

// tomlError says where a file is wrong without repeating it: a token may be there.
func tomlError(err error) string {
	var at *toml.DecodeError
	if errors.As(err, &at) {
		line, column := at.Position()
		return fmt.Sprintf("line %d, column %d is not as it should be", line, column)
	}
	return "it is not TOML of the right shape"
}

func readTokenFile(name string) (secret, error) {
	b, err := readBounded(name, maxToken)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	return readToken(strings.NewReader(string(b)), name)
}

// readToken reads a token. What could end a header line is refused here.
func readToken(r io.Reader, from string) (secret, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxToken+1))
	if err != nil {
		return "", fmt.Errorf("read token from %s: %w", from, err)
	}
	text := strings.TrimSpace(string(b))
	switch {
	case len(b) > maxToken:
		return "", fmt.Errorf("token from %s: more than %d bytes", from, maxToken)
	case text == "":
		return "", fmt.Errorf("token from %s: it is empty", from)
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("token from %s: it holds spaces or other characters that no token has", from)
	}
	return secret(text), nil
}

func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", name, limit)
	}
	return b, err
}
