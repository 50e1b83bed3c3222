package api

import (
	"math"
	"time"

	"github.com/org/attic-action/internal/jsonscan"
)

// PinRequest is the body of PUT pins/{name}.
type PinRequest struct {
	StorePath string   `json:"store_path"`           // whole
	Keep      int      `json:"keep,omitempty"`       // revisions; 0: as many as so far, or 5
	ExpiresIn int64    `json:"expires_in,omitempty"` // seconds; 0: never
	Upstream  []string `json:"upstream,omitempty"`   // base names of references that the cache's upstreams sign
}

// MaxPinUpstream bounds PinRequest.Upstream.
const MaxPinUpstream = 10_000

// Pin answers PUT and GET pins/{name}.
type Pin struct {
	Name      string     `json:"name"`
	Keep      int        `json:"keep"`
	Expires   *time.Time `json:"expires_at"` // null: never
	Revisions []Revision `json:"revisions"`  // newest first
	Sizes     *PinSizes  `json:"sizes,omitempty"`
}

// Revision is a store path that a pin holds. Paths and Size are of its closure,
// upstream's paths left out.
type Revision struct {
	StorePath string    `json:"store_path"`
	SetBy     string    `json:"set_by"`
	Policies  []string  `json:"policies,omitempty"` // trust policies that granted the token
	SetAt     time.Time `json:"set_at"`
	Paths     int64     `json:"closure_paths"`
	Size      uint64    `json:"closure_size"` // of the NARs, bytes
}

// PinSizes are on request: ?sizes=1. All sizes are bytes.
type PinSizes struct {
	Paths     int64  `json:"paths"`      // of all revisions together
	Size      uint64 `json:"size"`       // of their NARs
	OnlyPaths int64  `json:"only_paths"` // of these, that no other pin holds
	OnlySize  uint64 `json:"only_size"`  // of their NARs
	OnlyFile  uint64 `json:"only_file"`  // of these as they are served: about what goes with the pin
}

// PinList answers GET pins.
type PinList struct {
	Pins []Pin  `json:"pins"`
	Next string `json:"next,omitempty"` // the value of ?after= for the next page; empty: this was the last
	// SizesUnknown says that sizes were asked for, and that the pins hold too many
	// paths to find them.
	SizesUnknown bool `json:"sizes_unknown,omitempty"`
}

// DecodePin reads the body of PUT pins/{name}.
func DecodePin(contentType string, body []byte) (*PinRequest, error) {
	in := new(PinRequest)
	return in, decode(contentType, body, func(s *jsonscan.Scanner) error {
		keep := func() error {
			n, err := s.Integer(1, math.MaxInt32)
			in.Keep = int(n)
			return err
		}
		upstream := func() error {
			return s.Array(func(i int) error {
				name, err := s.Text()
				if err == nil && i >= MaxPinUpstream {
					err = s.Wrong("more than %d", MaxPinUpstream)
				}
				in.Upstream = append(in.Upstream, name)
				return err
			})
		}
		return s.Members([]jsonscan.Field{
			{Name: "store_path", Read: func() (err error) { in.StorePath, err = readLine(s); return }},
			{Name: "keep", Optional: true, Read: keep},
			{Name: "expires_in", Optional: true, Read: func() (err error) { in.ExpiresIn, err = s.Integer(1, MaxRetention); return }},
			{Name: "upstream", Optional: true, Read: upstream},
		})
	})
}
