package verify

import (
	"slices"
	"strings"
	"testing"
)

// Of two effects of one key the later is a duplicate: its result is known at once and told first. That is
// no disorder, but of two that are sent it would be.
func TestResultsOfWhatIsNeverSentComeInNoOrder(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]bool{"done": true, "dead": true, "duplicate": false, "conflict": false} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			w := newWorld().run().finish()
			w.plan.Readers, w.plan.Ledger, w.plan.Journal = false, false, false
			w.Reads, w.Rows, w.Outcomes, w.Calls, w.Lanes = nil, nil, nil, nil, nil
			effects := w.sameKey()
			var events []*Record
			for _, r := range w.committed(resultTopic) {
				if r.Partition == effects[0].Partition && slices.ContainsFunc(effects, func(e *Record) bool {
					return strings.Contains(string(r.Value), `"effect_id":"`+string(e.Headers[1].Value))
				}) {
					events = append(events, r)
				}
			}
			events[0].Value, events[1].Value = []byte(strings.Replace(string(events[1].Value), `"status":"done"`, `"status":"`+status+`"`, 1)), events[0].Value
			report, err := Check(w.plan, w.History)
			if err != nil {
				t.Fatal(err)
			}
			if got := report.Counts[ResultOrder] > 0; got != want {
				t.Errorf("told out of order: %t, want %t; found %v", got, want, report.Counts)
			}
		})
	}
}
