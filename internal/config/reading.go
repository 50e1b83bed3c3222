package config

import (
	"fmt"
	"strconv"
)

// Variables for what [storage] says of reading; the file comes first.
const (
	envRedirect   = "ATTIC_SERVER_STORAGE_REDIRECT"
	envCacheBytes = "ATTIC_SERVER_STORAGE_CACHE_BYTES"
)

// Values of storage.redirect.
const (
	RedirectAuto   = "auto"   // whoever can reach the bucket fetches whole packs from there, unless it is faster through this server
	RedirectAlways = "always" // whoever can reach the bucket
	RedirectNever  = "never"  // everything comes through this server
)

// CacheAuto as Storage.CacheBytes lets the server choose, by what is free on the volume.
const CacheAuto = -1

// minCache is the least that a cache of packs is of use with.
const minCache = 16 << 20

// reading reads how what is in a bucket gets to clients.
func (b *builder) reading(s *Server) (err error) {
	if s.Storage.Type != S3 {
		return nil
	}
	f := b.file.Storage
	if f == nil {
		f = &fileStorage{}
	}
	s.Storage.Redirect, err = b.either("redirect", f.Redirect, checkRedirect, envRedirect)
	if err != nil {
		return err
	}
	if s.Storage.Redirect == "" {
		s.Storage.Redirect = RedirectAuto
	}
	s.Storage.CacheBytes = CacheAuto
	if f.CacheBytes != nil {
		if s.Storage.CacheBytes = *f.CacheBytes; !goodCache(s.Storage.CacheBytes) {
			return b.wrong("storage.cache-bytes", "%d: "+wantCache, s.Storage.CacheBytes, minCache)
		}
	} else if text := b.variable(envCacheBytes); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || !goodCache(n) {
			return fmt.Errorf("%s: %q: "+wantCache, envCacheBytes, text, minCache)
		}
		s.Storage.CacheBytes = n
	}
	return nil
}

const wantCache = "want a number of bytes from %d on, or 0 for no cache"

func goodCache(n int64) bool { return n == 0 || n >= minCache && n <= 1<<50 }

func checkRedirect(text string) error {
	switch text {
	case RedirectAuto, RedirectAlways, RedirectNever:
		return nil
	}
	return fmt.Errorf("%q: want %q, %q or %q", text, RedirectAuto, RedirectAlways, RedirectNever)
}
