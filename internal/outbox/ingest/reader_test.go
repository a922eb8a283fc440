package ingest

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A session ends and the next begins further back, while records for the first are on their way. They must not
// get into the next, which would pass those between.
func TestSessionGetsNothingOfTheOneBefore(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		w.produce(effects(0, 0, 20)...)
		r, err := openReader(w.config)
		w.must(err)
		defer r.client.Close()
		first := r.open(0, 10)
		onTheirWay := r.poll(w.t.Context())
		first.close()
		second := r.open(0, 3)
		r.deliver(onTheirWay)
		for second.bytes == 0 {
			r.deliver(r.poll(w.t.Context()))
		}
		taken := second.take(w.t.Context())
		if want := offsetsFrom(3, 20); len(offsetsOf(taken)) == 0 || offsetsOf(taken)[0] != 3 || len(offsetsOf(taken)) != len(want) {
			w.t.Errorf("the second session got %v, want %v", offsetsOf(taken), want)
		}
	})
}

// A lane that is not taken from is not read on, and is from where it stood once it is.
func TestLaneIsReadAheadOnlySoFar(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		const records = 40
		for n := range int64(records) {
			w.produce(effect(0, n, func(record *kgo.Record) { record.Value = make([]byte, aheadBytesMax/4) }))
		}
		w.produce(effects(1, 0, 5)...)
		r, err := openReader(w.config)
		w.must(err)
		defer r.client.Close()
		slow, other := r.open(0, 0), r.open(1, 0)
		for !slow.paused || other.bytes == 0 {
			r.deliver(r.poll(w.t.Context()))
		}
		ahead := slow.bytes
		for range 5 {
			had := other.bytes
			w.produce(effect(1, int64(5+had)))
			for other.bytes == had {
				r.deliver(r.poll(w.t.Context()))
			}
		}
		if slow.bytes != ahead {
			w.t.Errorf("%d bytes were read on", slow.bytes-ahead)
		}
		var got []int64
		for len(got) < records {
			got = append(got, offsetsOf(slow.take(w.t.Context()))...)
			if len(got) < records {
				for slow.bytes == 0 {
					r.deliver(r.poll(w.t.Context()))
				}
			}
		}
		for i, offset := range got {
			if offset != int64(i) {
				w.t.Fatalf("record %d has offset %d: %v", i, offset, got)
			}
		}
	})
}

func offsetsOf(portions []portion) (offsets []int64) {
	for _, p := range portions {
		for _, record := range p.Records {
			offsets = append(offsets, record.Offset)
		}
	}
	return offsets
}

func offsetsFrom(from, end int64) (offsets []int64) {
	for offset := from; offset < end; offset++ {
		offsets = append(offsets, offset)
	}
	return offsets
}
