package txn

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// The table says for each answer of End, asked for a commit and not, what comes next. It is complete:
// every combination has exactly one row.
func TestJudge(t *testing.T) {
	t.Parallel()
	type answer struct{ wanted, committed, equal, failed bool }
	table := map[answer]verdict{
		// Committed, and told so.
		{wanted: true, committed: true, equal: true}: advance,
		// Not asked to compare: a commit that was told needs no proof.
		{wanted: true, committed: true, equal: false}: advance,
		// Rule 3.
		{wanted: true, committed: false, equal: true}:  redo,
		{wanted: true, committed: false, equal: false}: rebuild,
		// An abort that we wanted cannot have committed, so nothing is compared.
		{wanted: false, committed: false, equal: true}:  redo,
		{wanted: false, committed: false, equal: false}: redo,
		// Cannot be; what a broker says it has committed is committed.
		{wanted: false, committed: true, equal: true}:  advance,
		{wanted: false, committed: true, equal: false}: advance,
		// Rule 2, whatever else was said.
		{wanted: true, committed: true, equal: true, failed: true}:    rebuild,
		{wanted: true, committed: true, equal: false, failed: true}:   rebuild,
		{wanted: true, committed: false, equal: true, failed: true}:   rebuild,
		{wanted: true, committed: false, equal: false, failed: true}:  rebuild,
		{wanted: false, committed: false, equal: true, failed: true}:  rebuild,
		{wanted: false, committed: false, equal: false, failed: true}: rebuild,
		{wanted: false, committed: true, equal: true, failed: true}:   rebuild,
		{wanted: false, committed: true, equal: false, failed: true}:  rebuild,
	}
	if len(table) != 16 {
		t.Fatalf("the table has %d rows, want 16", len(table))
	}
	for a, want := range table {
		for n := range 2 * (fencesMax + 2) {
			fences, stale := n/2, n%2 == 1
			e := end{wanted: a.wanted, committed: a.committed, offsetsEqual: a.equal, fences: fences, stale: stale}
			if a.failed {
				e.err = errors.New("no answer")
			}
			expected := want
			if stale && want == redo {
				expected = rebuild // the same session would fail in the same way
			}
			if fences >= fencesMax {
				expected = exit // rule 4, whatever else was said
			}
			if got := judge(e); got != expected {
				t.Errorf("%+v: %s, want %s", e, got, expected)
			}
		}
	}
}

func TestVerdictsHaveNames(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, v := range []verdict{advance, redo, rebuild, exit} {
		if seen[v.String()] || v.String() == "" {
			t.Errorf("verdict %d is called %q", v, v)
		}
		seen[v.String()] = true
	}
}

// Rule 4 counts within a minute: a takeover a minute ago is a restart that is over.
func TestFencesAreForgottenAfterAMinute(t *testing.T) {
	t.Parallel()
	var f fences
	start := time.Now()
	for i, c := range []struct {
		at   time.Duration
		want int
	}{
		{0, 1},
		{10 * time.Second, 2},
		{fencesWithin - time.Nanosecond, 3},
		{fencesWithin, 3},               // the first is gone, this one is new
		{fencesWithin + time.Second, 4}, // the second is 51 s old
		{10 * time.Minute, 1},           // all are gone
	} {
		f.add(start.Add(c.at))
		if got := f.count(start.Add(c.at)); got != c.want {
			t.Errorf("takeover %d at %s: %d count, want %d", i, c.at, got, c.want)
		}
	}
	if got := f.count(start.Add(time.Hour)); got != 0 || len(f.at) != 0 {
		t.Errorf("an hour later %d count and %d are remembered, want none", got, len(f.at))
	}
}

func TestReasonsOfEnds(t *testing.T) {
	t.Parallel()
	wrapped := func(err error) error { return fmt.Errorf("end: %w", err) }
	for name, c := range map[string]struct {
		e     ending
		cause Reason
		want  Reason
	}{
		"committed":                   {ending{end: end{wanted: true, committed: true}}, ReasonNone, ReasonNone},
		"rebalance":                   {ending{end: end{wanted: true, offsetsEqual: true}}, ReasonNone, ReasonRebalance},
		"offsets differ":              {ending{end: end{wanted: true}}, ReasonNone, ReasonOffsets},
		"no answer":                   {ending{end: end{wanted: true, err: errors.New("cut")}}, ReasonNone, ReasonUnknown},
		"handler":                     {ending{}, ReasonHandler, ReasonHandler},
		"handler, then no answer":     {ending{end: end{err: errors.New("cut")}}, ReasonHandler, ReasonHandler},
		"produce":                     {ending{produce: errors.New("cut")}, ReasonProduce, ReasonProduce},
		"begin":                       {ending{end: end{err: &beginError{errors.New("in one")}}}, ReasonProduce, ReasonBegin},
		"producer fenced":             {ending{end: end{err: wrapped(kerr.ProducerFenced)}}, ReasonNone, ReasonFenced},
		"member fenced":               {ending{end: end{err: wrapped(kerr.FencedInstanceID)}}, ReasonNone, ReasonFenced},
		"epoch fenced while it wrote": {ending{produce: wrapped(kerr.InvalidProducerEpoch)}, ReasonProduce, ReasonFenced},
	} {
		if got := reasonOf(c.e, c.cause); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
