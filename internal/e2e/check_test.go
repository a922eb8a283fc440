//go:build chaos && linux

package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/load"
	"pawl/internal/message"
	"pawl/internal/testkit"
)

// scanTimeout bounds the reading of all topics of a test.
const scanTimeout = 2 * time.Minute

// hash stands for a value.
type hash [sha256.Size]byte

// spot is one record of the input.
type spot struct {
	partition int32
	offset    int64
}

// road is a way that records take: from a partition of the input to one of the output.
type road struct{ from, to int32 }

// problemsShown bounds what a check tells of each kind of problem.
const problemsShown = 5

// check compares the output of the handler copy with its input: everything once, unchanged, and in
// order along each road.
type check struct {
	topic  string // input
	inputs map[spot]hash
	values map[hash]int // of the inputs
	seen   map[spot]int
	last   map[road]int64

	kinds    []string
	problems map[string][]string // by kind
	counts   map[string]int
}

func newCheck(topic string) *check {
	return &check{
		topic: topic, inputs: map[spot]hash{}, values: map[hash]int{}, seen: map[spot]int{}, last: map[road]int64{},
		problems: map[string][]string{}, counts: map[string]int{},
	}
}

func (c *check) problem(kind, format string, args ...any) {
	if c.counts[kind] == 0 {
		c.kinds = append(c.kinds, kind)
	}
	if c.counts[kind]++; c.counts[kind] <= problemsShown {
		c.problems[kind] = append(c.problems[kind], fmt.Sprintf(format, args...))
	}
}

// in takes a record of the input.
func (c *check) in(r *kgo.Record) {
	value := hash(sha256.Sum256(r.Value))
	c.inputs[spot{r.Partition, r.Offset}] = value
	if c.values[value]++; c.values[value] > 1 {
		c.problem("input not unique", "%d/%d", r.Partition, r.Offset)
	}
}

// out takes a record of the output, those of one partition in order.
func (c *check) out(r *kgo.Record) {
	at := fmt.Sprintf("output %d/%d", r.Partition, r.Offset)
	source, err := sourceOf(r)
	if err != nil || source.Topic != c.topic {
		c.problem("of unknown source", "%s: %v %v", at, source, err)
		return
	}
	from := spot{source.Partition, source.Offset}
	want, ok := c.inputs[from]
	if !ok {
		c.problem("of no input", "%s: %v", at, source)
		return
	}
	if hash(sha256.Sum256(r.Value)) != want {
		c.problem("changed", "%s: not the value of %v", at, source)
	}
	if c.seen[from]++; c.seen[from] > 1 {
		c.problem("duplicate", "%s: %v for the %d. time", at, source, c.seen[from])
	}
	way := road{from.partition, r.Partition}
	if last, ok := c.last[way]; ok && from.offset < last {
		c.problem("out of order", "%s: %v after offset %d", at, source, last)
	}
	c.last[way] = max(c.last[way], from.offset)
}

// sourceOf reads the header that names the input of an output.
func sourceOf(r *kgo.Record) (message.Source, error) {
	for _, h := range r.Headers {
		if h.Key == message.HeaderSource {
			return message.ParseSource(string(h.Value))
		}
	}
	return message.Source{}, fmt.Errorf("no header %s", message.HeaderSource)
}

// missing finds the inputs that never came out. Call it after the last record.
func (c *check) missing() {
	for at := range c.inputs {
		if c.seen[at] == 0 {
			c.problem("missing", "input %d/%d", at.partition, at.offset)
		}
	}
}

// tell reports all problems as errors of the test.
func (c *check) tell(t testing.TB) {
	t.Helper()
	for _, kind := range c.kinds {
		t.Errorf("%s: %d records, such as %q", kind, c.counts[kind], c.problems[kind])
	}
}

// verify reads the topics, from the given offsets of the input where it names some, and fails the
// test unless exactly the inputs came out, in order, and nothing went to the dead letters or hangs
// in an open transaction. It returns the check and what became of the transactions.
func (r *rig) verify(t testing.TB, from map[int32]int64) (*check, load.Outcomes) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scanTimeout)
	defer cancel()
	options := []kgo.Opt{kgo.SeedBrokers(r.kafka.InternalBrokers()...)}
	c := newCheck(r.input)
	if err := load.Scan(ctx, options, []string{r.input}, func(record *kgo.Record) {
		if record.Offset >= from[record.Partition] {
			c.in(record)
		}
	}); err != nil {
		t.Fatal(err)
	}
	r.awaitStable(t)
	if err := load.Scan(ctx, options, []string{r.output}, c.out); err != nil {
		t.Fatal(err)
	}
	c.missing()
	c.tell(t)
	for partition, end := range testkit.EndOffsets(t, r.kafka.InternalBrokers(), r.deadLetter) {
		if end != 0 {
			t.Errorf("partition %d of the dead letters has come to offset %d, want none ever written", partition, end)
		}
	}
	outcomes, err := load.ScanOutcomes(ctx, options, []string{r.output})
	if err != nil {
		t.Fatal(err)
	}
	if committed := outcomes.Topics[r.output].Committed; committed != int64(len(c.inputs)) {
		t.Errorf("by the markers in the log %d output records are committed, want %d", committed, len(c.inputs))
	}
	return c, outcomes
}

// awaitStable waits until no transaction is open in the output.
func (r *rig) awaitStable(t testing.TB) {
	t.Helper()
	testkit.WaitFor(t, scanTimeout, "the end of all transactions", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), lookTimeout)
		defer cancel()
		stable, err := r.admin.ListCommittedOffsets(ctx, r.output)
		if err != nil || stable.Error() != nil {
			return false
		}
		ends, err := r.admin.ListEndOffsets(ctx, r.output)
		if err != nil || ends.Error() != nil {
			return false
		}
		for partition, end := range ends[r.output] {
			if stable[r.output][partition].Offset != end.Offset {
				return false
			}
		}
		return true
	})
}
