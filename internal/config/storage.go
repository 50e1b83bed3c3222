package config

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// Variables that Amazon's tools read, and that fly.io sets for a bucket.
const (
	envBucket          = "BUCKET_NAME"
	envEndpoint        = "AWS_ENDPOINT_URL_S3"
	envAnyEndpoint     = "AWS_ENDPOINT_URL"
	envRegion          = "AWS_REGION"
	envDefaultRegion   = "AWS_DEFAULT_REGION"
	envAccessKeyID     = "AWS_ACCESS_KEY_ID"
	envSecretAccessKey = "AWS_SECRET_ACCESS_KEY"
	envSessionToken    = "AWS_SESSION_TOKEN"
)

// storage finds the place for packs: [storage]; without it the bucket that the
// environment names; without that a directory.
func (b *builder) storage(s *Server) error {
	f := b.file.Storage
	bucket := b.variable(envBucket)
	switch {
	case f == nil && bucket != "":
		f = &fileStorage{}
	case f == nil:
		if s.Data == "" {
			return errNoData
		}
		s.Storage = Storage{Type: Local, Path: filepath.Join(s.Data, "storage")}
		if b.variable(envEndpoint) != "" {
			b.warnings = append(b.warnings, envEndpoint+" is set and "+envBucket+" is not: contents stay on this disk")
		}
		return nil
	case f.Type == nil:
		return b.wrong("storage", `no type: want type = "local" or "s3"`)
	case *f.Type == Local:
		path, err := b.required("storage", "path", f.Path)
		s.Storage = Storage{Type: Local, Path: path}
		if err == nil && s.Data == "" {
			s.Data = filepath.Dir(filepath.Clean(path))
		}
		if bucket != "" {
			b.warn("storage.type", "%s is set too, and not used: this file comes first", envBucket)
		}
		return err
	case *f.Type != S3:
		return b.wrong("storage.type", `%q is no type of storage: want "local" or "s3"`, *f.Type)
	}
	if s.Data == "" {
		return errNoData // for the database and what is on its way into the bucket
	}
	return b.s3(s, f)
}

// s3 reads where the bucket is, key by key: what [storage] leaves out is taken from
// the environment, as Amazon's tools do.
func (b *builder) s3(s *Server, f *fileStorage) (err error) {
	st := Storage{Type: S3, PathStyle: f.PathStyle}
	if st.Bucket, err = b.either("bucket", f.Bucket, checkBucket, envBucket); err != nil {
		return err
	}
	if st.Bucket == "" {
		return b.incomplete("no bucket, and %s is not set", envBucket)
	}
	if st.Endpoint, err = b.either("endpoint", f.Endpoint, st.checkEndpoint, envEndpoint, envAnyEndpoint); err != nil {
		return err
	}
	if st.Region, err = b.either("region", f.Region, checkWord, envRegion, envDefaultRegion); err != nil {
		return err
	}
	switch {
	case st.Region == "" && st.Endpoint == "":
		return b.incomplete("no region, and %s is not set; with an endpoint that has no regions it is \"auto\"", envRegion)
	case st.Region == "":
		st.Region = "auto"
	case st.Region == "auto" && st.Endpoint == "":
		return b.incomplete("region \"auto\" is no region of Amazon's: add the endpoint, or set %s", envEndpoint)
	}
	s.Storage = st
	return b.credentials(&s.Storage, f.Credentials)
}

// incomplete names the table, or the variable that stands for it.
func (b *builder) incomplete(format string, args ...any) error {
	if b.file.Storage == nil {
		return fmt.Errorf(envBucket+" names a bucket: "+format, args...)
	}
	return b.wrong("storage", format, args...)
}

// credentials come as a pair, from one place. Without any, the store looks where
// Amazon's tools look.
func (b *builder) credentials(st *Storage, f *fileCredentials) (err error) {
	var secret string
	if f != nil {
		if st.AccessKeyID, err = b.required("storage.credentials", "access_key_id", f.AccessKeyID); err != nil {
			return err
		}
		secret, err = b.required("storage.credentials", "secret_access_key", f.SecretAccessKey)
		st.SecretAccessKey = Secret(secret)
		return err
	}
	st.AccessKeyID, secret = b.variable(envAccessKeyID), b.variable(envSecretAccessKey)
	if st.AccessKeyID == "" && secret != "" {
		return fmt.Errorf("%s is set and %s is not", envSecretAccessKey, envAccessKeyID)
	}
	if st.AccessKeyID != "" && secret == "" {
		return fmt.Errorf("%s is set and %s is not", envAccessKeyID, envSecretAccessKey)
	}
	st.SecretAccessKey, st.SessionToken = Secret(secret), Secret(b.variable(envSessionToken))
	return nil
}

// either returns the checked value of a key of [storage], else of the first of the
// variables that is set, else nothing.
func (b *builder) either(key string, value *string, check func(string) error, variables ...string) (string, error) {
	if value != nil {
		text, err := b.required("storage", key, value)
		if err == nil {
			if cerr := check(text); cerr != nil {
				err = b.wrong("storage."+key, "%w", cerr)
			}
		}
		return text, err
	}
	for _, name := range variables {
		text := b.variable(name)
		if text == "" {
			continue
		}
		if err := check(text); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		return text, nil
	}
	return "", nil
}

// variable reads the environment without the newline that secrets come with.
func (b *builder) variable(name string) string { return strings.TrimSpace(b.getenv(name)) }

func checkBucket(name string) error {
	if strings.HasPrefix(name, "arn:") {
		return checkWord(name)
	}
	if strings.Contains(name, "/") {
		return errors.New("a bucket's name has no slash: the URL of the service goes into endpoint")
	}
	return checkWord(name)
}

func checkWord(text string) error {
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%q has blanks or other characters that do not belong there", text)
	}
	return nil
}

// checkEndpoint does not quote what may hold a password.
func (st *Storage) checkEndpoint(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("not a URL like https://s3.example.org")
	}
	if u.User != nil {
		return errors.New("a URL with a password: credentials go into [storage.credentials] or the environment")
	}
	if strings.Trim(u.Path, "/") == st.Bucket {
		return fmt.Errorf("it ends with the bucket's name: leave /%s out", st.Bucket)
	}
	return nil
}
