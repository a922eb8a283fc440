package ledgertest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

func leases(x *exercise) {
	ctx := x.t.Context()
	before := time.Now()
	one := x.acquire(someLane, "a")
	if latest := time.Now().Add(ttl); one.Lane != someLane || one.Until.After(latest) || one.Until.Before(before) {
		x.t.Errorf("asked at %s for %s, the tenure is %+v", before, ttl, one)
	}
	_, err := x.store.Acquire(ctx, someLane, "b", ttl)
	x.want(err, outbox.ErrHeld, "acquire by another owner")
	x.acquire(otherLane, "b")
	owner := func() string {
		x.t.Helper()
		owner, err := x.store.Owner(ctx, someLane)
		x.must(err)
		return owner
	}
	x.equal(owner(), "a", "owner")

	again := x.acquire(someLane, "a")
	if again.Epoch <= one.Epoch || again.After != one.Epoch || one.After != 0 {
		x.t.Errorf("%+v follows %+v", again, one)
	}
	_, _, err = x.store.Renew(ctx, one, ttl)
	x.want(err, outbox.ErrFenced, "renew of the tenure before")
	renewed, _, err := x.store.Renew(ctx, again, 2*ttl)
	x.must(err)
	if renewed.Epoch != again.Epoch || !renewed.Until.After(again.Until) {
		x.t.Errorf("%+v was renewed to %+v", again, renewed)
	}

	x.must(x.store.Release(ctx, renewed))
	x.equal(owner(), "", "owner after a release")
	brief, err := x.store.Acquire(ctx, someLane, "b", 20*time.Millisecond)
	x.must(err)
	if brief.Epoch <= again.Epoch || brief.After != again.Epoch {
		x.t.Errorf("%+v follows %+v", brief, again)
	}
	_ = x.store.Release(ctx, renewed) // of a tenure that has ended: it must not free the lane
	lasting, _, err := x.store.Renew(ctx, brief, ttl)
	if errors.Is(err, outbox.ErrFenced) { // it took longer than the lease
		lasting, err = x.store.Acquire(ctx, someLane, "b", ttl)
	}
	x.must(err)
	_, err = x.store.Acquire(ctx, someLane, "c", ttl)
	x.want(err, outbox.ErrHeld, "acquire after a late release")
	x.must(x.store.Release(ctx, lasting))

	_, err = x.store.Acquire(ctx, someLane, "d", 20*time.Millisecond)
	x.must(err)
	x.takeOver(someLane, "e")
}

// takeOver asks for a lane until the lease of its owner has run out.
func (x *exercise) takeOver(lane int32, owner string) outbox.Tenure {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		tenure, err := x.store.Acquire(ctx, lane, owner, ttl)
		if err == nil {
			return tenure
		}
		x.want(err, outbox.ErrHeld, "acquire by the next owner")
		select {
		case <-tick.C:
		case <-ctx.Done():
			x.t.Fatal("the lease does not run out")
		}
	}
}

func fencing(x *exercise) {
	ctx := x.t.Context()
	x.filled(10)
	old, err := x.store.Acquire(ctx, someLane, "a", 20*time.Millisecond)
	x.must(err)
	x.flush(done(old, 1, 1, 0)) // a lease that has run out ends nothing before somebody takes the lane
	tenure := x.takeOver(someLane, "b")

	x.want(x.store.Flush(ctx, done(old, 2, 2, 1)), outbox.ErrFenced, "flush")
	x.want(x.store.Begin(ctx, old, []outbox.Sending{{Offset: 5, Attempt: 1}}), outbox.ErrFenced, "begin")
	_, err = x.store.Recover(ctx, old)
	x.want(err, outbox.ErrFenced, "recover")
	_, _, err = x.store.Renew(ctx, old, ttl)
	x.want(err, outbox.ErrFenced, "renew")

	r := x.recover(tenure)
	if r.Seq != 1 || r.Low != 1 || len(r.Sending) != 0 || r.Settled.Contains(1) {
		x.t.Errorf("recovered %+v, want what was written before the takeover", r)
	}
	if got := x.results(someLane, 0, 10); len(got) != 1 {
		x.t.Errorf("%d results, want 1", len(got))
	}
	x.flush(done(tenure, 2, 2, 1))
}

