//go:build unix && !linux

package spool

import "os"

func unnamed(dir string) (*os.File, error) { return createUnlinked(dir) }
