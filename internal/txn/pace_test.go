package txn

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBatchIsClosedWhenThereIsNoMoreToRead(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	const interval = 5 * time.Millisecond
	for name, c := range map[string]struct {
		records int
		bytes   int64
		behind  bool
		first   time.Duration // ago
		last    time.Duration // ago; 0 means that nothing was committed yet
		none    bool          // no least interval
		want    time.Duration
	}{
		"first batch ever":             {records: 1, want: 0},
		"idle for long":                {records: 1, last: time.Second, want: 0},
		"just committed":               {records: 1, last: 2 * time.Millisecond, want: 3 * time.Millisecond},
		"just committed, no interval":  {records: 1, last: 2 * time.Millisecond, none: true, want: 0},
		"full of records":              {records: 100, last: time.Millisecond, behind: true, want: 0},
		"more than full":               {records: 120, last: time.Millisecond, want: 0},
		"full of bytes":                {records: 1, bytes: 1 << 20, last: time.Millisecond, behind: true, want: 0},
		"behind":                       {records: 1, last: time.Second, behind: true, first: 10 * time.Millisecond, want: fill - 10*time.Millisecond},
		"behind, and waited for long":  {records: 1, last: time.Second, behind: true, first: time.Minute, want: 0},
		"behind before the first end":  {records: 1, behind: true, want: fill},
		"only control records so far":  {records: 0, last: 2 * time.Millisecond, want: 3 * time.Millisecond},
		"committed a moment from now":  {records: 1, last: -time.Millisecond, want: 6 * time.Millisecond},
		"behind, first from now":       {records: 1, behind: true, first: -time.Millisecond, want: fill + time.Millisecond},
		"behind although none is here": {records: 0, behind: true, first: 0, want: fill},
	} {
		p := newPace(Config{RecordsMax: 100, BytesMax: 1 << 20, IntervalMin: interval, HandlerTimeout: 10 * time.Second})
		if c.none {
			p.interval = 0
		}
		if c.last != 0 {
			p.committed(now.Add(-c.last))
		}
		if _, got := p.wait(now, now.Add(-c.first), c.records, 100, c.bytes, c.behind); got != c.want {
			t.Errorf("%s: waits %s, want %s", name, got, c.want)
		}
	}
}

// An open batch is left alone until its end is near, see wait.
func TestLaneRestsUntilTheEndOfItsBatchIsNear(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	for name, c := range map[string]struct {
		ending time.Duration
		behind bool
		rest   time.Duration
		wait   time.Duration
	}{
		"a fast broker":     {ending: 2 * time.Millisecond, rest: 4*time.Millisecond - 2*time.Millisecond/3, wait: 4 * time.Millisecond},
		"a slow broker":     {ending: 21 * time.Millisecond, rest: 13 * time.Millisecond, wait: 20 * time.Millisecond},
		"a distant broker":  {ending: 200 * time.Millisecond, rest: 0, wait: fill - time.Millisecond},
		"more waits":        {ending: 2 * time.Millisecond, behind: true, rest: 0, wait: fill},
		"nothing was ended": {rest: 4 * time.Millisecond, wait: 4 * time.Millisecond},
	} {
		p := newPace(Config{RecordsMax: 100, BytesMax: 1 << 20, IntervalMin: 5 * time.Millisecond, HandlerTimeout: 10 * time.Second})
		if c.ending > 0 {
			p.ended(c.ending)
		}
		p.committed(now.Add(-time.Millisecond))
		if rest, wait := p.wait(now, now, 1, 100, 0, c.behind); rest != c.rest || wait != c.wait {
			t.Errorf("%s: rests %s of %s, want %s of %s", name, rest, wait, c.rest, c.wait)
		}
	}
}

// Whatever happened before, a batch is neither empty by design nor beyond its limits, and it is not
// held open for longer than the larger of fill and the least interval.
func TestPaceStaysWithinItsLimits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		span := rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "ns")) >> rapid.IntRange(0, 36).Draw(t, "scale")
		})
		c := Config{
			RecordsMax: rapid.IntRange(1, recordsCap).Draw(t, "records"), BytesMax: rapid.Int64Range(1<<10, 1<<30).Draw(t, "bytes"),
			IntervalMin:    min(time.Second, span.Draw(t, "interval")),
			HandlerTimeout: 100*time.Millisecond + span.Draw(t, "timeout"),
		}
		p := newPace(c)
		now := time.Unix(1_700_000_000, 0)
		for range 20 {
			switch rapid.IntRange(0, 5).Draw(t, "event") {
			case 0:
				p.handled(rapid.IntRange(0, c.RecordsMax).Draw(t, "handled"), span.Draw(t, "took"))
			case 1:
				p.slow(rapid.IntRange(0, c.RecordsMax).Draw(t, "slow"), span.Draw(t, "took"))
			case 2:
				p.ended(span.Draw(t, "took"))
			case 3:
				p.wrote(rapid.IntRange(0, c.RecordsMax).Draw(t, "read"), rapid.Int64Range(0, 1<<40).Draw(t, "bytes"),
					rapid.IntRange(0, 1<<40).Draw(t, "written"), rapid.Int64Range(0, 1<<50).Draw(t, "bytes written"))
			case 4:
				p.overran(rapid.IntRange(0, c.RecordsMax).Draw(t, "overran"))
			default:
				now = now.Add(span.Draw(t, "passed"))
				p.committed(now)
			}
			suspicion := rapid.IntRange(0, 10).Draw(t, "suspicion")
			limit := p.limit(suspicion)
			if limit < 1 || limit > c.RecordsMax || suspicion > 0 && limit > suspicion {
				t.Fatalf("limit is %d, want 1..%d and no more than suspicion allows (%d)", limit, c.RecordsMax, suspicion)
			}
			if bytes := p.bytesMax(); bytes < 1 || bytes > c.BytesMax {
				t.Fatalf("a batch may have %d bytes, want 1..%d", bytes, c.BytesMax)
			}
			rest, wait := p.wait(now.Add(span.Draw(t, "later")), now, rapid.IntRange(0, limit).Draw(t, "have"), limit, 0, rapid.Bool().Draw(t, "behind"))
			if rest < 0 || rest > wait || wait > max(fill, c.IntervalMin) {
				t.Fatalf("rests %s and waits %s, want 0s..%s", rest, wait, max(fill, c.IntervalMin))
			}
		}
	})
}

