// Package load makes bounded, reproducible load and measures what comes of it. It is used by
// `processor dev`, `processor bench` and the tests that look at a whole system from outside.
//
//   - A [Generator] makes the bytes of record number n: [Orders] for the orders handler, [Plain] for
//     copying and benches.
//   - A [Producer] writes a generator's records at a constant rate. The schedule does not wait for
//     the broker, and latency counts from it, so that a stall is seen in full and not once
//     (no coordinated omission).
//   - A [Reader] takes delivery read_committed and measures the time from schedule and from produce
//     call to delivery. [Scan] reads a topic from start to end as it is now, [Outcomes] counts what
//     was committed and what was aborted in it, a [Tally] finds what is missing, twice or out of order.
package load

import (
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Stamp tells a generator which record is wanted and when.
type Stamp struct {
	N         int64     // number of the record in its stream, from 0
	Scheduled time.Time // when the schedule wanted it to be produced
	Called    time.Time // when it is handed to the client
}

// Generator makes the records of a stream. Fill sets key, value and headers of the record that the
// stamp names; the same generator and number give the same key every time, and the same value but
// for a generator that carries the stamp's times in it. The record comes with the slices it had when
// it was last used, for Fill to reuse. Fill is called from one goroutine at a time, in order of N.
type Generator interface {
	Fill(record *kgo.Record, stamp Stamp)
}

// chance gives the randomness of one record at a time: it depends on seed and number alone, so that
// record n can be made again without those before it.
type chance struct {
	pcg  rand.PCG
	seed uint64
}

func newChance(seed uint64) *chance { return &chance{seed: mix(seed)} }

// record begins with record n. Neighbours need mixing: PCG's first numbers from seeds that differ in
// few bits are related.
func (c *chance) record(n int64) { c.pcg.Seed(c.seed, mix(uint64(n))) } //nolint:gosec // not negative

// Uint64 makes chance a rand.Source.
func (c *chance) Uint64() uint64 { return c.pcg.Uint64() }

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
// Generators, 2014): every bit of x moves about half of the result's bits.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
