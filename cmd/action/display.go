package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/org/attic-action/internal/push"
)

const (
	drawEvery = 150 * time.Millisecond // of bars
	lineEvery = 5 * time.Second        // of lines, where there is no terminal
)

// display shows progress: bars on a terminal, a line every few seconds
// elsewhere. Log lines are written through it, so that bars and lines do not
// run into each other.
type display struct {
	push.Progress
	out io.Writer

	mu   sync.Mutex
	bars *mpb.Progress // nil when there are none
}

func newDisplay(out io.Writer) *display { return &display{out: out} }

// Write writes log lines.
func (d *display) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bars != nil {
		return d.bars.Write(b)
	}
	return d.out.Write(b)
}

// start shows progress until the returned function is called.
func (d *display) start() (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	draw := d.lines
	if f, ok := d.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 { // some terminals have no size; no bar fits
			draw = d.drawBars
		}
	}
	go func() {
		defer close(ended)
		draw(end)
	}()
	return func() {
		close(end)
		<-ended
	}
}

func (d *display) lines(end <-chan struct{}) {
	tick := time.NewTicker(lineEvery)
	defer tick.Stop()
	for {
		select {
		case <-end:
			return
		case <-tick.C:
			if total := d.Paths.Load(); total > 0 {
				fmt.Fprintf(d, "%d of %d paths, %s of %s read, %s of %s sent\n", d.PathsDone.Load(), total,
					size(d.Scanned.Load()), size(d.NARBytes.Load()), size(d.Sent.Load()), size(d.Packed.Load()))
			}
		}
	}
}

func (d *display) drawBars(end <-chan struct{}) {
	bars := mpb.New(mpb.WithOutput(d.out), mpb.WithWidth(64), mpb.WithRefreshRate(drawEvery))
	add := func(name string) *mpb.Bar {
		return bars.AddBar(0,
			mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(name, decor.WC{W: 6, C: decor.DindentRight})),
			mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f")))
	}
	read, sent := add("read"), add("sent")
	d.mu.Lock()
	d.bars = bars
	d.mu.Unlock()
	tick := time.NewTicker(drawEvery)
	defer tick.Stop()
	for open := true; open; {
		select {
		case <-end:
			open = false
		case <-tick.C:
		}
		read.SetTotal(d.NARBytes.Load(), false)
		read.SetCurrent(d.Scanned.Load())
		sent.SetTotal(d.Packed.Load(), false)
		sent.SetCurrent(d.Sent.Load())
	}
	read.Abort(true)
	sent.Abort(true)
	d.mu.Lock()
	d.bars = nil
	d.mu.Unlock()
	bars.Wait()
}