func contiguous(x *exercise) {
	ctx := x.t.Context()
	x.filled(10)
	tenure := x.acquire(someLane, "a")
	x.flush(done(tenure, 1, 1, 0))
	for _, seq := range []int64{0, 1, 3} {
		if err := x.store.Flush(ctx, done(tenure, seq, 2, 1)); err == nil {
			x.t.Errorf("flush %d after 1 was taken", seq)
		}
	}
	// The numbers go on over tenures.
	next := x.acquire(someLane, "a")
	if r := x.recover(next); r.Seq != 1 || r.Low != 1 {
		x.t.Errorf("recovered %+v", r)
	}
	x.flush(done(next, 2, 2, 1))
	if got := x.results(someLane, 0, 10); len(got) != 2 || got[1].Seq != 2 || got[1].Epoch != next.Epoch || got[0].Epoch != tenure.Epoch {
		x.t.Errorf("results are %+v", got)
	}
}

func recoverSettled(x *exercise) {
	ctx := x.t.Context()
	x.must(x.store.Seed(ctx, someLane, topicID, 0))
	x.append(batch(someLane, 0, 100, 0, 1, 2, 3, 10, 20, 21, 30))
	tenure := x.acquire(someLane, "a")
	x.flush(done(tenure, 1, 1, 0, 2))
	x.flush(outbox.Flush{
		Tenure: tenure, Seq: 2, Low: 1,
		Settled: []outbox.Outcome{{Offset: 10, Status: outbox.Done, Attempts: 1}, {Offset: 20, Status: outbox.Unknown, Attempts: 1, Error: "no answer"}},
		Covered: outbox.Ranges{{From: 10, To: 21}}, // there is nothing between them
	})
	x.flush(outbox.Flush{Tenure: tenure, Seq: 3, Low: 1}) // nothing at all
	r := x.recover(x.acquire(someLane, "a"))
	if r.Low != 1 || r.Seq != 3 {
		x.t.Errorf("recovered low %d and seq %d, want 1 and 3", r.Low, r.Seq)
	}
	for offset, want := range map[int64]bool{1: false, 2: true, 3: false, 10: true, 20: true, 21: false, 30: false} {
		if got := r.Settled.Contains(offset); got != want {
			x.t.Errorf("%d is settled: %t, want %t", offset, got, want)
		}
	}

	next := x.acquire(someLane, "a")
	x.flush(done(next, 4, 21, 1, 3))
	r = x.recover(next)
	if r.Low != 21 || r.Settled.Contains(21) || r.Settled.Contains(30) {
		x.t.Errorf("recovered %+v", r)
	}
}

func recoverParked(x *exercise) {
	x.filled(20)
	tenure := x.acquire(someLane, "a")
	x.must(x.store.Begin(x.t.Context(), tenure, []outbox.Sending{{Offset: 9, Attempt: 1}, {Offset: 7, Attempt: 2}}))
	f := done(tenure, 1, 5, 0, 1, 3)
	f.Parked = []outbox.Parked{
		{Offset: 4, Role: outbox.Retry, Attempts: 3, In: time.Hour, Since: 2 * time.Hour, Status: 503, Error: "busy"},
		{Offset: 2, Role: outbox.Follower},
		{Offset: 6, Role: outbox.Held},
	}
	x.flush(f)
	r := x.recover(x.acquire(someLane, "a"))
	if r.Low != 5 {
		x.t.Errorf("low is %d, want 5", r.Low)
	}
	x.equal(r.Sending, []outbox.Sending{{Offset: 7, Attempt: 2}, {Offset: 9, Attempt: 1}}, "sending")
	if len(r.Parked) != 3 {
		x.t.Fatalf("parked are %+v", r.Parked)
	}
	if p := r.Parked[1]; p.In > time.Hour || p.In < 59*time.Minute || p.Since < 2*time.Hour || p.Since > 121*time.Minute {
		x.t.Errorf("parked for %s, since %s", p.In, p.Since)
	}
	for i := range r.Parked {
		r.Parked[i].In, r.Parked[i].Since = 0, 0
	}
	x.equal(r.Parked, []outbox.Parked{
		{Offset: 2, Role: outbox.Follower},
		{Offset: 4, Role: outbox.Retry, Attempts: 3, Status: 503, Error: "busy"},
		{Offset: 6, Role: outbox.Held},
	}, "parked")

	// A changed one replaces what was written before.
	x.flush(outbox.Flush{Tenure: x.acquire(someLane, "a"), Seq: 2, Low: 5, Parked: []outbox.Parked{{Offset: 4, Role: outbox.Retry, Attempts: 4, Status: 500, Error: "broken"}}})
	r = x.recover(x.acquire(someLane, "a"))
	if p := r.Parked[1]; len(r.Parked) != 3 || p.Attempts != 4 || p.Status != 500 || p.Error != "broken" || p.In != 0 {
		x.t.Errorf("parked are %+v", r.Parked)
	}
}

