package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// View is what of a log is read.
type View int8

// The views, by their numbers in the protocol.
const (
	Uncommitted View = 0 // everything, with the markers
	Committed   View = 1 // what the broker's list of aborted transactions leaves
)

// Range is a stretch of a partition: offsets from From on, below To.
type Range struct {
	Topic     string
	Partition int32
	From, To  int64
}

// Logs reads logs with Fetch requests of its own. The client gives it connections and nothing else.
type Logs struct {
	client *kgo.Client
	idle   time.Duration // without progress it gives up
}

// NewLogs reads through a client, which stays the caller's.
func NewLogs(client *kgo.Client) *Logs { return &Logs{client: client, idle: idleMax} }

const (
	idleMax       = time.Minute
	fetchWait     = 500      // milliseconds
	fetchBytes    = 16 << 20 // of an answer
	partitionSize = 4 << 20  // of one partition in it
	retryPause    = 100 * time.Millisecond
)

// TopicInfo is what the brokers say of a topic.
type TopicInfo struct {
	ID      [16]byte
	Leaders map[int32]int32 // by partition; negative without one
}

// Topics describes topics. One that does not exist is an error.
func (l *Logs) Topics(ctx context.Context, names ...string) (map[string]TopicInfo, error) {
	request := kmsg.NewPtrMetadataRequest()
	request.AllowAutoTopicCreation = false
	request.Topics = []kmsg.MetadataRequestTopic{}
	for _, name := range names {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = new(name)
		request.Topics = append(request.Topics, topic)
	}
	response, err := request.RequestWith(ctx, l.client)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	topics := map[string]TopicInfo{}
	for _, topic := range response.Topics {
		if topic.Topic == nil {
			continue
		}
		if err := kerr.ErrorForCode(topic.ErrorCode); err != nil {
			return nil, fmt.Errorf("describe topic %s: %w", *topic.Topic, err)
		}
		info := TopicInfo{ID: topic.TopicID, Leaders: map[int32]int32{}}
		for _, partition := range topic.Partitions {
			info.Leaders[partition.Partition] = partition.Leader
		}
		topics[*topic.Topic] = info
	}
	return topics, nil
}

// Special timestamps of ListOffsets.
const (
	timeLatest   = -1
	timeEarliest = -2
)

// Starts gives where the logs of topics begin.
func (l *Logs) Starts(ctx context.Context, names ...string) (map[string]map[int32]int64, error) {
	return l.offsets(ctx, timeEarliest, Uncommitted, names)
}

// Ends gives where the logs of topics end: with Committed, the last stable offsets.
func (l *Logs) Ends(ctx context.Context, view View, names ...string) (map[string]map[int32]int64, error) {
	return l.offsets(ctx, timeLatest, view, names)
}

// Since gives the first offsets whose timestamps are not before at; the ends where there are none.
func (l *Logs) Since(ctx context.Context, at time.Time, names ...string) (map[string]map[int32]int64, error) {
	found, err := l.offsets(ctx, at.UnixMilli(), Uncommitted, names)
	if err != nil {
		return nil, err
	}
	ends, err := l.Ends(ctx, Uncommitted, names...)
	for topic, partitions := range found {
		for partition, offset := range partitions {
			if offset < 0 {
				found[topic][partition] = ends[topic][partition]
			}
		}
	}
	return found, err
}

func (l *Logs) offsets(ctx context.Context, at int64, view View, names []string) (map[string]map[int32]int64, error) {
	found := map[string]map[int32]int64{}
	if len(names) == 0 {
		return found, nil
	}
	topics, err := l.Topics(ctx, names...)
	if err != nil {
		return nil, err
	}
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID = -1
	request.IsolationLevel = int8(view)
	for name, info := range topics {
		topic := kmsg.NewListOffsetsRequestTopic()
		topic.Topic = name
		for partition := range info.Leaders {
			one := kmsg.NewListOffsetsRequestTopicPartition()
			one.Partition, one.Timestamp, one.CurrentLeaderEpoch = partition, at, -1
			topic.Partitions = append(topic.Partitions, one)
		}
		request.Topics = append(request.Topics, topic)
	}
	for _, shard := range l.client.RequestSharded(ctx, request) {
		if shard.Err != nil {
			return nil, fmt.Errorf("list offsets: %w", shard.Err)
		}
		response, is := shard.Resp.(*kmsg.ListOffsetsResponse)
		if !is {
			return nil, fmt.Errorf("list offsets: answer of type %T", shard.Resp)
		}
		for _, topic := range response.Topics {
			if found[topic.Topic] == nil {
				found[topic.Topic] = map[int32]int64{}
			}
			for _, partition := range topic.Partitions {
				if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
					return nil, fmt.Errorf("list offsets of %s/%d: %w", topic.Topic, partition.Partition, err)
				}
				found[topic.Topic][partition.Partition] = partition.Offset
			}
		}
	}
	return found, nil
}

