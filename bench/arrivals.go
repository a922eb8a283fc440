package main

import (
	"fmt"
	"sync/atomic"
	"time"

	"pawl/internal/load"
)

// wireKeys is how many keys the effects of the wire part have.
const wireKeys = 10_000

// wireKey is the key of effect n: as if by chance, and always the same.
func wireKey(n int64) int { return int(scatter(uint64(n)) % wireKeys) } //nolint:gosec // below wireKeys

// arrivals notes when each of the numbered effects, or records, of a run comes. The turn of a body of the wire
// part is the effect's number.
type arrivals struct {
	began      time.Time
	at         []atomic.Int64 // by number: since began, 0 where it has not come yet
	newest     [wireKeys]atomic.Int64
	missing    atomic.Int64
	repeated   atomic.Int64
	disordered atomic.Int64 // came after a later one of their key
}

func newArrivals(count int64) *arrivals {
	a := &arrivals{began: time.Now(), at: make([]atomic.Int64, count)}
	a.missing.Store(count)
	return a
}

// add takes the body of a call of the wire part.
func (a *arrivals) add(body []byte) error {
	key, n, err := parseBody(body)
	if err == nil && key != wireKey(n) {
		err = fmt.Errorf("a call for effect %d with key %d, which is not its key", n, key)
	}
	if err != nil {
		return err
	}
	return a.came(key, n)
}

// came notes number n, which has a key.
func (a *arrivals) came(key int, n int64) error {
	now := time.Since(a.began)
	if n < 0 || n >= int64(len(a.at)) || key < 0 || key >= len(a.newest) {
		return fmt.Errorf("number %d with key %d came, which there is none of", n, key)
	}
	if !a.at[n].CompareAndSwap(0, int64(now)) {
		a.repeated.Add(1)
		return nil
	}
	newest := &a.newest[key]
	for {
		last := newest.Load()
		if n < last {
			a.disordered.Add(1)
			break
		}
		if newest.CompareAndSwap(last, n) {
			break
		}
	}
	a.missing.Add(-1)
	return nil
}

// since is the time from commit to arrival of all effects from a number on. All have come.
func (a *arrivals) since(c commits, first int64) load.Summary {
	var h load.Histogram
	for n := first; n < int64(len(a.at)); n++ {
		h.Record(time.Duration(a.at[n].Load()) - c.of(n))
	}
	return h.Summary()
}
