package config

import (
	"fmt"
	"math"
	"time"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/token"
)

// chunking reads the sizes of chunks. Attic does not check them.
func (b *builder) chunking(s *Server) error {
	f := b.file.Chunking
	if f == nil {
		return nil
	}
	for _, k := range []struct {
		name  string
		value *int64
	}{{"nar-size-threshold", f.Threshold}, {"min-size", f.Min}, {"avg-size", f.Avg}, {"max-size", f.Max}} {
		if k.value == nil {
			return b.wrong("chunking", "no %s: the table needs nar-size-threshold, min-size, avg-size and max-size", k.name)
		}
		if *k.value < 0 {
			return b.wrong("chunking."+k.name, "%d is negative", *k.value)
		}
	}
	if s.NARSizeThreshold = *f.Threshold; s.NARSizeThreshold == 0 {
		s.NARSizeThreshold = math.MaxInt64 // Attic: never
	}
	b.warn("chunking.nar-size-threshold", "has no use here but for what stock clients are told: NARs of any size are cut, and those of at most %d bytes are kept in the database", chunk.LiteralMax)
	if *f.Min > *f.Avg || *f.Avg > *f.Max {
		return b.wrong("chunking", "sizes %d/%d/%d are impossible: want min-size ≤ avg-size ≤ max-size", *f.Min, *f.Avg, *f.Max)
	}
	if *f.Max > chunk.MaxSize {
		b.warn("chunking.max-size", "chunks have at most %d bytes; larger sizes are taken for that", chunk.MaxSize)
	}
	cut := func(n int64) int { return int(min(n, chunk.MaxSize)) }
	s.Chunking = chunk.Params{Min: cut(*f.Min), Avg: cut(*f.Avg), Max: cut(*f.Max)}
	if err := s.Chunking.Validate(); err != nil {
		return b.wrong("chunking", "%w", err)
	}
	return nil
}

func (b *builder) compression(s *Server) error {
	s.Compression = Compression{Type: "zstd"}
	f := b.file.Compression
	if f == nil {
		return nil
	}
	kind, err := b.required("compression", "type", f.Type)
	if err != nil {
		return err
	}
	switch kind {
	case "zstd":
	case "none", "brotli", "xz":
		b.warn("compression.type", "%q has no use here: everything is stored with zstd", kind)
	default:
		return b.wrong("compression.type", `%q is no compression: want "zstd", "xz", "brotli" or "none"`, kind)
	}
	if f.Level != nil {
		b.warn("compression.level", "has no use here: the level is the fastest")
	}
	s.Compression = Compression{Type: kind, Level: f.Level}
	return nil
}

func (b *builder) duration(key string, value *string, otherwise string) (time.Duration, error) {
	if value == nil {
		value = &otherwise
	}
	d, err := token.ParseDuration(*value)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", b.at(key), err)
	}
	return d, nil
}
