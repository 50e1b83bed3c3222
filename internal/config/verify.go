package config

import "time"

// Verify is the look at the storage that comes by the clock.
type Verify struct {
	Interval time.Duration // 0: never by itself
	Read     int64         // bytes of packs a time
}

type fileVerify struct {
	Interval *string `toml:"interval"`
	Read     *string `toml:"read"`
}

const (
	defaultVerify = "7 days"
	// defaultRead costs a hundred requests wherever the storage is; docs/verify.md has what that is in money.
	defaultRead = 256 << 20
	leastRead   = 1 << 20
)

func (b *builder) verify(s *Server) (err error) {
	f := b.file.Verify
	if f == nil {
		f = new(fileVerify)
	}
	if s.Verify.Interval, err = b.duration("verify.interval", f.Interval, defaultVerify); err != nil {
		return err
	}
	if s.Verify.Interval > 0 && s.Verify.Interval < time.Hour {
		return b.wrong("verify.interval", "%s is too often: want an hour or more, or 0 for never", *f.Interval)
	}
	s.Verify.Read = defaultRead
	if f.Read == nil {
		return nil
	}
	s.Verify.Read, err = parseSize(*f.Read)
	if err != nil || s.Verify.Read < leastRead {
		return b.wrong("verify.read", `%.40q: want a size of 1 MiB or more, such as "1 GiB"`, *f.Read)
	}
	return nil
}