// More are parked than a recovery brings. Those that it does not are read in parts, and are settled like any other.
func recoverMany(x *exercise) {
	ctx := x.t.Context()
	const beyond, above = 10, 5
	n := int64(outbox.RecoveredMax + beyond)
	x.filled(n + above)
	tenure := x.acquire(someLane, "a")
	f := outbox.Flush{Tenure: tenure, Seq: 1, Low: n}
	for offset := range n + above {
		f.Parked = append(f.Parked, outbox.Parked{Offset: offset, Role: outbox.Retry, Endpoint: "payments"})
	}
	x.flush(f)
	next := x.acquire(someLane, "a")
	r := x.recover(next)
	if len(r.Parked) != outbox.RecoveredMax+above || r.Rest != outbox.RecoveredMax || r.Parked[len(r.Parked)-1].Offset != n+above-1 {
		x.t.Errorf("recovered %d parked ones and the rest from %d, want %d and %d", len(r.Parked), r.Rest, outbox.RecoveredMax+above, outbox.RecoveredMax)
	}
	read := func(from int64, limit int) (offsets []int64) {
		parked, err := x.store.Waiting(ctx, someLane, from, limit)
		x.must(err)
		for _, p := range parked {
			offsets = append(offsets, p.Offset)
		}
		return offsets
	}
	x.equal(read(r.Rest+2, 3), []int64{r.Rest + 2, r.Rest + 3, r.Rest + 4}, "what waits from the rest on")
	x.flush(done(next, 2, n, 0, r.Rest+3))
	x.equal(read(r.Rest+2, 3), []int64{r.Rest + 2, r.Rest + 4, r.Rest + 5}, "what waits after one of them was settled")
	x.equal(read(0, 1), []int64{1}, "what waits first")
	x.equal(read(n+above-1, 10), []int64{n + above - 1}, "what waits last")
}

// Whoever renews learns whether the ledger still has what was written to it.
func renewalsCount(x *exercise) {
	ctx := x.t.Context()
	x.filled(5)
	tenure := x.acquire(someLane, "a")
	for seq := range int64(3) {
		renewed, _, err := x.store.Renew(ctx, tenure, ttl)
		x.must(err)
		if renewed.Seq != seq {
			x.t.Errorf("the last flush is %d by the renewal, want %d", renewed.Seq, seq)
		}
		x.flush(done(tenure, seq+1, seq+1, seq))
	}
}

func recoverHolds(x *exercise) {
	x.filled(5)
	f := done(x.acquire(someLane, "a"), 1, 5, 0, 1, 2, 3, 4)
	for _, i := range []int{1, 2, 4} {
		f.Settled[i].Status, f.Settled[i].Error = outbox.Dead, "refused"
	}
	holds := []outbox.Hold{{Offset: 1, Endpoint: "shop", Key: []byte("ann")}, {Offset: 4, Endpoint: "sho\x00p", Key: []byte{0, 0xff}}}
	f.Holds = holds
	x.flush(f)
	x.equal(x.recover(x.acquire(someLane, "a")).Holds, holds, "holds")
	tenure := x.acquire(someLane, "a")
	x.flush(outbox.Flush{Tenure: tenure, Seq: 2, Low: 5, Freed: []int64{1, 2}})
	x.equal(x.recover(tenure).Holds, holds[1:], "holds")
}

