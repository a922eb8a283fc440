//go:build chaos && linux

package e2e

import (
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pawl/internal/evidence"
)

// report tells what a tempest came to, keeps it, and fails the test for whatever is wrong, with the command
// that does the same again.
func (w *tempest) report(t *testing.T, o *outcome) {
	t.Helper()
	bit, kinds := w.bitten()
	w.sane(o, bit, len(kinds))
	result := w.result(o, kinds)
	keep(t, filepath.Join(w.folder, "deeds.json"), w.deeds)
	path := filepath.Join(w.folder, "result.json")
	if *tempestResult != "" {
		path = *tempestResult
	}
	if err := evidence.Write(path, result); err != nil {
		t.Error(err)
	}
	t.Logf("%s", evidence.Markdown([]evidence.Result{result}, "", ""))
	if len(o.aborted) > 0 {
		keep(t, filepath.Join(w.folder, "aborted-reads.json"), o.aborted)
	}
	for _, one := range o.wrong {
		if one.kind == kindBroker {
			t.Logf("%s: %s", one.kind, one.text)
			continue
		}
		t.Errorf("%s: %s", one.kind, one.text)
	}
	for _, end := range w.ends {
		t.Logf("ended by itself: %s", end)
	}
	if t.Failed() {
		t.Logf("do the same again: %s", result.Command)
	}
}

// bitten counts the deeds that were seen to bite, and by kind.
func (w *tempest) bitten() (bit int, kinds map[string]int64) {
	kinds = map[string]int64{}
	for _, d := range w.deeds {
		if d.Proof != "" {
			bit++
			kinds[d.Trouble]++
		}
	}
	return bit, kinds
}

// sane fails a run that shows nothing.
func (w *tempest) sane(o *outcome, bit, kinds int) {
	for _, one := range []struct {
		what string
		have int64
		want int64
	}{
		{"faults that bit", int64(bit), faultsMin},
		{"kinds of them", int64(kinds), kindsMin},
		{"records copied", o.counts[w.output], 1},
		{"effects", o.counts[w.application+".effects"], 1},
		{"charges", w.till.counts.charged, 1},
		{"charges given back", w.till.counts.refunded, 1},
		{"aborted transactions", o.outcomes.Aborted, 1},
		{"answers of the endpoint lost", w.till.counts.lost, 1},
		{"dead letters", o.counts[w.deadLetter], 1},
	} {
		if one.have < one.want && *tempestScript == "" {
			o.accuse("rig", "%s: %d, want at least %d: the run shows nothing", one.what, one.have, one.want)
		}
	}
}

func (w *tempest) result(o *outcome, kinds map[string]int64) evidence.Result {
	calls := w.till.counts
	var aborted, written int64
	for _, topic := range w.outputs() {
		aborted += o.outcomes.Topics[topic].Aborted
		written += o.counts[topic]
	}
	took := time.Since(o.began)
	command := fmt.Sprintf("make tempest SEED=%d DURATION=%s RATE=%v ORDERS=%v", o.script.Seed, *tempestDuration, *tempestRate, *tempestOrders)
	if *tempestScript != "" {
		command = "go test -tags chaos ./internal/e2e -run Tempest -tempest.script FILE"
	}
	result := evidence.Result{
		Kind: evidence.Chaos, Title: fmt.Sprintf("%s of faults on three brokers", *tempestDuration), Command: command,
		Seed: strconv.FormatUint(o.script.Seed, 10), Commit: commit(), Date: o.began.UTC().Truncate(time.Second), Seconds: took.Seconds(),
		Counts: []evidence.Count{
			{Name: "inputs", Count: o.counts[w.input] + o.counts[w.application+".orders"] + o.counts[w.application+".effect-results"]},
			{Name: "records copied", Count: o.counts[w.output]},
			{Name: "orders", Count: o.counts[w.application+".orders"]},
			{Name: "records written and committed", Count: written},
			{Name: "records written and aborted", Count: aborted},
			{Name: "inputs whose outcome the checker compared with its model", Count: o.saw.Modelled},
			{Name: "effects that the checker compared with the ledger", Count: o.saw.Rows},
			{Name: "calls that it compared with their effects", Count: o.saw.Calls},
			{Name: "transactions aborted", Count: o.outcomes.Aborted},
			{Name: "dead letters", Count: o.counts[w.deadLetter]},
			{Name: "effects", Count: o.counts[w.application+".effects"]},
			{Name: "results", Count: o.counts[w.application+".effect-results"]},
			{Name: "calls", Count: calls.calls},
			{Name: "calls carried out", Count: calls.settled},
			{Name: "calls that failed", Count: calls.failed},
			{Name: "answers lost at the endpoint", Count: calls.lost},
			{Name: "calls made again after they were carried out", Count: calls.explained()},
			{Name: "of these, the answer was lost or bad", Count: calls.afterLost},
			{Name: "of these, the lane had changed hands", Count: calls.afterTakeover},
			{Name: "of these, the caller had no answer", Count: calls.afterRetry},
			{Name: "calls of a paused sender", Count: calls.stale},
			{Name: "processes that ended by themselves and were started again", Count: int64(len(w.ends))},
			{Name: "faults tried", Count: int64(len(w.deeds))},
		},
		Figures: []evidence.Fact{
			{Name: "group protocol", Text: w.protocol},
			{Name: "input rate", Text: fmt.Sprintf("%.0f records/s", float64(o.produced.copies+o.produced.orders)/w.raged.Seconds())},
			{Name: "from SIGKILL until every partition went on", Text: quantiles(w.takeovers)},
			{Name: "from the last heal to rest", Text: fmt.Sprintf("%.1f s", o.drain.Seconds())},
			{Name: "money, in minor units", Text: o.money},
			{Name: "full disk", Text: map[bool]string{true: "a disk of its own, filled", false: "the database made read-only in its place"}[w.disk != ""]},
		},
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		result.Faults = append(result.Faults, evidence.Count{Name: kind, Count: kinds[kind]})
	}
	for _, one := range o.wrong {
		if one.kind == kindBroker {
			result.Figures = append(result.Figures, evidence.Fact{Name: "aborted records that a broker gave a plain reader as committed", Text: one.text})
			continue
		}
		result.Violations = append(result.Violations, evidence.Fact{Name: one.kind, Text: one.text})
	}
	return result
}

// quantiles of times, in words.
func quantiles(times []time.Duration) string {
	if len(times) == 0 {
		return "not measured"
	}
	times = slices.Sorted(slices.Values(times))
	at := func(q float64) float64 { return times[min(len(times)-1, int(q*float64(len(times))))].Seconds() }
	longer := 0
	for _, took := range times {
		if took >= takeoverTimeout {
			longer++
		}
	}
	return fmt.Sprintf("p50 %.1f s, p99 %.1f s, of %d; %d took more than %s", at(0.5), at(0.99), len(times), longer, takeoverTimeout)
}

// commit names the tree that is tested.
func commit() string {
	text, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