// piece is a stretch of a partition as a broker sent it.
type piece struct {
	*progress

	from    int64
	batches []rawBatch
	aborted []abortedSince
}

// abortedSince names a transaction that was aborted, by its producer and first offset in the partition.
type abortedSince struct{ producer, first int64 }

// progress is how far a range has been fetched.
type progress struct {
	Range

	id   [16]byte
	next int64
	open map[int64]bool // producers whose transaction, under way, is aborted; in the committed view
}

// Read visits what stands in ranges, each in the order of offsets, on the caller's goroutine. An entry lives
// until visit returns. A range must not begin within a transaction whose fate matters.
func (l *Logs) Read(ctx context.Context, view View, ranges []Range, visit func(*Entry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	left := map[*progress]bool{}
	for _, r := range ranges {
		if r.From < r.To {
			left[&progress{Range: r, next: r.From, open: map[int64]bool{}}] = true
		}
	}
	for len(left) > 0 { // ends when every range is through, or with an error
		groups, err := l.byLeader(ctx, left)
		if err != nil {
			return err
		}
		pieces := make(chan piece)
		var group sync.WaitGroup
		errs := make(chan error, len(groups))
		for leader, some := range groups {
			group.Go(func() { errs <- l.fetchAll(ctx, leader, view, some, pieces) })
		}
		go func() {
			group.Wait()
			close(pieces)
		}()
		broken := unpack(pieces, view, cancel, visit)
		close(errs)
		for err := range errs {
			if broken == nil && err != nil {
				broken = err
			}
		}
		if broken != nil {
			return broken
		}
		for p := range left {
			if p.next >= p.To {
				delete(left, p)
			}
		}
	}
	return nil
}

// byLeader groups what is left by the brokers that have it.
func (l *Logs) byLeader(ctx context.Context, left map[*progress]bool) (map[int32][]*progress, error) {
	var names []string
	for p := range left {
		if !slices.Contains(names, p.Topic) {
			names = append(names, p.Topic)
		}
	}
	since := time.Now()
	for { // ends with leaders for all, or when that takes too long
		topics, err := l.Topics(ctx, names...)
		if err != nil {
			return nil, err
		}
		groups := map[int32][]*progress{}
		for p := range left {
			leader, exists := topics[p.Topic].Leaders[p.Partition]
			if !exists {
				return nil, fmt.Errorf("%s has no partition %d", p.Topic, p.Partition)
			}
			p.id = topics[p.Topic].ID
			groups[leader] = append(groups[leader], p)
		}
		without := groups[-1]
		if len(without) == 0 {
			return groups, nil
		}
		if time.Since(since) > l.idle {
			return nil, fmt.Errorf("read %s/%d: it has had no leader for %s: bring its broker back", without[0].Topic, without[0].Partition, l.idle)
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(retryPause):
		return nil
	}
}

// fetchAll fetches from one broker until its ranges are through or have moved.
func (l *Logs) fetchAll(ctx context.Context, leader int32, view View, ranges []*progress, pieces chan<- piece) error {
	last := time.Now()
	for { // ends when there is nothing left, or with an error
		ranges = slices.DeleteFunc(ranges, func(p *progress) bool { return p.next >= p.To })
		if len(ranges) == 0 {
			return nil
		}
		// Who has come least far comes first, so that all are read at about one pace.
		slices.SortFunc(ranges, func(a, b *progress) int { return cmp.Compare(a.next-a.From, b.next-b.From) })
		response, err := l.fetch(ctx, leader, view, ranges)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Since(last) > l.idle {
			return fmt.Errorf("read %s/%d at offset %d: nothing came for %s: an open transaction may hold readers back (processor txn ls --all), or a broker is away: %w",
				ranges[0].Topic, ranges[0].Partition, ranges[0].next, l.idle, errors.Join(err, context.DeadlineExceeded))
		}
		if err != nil {
			return pause(ctx) // the broker may be gone: look where the partitions are now
		}
		moved, progressed := false, false
		for _, p := range ranges {
			got := find(response, p)
			if got == nil {
				continue
			}
			if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
				if !kerr.IsRetriable(err) {
					return explainFetch(p, err)
				}
				moved = true
				continue
			}
			one, err := p.take(got)
			if err != nil {
				return err
			}
			if len(one.batches) == 0 {
				continue
			}
			progressed = true
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case pieces <- one:
			}
		}
		if progressed {
			last = time.Now()
		}
		if moved {
			return pause(ctx)
		}
	}
}

