package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/org/attic-action/internal/chunk"
)

// maxFile is the largest configuration file, in bytes.
const maxFile = 1 << 20

// Options say where a configuration is.
type Options struct {
	File   string              // -f; comes before everything else
	Base64 string              // of a whole file; if empty, ATTIC_SERVER_CONFIG_BASE64
	Getenv func(string) string // nil: an empty environment
	// Environ lists the environment as os.Environ does, for variables that are ours by
	// name and nobody reads; nil: they are not looked for.
	Environ func() []string
	Data    string // --data
}

// Load reads the configuration: Options.File, else the base64 text, else
// $XDG_CONFIG_HOME/attic/server.toml, else nothing: then SQLite and a local
// storage under the data directory, at 127.0.0.1:8080. The data directory is
// Options.Data, else the directory of the SQLite file that the configuration
// names, else $XDG_DATA_HOME/attic-server.
func Load(o Options) (*Server, error) {
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	name, text, err := o.read()
	if err != nil {
		return nil, err
	}
	b, err := parse(name, text)
	if err != nil {
		return nil, err
	}
	b.getenv, b.environ, b.data = o.Getenv, o.Environ, o.Data
	return b.server()
}

// read returns the text of the configuration and where it is from; name is empty
// when there is none.
func (o Options) read() (name string, text []byte, err error) {
	if o.File != "" {
		text, err = readFile(o.File)
		if err != nil {
			return "", nil, fmt.Errorf("read configuration: %w", err)
		}
		return o.File, text, nil
	}
	encoded := o.Base64
	if encoded == "" {
		encoded = o.Getenv(envConfig)
	}
	if encoded != "" {
		text, err = base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(text) > maxFile {
			return "", nil, fmt.Errorf("%s: want the base64 of a whole server.toml of at most %d bytes", envConfig, maxFile)
		}
		return envConfig, text, nil
	}
	dir := xdg(o.Getenv, "XDG_CONFIG_HOME", ".config")
	if dir == "" {
		return "", nil, nil
	}
	name = filepath.Join(dir, "attic", "server.toml")
	text, err = readFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("read configuration: %w", err)
	}
	return name, text, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return text, nil
}

// xdg returns the directory in a variable of the XDG base directories, or its
// default below $HOME, or "" without a home.
func xdg(getenv func(string) string, variable, fallback string) string {
	if dir := getenv(variable); filepath.IsAbs(dir) {
		return dir
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, fallback)
	}
	return ""
}

// Defaults of what a file leaves out.
const (
	defaultListen    = "[::]:8080"
	outOfBoxListen   = "127.0.0.1:8080"
	defaultNarInfo   = 1 << 20
	defaultThreshold = 64 << 10
	defaultInterval  = "12 hours"
	defaultRetention = "0"
)

// server makes the configuration out of the file, part by part.
func (b *builder) server() (*Server, error) {
	f := &b.file
	s := &Server{
		Fly:              b.onFly(),
		File:             b.name,
		Listen:           defaultListen,
		AllowedHosts:     f.AllowedHosts,
		SoftDeleteCaches: f.SoftDeleteCaches,
		RequireProof:     f.RequireProof == nil || *f.RequireProof,
		MaxNarInfoSize:   defaultNarInfo,
		Chunking:         chunk.DefaultParams,
		NARSizeThreshold: defaultThreshold,
	}
	if b.name == "" && !b.onFly() {
		s.Listen = outOfBoxListen
	}
	for _, part := range []func(*Server) error{b.keys, b.http, b.database, b.storage, b.reading, b.chunking, b.compression, b.gc, b.verify, b.jwt, b.rootKey, b.oidc, b.trust, b.rules, b.pins, b.peers, b.limits, b.audit, b.unused, b.misspelt} {
		if err := part(s); err != nil {
			return nil, err
		}
	}
	s.Warnings = b.warnings
	return s, nil
}
