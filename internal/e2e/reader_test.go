//go:build chaos && linux

package e2e

import (
	"context"
	"fmt"
	"hash/fnv"
	mathbits "math/bits"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
	"pawl/internal/testkit"
)

// at names a partition of any topic.
type at struct {
	topic     string
	partition int32
}

// watcher is a read_committed reader that follows topics from their start while faults happen, around
// the proxies. Whatever it is given, it was given for good: offsets only grow, and what came of one
// input partition comes in the order of that. It keeps a hash over all that it saw of each partition,
// which the same partition read at rest must have, too: a record of an aborted transaction, or one that
// it was not given, would make another.
type watcher struct {
	name    string
	topics  []string
	grouped bool
	stop    context.CancelFunc
	done    sync.WaitGroup

	mu     sync.Mutex
	next   map[at]int64 // offset behind the last that was seen, markers too
	chains map[at]uint64
	seen   map[at]offsets
	counts map[string]int64 // records, by topic
	roads  map[[2]at]int64  // by output and input partition: the input's last offset
	wrong  []accusation
	failed map[string]int // what brokers said instead of records

	witness *testkit.FetchWitness
	open    map[writing]handed // records without their marker
	ended   map[writing]int64  // the last marker of each
	aborted []abortedRead
}

// accusation is something that one watcher was given wrongly.
type accusation struct {
	at   at
	text string
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

// problemsShown bounds what a check tells of each kind of problem.
const problemsShown = 5

// wrongMax bounds what one watcher tells.
const wrongMax = 20

func newWatcher(name string, grouped bool, topics ...string) *watcher {
	return &watcher{
		name: name, topics: topics, grouped: grouped, next: map[at]int64{}, chains: map[at]uint64{}, seen: map[at]offsets{},
		counts: map[string]int64{}, roads: map[[2]at]int64{}, failed: map[string]int{},
		witness: testkit.NewFetchWitness(), open: map[writing]handed{}, ended: map[writing]int64{},
	}
}

// watch opens one. In a group it begins again where the group has committed whenever partitions are
// assigned, so that it may see things twice then and makes no hash.
func watch(ctx context.Context, t testing.TB, name string, brokers []string, group string, topics ...string) *watcher {
	t.Helper()
	v := newWatcher(name, group != "", topics...)
	options := []kgo.Opt{
		kgo.SeedBrokers(brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeTopics(topics...), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.Dialer(v.witness.Dial),
	}
	if group != "" {
		options = append(options, kgo.ConsumerGroup(group), kgo.OnPartitionsAssigned(v.forget))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, v.stop = context.WithCancel(ctx)
	v.done.Go(func() {
		defer client.CloseAllowingRebalance()
		for ctx.Err() == nil {
			fetches := client.PollFetches(ctx)
			v.mu.Lock()
			// Most are a broker that is down, and the client tries again. A broker that has just come back may
			// also make it believe that records are lost; whether any are is for the hash to say.
			fetches.EachError(func(_ string, _ int32, err error) { v.failed[err.Error()]++ })
			for _, fetch := range fetches {
				for _, topic := range fetch.Topics {
					for _, partition := range topic.Partitions {
						for _, r := range partition.Records {
							v.take(r)
							v.follow(r, topic.TopicID)
						}
					}
				}
			}
			v.mu.Unlock()
		}
	})
	t.Cleanup(v.close)
	return v
}

// forget lets partitions that are assigned begin wherever the group wants.
func (v *watcher) forget(_ context.Context, _ *kgo.Client, assigned map[string][]int32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for topic, partitions := range assigned {
		for _, partition := range partitions {
			delete(v.next, at{topic, partition})
			v.forgetWriters(at{topic, partition})
			for road := range v.roads {
				if road[0] == (at{topic, partition}) {
					delete(v.roads, road)
				}
			}
		}
	}
}

func (v *watcher) accuse(here at, format string, args ...any) {
	if len(v.wrong) < wrongMax {
		v.wrong = append(v.wrong, accusation{here, v.name + ": " + fmt.Sprintf(format, args...)})
	}
}

func (v *watcher) take(r *kgo.Record) {
	here := at{r.Topic, r.Partition}
	if next, seen := v.next[here]; seen && r.Offset < next {
		v.accuse(here, "%s/%d: offset %d after %d", r.Topic, r.Partition, r.Offset, next-1)
	}
	v.next[here] = r.Offset + 1
	if r.Attrs.IsControl() {
		return
	}
	v.counts[r.Topic]++
	v.chains[here] = chain(v.chains[here], r)
	v.seen[here] = v.seen[here].with(r.Offset)
	source, err := sourceOf(r)
	if err != nil {
		return // a result event
	}
	road := [2]at{here, {source.Topic, source.Partition}}
	// Of one input there may be several records, so that its offset may come again, but only at once.
	if last, seen := v.roads[road]; seen && source.Offset < last {
		v.accuse(here, "%s/%d/%d is of %s, after offset %d of that", r.Topic, r.Partition, r.Offset, source, last)
	}
	v.roads[road] = source.Offset
}

// offsets is a set of offsets of one partition, a bit each.
type offsets []uint64

func (o offsets) with(offset int64) offsets {
	word := int(offset / 64)
	if word >= len(o) {
		o = append(o, make(offsets, max(word+1-len(o), len(o)))...)
	}
	o[word] |= 1 << (offset % 64)
	return o
}

// without lists the first of those that another set lacks, and counts all.
func (o offsets) without(other offsets) (first []int64, count int) {
	for word, bits := range o {
		if word < len(other) {
			bits &^= other[word]
		}
		for ; bits != 0; bits &= bits - 1 {
			if count++; len(first) < problemsShown {
				first = append(first, int64(word*64+mathbits.TrailingZeros64(bits)))
			}
		}
	}
	return first, count
}

// chain makes a hash over a record and all before it.
func chain(before uint64, r *kgo.Record) uint64 {
	hash := fnv.New64a()
	_, _ = fmt.Fprintf(hash, "%d %d %d %d ", before, r.Offset, len(r.Key), len(r.Value))
	_, _ = hash.Write(r.Key)
	_, _ = hash.Write(r.Value)
	return hash.Sum64()
}

// count is the number of records of a topic so far.
func (v *watcher) count(topic string) int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.counts[topic]
}

// reached tells whether the watcher has seen all below the given ends of a topic.
func (v *watcher) reached(topic string, ends map[int32]int64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for partition, end := range ends {
		if v.next[at{topic, partition}] < end {
			return false
		}
	}
	return true
}

func (v *watcher) close() {
	v.stop()
	v.done.Wait()
}
