//go:build integration

package app

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"pawl/internal/admin"
	"pawl/internal/pause"
	"pawl/internal/telemetry"
	"pawl/internal/txn"
)

// busy is a process of which everything that the page can show is true at once. Its counts grow with each look.
type busy struct {
	mu    sync.Mutex
	since time.Time
	looks int64

	pauses []PauseView
}

func newBusy() *busy {
	now := time.Now().UTC()
	return &busy{since: now.Add(-3 * time.Hour), pauses: busyPauses(now)}
}

// List implements admin.Pauses.
func (b *busy) List(context.Context) (any, error) {
	return nil, errors.New("the page has no need of it")
}

// Order implements admin.Pauses.
func (b *busy) Order(_ context.Context, action string, order admin.PauseOrder) (any, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	target := pause.Target(order.Target)
	if action == string(Resume) {
		b.pauses = slices.DeleteFunc(b.pauses, func(p PauseView) bool { return p.Target == target })
	} else {
		b.pauses = append(b.pauses, PauseView{Pause: pause.Pause{Target: target, Reason: order.Reason, Actor: order.Actor, Since: time.Now().UTC()}})
	}
	return PausePlan{Action: PauseAction(action), Target: target}, nil
}

func (b *busy) view(context.Context) (any, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.looks++
	n, now := b.looks, time.Now().UTC()
	view := View{
		Since: b.since, Pauses: slices.Clone(b.pauses), KafkaUp: new(true), Endpoints: []string{"mail", "payments", "warehouse"},
		Inputs: []InputView{
			{Topic: "orders", Handler: "orders", Committed: 4213 * n, Rejected: 2 * n, Aborted: 500, Held: new(7.0)},
			{Topic: "orders.effect-results", Handler: "order-results", Committed: 812 * n},
		},
		Outputs: []OutputView{
			{Topic: "orders.confirmed", Kind: KindOutput, Records: 801 * n},
			{Topic: "orders.ledger", Kind: KindOutput, Records: 4213 * n, Held: new(0.0)},
			{Topic: "orders.priced", Kind: KindOutput, Records: 4213 * n, Held: new(12.4)},
			{Topic: "orders.effects", Kind: KindEffects, Records: 820 * n},
			{Topic: "orders.dead-letter", Kind: KindDeadLetter, Records: 2 * n},
		},
		Lanes: []LaneView{
			{Lane: 0, Phase: txn.PhaseWorking, Since: now.Add(-4 * time.Millisecond), Begun: now.Add(-30 * time.Millisecond), Joined: true, Partitions: 6, LastCommit: now.Add(-40 * time.Millisecond)},
			{Lane: 1, Phase: txn.PhasePolling, Since: now.Add(-12 * time.Second), Joined: true, Partitions: 6, LastCommit: now.Add(-12 * time.Second)},
			{Lane: 2, Phase: txn.PhaseOpening, Since: now.Add(-3 * time.Second)},
		},
		Transactions: TransactionsView{Ended: []EndedView{{"committed", "none", 412 * n}, {"aborted", "rebalance", 3}, {"aborted", "produce", 1}, {"unknown", "unknown", 1}}},
		DeadLetters:  []DeadLetterView{{"orders", "bad_json", 2 * n}, {"orders", "no_price", 14}},
		Effects: &EffectsView{
			LedgerUp: true, Ingested: 820 * n, Results: 812 * n, Lanes: 6, Halted: 1, Waiting: new(0.4),
			Endpoints: []EndpointView{
				{Endpoint: "mail", Paused: true, Pending: new(int64(0)), Parked: new(int64(0)), Dead: new(int64(0)), Oldest: new(0.0), Breaker: "closed", Limit: 64, Calls: map[string]int64{}},
				{Endpoint: "payments", Pending: new(int64(118)), Parked: new(int64(3)), Dead: new(int64(2)), Oldest: new(41.0), Breaker: "closed", InFlight: 17, Limit: 64, Calls: map[string]int64{"accepted": 804 * n, "later": 4 * n}},
				{Endpoint: "warehouse", Pending: new(int64(5310)), Parked: new(int64(40)), Dead: new(int64(0)), Oldest: new(5400.0), Breaker: "open", Limit: 16, Calls: map[string]int64{"no_answer": n}},
			},
		},
	}
	view.Partitions = busyPartitions()
	view.Transactions.Recent, view.Transactions.Failed = busyTransactions(n, now)
	return view, nil
}

func busyPauses(now time.Time) []PauseView {
	since := now.Truncate(time.Hour).Add(-3 * time.Hour)
	return []PauseView{
		{Pause: pause.Pause{Target: "input/orders/7", Reason: "bad data from upstream " + markup, Actor: "ann@10.0.0.7", Since: since, Expected: since.Add(time.Hour)}, Overdue: 7200},
		{Pause: pause.Pause{Target: "endpoint/mail", Reason: "maintenance of the mail server", Actor: "bob@host-2", Since: since, Until: since.Add(8 * time.Hour), Expected: since.Add(8 * time.Hour)}},
	}
}

func busyPartitions() (partitions []PartitionView) {
	for p := range int32(12) {
		one := PartitionView{Topic: "orders", Partition: p, Lane: int(p % 2), Records: new(int64(0)), Held: new(int64(0)), Seconds: new(0.0)}
		switch p {
		case 3:
			one.Records, one.Seconds = new(int64(1240)), new(0.8)
		case 4:
			one.Halted = "the committed offset is out of range: run processor offsets set " + markup
		case 5:
			one.Held = new(int64(77))
		case 7:
			one.Records, one.Seconds, one.Paused = new(int64(350)), new(95.0), "input/orders/7"
		case 6:
			one.Records, one.Held, one.Seconds = nil, nil, nil
		}
		partitions = append(partitions, one)
	}
	return partitions
}

func busyTransactions(n int64, now time.Time) (recent, failed []telemetry.Transaction) {
	for i := range int64(100) {
		one := telemetry.Transaction{
			Number: n + i, At: now.Add(time.Duration(i-100) * 10 * time.Millisecond), Lane: int(i % 2), Outcome: txn.Committed,
			Records: int(20 + (i*i*7+n)%480), Bytes: 40_000, Seconds: 0.004 + float64((i*13+n)%17)/1000,
		}
		switch i {
		case 31:
			one.Outcome, one.Reason = txn.Aborted, txn.ReasonRebalance
		case 74:
			one.Outcome, one.Reason, one.Seconds = txn.Unknown, txn.ReasonUnknown, 0.3
		}
		if one.Outcome != txn.Committed {
			failed = append(failed, one)
		}
		recent = append(recent, one)
	}
	return recent, failed
}
