//go:build integration

package ledger_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger"
)

// staged is a lane with an effect in every state, by offset.
func staged(t *testing.T) (bench, outbox.Tenure) {
	t.Helper()
	ctx := t.Context()
	b := open(t, ledger.Config{})
	b.must(b.Seed(ctx, lane, topicID, 0))
	batch := batchOf(lane, 0, 9)
	for i := range batch.Intents {
		batch.Intents[i].At = time.Now().Add(-time.Duration(10-i) * time.Hour).UTC().Truncate(time.Millisecond)
		if i >= 6 {
			batch.Intents[i].Endpoint = "shipping"
		}
	}
	batch.Intents[6].Class = message.AtMostOnce
	b.must(b.Append(ctx, batch))
	tenure := b.acquire(lane)
	b.must(b.Begin(ctx, tenure, []outbox.Sending{{Offset: 6, Attempt: 1}}))
	f := settle(
		tenure, 1, 6, done(0),
		outbox.Outcome{Offset: 1, Status: outbox.Dead, Attempts: 2, HTTPStatus: 422, Error: "no such account", Response: &outbox.Response{Body: []byte("{}")}},
		outbox.Outcome{Offset: 2, Status: outbox.Unknown, Attempts: 1, Error: "no answer"},
		outbox.Outcome{Offset: 3, Status: outbox.Duplicate}, outbox.Outcome{Offset: 4, Status: outbox.Conflict, Error: "another body"},
	)
	f.Parked = []outbox.Parked{{Offset: 5, Role: outbox.Retry, Attempts: 3, In: time.Hour, Status: 503, Error: "busy"}}
	b.must(b.Flush(ctx, f))
	return b, tenure
}

type listed struct {
	Offset   int64
	State    ledger.State
	Attempts int
	Status   int
	Error    string
}

func (b bench) list(f ledger.Filter) (got []listed) {
	b.t.Helper()
	effects, err := b.List(b.t.Context(), f)
	b.must(err)
	for _, e := range effects {
		got = append(got, listed{e.Intent.Offset, e.State, e.Attempts, e.Status, e.Error})
	}
	return got
}

