package kafka

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// measure looks once at in/0, as of a time.
func (f *fake) measure(t *testing.T, w *Waits, now time.Time) (time.Duration, PartitionLag) {
	t.Helper()
	lags, err := Lag(short(t), f.admin, "app", []string{"in"})
	if err != nil {
		t.Fatal(err)
	}
	waits, err := w.Measure(short(t), now, lags)
	if err != nil {
		t.Fatal(err)
	}
	return waits[0], lags[0]
}

// A reader is far behind, comes nearer, keeps up, and has nothing left. What an open transaction holds back
// waits for somebody else.
func TestWaitIsThatOfTheOldestReadableRecord(t *testing.T) {
	t.Parallel()
	fake := newFake(t, kfake.SeedTopics(1, "in")).open(t)
	begun := time.UnixMilli(1_700_000_000_000)
	at := func(seconds int) time.Time { return begun.Add(time.Duration(seconds) * time.Second) }
	producer := fake.producer(t, "upstream", "in")
	producer.begin()
	producer.write(at(0), at(1), at(2), at(3))
	producer.end(kgo.TryCommit) // offsets 0 to 3, marker 4
	producer.begin()
	producer.write(at(4), at(5)) // 5 and 6, held back
	w := NewWaits(fake.conf)
	want := func(now, wait time.Duration, readable, held int64) {
		t.Helper()
		got, lag := fake.measure(t, w, begun.Add(now))
		if (got-wait).Abs() > time.Microsecond || lag.Readable() != readable || lag.Held != held {
			t.Errorf("after %s: %s for %d records, %d held; want %s for %d, %d held", now, got, lag.Readable(), lag.Held, wait, readable, held)
		}
	}
	want(100*time.Second, 100*time.Second, 5, 2) // nothing is committed: offset 0, read
	fake.commit(t, "in", 0, 2, "")
	want(105*time.Second, 103*time.Second, 3, 2) // offset 2, read
	producer.end(kgo.TryCommit)                  // marker 7
	fake.commit(t, "in", 0, 6, "")
	// All that was there at the last look is done, and two of the three that came since: a third of 5 s.
	want(110*time.Second, 5*time.Second*2/3, 2, 0)
	fake.commit(t, "in", 0, 8, "")
	want(115*time.Second, 0, 0, 0)
}

// A partition that stands still is read once and waits longer with every look.
func TestWaitOfAHaltedReaderGrowsWithoutReading(t *testing.T) {
	t.Parallel()
	fake := newFake(t, kfake.SeedTopics(1, "in")).open(t)
	begun := time.UnixMilli(1_700_000_000_000)
	producer := fake.producer(t, "upstream", "in")
	producer.begin()
	producer.write(begun)
	producer.end(kgo.TryCommit)
	w := NewWaits(fake.conf)
	if got, _ := fake.measure(t, w, begun.Add(time.Minute)); got != time.Minute {
		t.Errorf("it waits for %s, want 1m", got)
	}
	w.conf.Brokers = []string{"127.0.0.1:1"} // where nobody answers
	if got, _ := fake.measure(t, w, begun.Add(time.Hour)); got != time.Hour {
		t.Errorf("it waits for %s, want 1h", got)
	}
}

// What cannot be looked at keeps its last look for the next time, and is no zero in the meantime.
func TestWaitSurvivesAPartitionThatCannotBeLookedAt(t *testing.T) {
	t.Parallel()
	w := NewWaits(Config{})
	begun := time.UnixMilli(1_700_000_000_000)
	lag := PartitionLag{Topic: "in", Committed: 5, Stable: 5, End: 5}
	broken := PartitionLag{Topic: "in", Err: errors.New("no leader")}
	later := PartitionLag{Topic: "in", Committed: 9, Stable: 15, End: 15}
	for i, l := range []PartitionLag{lag, broken, later} {
		waits, err := w.Measure(t.Context(), begun.Add(time.Duration(i)*5*time.Second), []PartitionLag{l})
		if err != nil {
			t.Fatal(err)
		}
		// 4 of the 10 that came within 10 s are done.
		if want := []time.Duration{0, 0, 6 * time.Second}[i]; waits[0] != want {
			t.Errorf("look %d: %s, want %s", i, waits[0], want)
		}
	}
}

// An open transaction holds readers of its topic back from its first record on, also behind another that
// has ended.
func TestHoldIsAsOldAsTheOldestOpenTransaction(t *testing.T) {
	t.Parallel()
	fake := newFake(t, kfake.SeedTopics(1, "in", "out")).open(t)
	holds := NewHolds(fake.admin)
	begun := time.UnixMilli(1_700_000_000_000)
	want := func(after, out time.Duration) {
		t.Helper()
		held, err := holds.Look(short(t), begun.Add(after), []string{"in", "out", "nowhere"})
		if err != nil {
			t.Fatal(err)
		}
		if len(held) != 2 || held["in"] != 0 || held["out"] != out {
			t.Errorf("after %s readers are held %v, want in for 0 s and out for %s", after, held, out)
		}
	}
	want(0, 0)
	first := fake.producer(t, "first", "out")
	first.begin()
	first.write(begun)
	want(5*time.Second, 0)
	second := fake.producer(t, "second", "out")
	second.begin()
	second.write(begun)
	want(15*time.Second, 10*time.Second)
	first.end(kgo.TryCommit) // the second is in the way now, since this look
	want(20*time.Second, 0)
	want(30*time.Second, 10*time.Second)
	second.end(kgo.TryAbort)
	want(35*time.Second, 0)
}
