package unpack

import (
	"bufio"
	"encoding/binary"
	"hash/crc32"
	"io"
)

// StoreXZ writes what r has as an xz file that compresses nothing: for who insists on xz. It holds one chunk of
// 64 KiB.
func StoreXZ(w io.Writer, r io.Reader) error {
	const blockHead = 12
	out := bufio.NewWriter(w) // keeps its first error for Flush
	put := func(parts ...[]byte) {
		for _, b := range parts {
			_, _ = out.Write(b) // Flush tells
		}
	}
	flags := []byte{0, 0} // no check: what comes out is hashed as a NAR
	put(streamMagic[:], flags, sum(flags))
	head := []byte{blockHead/4 - 1, 0, 0x21, 1, 8, 0, 0, 0} // LZMA2, a dictionary of 64 KiB
	put(head, sum(head))

	var packed, size uint64
	chunk, control := make([]byte, 1<<16), byte(1) // the first one resets the dictionary
	for {
		n, err := 0, error(nil)
		for n < len(chunk) && err == nil { // not io.ReadFull: a source that is cut off must not look ended
			var m int
			m, err = r.Read(chunk[n:])
			n += m
		}
		if n > 0 {
			put([]byte{control, byte((n - 1) >> 8), byte(n - 1)}, chunk[:n])
			control, packed, size = 2, packed+uint64(n)+3, size+uint64(n)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	packed++
	put([]byte{0}, make([]byte, -packed&3))

	index := binary.AppendUvarint(binary.AppendUvarint([]byte{0, 1}, blockHead+packed), size)
	index = append(index, make([]byte, -len(index)&3)...)
	index = append(index, sum(index)...)
	foot := append(binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1)), flags...)
	put(index, sum(foot), foot, []byte("YZ"))
	return out.Flush()
}

func sum(b []byte) []byte { return binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)) }
