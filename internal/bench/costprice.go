package main

// List prices in US dollars, read on 2026-11-22. They change; what a year costs is a multiplication away.
//
//	R2   https://developers.cloudflare.com/r2/pricing/   GB are 10⁹ bytes; deletions and egress are free
//	fly  https://fly.io/docs/about/pricing/              by the second; a stopped machine costs its root file system
const (
	r2Storage = 0.015 // GB-month
	r2ClassA  = 4.50  // million PUT and LIST
	r2ClassB  = 0.36  // million GET and HEAD

	// What a month has for nothing.
	r2FreeStorage = 10.0 // GB-month
	r2FreeA       = 1e6
	r2FreeB       = 10e6

	flyMachine = 2.02 // a month of shared-cpu-1x with 256 MB, always on
	flyVolume  = 0.15 // GB-month
	flyEgress  = 0.02 // GB, North America and Europe
	flyRoot    = 0.15 // GB-month of a stopped machine's root file system
)

const (
	gb           = 1e9
	hoursOfMonth = 730.0
)

// bill is what a year costs.
type bill struct {
	storage, classA, classB, machine, alwaysOn, volume, egress float64
}

func (b bill) bucket() float64 { return b.storage + b.classA + b.classB }
func (b bill) total() float64  { return b.bucket() + b.machine + b.volume + b.egress }

// month adds a month. Bytes are stored on average, operations and seconds of the month.
func (b *bill) month(t tally, awake, volumeGB float64) {
	b.storage += r2Storage * max(0, t.stored/gb-r2FreeStorage)
	b.classA += r2ClassA / 1e6 * max(0, float64(t.classA)-r2FreeA)
	b.classB += r2ClassB / 1e6 * max(0, float64(t.classB)-r2FreeB)
	share := min(1, awake/3600/hoursOfMonth)
	b.machine += flyMachine*share + flyRoot*rootGB*(1-share)
	b.alwaysOn += flyMachine
	b.volume += flyVolume * volumeGB
	b.egress += flyEgress * t.streamed / gb
}

// rootGB is the image, unpacked.
const rootGB = 0.03