func explainFetch(p *progress, err error) error {
	if errors.Is(err, kerr.OffsetOutOfRange) {
		return fmt.Errorf("read %s/%d at offset %d: its retention has dropped that meanwhile: begin later (--from): %w", p.Topic, p.Partition, p.next, err)
	}
	return fmt.Errorf("read %s/%d at offset %d: %w", p.Topic, p.Partition, p.next, err)
}

func (l *Logs) fetch(ctx context.Context, leader int32, view View, ranges []*progress) (*kmsg.FetchResponse, error) {
	request := kmsg.NewPtrFetchRequest()
	request.MaxWaitMillis, request.MinBytes, request.MaxBytes = fetchWait, 1, fetchBytes
	request.IsolationLevel = int8(view)
	request.SessionEpoch = -1 // no session: each request is whole
	byTopic := map[string]int{}
	for _, p := range ranges {
		at, known := byTopic[p.Topic]
		if !known {
			at = len(request.Topics)
			byTopic[p.Topic] = at
			topic := kmsg.NewFetchRequestTopic()
			topic.Topic, topic.TopicID = p.Topic, p.id // by name up to version 12, by id from 13 on
			request.Topics = append(request.Topics, topic)
		}
		one := kmsg.NewFetchRequestTopicPartition()
		one.Partition, one.FetchOffset, one.PartitionMaxBytes, one.CurrentLeaderEpoch = p.Partition, p.next, partitionSize, -1
		request.Topics[at].Partitions = append(request.Topics[at].Partitions, one)
	}
	response, err := l.client.Broker(int(leader)).Request(ctx, request)
	if err != nil {
		return nil, err
	}
	fetched, is := response.(*kmsg.FetchResponse)
	if !is {
		return nil, fmt.Errorf("fetch: answer of type %T", response)
	}
	return fetched, kerr.ErrorForCode(fetched.ErrorCode)
}

func find(response *kmsg.FetchResponse, p *progress) *kmsg.FetchResponseTopicPartition {
	for i := range response.Topics {
		topic := &response.Topics[i]
		if topic.Topic != p.Topic && topic.TopicID != p.id {
			continue
		}
		for k := range topic.Partitions {
			if topic.Partitions[k].Partition == p.Partition {
				return &topic.Partitions[k]
			}
		}
	}
	return nil
}

// take cuts an answer into batches and goes on behind them.
func (p *progress) take(got *kmsg.FetchResponseTopicPartition) (piece, error) {
	one := piece{progress: p, from: p.next}
	for _, aborted := range got.AbortedTransactions {
		one.aborted = append(one.aborted, abortedSince{aborted.ProducerID, aborted.FirstOffset})
	}
	slices.SortFunc(one.aborted, func(a, b abortedSince) int { return cmp.Compare(a.first, b.first) })
	for rest := got.RecordBatches; p.next < p.To; {
		batch, more, err := cutBatch(rest)
		if err != nil {
			return piece{}, fmt.Errorf("read %s/%d at offset %d: %w", p.Topic, p.Partition, p.next, err)
		}
		if batch == nil {
			break
		}
		rest = more
		if batch.next() <= p.next {
			continue
		}
		p.next = batch.next()
		one.batches = append(one.batches, batch)
	}
	return one, nil
}
