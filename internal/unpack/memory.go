package unpack

import (
	"errors"

	"github.com/klauspost/compress/zstd"
)

var errMemory = errors.New("too much memory")

// WantsMemory reports whether a reader ended since its decoder wanted more memory than it was given.
func WantsMemory(err error) bool {
	return errors.Is(err, errMemory) || errors.Is(err, zstd.ErrWindowSizeExceeded)
}

// HeadSize is how much of its beginning Memory has to see.
const HeadSize = 12 + 1024 // of an xz file: the stream's header and the first block's, at its longest

// least is what any decoder takes.
const least = 1 << 20

// Memory is how many bytes a decoder takes for what begins with head, by what its header asks for, so that
// they can be had from a budget before a decoder is made. What is behind may want more: NewReaderWithin
// refuses it.
func Memory(compression string, head []byte) int64 {
	switch compression {
	case "zstd":
		var h zstd.Header
		if h.Decode(head) == nil {
			return max(min(int64(min(h.WindowSize, maxWindow)), maxWindow), least)
		}
	case "xz":
		if len(head) > 13 && len(head) >= 12+4*(int(head[12])+1) && head[12] != 0 {
			if dict, err := dictionary(head[13:12+4*int(head[12])], maxDict); err == nil {
				return max(dict, least)
			}
		}
	case "bzip2":
		return 4 << 20
	}
	return least
}
