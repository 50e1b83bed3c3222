//go:build !linux

package disk

import (
	"errors"
	"os"
)

// link: only Linux names an open file; elsewhere there is a copy.
func link(*os.File, string) error { return errors.ErrUnsupported }