func TestEffectsAreListedByState(t *testing.T) {
	t.Parallel()
	b, _ := staged(t)
	var (
		settled   = listed{0, ledger.Done, 1, 200, ""}
		dead      = listed{1, ledger.Dead, 2, 422, "no such account"}
		unknown   = listed{2, ledger.Unknown, 1, 0, "no answer"}
		duplicate = listed{3, ledger.Duplicate, 0, 0, ""}
		conflict  = listed{4, ledger.Conflict, 0, 0, "another body"}
		parked    = listed{5, ledger.Waiting, 3, 503, "busy"}
		inflight  = listed{6, ledger.Inflight, 1, 0, ""}
		pending   = []listed{{7, ledger.Pending, 0, 0, ""}, {8, ledger.Pending, 0, 0, ""}}
	)
	for name, c := range map[string]struct {
		filter ledger.Filter
		want   []listed
	}{
		"pending":          {ledger.Filter{State: ledger.Pending}, pending},
		"inflight":         {ledger.Filter{State: ledger.Inflight}, []listed{inflight}},
		"parked":           {ledger.Filter{State: ledger.Waiting}, []listed{parked}},
		"done":             {ledger.Filter{State: ledger.Done}, []listed{settled}},
		"dead":             {ledger.Filter{State: ledger.Dead}, []listed{dead}},
		"unknown":          {ledger.Filter{State: ledger.Unknown}, []listed{unknown}},
		"duplicate":        {ledger.Filter{State: ledger.Duplicate}, []listed{duplicate}},
		"conflict":         {ledger.Filter{State: ledger.Conflict}, []listed{conflict}},
		"all":              {ledger.Filter{}, append([]listed{inflight, parked, dead, unknown, conflict}, pending...)},
		"limit":            {ledger.Filter{Limit: 6}, []listed{inflight, parked, dead, unknown, conflict, pending[0]}},
		"endpoint":         {ledger.Filter{Endpoint: "shipping"}, append([]listed{inflight}, pending...)},
		"key":              {ledger.Filter{Key: []byte("key-1")}, []listed{dead, pending[1]}},
		"age":              {ledger.Filter{AgeMin: 5 * time.Hour}, []listed{parked, dead, unknown, conflict}},
		"state and others": {ledger.Filter{State: ledger.Pending, Key: []byte("key-0"), Endpoint: "shipping", AgeMin: time.Hour}, pending[:1]},
		"nothing":          {ledger.Filter{Endpoint: "elsewhere"}, nil},
	} {
		if diff := cmp.Diff(c.want, b.list(c.filter)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if _, err := b.List(t.Context(), ledger.Filter{State: "lost"}); err == nil {
		t.Error("an unknown state was listed")
	}
}

func TestOneEffectIsShownWithItsHistory(t *testing.T) {
	t.Parallel()
	b, tenure := staged(t)
	ctx := t.Context()
	e, err := b.Show(ctx, lane, 1)
	b.must(err)
	if e.State != ledger.Dead || e.Attempts != 2 || e.Outcome == nil || e.Outcome.Response == nil || len(e.History) != 1 || e.History[0].Error != "no such account" {
		t.Errorf("shown as %+v", e)
	}
	for offset, want := range []ledger.State{ledger.Done, ledger.Dead, ledger.Unknown, ledger.Duplicate, ledger.Conflict, ledger.Waiting, ledger.Inflight, ledger.Pending} {
		if e, err := b.Show(ctx, lane, int64(offset)); err != nil || e.State != want {
			t.Errorf("%d is %s, want %s: %v", offset, e.State, want, err)
		}
	}
	if _, err := b.Show(ctx, lane, 99); !errors.Is(err, ledger.ErrNoEffect) {
		t.Errorf("what is not there gave %v", err)
	}

	// A second try, another failed attempt, then success.
	b.must(b.Flush(ctx, outbox.Flush{Tenure: tenure, Seq: 2, Low: 6, Parked: []outbox.Parked{{Offset: 1, Role: outbox.Retry, Attempts: 2}}}))
	b.must(b.Flush(ctx, outbox.Flush{Tenure: tenure, Seq: 3, Low: 6, Parked: []outbox.Parked{{Offset: 1, Role: outbox.Retry, Attempts: 3, Status: 500, Error: "broken"}}}))
	if e, err := b.Show(ctx, lane, 1); err != nil || e.State != ledger.Waiting || e.Attempts != 3 || e.Error != "broken" {
		t.Errorf("shown as %+v, %v", e, err)
	}
	again := done(1)
	again.Attempts = 4
	b.must(b.Flush(ctx, settle(tenure, 4, 6, again)))
	e, err = b.Show(ctx, lane, 1)
	b.must(err)
	var attempts []int
	for _, a := range e.History {
		attempts = append(attempts, a.Number)
	}
	if e.State != ledger.Done || !cmp.Equal(attempts, []int{2, 3, 4}) {
		t.Errorf("shown as %s with the attempts %v", e.State, attempts)
	}

	byID, err := b.ShowID(ctx, intentAt(lane, 5).ID)
	if err != nil || len(byID) != 1 || byID[0].Intent.Offset != 5 || byID[0].State != ledger.Waiting {
		t.Errorf("by id %+v, %v", byID, err)
	}
	if _, err := b.ShowID(ctx, message.ID{}); !errors.Is(err, ledger.ErrNoEffect) {
		t.Errorf("an id that is not there gave %v", err)
	}
}

// Whatever the size of the pages, together they are the list.
func TestListsCanBePaged(t *testing.T) {
	t.Parallel()
	b, _ := staged(t)
	ctx := t.Context()
	b.filled(lane+1, 6)
	f := settle(b.acquire(lane+1), 1, 0, done(1), done(3), outbox.Outcome{Offset: 4, Status: outbox.Dead, Attempts: 1})
	f.Parked = []outbox.Parked{{Offset: 5, Role: outbox.Retry}}
	b.must(b.Flush(ctx, f))
	places := func(effects []ledger.Effect) (places []ledger.Place) {
		for _, e := range effects {
			places = append(places, ledger.Place{State: e.State, Lane: e.Intent.Lane, Offset: e.Intent.Offset})
		}
		return places
	}
	for _, state := range []ledger.State{"", ledger.Pending, ledger.Waiting, ledger.Dead, ledger.Done} {
		whole, err := b.List(ctx, ledger.Filter{State: state})
		b.must(err)
		if len(whole) < 2 {
			t.Fatalf("%q has %d effects, want some for a page", state, len(whole))
		}
		for _, size := range []int{1, 2, len(whole)} {
			var paged []ledger.Place
			filter := ledger.Filter{State: state, Limit: size}
			for range len(whole) + 1 {
				page, err := b.List(ctx, filter)
				b.must(err)
				if len(page) == 0 {
					break
				}
				paged = append(paged, places(page)...)
				filter.After = &paged[len(paged)-1]
			}
			if diff := cmp.Diff(places(whole), paged); diff != "" {
				t.Errorf("%q in pages of %d: (-want +got)\n%s", state, size, diff)
			}
		}
	}
	if _, err := b.List(ctx, ledger.Filter{After: &ledger.Place{State: ledger.Done}}); err == nil {
		t.Error("the list of what is not done goes on after a done one")
	}
}

func TestBacklogIsCountedByEndpoint(t *testing.T) {
	t.Parallel()
	b, _ := staged(t)
	got, err := b.Summary(t.Context())
	b.must(err)
	for i := range got {
		if age := time.Since(got[i].Oldest); got[i].Endpoint == "shipping" && (age < 3*time.Hour-time.Minute || age > 3*time.Hour+time.Minute) {
			t.Errorf("the oldest pending effect is %s old", age)
		}
		got[i].Oldest = time.Time{}
	}
	want := []ledger.Backlog{
		{Endpoint: "payments", Parked: 1, Dead: 1, Unknown: 1, Conflict: 1},
		{Endpoint: "shipping", Pending: 2},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOrdersAreChecked(t *testing.T) {
	t.Parallel()
	b := open(t, ledger.Config{})
	if err := b.Order(t.Context(), outbox.Order{Lane: lane, Action: "explode"}, "ann"); err == nil {
		t.Error("an unknown action was taken")
	}
	b.is(0, "SELECT count(*) FROM pawl.operator_order")
	b.is(0, "SELECT count(*) FROM pawl.audit")
}

// What operators ordered is kept as long as dead effects, and longer where it is still to be obeyed.
func TestTheAuditIsTrimmed(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	const kept = 30 * 24 * time.Hour
	b := open(t, ledger.Config{Dead: kept})
	b.filled(lane, 4)
	tenure := b.acquire(lane)
	for offset := range int64(2) {
		b.must(b.Order(ctx, outbox.Order{Lane: lane, Offset: offset, Action: outbox.Cancel, Reason: "why"}, "ann"))
	}
	_, orders, err := b.Renew(ctx, tenure, lease)
	b.must(err)
	f := settle(tenure, 1, 1, outbox.Outcome{Offset: 0, Status: outbox.Dead, Error: "cancelled"})
	f.Obeyed = []int64{orders[0].Number}
	b.must(b.Flush(ctx, f))
	b.must(b.Told(ctx, tenure, 1))

	b.must(b.Maintain(ctx, time.Now().Add(kept-time.Hour)))
	b.is(2, "SELECT count(*) FROM pawl.audit")
	b.is(1, "SELECT count(*) FROM pawl.audit_end")
	b.exec("DELETE FROM pawl.upkeep")
	b.must(b.Maintain(ctx, time.Now().Add(kept+time.Hour)))
	left, err := b.Audit(ctx, outbox.AuditFilter{})
	b.must(err)
	if len(left) != 1 || left[0].Order.Offset != 1 || left[0].Result != outbox.Open {
		t.Errorf("left are %+v, want the order that is open", left)
	}
	b.is(0, "SELECT count(*) FROM pawl.audit_end")
}

// Postgres holds no NUL and nothing but UTF-8 in a text, and no long key in an index. A handler may put
// anything into names and keys, and a lane must not stop at it.
func TestAnyNameCanBeIngested(t *testing.T) {
	t.Parallel()
	for name, strange := range map[string]string{"NUL": "a\x00b", "no UTF-8": "\xff\xfe", "long": string(make([]byte, 9000)), "backslash": `\x41`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			b := open(t, ledger.Config{})
			b.must(b.Seed(ctx, lane, topicID, 0))
			batch := batchOf(lane, 0, 2)
			for i := range batch.Intents {
				batch.Intents[i].BusinessKey, batch.Intents[i].ContentType, batch.Intents[i].Trace = strange, strange, strange
			}
			b.must(b.Append(ctx, batch))
			got, err := b.Get(ctx, lane, []int64{0, 1})
			b.must(err)
			if got[0].BusinessKey != strange || got[0].ContentType != strange || got[1].Trace != strange || got[1].Twin == nil || got[1].Twin.Offset != 0 {
				t.Errorf("read back as %+v", got)
			}
			tenure := b.acquire(lane)
			b.must(b.Flush(ctx, settle(tenure, 1, 2, outbox.Outcome{Offset: 0, Status: outbox.Dead, Error: "refused: " + strange[:1]}, done(1))))
		})
	}
}
