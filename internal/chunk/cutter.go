package chunk

// Cutter cuts one NAR.
type Cutter struct{}

// NewCutter …
func NewCutter(p Params, hashes []string, emit func(k Kind, data []byte) error) *Cutter { return &Cutter{} }
func (c *Cutter) Write(b []byte) (int, error) { return len(b), nil }
func (c *Cutter) Close() error { return nil }