// copying is the pace of handlers that write what they read, as is known.
func copying(c Config) *pace {
	p := newPace(c)
	p.wrote(1, 1, 1, 1)
	return p
}

// Handlers that need a while get smaller batches: a quarter of the deadline is for the average, the
// rest for the day on which it lies.
func TestBatchShrinksUntilItsHandlersKeepTheDeadline(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := copying(Config{RecordsMax: 5000, BytesMax: 1 << 20, HandlerTimeout: 10 * time.Second})
		cost := time.Duration(rapid.Int64Range(int64(time.Microsecond), int64(5*time.Second)).Draw(t, "cost"))
		for range 40 {
			n := p.limit(0)
			p.handled(n, time.Duration(n)*cost)
		}
		if n := p.limit(0); n > 1 && time.Duration(n)*cost > 3*time.Second {
			t.Fatalf("%d records of %s each make %s, want about a quarter of 10s", n, cost, time.Duration(n)*cost)
		}
		for range 60 { // and back, when they are fast again
			n := p.limit(0)
			p.handled(n, time.Duration(n)*time.Microsecond)
		}
		if n := p.limit(0); n < 4000 {
			t.Fatalf("fast again, yet the limit is %d, want about 5000", n)
		}
	})
}

func TestSlowBatchMakesTheNextSmaller(t *testing.T) {
	t.Parallel()
	p := copying(Config{RecordsMax: 1000, BytesMax: 1 << 20, HandlerTimeout: time.Second})
	p.handled(1000, time.Millisecond)
	before := p.limit(0)
	p.slow(1000, 2*time.Second)
	if got := p.limit(0); before != 1000 || got > 125 {
		t.Errorf("limit was %d and is %d after 1000 records took 2s, want 1000 and at most 125", before, got)
	}
	p.slow(0, time.Hour) // only control records: nothing to divide by
	if got := p.limit(0); got != 1 {
		t.Errorf("limit is %d, want 1", got)
	}
}

// A batch that brokers did not take in time is halved, again and again, down to where its size is no
// reason any more; with commits it grows again, by little at a time: if each doubled it, every other try would fail.
func TestBatchShrinksUntilBrokersTakeItInTime(t *testing.T) {
	t.Parallel()
	p := copying(Config{RecordsMax: 5000, BytesMax: 1 << 20, HandlerTimeout: time.Second})
	now := time.Unix(1_700_000_000, 0)
	for _, want := range []int{2500, 1250, 625, 312, 156, fitsMin, fitsMin} {
		p.overran(p.limit(0))
		if got := p.limit(0); got != want {
			t.Fatalf("the limit is %d, want %d", got, want)
		}
	}
	commits := 0
	for last := p.limit(0); last < 5000; commits++ {
		p.committed(now)
		got := p.limit(0)
		if got <= last || got > 5000 || got > last+last/fitsShare && got < 5000 {
			t.Fatalf("the limit went from %d to %d with a commit", last, got)
		}
		last = got
	}
	if commits > 50 {
		t.Errorf("%d commits until the limit is what it was", commits)
	}
	p.overran(3) // a small batch, and a broker that is away
	if got := p.limit(7); got != 7 {
		t.Errorf("the limit is %d, want what suspicion allows", got)
	}
}

// Where handlers make more of a batch than it was, less is read at once; at first nobody knows.
func TestBatchIsAsLargeAsWhatComesOfIt(t *testing.T) {
	t.Parallel()
	p := newPace(Config{RecordsMax: 12_000, BytesMax: 12 << 20, HandlerTimeout: 10 * time.Second})
	for i, step := range []struct {
		read    int
		bytes   int64
		written int
		out     int64
		limit   int
		may     int64
	}{
		{limit: 3000, may: 3 << 20}, // before the first
		{read: 3000, bytes: 1 << 20, written: 3000, out: 1 << 20, limit: 12_000, may: 12 << 20},
		{read: 0, bytes: 0, written: 0, out: 0, limit: 12_000, may: 12 << 20}, // control records alone
		{read: 1000, bytes: 1 << 20, written: 3000, out: 1 << 20, limit: 4000, may: 12 << 20},
		{read: 1000, bytes: 1 << 20, written: 0, out: 0, limit: 4800, may: 12 << 20}, // 3 - 2/4 times
		{read: 1000, bytes: 1 << 20, written: 10, out: 12 << 20, limit: 5647, may: 1 << 20},
	} {
		if i > 0 {
			p.wrote(step.read, step.bytes, step.written, step.out)
		}
		if limit, may := p.limit(0), p.bytesMax(); limit != step.limit || may != step.may {
			t.Errorf("step %d: %d records and %d bytes, want %d and %d", i, limit, may, step.limit, step.may)
		}
	}
}
