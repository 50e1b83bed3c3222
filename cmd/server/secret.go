package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/seal"
	"github.com/org/attic-action/internal/token"
)

// secretFile is the name of the token secret that a server on one disk makes
// for itself.
const secretFile = "token-secret"

// ensureSecret gives a configuration without keys the secret that lies beside
// the data, and makes it on the first call. Where contents are in a bucket, a
// secret on the volume would be lost with the volume, and with it the bucket's
// keys; so there it must be given.
func ensureSecret(cfg *config.Server) error {
	if len(cfg.JWT.Keys) > 0 {
		return nil
	}
	if err := mayMakeSecret(cfg); err != nil {
		return err
	}
	file := filepath.Join(cfg.Data, secretFile)
	keys, err := readSecrets(file)
	if errors.Is(err, fs.ErrNotExist) {
		if err := becomeOwner(cfg); err != nil {
			return err
		}
		if err := makeSecret(file); err != nil {
			return fmt.Errorf("make token secret: %w", err)
		}
		keys, err = readSecrets(file)
	}
	if err != nil {
		return fmt.Errorf("read token secret: %w", err)
	}
	cfg.JWT.Keys = keys[:1]
	for _, key := range keys[1:] {
		cfg.JWT.Previous = append(cfg.JWT.Previous, key.VerifyOnly())
	}
	return nil
}

// mayMakeSecret refuses a configuration that needs a secret and has none.
func mayMakeSecret(cfg *config.Server) error {
	if len(cfg.JWT.Keys) > 0 || cfg.Storage.Type == config.Local && cfg.Data != "" {
		return nil
	}
	if used, err := dataThere(cfg); err == nil && used {
		return configError{hintError{errors.New("no token secret is configured, and there is data that the old one protects"),
			"set ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64 to the secret that this server has had; with another one its caches' keys can't be opened"}}
	}
	return configError{hintError{errors.New("no token secret is configured"), secretLine(cfg, "ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64", 48)}}
}

// dataThere says whether the database or the storage was ever used. It makes nothing,
// and does not wait long for a bucket.
func dataThere(cfg *config.Server) (bool, error) {
	if info, err := os.Stat(cfg.Database.File); err == nil && info.Size() > 0 {
		return true, nil
	}
	if cfg.Storage.Type == config.Local {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	store, err := openStore(ctx, cfg)
	if err != nil {
		return false, err
	}
	wraps, err := seal.Wraps(ctx, store, nil)
	return len(wraps) > 0, err
}

// secretLine is what to run so that a variable holds a new secret. On fly.io the
// machine cannot be asked for one, so it is made here.
func secretLine(cfg *config.Server, name string, size int) string {
	if !cfg.Fly {
		return fmt.Sprintf("set %s to the output of: openssl rand -base64 %d", name, size)
	}
	secret := make([]byte, size)
	rand.Read(secret) // never fails: crypto/rand ends the program instead
	return "fly secrets set " + name + "=" + base64.StdEncoding.EncodeToString(secret)
}

// readSecrets reads one secret a line, the newest first.
func readSecrets(file string) ([]token.Key, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var keys []token.Key
	for _, line := range bytes.Fields(text) {
		secret, err := base64.StdEncoding.DecodeString(string(line))
		if err != nil || len(secret) < 32 {
			return nil, fmt.Errorf("%s: line %d is not the base64 of 32 bytes or more", file, len(keys)+1)
		}
		key, err := token.HS256(secret)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: not the base64 of 32 bytes or more", file)
	}
	return keys, nil
}

// makeSecret writes a new secret, unless another process was faster: two
// programs that start at once end up with one secret.
func makeSecret(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	var secret [64]byte
	rand.Read(secret[:])                                           // never fails: crypto/rand ends the program instead
	tmp, err := os.CreateTemp(filepath.Dir(file), secretFile+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = fmt.Fprintln(tmp, base64.StdEncoding.EncodeToString(secret[:]))
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
