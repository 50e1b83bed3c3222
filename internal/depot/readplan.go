package depot

// A part is a stretch of a pack that is read at once: neighbours in the stream that lie one after the other, with
// gaps that are not worth another request.
//
//	stream   [run A][literal][run B]      [run C]
//	pack 7    ├─A──┤    gap   ├─B──┤                     one part
//	pack 9                                 ├─C──┤        another one
type part struct {
	pack     int64
	off, end int64 // bytes of the pack file
}

func (p part) holds(pack, off int64) bool { return p.pack == pack && p.off <= off && off < p.end }

// maxGap is how many unused bytes of a pack are read over rather than asked for anew (design §9).
const maxGap = 256 << 10

// planner goes along a layout and makes parts of it.
type planner struct {
	layout layout
	starts []int64
	i      int   // the span that comes next
	skip   int64 // how many of its bytes are behind
}

// next is the part that comes next, at most most(pack) bytes and a little of what lies
// before the stream's offset until. Parts
// come in the stream's order, and together they hold each byte of it that lies in a pack.
func (w *planner) next(until int64, most func(pack int64) int64) (p part, ok bool) {
	var limit int64
	for ; w.i < len(w.layout); w.i, w.skip = w.i+1, 0 {
		s := w.layout[w.i]
		left := until - w.starts[w.i] - w.skip
		if left <= 0 {
			return p, ok
		}
		if s.kind == literalSpan || s.size <= w.skip {
			continue
		}
		from, to := s.off+w.skip, s.off+s.size
		if !ok {
			p, ok, limit = part{s.pack, from, from}, true, from+max(most(s.pack), 1)
		} else if s.pack != p.pack || from < p.end || from-p.end > maxGap {
			return p, ok
		}
		end := min(to, from+left)
		if end > limit+(limit-p.off)/slack { // else what is behind the limit is not worth another request
			if from >= limit {
				return p, ok
			}
			end = limit
		}
		p.end = end
		if p.end < to {
			w.skip = p.end - s.off
			return p, ok
		}
	}
	return p, ok
}
