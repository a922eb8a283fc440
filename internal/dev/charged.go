package dev

import (
	"encoding/hex"
	"fmt"
	"net/http"

	"pawl/internal/verify"
)

// EffectsProof compares the effects that were committed with the calls that an endpoint saw and with
// the result events that came back. How many events there are is in the TopicProof of their topic.
type EffectsProof struct {
	Committed int64            `json:"committed"`
	Calls     *EndpointSummary `json:"calls"`             // null where there is no ledger
	Never     int64            `json:"never_called"`      // effects that no call has settled
	Foreign   int64            `json:"foreign_calls"`     // calls for no committed effect, or with another key or other bytes
	Results   map[string]int64 `json:"results_by_status"` // of committed events
}

// The fates that this endpoint can bring about, by their names in result events.
const (
	fateDone = "done"
	fateDead = "dead"
)

// journal feeds the calls of the endpoint to a check.
func journal(calls []ChargeCall, feed func(*verify.Call) error) error {
	for i := range calls {
		call, err := calls[i].seen()
		if err != nil {
			return err
		}
		if err := feed(&call); err != nil {
			return err
		}
	}
	return nil
}

// seen is the call as a check takes it. What the endpoint answers to a settled key it has settled.
func (c *ChargeCall) seen() (verify.Call, error) {
	call := verify.Call{
		At: c.At, ID: c.ID, Attempt: c.Attempt, Fence: c.Fence,
		Executed: c.Status == http.StatusOK, Refused: c.Status == http.StatusPaymentRequired, Lost: c.Fate == FateReset,
	}
	var err error
	if call.Lane, call.Offset, err = verify.ParseOrder(c.Order); err != nil {
		return verify.Call{}, err
	}
	if n, err := hex.Decode(call.Body[:], []byte(c.Body)); err != nil || n != len(call.Body) {
		return verify.Call{}, fmt.Errorf("call %s has the body %q, want a SHA-256 in hex", c.Order, c.Body)
	}
	return call, nil
}

func (e *EffectsProof) conclude(report *verify.Report) {
	e.Results = report.Fates
	e.Never = report.Counts[verify.LostCall] + report.Counts[verify.Undrained]
	e.Foreign = report.Counts[verify.PhantomCall] + report.Counts[verify.Mutated]
}

// faults holds the endpoint's own count against the results.
func (e *EffectsProof) faults() []string {
	var faults []string
	for _, one := range []struct {
		count int64
		what  string
	}{
		{e.Calls.Malformed, "calls were malformed"},
		{e.Calls.Unexplained, "calls were repeated without a reason"},
		{e.Calls.Mismatched, "calls used a key again with another body"},
		{e.Calls.ChargedTwice, "orders were charged twice"},
		{e.Calls.OrderViolations, "charges came before an earlier one of their customer"},
	} {
		if one.count > 0 {
			faults = append(faults, thousands(one.count)+" "+one.what)
		}
	}
	if e.Calls.Charged != e.Results[fateDone] || e.Calls.Declined != e.Results[fateDead] {
		faults = append(faults, fmt.Sprintf("the endpoint has charged %s and declined %s, the results say %s and %s",
			thousands(e.Calls.Charged), thousands(e.Calls.Declined), thousands(e.Results[fateDone]), thousands(e.Results[fateDead])))
	}
	return faults
}

// lines are those of the report, by name and text.
func (e *EffectsProof) lines(results *TopicProof) [][2]string {
	c := e.Calls
	return [][2]string{
		{"effects", fmt.Sprintf("%s committed: %s charged, %s declined, %s never called", thousands(e.Committed),
			thousands(c.Charged), thousands(c.Declined), thousands(e.Never))},
		{"calls", fmt.Sprintf("%s: %s answered 500 or 503, %s answers lost, %s late", thousands(c.Calls),
			thousands(c.Failed), thousands(c.Lost), thousands(c.Late))},
		{"repeated", fmt.Sprintf("%s after the charge was made: %s for a lost or failed answer, %s for the kill, %s for a late answer, %s unexplained",
			counted(int(c.Duplicates), "call"), thousands(c.AfterLost), thousands(c.AfterDeath), thousands(c.AfterRetry), thousands(c.Unexplained))},
		{"order", thousands(c.OrderViolations) + " violations: each customer was charged in the order of orders"},
		{"results", fmt.Sprintf("%s relayed: %s confirmed, %s cancelled", thousands(results.Seen),
			counted(int(e.Results[fateDone]), "order"), thousands(e.Results[fateDead]))},
	}
}