func settledEndsWaiting(x *exercise) {
	ctx := x.t.Context()
	x.filled(5)
	tenure := x.acquire(someLane, "a")
	x.must(x.store.Begin(ctx, tenure, []outbox.Sending{{Offset: 0, Attempt: 1}, {Offset: 1, Attempt: 1}, {Offset: 2, Attempt: 1}}))
	x.flush(outbox.Flush{Tenure: tenure, Seq: 1, Low: 0, Parked: []outbox.Parked{
		{Offset: 2, Role: outbox.Retry, Attempts: 0}, // surely not sent: it waits, and its outcome is not unknown
		{Offset: 3, Role: outbox.Retry, Attempts: 1}, {Offset: 4, Role: outbox.Follower},
	}})
	x.flush(done(tenure, 2, 1, 0, 3))
	r := x.recover(tenure)
	x.equal(r.Sending, []outbox.Sending{{Offset: 1, Attempt: 1}}, "sending")
	if len(r.Parked) != 2 || r.Parked[0].Offset != 2 || r.Parked[1].Offset != 4 {
		x.t.Errorf("parked are %+v, want 2 and 4", r.Parked)
	}
}

func orders(x *exercise) {
	ctx := x.t.Context()
	x.filled(5)
	x.must(x.store.Order(ctx, outbox.Order{Lane: someLane, Offset: 2, Action: outbox.Cancel, Reason: "customer left"}, "ann"))
	x.must(x.store.Order(ctx, outbox.Order{Lane: otherLane, Offset: 2, Action: outbox.Cancel, Reason: "not for this lane"}, "ann"))
	tenure := x.acquire(someLane, "a")
	x.must(x.store.Order(ctx, outbox.Order{Lane: someLane, Offset: 1, Action: outbox.RetryNow, Reason: "endpoint is back"}, "bob"))

	tenure, got, err := x.store.Renew(ctx, tenure, ttl)
	x.must(err)
	if len(got) != 2 || got[0].Number >= got[1].Number || got[0].Number <= 0 {
		x.t.Fatalf("orders are %+v, want two by number", got)
	}
	x.equal(got, []outbox.Order{
		{Number: got[0].Number, Lane: someLane, Offset: 2, Action: outbox.Cancel, Reason: "customer left"},
		{Number: got[1].Number, Lane: someLane, Offset: 1, Action: outbox.RetryNow, Reason: "endpoint is back"},
	}, "orders")

	f := outbox.Flush{
		Tenure: tenure, Seq: 1, Obeyed: []int64{got[0].Number}, Covered: outbox.Ranges{{From: 2, To: 3}},
		Settled: []outbox.Outcome{{Offset: 2, Status: outbox.Dead, Error: "cancelled: customer left"}},
	}
	x.flush(f)
	_, left, err := x.store.Renew(ctx, tenure, ttl)
	x.must(err)
	x.equal(left, got[1:], "orders that are left")
	x.audit(2, outbox.Cancel, "customer left", "ann", outbox.Obeyed)
	x.audit(1, outbox.RetryNow, "endpoint is back", "bob", outbox.Open)

	all, err := x.store.Audit(ctx, outbox.AuditFilter{})
	x.must(err)
	if len(all) != 3 || all[0].Order.Number != got[1].Number || all[1].Order.Lane != otherLane || all[1].Result != outbox.Open || !all[1].Ended.IsZero() || all[2].Order.Number != got[0].Number {
		x.t.Errorf("remembered are %+v, want three, the newest first", all)
	}
	for name, c := range map[string]struct {
		filter outbox.AuditFilter
		want   int
	}{
		"actor": {outbox.AuditFilter{Actor: "bob"}, 1}, "limit": {outbox.AuditFilter{Limit: 2}, 2},
		"since": {outbox.AuditFilter{Since: all[0].At}, 1}, "later": {outbox.AuditFilter{Since: all[0].At.Add(time.Hour)}, 0},
	} {
		if found, err := x.store.Audit(ctx, c.filter); err != nil || len(found) != c.want || c.want > 0 && found[0].Order.Number != all[0].Order.Number {
			x.t.Errorf("by %s %+v, %v, want %d", name, found, err, c.want)
		}
	}
}

