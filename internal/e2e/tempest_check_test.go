//go:build chaos && linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/load"
	"pawl/internal/verify"
)

// outcome is what a tempest came to.
type outcome struct {
	script   script
	began    time.Time
	produced produced
	drain    time.Duration
	counts   map[string]int64 // committed records, by topic
	outcomes load.Outcomes
	saw      verify.Saw
	money    string // one line about what was conserved
	aborted  []abortedRead
	wrong    []wrong
}

// wrong is something that must never be.
type wrong struct{ kind, text string }

func (o *outcome) accuse(kind, format string, args ...any) {
	o.wrong = append(o.wrong, wrong{kind, fmt.Sprintf(format, args...)})
}

// check reads everything at rest and holds it against what was produced, called and seen.
func (w *tempest) check(t *testing.T, o *outcome) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*scanTimeout)
	defer cancel()
	options := []kgo.Opt{kgo.SeedBrokers(w.kafka.InternalBrokers()...)}
	w.awaitReaders(t, o)
	copies, ledger, chains, there := newCopies(w.input), newAccounts(), map[at]uint64{}, map[at]offsets{}
	o.counts = map[string]int64{}
	if err := load.Scan(ctx, options, []string{w.input, w.application + ".orders"}, func(r *kgo.Record) {
		o.counts[r.Topic]++
		if r.Topic == w.input {
			copies.in(r)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := load.Scan(ctx, options, w.outputs(), func(r *kgo.Record) {
		o.counts[r.Topic]++
		here := at{r.Topic, r.Partition}
		chains[here] = chain(chains[here], r)
		there[here] = there[here].with(r.Offset)
		switch r.Topic {
		case w.output:
			copies.out(r)
		case w.application + ".priced":
			ledger.event(r)
		case w.application + ".ledger":
			ledger.journal(r)
		default:
		}
	}); err != nil {
		t.Fatal(err)
	}
	copies.conclude(o)
	o.money = ledger.conclude(w.till, o)
	deceived := map[at]bool{}
	for _, v := range w.watchers {
		for _, here := range v.conclude(o, chains, there) {
			deceived[here] = true
		}
	}
	for here := range deceived {
		w.askReplicas(ctx, here, there[here], o)
	}
	for _, text := range w.till.wrong {
		o.accuse("call", "%s", text)
	}
	if o.drain > drainedWithin {
		o.accuse("slow", "at rest only %s after the last fault, want %s", o.drain, drainedWithin)
	}
	for _, end := range w.ends {
		if !endsLawfully(end) {
			o.accuse("crash", "%s", end)
		}
	}
	if o.counts[w.input] != o.produced.copies || o.counts[w.application+".orders"] != o.produced.orders {
		o.accuse("rig", "the inputs hold %v, the producers had %+v acknowledged", o.counts, o.produced)
	}
	if effects, results := o.counts[w.application+".effects"], o.counts[w.application+".effect-results"]; effects != results {
		o.accuse("results", "%d effects have %d results", effects, results)
	}
	if err := w.verify(ctx, o); err != nil {
		t.Fatal(err)
	}
	var err error
	if o.outcomes, err = load.ScanOutcomes(ctx, options, w.outputs()); err != nil {
		t.Fatal(err)
	}
	for topic, count := range o.counts {
		if of, transactional := o.outcomes.Topics[topic]; transactional && of.Committed != count {
			o.accuse("aborted read", "%s has %d committed records by its markers, a reader was given %d", topic, of.Committed, count)
		}
	}
}

// awaitReaders lets the readers that follow come to the end.
func (w *tempest) awaitReaders(t *testing.T, o *outcome) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readersTimeout)
	defer cancel()
	stable, err := w.admin.ListCommittedOffsets(ctx, w.outputs()...)
	if err == nil {
		err = stable.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	high, err := w.admin.ListEndOffsets(ctx, w.outputs()...)
	if err == nil {
		err = high.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	for topic := range high {
		for partition, end := range high[topic] {
			if stable[topic][partition].Offset != end.Offset {
				o.accuse("hanging", "%s/%d has an open transaction from %d on, and ends at %d", topic, partition, stable[topic][partition].Offset, end.Offset)
			}
		}
	}
	for _, v := range w.watchers {
		v.mu.Lock()
		topics := v.counts
		v.mu.Unlock()
		for topic := range topics {
			if !until(ctx, func() bool { return v.reached(topic, ends(stable, topic)) }) {
				o.accuse("reader", "%s has not come to the end of %s: %v", v.name, topic, v.failed)
			}
		}
		v.close()
	}
}

// kindBroker is what readers were given wrongly by brokers that did not list what was aborted (docs/verification.md).
// It is told, and no mistake of Pawl, whose own readers wait for the markers.
const kindBroker = "broker"

// conclude holds what a watcher saw against what is there at rest. One in a group has read some things
// twice, so that only its order counts. It lists the partitions of which it was given something else for which no
// broker answers.
func (v *watcher) conclude(o *outcome, chains map[at]uint64, there map[at]offsets) (deceived []at) {
	unlisted := v.unlisted()
	kind := func(byBroker bool) string {
		if byBroker {
			return kindBroker
		}
		return "reader"
	}
	for _, read := range v.aborted {
		o.accuse(kind(read.BrokerWrong), "%s", read)
	}
	o.aborted = append(o.aborted, v.aborted...)
	for _, one := range v.wrong {
		o.accuse(kind(unlisted[one.at] > 0), "%s", one.text)
	}
	var seen int64
	for _, count := range v.counts {
		seen += count
	}
	if seen == 0 {
		o.accuse("rig", "%s saw nothing: %v", v.name, v.failed)
	}
	if v.grouped {
		return nil
	}
	for here, want := range chains {
		if slices.Contains(v.topics, here.topic) && v.chains[here] != want {
			more, extra := v.seen[here].without(there[here])
			less, missing := there[here].without(v.seen[here])
			byBroker := missing == 0 && extra > 0 && extra == unlisted[here]
			o.accuse(kind(byBroker), "%s was given something else of %s/%d than is there now: %d records that are not, from offsets %d on, and %d were not given, from offsets %d on",
				v.name, here.topic, here.partition, extra, more, missing, less)
			if !byBroker {
				deceived = append(deceived, here)
			}
		}
	}
	return deceived
}

// askReplicas reads a partition, of which a reader was given something else than is there now, from each of
// its replicas, and tells what each says: the reader may have had it from another one.
func (w *tempest) askReplicas(ctx context.Context, here at, there offsets, o *outcome) {
	for node := range int32(w.kafka.Nodes()) {
		if err := w.lead(ctx, here, node); err != nil {
			o.accuse("rig", "ask broker %d for %s/%d: %v", node, here.topic, here.partition, err)
			continue
		}
		var seen offsets
		if err := load.Scan(ctx, []kgo.Opt{kgo.SeedBrokers(w.kafka.InternalBrokers()...)}, []string{here.topic}, func(r *kgo.Record) {
			if r.Partition == here.partition {
				seen = seen.with(r.Offset)
			}
		}); err != nil {
			o.accuse("rig", "read %s/%d from broker %d: %v", here.topic, here.partition, node, err)
		}
		more, extra := seen.without(there)
		less, missing := there.without(seen)
		o.accuse("reader", "broker %d as the leader of %s/%d gives %d committed records more than the markers say, from offsets %d on, and %d less, from offsets %d on",
			node, here.topic, here.partition, extra, more, missing, less)
	}
}

// lead makes a broker the leader of a partition.
func (w *tempest) lead(ctx context.Context, here at, node int32) error {
	known, err := w.replicas(ctx, here.topic)
	if err != nil {
		return err
	}
	brokers := slices.DeleteFunc(slices.Clone(known[here.partition].Replicas), func(broker int32) bool { return broker == node })
	if err := w.reassign(ctx, here.topic, map[int32][]int32{here.partition: append([]int32{node}, brokers...)}); err != nil {
		return err
	}
	elect := kadm.TopicsSet{}
	elect.Add(here.topic, here.partition)
	_, _ = w.admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, elect) // an error where it leads already
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if !until(ctx, func() bool {
		leader, err := w.leaderOf(ctx, here.topic, here.partition)
		return err == nil && leader == node
	}) {
		return errors.New("it does not come to lead")
	}
	return nil
}

// copies compares an output of the handler copy with its input, in little memory: offsets of an input that is
// not transactional are dense.
type copies struct {
	topic  string
	seed   maphash.Seed
	inputs map[int32][]copied
	last   map[[2]int32]int64
	wrong  map[string][]string
	counts map[string]int
}

type copied struct {
	hash uint64
	seen uint8
}

func newCopies(topic string) *copies {
	return &copies{topic: topic, seed: maphash.MakeSeed(), inputs: map[int32][]copied{}, last: map[[2]int32]int64{}, wrong: map[string][]string{}, counts: map[string]int{}}
}

func (c *copies) accuse(kind, format string, args ...any) {
	if c.counts[kind]++; c.counts[kind] <= problemsShown {
		c.wrong[kind] = append(c.wrong[kind], fmt.Sprintf(format, args...))
	}
}

func (c *copies) in(r *kgo.Record) {
	for int64(len(c.inputs[r.Partition])) < r.Offset {
		c.accuse("rig", "the input %d has no offset %d", r.Partition, len(c.inputs[r.Partition]))
		c.inputs[r.Partition] = append(c.inputs[r.Partition], copied{})
	}
	c.inputs[r.Partition] = append(c.inputs[r.Partition], copied{hash: maphash.Bytes(c.seed, r.Value)})
}

func (c *copies) out(r *kgo.Record) {
	source, err := sourceOf(r)
	all := c.inputs[source.Partition]
	if err != nil || source.Topic != c.topic || source.Offset >= int64(len(all)) {
		c.accuse("phantom", "output %d/%d is of %v (%v)", r.Partition, r.Offset, source, err)
		return
	}
	one := &all[source.Offset]
	if one.seen < 2 {
		one.seen++
	}
	if one.seen > 1 {
		c.accuse("duplicate", "output %d/%d is of %v again", r.Partition, r.Offset, source)
	}
	if one.hash != maphash.Bytes(c.seed, r.Value) {
		c.accuse("corrupt", "output %d/%d is not the value of %v", r.Partition, r.Offset, source)
	}
	road := [2]int32{source.Partition, r.Partition}
	if last, known := c.last[road]; known && source.Offset <= last {
		c.accuse("reordered", "output %d/%d is of %v, after offset %d", r.Partition, r.Offset, source, last)
	}
	c.last[road] = source.Offset
}

func (c *copies) conclude(o *outcome) {
	for partition, all := range c.inputs {
		for offset, one := range all {
			if one.seen == 0 {
				c.accuse("lost", "input %d/%d", partition, offset)
			}
		}
	}
	for kind, texts := range c.wrong {
		o.accuse(kind, "%d, such as %q", c.counts[kind], texts)
	}
}

func endsLawfully(end string) bool {
	for _, sign := range []string{"panic:", "fatal error:", "exit status 2"} {
		if strings.Contains(end, sign) {
			return false
		}
	}
	return true
}

// orderEvent is what a record of the priced orders says of an order.
type orderEvent struct {
	OrderID   string `json:"order_id"`
	Customer  string `json:"customer_id"`
	Currency  string `json:"currency"`
	Total     string `json:"total"`
	Placement string `json:"placement"`
	Status    string `json:"status"`
}

// journalEntry is a record of the customers' ledger.
type journalEntry struct {
	ID       string `json:"journal_id"`
	Customer string `json:"customer_id"`
	Currency string `json:"currency"`
	Postings []struct {
		Account string `json:"account"`
		Amount  string `json:"amount"`
	} `json:"postings"`
}

func decode[T any](r *kgo.Record) (T, error) {
	var value T
	err := json.Unmarshal(r.Value, &value)
	return value, err
}
