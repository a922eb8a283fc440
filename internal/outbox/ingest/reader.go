package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Limits of what is read ahead of the ledger.
const (
	aheadBytesMax = 1 << 20   // payload of a lane that waits for it; then it is not read on
	fetchLaneMax  = 256 << 10 // of a lane in one fetch, as it is compressed: what a pause reads in vain
	fetchAllMax   = 16 << 20
)

// reader reads the lanes of a process with one client, so that a broker answers one fetch for all of them: a
// fetch for each lane costs broker and client several times as much where lanes get a little at a time. A lane
// that waits for the ledger is not read on and disturbs no other.
//
// What is read changes only between two polls, so that records of a lane's last session can't get into its next
// one, which may have begun further back: those between would be skipped.
type reader struct {
	client *kgo.Client
	topic  string

	mu        sync.Mutex
	feeds     map[int32]*feed
	changes   []change
	interrupt context.CancelFunc // ends the poll that is under way
}

// change begins or ends what a lane is fed with.
type change struct {
	feed *feed
	at   int64 // the first offset; -1 ends it
}

// feed holds what was read of a lane and is not taken yet. Its fields belong to the reader's lock.
type feed struct {
	reader *reader
	lane   int32
	ready  chan struct{} // has room for one

	portions []portion
	bytes    int
	paused   bool
}

// portion is what one fetch has brought for a lane.
type portion struct {
	kgo.FetchPartition

	topicID [16]byte
}

func openReader(c Config) (*reader, error) {
	client, err := kgo.NewClient(c.reader(fetchAllMax, fetchLaneMax)...)
	if err != nil {
		return nil, fmt.Errorf("open a reader: %w", err)
	}
	return &reader{client: client, topic: c.Topic, feeds: map[int32]*feed{}, interrupt: func() {}}, nil
}

// run reads until ctx ends.
func (r *reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		r.deliver(r.poll(ctx))
	}
}

// open begins to read a lane. It must not be open.
func (r *reader) open(lane int32, at int64) *feed {
	f := &feed{reader: r, lane: lane, ready: make(chan struct{}, 1)}
	r.change(change{f, at})
	return f
}

func (f *feed) close() { f.reader.change(change{f, -1}) }

func (r *reader) change(c change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, c)
	r.interrupt()
}

// poll makes the changes that are due and waits for records, at most until others are.
func (r *reader) poll(ctx context.Context) kgo.Fetches {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.mu.Lock()
	changes := r.changes
	r.changes, r.interrupt = nil, cancel
	r.mu.Unlock()
	for _, c := range changes {
		r.apply(c)
	}
	fetches := r.client.PollFetches(ctx)
	if err := ctx.Err(); err != nil && errors.Is(fetches.Err0(), err) {
		return nil // it was interrupted, and brought nothing
	}
	return fetches
}

// apply runs between two polls, and outside the lock where the client may wait for fetches that are under way.
func (r *reader) apply(c change) {
	lane := c.feed.lane
	if c.at >= 0 {
		r.mu.Lock()
		r.feeds[lane] = c.feed
		r.mu.Unlock()
		r.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{r.topic: {lane: kgo.NewOffset().At(c.at)}})
		return
	}
	r.client.RemoveConsumePartitions(map[string][]int32{r.topic: {lane}})
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.feeds, lane)
	r.pause(c.feed, false)
}

// deliver gives each lane what is its, and all of them an error that is of none.
func (r *reader) deliver(fetches kgo.Fetches) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, fetch := range fetches {
		for _, topic := range fetch.Topics {
			for _, p := range topic.Partitions {
				if f := r.feeds[p.Partition]; f != nil && topic.Topic == r.topic {
					f.add(portion{p, topic.TopicID})
					continue
				}
				if p.Err == nil || topic.Topic == r.topic && p.Partition >= 0 {
					continue
				}
				for _, f := range r.feeds {
					f.add(portion{p, topic.TopicID})
				}
			}
		}
	}
}

// add must be called under the lock.
func (f *feed) add(p portion) {
	f.portions = append(f.portions, p)
	for _, record := range p.Records {
		f.bytes += len(record.Key) + len(record.Value)
	}
	if f.bytes >= aheadBytesMax {
		f.reader.pause(f, true)
	}
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// pause must be called under the lock. What the client has of the lane by then is read again.
func (r *reader) pause(f *feed, paused bool) {
	if f.paused == paused {
		return
	}
	f.paused = paused
	lanes := map[string][]int32{r.topic: {f.lane}}
	if paused {
		r.client.PauseFetchPartitions(lanes)
	} else {
		r.client.ResumeFetchPartitions(lanes)
	}
}

// take waits for what was read of the lane, in its order. It gives nothing where ctx ends first.
func (f *feed) take(ctx context.Context) []portion {
	select {
	case <-f.ready:
	case <-ctx.Done():
		return nil
	}
	f.reader.mu.Lock()
	defer f.reader.mu.Unlock()
	taken := f.portions
	f.portions, f.bytes = nil, 0
	f.reader.pause(f, false)
	return taken
}