// audit checks what is remembered of the only order about an intent.
func (x *exercise) audit(offset int64, action outbox.Action, reason, actor string, result outbox.OrderResult) {
	x.t.Helper()
	found, err := x.store.AuditOf(x.t.Context(), someLane, offset)
	x.must(err)
	if len(found) != 1 {
		x.t.Errorf("remembered of %d is %+v, want one order", offset, found)
		return
	}
	a := found[0]
	ended, owner := result != outbox.Open, ""
	if ended {
		owner = "a"
	}
	if a.Order.Number <= 0 || a.At.IsZero() || a.Ended.IsZero() == ended || a.Ended.Before(a.At) && ended {
		x.t.Errorf("remembered of %d is %+v", offset, a)
	}
	a.Order.Number, a.At, a.Ended = 0, time.Time{}, time.Time{}
	x.equal(a, outbox.Audit{
		Order: outbox.Order{Lane: someLane, Offset: offset, Action: action, Reason: reason}, Actor: actor, Result: result, Owner: owner,
	}, "remembered")
}

// What an order came to is read off what its flush leaves: a call that was under way cannot be taken back, and a
// parked one may have been sent before anybody obeyed.
func audited(x *exercise) {
	ctx := x.t.Context()
	x.filled(6)
	tenure := x.acquire(someLane, "a")
	x.flush(outbox.Flush{Tenure: tenure, Seq: 1, Parked: []outbox.Parked{{Offset: 0, Role: outbox.Retry, Attempts: 1}, {Offset: 1, Role: outbox.Follower}, {Offset: 2, Role: outbox.Retry, Attempts: 1}}})
	for offset, action := range []outbox.Action{outbox.RetryNow, outbox.RetryNow, outbox.Cancel, outbox.Cancel, outbox.RetryNow} {
		x.must(x.store.Order(ctx, outbox.Order{Lane: someLane, Offset: int64(offset), Action: action, Reason: "why"}, "ann"))
	}
	tenure, got, err := x.store.Renew(ctx, tenure, ttl)
	x.must(err)
	f := done(tenure, 2, 0, 0, 2, 3)
	f.Settled[2].Status, f.Settled[2].Error = outbox.Dead, "cancelled: why"
	for _, order := range got {
		f.Obeyed = append(f.Obeyed, order.Number)
	}
	x.flush(f)
	x.audit(0, outbox.RetryNow, "why", "ann", outbox.Obeyed) // sent again, and done
	x.audit(1, outbox.RetryNow, "why", "ann", outbox.Obeyed) // waits no longer for what it waited for
	x.audit(2, outbox.Cancel, "why", "ann", outbox.Late)     // done all the same
	x.audit(3, outbox.Cancel, "why", "ann", outbox.Obeyed)
	x.audit(4, outbox.RetryNow, "why", "ann", outbox.Late) // it was about to be sent anyway
}

