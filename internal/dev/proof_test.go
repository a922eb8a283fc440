package dev

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pawl/internal/verify"
)

// checked is what a check reports of a demo in which all went well.
func checked() (*verify.Report, *verify.Plan, *EndpointSummary) {
	plan := &verify.Plan{
		Outputs: map[string]string{"priced": "orders.priced"}, Effects: "orders.effects", DeadLetters: "orders.dead-letter", Results: "orders.effect-results",
	}
	report := &verify.Report{
		Counts: map[verify.Verdict]int64{},
		Saw:    verify.Saw{TransactionsAborted: 2, Effects: 90},
		Topics: []verify.TopicSaw{
			{Topic: "orders", Inputs: 100},
			{Topic: "orders.dead-letter", Expected: 10, Seen: 10},
			{Topic: "orders.effect-results", Inputs: 90, Expected: 90, Seen: 90},
			{Topic: "orders.effects", Expected: 90, Seen: 90, Aborted: 3},
			{Topic: "orders.priced", Expected: 180, Seen: 180, Aborted: 5},
		},
		Reasons: map[string]int64{"bad_json": 10},
		Fates:   map[string]int64{"done": 85, "dead": 5},
	}
	return report, plan, &EndpointSummary{Calls: 95, Distinct: 90, Charged: 85, Declined: 5}
}

func concluded(report *verify.Report, plan *verify.Plan, calls *EndpointSummary) *Proof {
	p := &Proof{Kill: Kill{Calls: 1}}
	p.conclude(report, plan, calls, 100, 10)
	return p
}

func TestProofHoldsForACleanCheck(t *testing.T) {
	t.Parallel()
	p := concluded(checked())
	want := []TopicProof{
		{Role: "output", Topic: "orders.priced", Expected: 180, Seen: 180, Aborted: 5},
		{Role: "effects", Topic: "orders.effects", Expected: 90, Seen: 90, Aborted: 3},
		{Role: "results", Topic: "orders.effect-results", Expected: 90, Seen: 90},
		{Role: "dead-letter", Topic: "orders.dead-letter", Expected: 10, Seen: 10},
	}
	if diff := cmp.Diff(want, p.Topics); diff != "" || !p.Proven() || p.Inputs != 100 || p.Aborted != 2 || p.Effects.Committed != 90 {
		t.Errorf("faults %q, %d inputs, %d aborted: %s", p.Faults, p.Inputs, p.Aborted, diff)
	}
	report, plan, _ := checked()
	if p := concluded(report, plan, nil); !p.Proven() || p.Effects.Calls != nil {
		t.Errorf("without a ledger: %q", p.Faults)
	}
}

// Whatever the check finds, and whatever one of the witnesses says otherwise, keeps the proof from holding.
func TestProofNamesEveryFault(t *testing.T) {
	t.Parallel()
	for want, spoil := range map[string]func(*verify.Report, *EndpointSummary){
		"3 LOST, such as LOST at orders/0/7: it is gone": func(r *verify.Report, _ *EndpointSummary) {
			r.Counts[verify.Lost] = 3
			r.Findings = []verify.Finding{{Verdict: verify.Lost, At: verify.Place{Topic: "orders", Offset: 7}, Story: "it is gone"}}
		},
		"100 orders were produced, the input topic holds 99":     func(r *verify.Report, _ *EndpointSummary) { r.Topics[0].Inputs = 99 },
		"10 orders were made wrong, the handler refuses 11":      func(r *verify.Report, _ *EndpointSummary) { r.Topics[1].Expected = 11 },
		"no transaction was aborted":                             func(r *verify.Report, _ *EndpointSummary) { r.Saw.TransactionsAborted = 0 },
		"charged 84 and declined 5, the results say 85 and 5":    func(_ *verify.Report, s *EndpointSummary) { s.Charged = 84 },
		"charged 85 and declined 6, the results say 85 and 5":    func(_ *verify.Report, s *EndpointSummary) { s.Declined = 6 },
		"1 calls were malformed":                                 func(_ *verify.Report, s *EndpointSummary) { s.Malformed = 1 },
		"2 calls were repeated without a reason":                 func(_ *verify.Report, s *EndpointSummary) { s.Unexplained = 2 },
		"3 calls used a key again with another body":             func(_ *verify.Report, s *EndpointSummary) { s.Mismatched = 3 },
		"4 orders were charged twice":                            func(_ *verify.Report, s *EndpointSummary) { s.ChargedTwice = 4 },
		"5 charges came before an earlier one of their customer": func(_ *verify.Report, s *EndpointSummary) { s.OrderViolations = 5 },
	} {
		report, plan, calls := checked()
		spoil(report, calls)
		p := concluded(report, plan, calls)
		if p.Proven() || len(p.Faults) != 1 || !strings.Contains(p.Faults[0], want) {
			t.Errorf("the faults are %q, want %q", p.Faults, want)
		}
	}
	report, plan, calls := checked()
	p := new(Proof)
	p.conclude(report, plan, calls, 100, 10)
	if p.Proven() || !strings.Contains(p.Faults[0], "no call was under way") {
		t.Errorf("without a call under way: %q", p.Faults)
	}
}

func TestFindingsAreCountedByTheirTopic(t *testing.T) {
	t.Parallel()
	got := newTopicProof(roleOutput, &verify.TopicSaw{Topic: "t", Findings: map[verify.Verdict]int64{
		verify.Lost: 1, verify.Duplicate: 2, verify.Corrupt: 3, verify.Phantom: 4, verify.Reordered: 5,
		verify.ResultMissing: 10, verify.ResultTwice: 20, verify.ResultStatus: 30, verify.ResultPhantom: 40, verify.ResultOrder: 50,
	}})
	if want := (TopicProof{Role: roleOutput, Topic: "t", Missing: 11, Duplicates: 22, Altered: 33, Unexpected: 44, Disordered: 55}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// What the endpoint wrote down is what the check judges.
func TestCallsGoIntoTheJournalAsTheyWere(t *testing.T) {
	t.Parallel()
	body := [32]byte{1, 2, 3}
	at := time.UnixMilli(1_000_000)
	calls := []ChargeCall{
		{At: at, ID: "a", Order: "3:42", Attempt: 1, Fence: 9, Body: hex.EncodeToString(body[:]), Fate: FateAnswer, Status: 200},
		{At: at, ID: "b", Order: "3:43", Attempt: 2, Fence: 9, Body: hex.EncodeToString(body[:]), Fate: FateReset, Status: 402},
		{At: at, ID: "c", Order: "3:44", Attempt: 1, Fence: 9, Body: hex.EncodeToString(body[:]), Fate: FateError, Status: 500},
	}
	want := []verify.Call{
		{At: at, ID: "a", Lane: 3, Offset: 42, Attempt: 1, Fence: 9, Body: body, Executed: true},
		{At: at, ID: "b", Lane: 3, Offset: 43, Attempt: 2, Fence: 9, Body: body, Refused: true, Lost: true},
		{At: at, ID: "c", Lane: 3, Offset: 44, Attempt: 1, Fence: 9, Body: body},
	}
	var got []verify.Call
	if err := journal(calls, func(c *verify.Call) error { got = append(got, *c); return nil }); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []ChargeCall{{Order: "three"}, {Order: "1:2", Body: "00"}} {
		if err := journal([]ChargeCall{bad}, func(*verify.Call) error { return nil }); err == nil {
			t.Errorf("%+v is no error", bad)
		}
	}
}
