package ingest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"pawl/internal/outbox"
)

func (w *world) filler(lane int32) *Filler {
	w.t.Helper()
	f, err := OpenFiller(w.t.Context(), Config{Client: w.reach, Topic: w.topic, Store: w.config.Store, BatchMax: 4, BytesMax: 1 << 20}, lane)
	w.must(err)
	return f
}

func TestFillerStopsWhereItIsToldTo(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		w.produce(effects(1, 0, 30)...)
		w.produce(effects(1, 10, 20)...) // the input went back
		w.produce(effects(1, 30, 35)...)
		w.must(w.ledger.Seed(w.t.Context(), 1, w.topicID(), 0))
		f := w.filler(1)
		want := []int64{}
		for _, until := range []int64{0, 1, 13, 29, 38, 45} {
			_, err := f.Fill(w.t.Context(), until)
			w.must(err)
			if until == 29 { // another one goes on, as after an error
				f.Close()
				f = w.filler(1)
			}
			for offset := int64(len(want)); offset < until; offset++ {
				if offset < 30 {
					want = append(want, offset)
				}
			}
			got := w.offsets(1)
			if until < 45 && !slices.Equal(got, want) {
				w.t.Errorf("filled up to %d, the lane has %v", until, got)
			}
		}
		f.Close()
		if got := w.offsets(1); len(got) != 35 || got[34] != 44 {
			w.t.Errorf("the lane has %v", got)
		}
	})
}

func TestFillerHaltsAtWhatItCannotRead(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		w.produce(effects(0, 0, 3)...)
		w.produce(effect(0, 3, with("pawl-format", "2")))
		w.must(w.ledger.Seed(w.t.Context(), 0, w.topicID(), 0))
		f := w.filler(0)
		defer f.Close()
		if _, err := f.Fill(w.t.Context(), 4); err == nil || !strings.Contains(err.Error(), "offset 3 can't be read") {
			w.t.Errorf("filled: %v", err)
		}
		if got := w.offsets(0); !slices.Equal(got, []int64{0, 1, 2}) {
			w.t.Errorf("the lane has %v", got)
		}
	})
}

// A process ingests the lane too, and is faster.
func TestFillerGoesOnWhereAnotherGotTo(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		w.produce(effects(0, 0, 20)...)
		w.must(w.ledger.Seed(w.t.Context(), 0, w.topicID(), 0))
		slow := w.filler(0)
		defer slow.Close()
		_, err := slow.Fill(w.t.Context(), 2)
		w.must(err)
		fast := w.filler(0)
		defer fast.Close()
		_, err = fast.Fill(w.t.Context(), 13)
		w.must(err)
		_, err = slow.Fill(w.t.Context(), 20)
		w.must(err)
		if got := w.offsets(0); len(got) != 20 {
			w.t.Errorf("the lane has %v", got)
		}
	})
}

// brokenLedger takes no batch.
type brokenLedger struct{ Store }

var errBroken = errors.New("connection reset")

func (brokenLedger) Append(context.Context, *outbox.Batch) error { return errBroken }

func TestFillerGivesUpWithTheLedger(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		w.produce(effects(0, 0, 5)...)
		w.must(w.ledger.Seed(w.t.Context(), 0, w.topicID(), 0))
		w.config.Store = brokenLedger{w.ledger}
		f := w.filler(0)
		defer f.Close()
		if _, err := f.Fill(w.t.Context(), 5); !errors.Is(err, errBroken) {
			w.t.Errorf("filled: %v", err)
		}
	})
}
