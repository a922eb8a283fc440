//go:build synctests

package sim

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger/ledgertest"
	"pawl/internal/verify"
)

// restore is a ledger that went back to a backup, under the feet of whoever used it: a database that was
// restored, or a standby that had not got everything.
type restore struct {
	at time.Time
	// The effects that must not be called from then on, by lane: the backup has their outcomes, or that their only
	// call was begun.
	settled map[int32]outbox.Ranges
	begun   map[int32][]int64
	epochs  map[int32]int64 // by lane, the last that was given before
}

func (r *restore) knows(lane int32, offset int64) bool {
	return r.settled[lane].Contains(offset) || slices.Contains(r.begun[lane], offset)
}

// restore brings a backup back, unless the ledger has gone back since it was taken: that would be no step back, but
// one to another life of it.
func (w *world) restore(backup *ledgertest.Memory, taken time.Time) bool {
	if !w.lastRestore(time.Now()).at.Before(taken) {
		return false
	}
	r := restore{settled: map[int32]outbox.Ranges{}, begun: map[int32][]int64{}, epochs: map[int32]int64{}}
	for lane := range int32(lanes) {
		r.settled[lane], r.begun[lane], r.epochs[lane] = backup.Settled(lane), backup.Sending(lane), w.ledger.Epoch(lane)
	}
	w.ledger.Restore(backup)
	r.at = time.Now()
	w.note("the ledger went back to %s: it has %v settled and %v begun", taken.Sub(w.begun), r.settled, r.begun)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.restores = append(w.restores, r)
	return true
}

func (w *world) hasRestores() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.restores) > 0
}

// restFor is for how many seconds a history that seems to be at rest must stay so. Relays and ingesters that
// have nothing to do find out late that the ledger went back.
func (w *world) restFor() int {
	if len(w.restores) > 0 {
		return 20
	}
	return 0
}

// lastRestore gives the last one before a call; none is the zero restore, which knows of nothing.
func (w *world) lastRestore(before time.Time) (last restore) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.restores {
		if r.at.Before(before) {
			last = r
		}
	}
	return last
}

// restoredBetween tells whether the ledger went back between two calls of one effect.
func (w *world) restoredBetween(from, to time.Time) bool {
	for _, r := range w.restores {
		if !r.at.Before(from) && !r.at.After(to) {
			return true
		}
	}
	return false
}

// outlived tells whether a call's tenure is one of those that a restored ledger has lost. Its lease is unknown to that
// ledger, which may give the lane to another at once; its owner goes on until it notices, which takes no longer
// than the lease.
func (w *world) outlived(call outbox.Call) bool {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.restores, func(r restore) bool {
		return call.Fence <= r.epochs[call.Intent.Lane] && now.Sub(r.at) <= leaseTTL
	})
}

// lifeOf numbers the life of the ledger that a call may follow from: who owned a lane before a restore calls by what
// that ledger knew, until it notices, though what is ingested meanwhile comes from the restored one.
func (w *world) lifeOf(t transmission) (life int) {
	for _, r := range w.restores {
		if t.Fence > r.epochs[t.Intent.Lane] {
			life++
		}
	}
	return life
}

// checkRestores holds what followed a restore against what is promised of it: only calls that the backup does not
// know to have ended come again, and nothing is told twice.
func (w *world) checkRestores() {
	if len(w.restores) == 0 {
		return
	}
	type use struct { // of a business key
		id   message.ID
		life int
	}
	executed := map[use]transmission{} // the first of each
	for _, t := range w.journal.calls {
		at := effectPlace{t.Intent.Lane, t.Intent.Offset}
		if last := w.lastRestore(t.at); !t.late && last.knows(at.lane, at.offset) {
			w.problem("CALLED-AGAIN %v by %s, though the ledger that was restored knew how it ended", at, t.process)
		}
		if !t.executed || t.Intent.BusinessKey == "" {
			continue
		}
		key := use{t.Intent.ID, w.lifeOf(t)}
		first, known := executed[key]
		// An owner whose lease a restored ledger knows as well goes on by what the lost one knew, until it renews it.
		if !known || w.restoredBetween(first.at.Add(-leaseTTL), t.at) {
			executed[key] = t
		} else if first.Intent.Lane != at.lane || first.Intent.Offset != at.offset {
			w.problem("BOTH-EXECUTED %v, by %s under epoch %d at %s, and %d:%d, by %s under epoch %d at %s, have one business key, and no restore lies between them",
				at, t.process, t.Fence, t.at.Sub(w.begun), first.Intent.Lane, first.Intent.Offset, first.process, first.Fence, first.at.Sub(w.begun))
		}
	}
	if err := w.checkTold(); err != nil {
		w.problem("SETUP read the results again: %v", err)
	}
}

// checkTold finds results that are told twice.
func (w *world) checkTold() error {
	var ranges []verify.Range
	for _, p := range w.cluster.PartitionInfos(resultsTopic) {
		if p.HighWatermark > 0 {
			ranges = append(ranges, verify.Range{Topic: resultsTopic, Partition: p.Partition, To: p.HighWatermark})
		}
	}
	type fate struct { // of one effect; several may have one id
		Lane   int32  `json:"lane"`
		Offset int64  `json:"offset"`
		Status string `json:"status"`
	}
	seen := map[fate]int64{}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return verify.NewLogs(w.client).Read(ctx, verify.Committed, ranges, func(e *verify.Entry) error {
		var one fate
		if err := json.Unmarshal(e.Record.Value, &one); err != nil {
			return err
		}
		if first, again := seen[one]; again {
			w.problem("TOLD-TWICE %+v at %s/%d/%d and again at %d", one, e.Record.Topic, e.Record.Partition, first, e.Record.Offset)
		}
		seen[one] = e.Record.Offset
		return nil
	})
}