// The effect was sent well before its owner heard of the order, and the owner is another one now.
func lateOrders(x *exercise) {
	ctx := x.t.Context()
	x.filled(4)
	tenure := x.acquire(someLane, "a")
	x.flush(outbox.Flush{Tenure: tenure, Seq: 1, Low: 0, Parked: []outbox.Parked{{Offset: 1, Role: outbox.Retry, Attempts: 1}, {Offset: 2, Role: outbox.Retry, Attempts: 1}}})
	for offset := range int64(4) {
		x.must(x.store.Order(ctx, outbox.Order{Lane: someLane, Offset: offset, Action: outbox.RetryNow, Reason: "try now"}, "ann"))
	}
	x.must(x.store.Order(ctx, outbox.Order{Lane: someLane, Offset: 1, Action: outbox.Cancel, Reason: "never mind"}, "ann"))
	x.flush(done(tenure, 2, 2, 0, 1))
	tenure = x.acquire(someLane, "a")
	for range 2 {
		_, got, err := x.store.Renew(ctx, tenure, ttl)
		x.must(err)
		if len(got) != 3 || got[0].Offset != 2 || got[1].Offset != 3 || got[2].Action != outbox.Cancel {
			x.t.Errorf("orders are %+v, want those of what is not settled and the cancellation", got)
		}
	}
	x.audit(0, outbox.RetryNow, "try now", "ann", outbox.Late)
	x.audit(2, outbox.RetryNow, "try now", "ann", outbox.Open)
}

func deadAgain(x *exercise) {
	ctx := x.t.Context()
	x.filled(3)
	tenure := x.acquire(someLane, "a")
	dead := done(tenure, 1, 3, 0, 1, 2)
	dead.Settled[1] = outbox.Outcome{Offset: 1, Status: outbox.Dead, Attempts: 4, HTTPStatus: 422, Error: "no such account"}
	x.flush(dead)
	if r := x.recover(tenure); len(r.Parked) != 0 || r.Low != 3 {
		x.t.Errorf("recovered %+v: a dead one is settled", r)
	}
	intents, err := x.store.Get(ctx, someLane, []int64{1})
	x.must(err)
	x.equal(intents, []outbox.Intent{at(someLane, 1)}, "the dead intent")

	x.must(x.store.Order(ctx, outbox.Order{Lane: someLane, Offset: 1, Action: outbox.RetryNow, Reason: "account made"}, "ann"))
	tenure, orders, err := x.store.Renew(ctx, tenure, ttl)
	x.must(err)
	if len(orders) != 1 {
		x.t.Fatalf("orders are %+v", orders)
	}
	x.flush(outbox.Flush{Tenure: tenure, Seq: 2, Low: 3, Parked: []outbox.Parked{{Offset: 1, Role: outbox.Retry, Attempts: 4}}, Obeyed: []int64{orders[0].Number}})
	tenure = x.acquire(someLane, "a")
	if r := x.recover(tenure); len(r.Parked) != 1 || r.Parked[0].Offset != 1 || r.Parked[0].Role != outbox.Retry || r.Parked[0].Attempts != 4 || r.Parked[0].In != 0 {
		x.t.Errorf("parked are %+v", r.Parked)
	}
	intents, err = x.store.Get(ctx, someLane, []int64{1})
	x.must(err)
	x.equal(intents, []outbox.Intent{at(someLane, 1)}, "the intent of the second try")

	x.flush(done(tenure, 3, 3, 1))
	if r := x.recover(tenure); len(r.Parked) != 0 || r.Low != 3 || r.Seq != 3 {
		x.t.Errorf("recovered %+v", r)
	}
	var fates []outbox.Status
	for _, result := range x.results(someLane, 0, 10) {
		if result.Outcome.Offset == 1 {
			fates = append(fates, result.Outcome.Status)
		}
	}
	x.equal(fates, []outbox.Status{outbox.Dead, outbox.Done}, "outcomes")
	x.audit(1, outbox.RetryNow, "account made", "ann", outbox.Obeyed)
}

func results(x *exercise) {
	ctx := x.t.Context()
	x.must(x.store.Seed(ctx, someLane, topicID, 0))
	b := batch(someLane, 0, 50, 5, 6, 7, 8, 40, 41)
	b.Intents[0].BusinessKey, b.Intents[4].BusinessKey = "charge:1", "charge:1"
	b.Intents[4].Trace, b.Intents[1].Class = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", message.AtMostOnce
	x.append(b)
	outcomes := map[int64]outbox.Outcome{
		5:  {Offset: 5, Status: outbox.Done, Attempts: 1, HTTPStatus: 201, Response: &outbox.Response{ContentType: "application/json", Body: []byte(`{"ok":true}`)}},
		6:  {Offset: 6, Status: outbox.Unknown, Attempts: 1, Error: "no answer within 5s: ü"},
		7:  {Offset: 7, Status: outbox.Dead, Attempts: 300, HTTPStatus: 500, Error: strings.Repeat("e", outbox.ErrorMax), Response: &outbox.Response{Body: make([]byte, outbox.ResponseMax), Truncated: true}},
		8:  {Offset: 8, Status: outbox.Done, Attempts: 2, HTTPStatus: 204},
		40: {Offset: 40, Status: outbox.Conflict, Error: "another body"},
		41: {Offset: 41, Status: outbox.Done, Attempts: 1, HTTPStatus: 200},
	}
	tenure := x.acquire(someLane, "a")
	settle := func(seq, low int64, offsets ...int64) {
		x.t.Helper()
		f := outbox.Flush{Tenure: tenure, Seq: seq, Low: low}
		for _, offset := range offsets {
			f.Settled = append(f.Settled, outcomes[offset])
			f.Covered = f.Covered.Add(offset, offset+1)
		}
		x.flush(f)
	}
	settle(1, 0, 7, 41)
	x.flush(outbox.Flush{Tenure: tenure, Seq: 2, Parked: []outbox.Parked{{Offset: 8, Role: outbox.Retry, Attempts: 1}}}) // has no outcomes
	first := tenure.Epoch
	tenure = x.acquire(someLane, "a")
	settle(3, 7, 5, 6)
	settle(4, 50, 8, 40)

	want := make([]outbox.Result, 0, len(outcomes))
	for _, r := range []struct{ seq, epoch, offset int64 }{{1, first, 7}, {1, first, 41}, {3, tenure.Epoch, 5}, {3, tenure.Epoch, 6}, {4, tenure.Epoch, 8}, {4, tenure.Epoch, 40}} {
		i := slices.IndexFunc(b.Intents, func(intent outbox.Intent) bool { return intent.Offset == r.offset })
		want = append(want, outbox.Result{Seq: r.seq, Epoch: r.epoch, Outcome: outcomes[r.offset], Intent: b.Intents[i]})
	}
	x.equal(x.results(someLane, 0, 100), want, "all results")
	x.equal(x.results(someLane, 0, 2), want[:4], "results of two flushes")
	x.equal(x.results(someLane, 1, 1), want[2:4], "results after a flush, past one without outcomes")
	x.equal(x.results(someLane, 3, 1), want[4:], "results of the last flush")
	if rest := x.results(someLane, 4, 10); len(rest) != 0 {
		x.t.Errorf("results after the last: %+v", rest)
	}
	if other := x.results(otherLane, 0, 10); len(other) != 0 {
		x.t.Errorf("results of another lane: %+v", other)
	}
	x.must(x.store.Told(ctx, tenure, 4))
	x.equal(x.results(someLane, 3, 1), want[4:], "results that were told")
}

func flushAt(x *exercise) {
	ctx := x.t.Context()
	x.filled(10)
	tenure := x.acquire(someLane, "a")
	x.flush(done(tenure, 1, 1, 0, 8))
	next := x.acquire(someLane, "a")
	x.flush(done(next, 2, 4, 1, 2, 3))
	for seq, want := range map[int64]struct{ epoch, last int64 }{1: {tenure.Epoch, 8}, 2: {next.Epoch, 3}} {
		epoch, last, found, err := x.store.FlushAt(ctx, someLane, seq)
		if err != nil || !found || epoch != want.epoch || last != want.last {
			x.t.Errorf("flush %d is of epoch %d and ends with %d (%t, %v), want %+v", seq, epoch, last, found, err, want)
		}
	}
	for _, seq := range []int64{0, 3} {
		if _, _, found, err := x.store.FlushAt(ctx, someLane, seq); found || err != nil {
			x.t.Errorf("flush %d is found: %t, %v", seq, found, err)
		}
	}
}
