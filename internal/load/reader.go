package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/committed"
)

// ReaderConfig is what a Reader needs.
type ReaderConfig struct {
	Options []kgo.Opt // seeds and security, and how to fetch
	Topics  []string  // must exist; partitions that are added later are not read
	Count   int64     // Run ends after so many records; 0 means it ends with its context
	// FromStart reads from the start of each partition instead of from where it ends as the Reader
	// is opened.
	FromStart bool
	// Stamp tells when a record was wanted and when it was produced. Nil means StampPlain.
	Stamp func(record *kgo.Record) (scheduled, called time.Time, ok bool)
	// Delivered, where set, is told of each record and when it was delivered. It runs on Run's
	// goroutine: be brief.
	Delivered func(record *kgo.Record, at time.Time)
}

// StampPlain reads the times that a plain record carries.
func StampPlain(record *kgo.Record) (scheduled, called time.Time, ok bool) {
	head, err := ParsePlain(record.Value)
	return head.Scheduled, head.Called, err == nil
}

// StampTimestamp takes the record's own timestamp for both times. Brokers keep milliseconds.
func StampTimestamp(record *kgo.Record) (scheduled, called time.Time, ok bool) {
	return record.Timestamp, record.Timestamp, true
}

// Reader takes delivery of committed records and measures how long they took from schedule and from
// produce call. Producer and Reader must run on one machine: they compare its clock with itself.
//
// A record's time is when a read_committed reader has it, but it counts only with its marker: the broker's word that it
// is committed may be wrong (package committed).
type Reader struct {
	config      ReaderConfig
	client      *kgo.Client
	inboxes     map[partition]*inbox
	records     atomic.Int64
	bytes       int64
	unstamped   int64
	first, last time.Time
	fromCall    Histogram
	fromPlanned Histogram
}

// Delivered is what a Reader saw.
type Delivered struct {
	Records      int64         `json:"records"`
	Bytes        int64         `json:"bytes"`     // keys and values
	Unstamped    int64         `json:"unstamped"` // records without times: in the counts, not in the latencies
	Took         time.Duration `json:"took_ns"`   // from the first delivery to the last
	Rate         float64       `json:"records_per_second"`
	FromSchedule Summary       `json:"delivery_from_schedule"`
	FromCall     Summary       `json:"delivery_from_call"`
}

// OpenReader finds out where the topics end (or start): what is committed after it returns is
// delivered by Run. Close the Reader in any case.
func OpenReader(ctx context.Context, config ReaderConfig) (*Reader, error) {
	if len(config.Topics) == 0 {
		return nil, errors.New("reader: no topics")
	}
	if config.Stamp == nil {
		config.Stamp = StampPlain
	}
	client, err := kgo.NewClient(append(slices.Clip(config.Options),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	)...)
	if err != nil {
		return nil, fmt.Errorf("reader: %w", err)
	}
	list := kadm.NewClient(client).ListCommittedOffsets
	if config.FromStart {
		list = kadm.NewClient(client).ListStartOffsets
	}
	positions, err := list(ctx, config.Topics...)
	if err == nil {
		err = positions.Error()
	}
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("reader: find the position in %v: %w", config.Topics, err)
	}
	partitions := make(map[string]map[int32]kgo.Offset)
	positions.Each(func(position kadm.ListedOffset) {
		if partitions[position.Topic] == nil {
			partitions[position.Topic] = make(map[int32]kgo.Offset)
		}
		partitions[position.Topic][position.Partition] = kgo.NewOffset().At(position.Offset)
	})
	client.AddConsumePartitions(partitions)
	return &Reader{config: config, client: client, inboxes: map[partition]*inbox{}}, nil
}

// Run takes delivery until Count records have come or ctx ends; both return nil. It may be called once.
func (r *Reader) Run(ctx context.Context) error {
	for r.config.Count == 0 || r.records.Load() < r.config.Count {
		fetches := r.client.PollFetches(ctx)
		at := time.Now()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of ctx is one of the two ways to end
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read %v: %w", r.config.Topics, err)
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) { r.take(partition{p.Topic, p.Partition}, p.Records, at) })
		r.again()
	}
	return nil
}

// take delivers what is known to be committed by now.
func (r *Reader) take(from partition, records []*kgo.Record, at time.Time) {
	in := r.inboxes[from]
	if in == nil {
		in = &inbox{}
		r.inboxes[from] = in
	}
	in.arrived(records, at)
	for _, record := range in.filter.Add(records) {
		if came := in.came(record); !record.Attrs.IsControl() {
			r.deliver(record, came)
		}
	}
}

// again goes back in partitions where more waited for its markers than can be held. It runs between two polls, so that
// nothing of what was read ahead is taken for what is read again.
func (r *Reader) again() {
	for of, in := range r.inboxes {
		if next, again := in.filter.Again(); again {
			r.client.RemoveConsumePartitions(map[string][]int32{of.topic: {of.index}})
			r.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{of.topic: {of.index: kgo.NewOffset().At(next)}})
		}
	}
}

func (r *Reader) deliver(record *kgo.Record, at time.Time) {
	if r.first.IsZero() {
		r.first = at
	}
	r.last = at
	r.bytes += int64(len(record.Key) + len(record.Value))
	if scheduled, called, ok := r.config.Stamp(record); ok {
		r.fromPlanned.Record(at.Sub(scheduled))
		r.fromCall.Record(at.Sub(called))
	} else {
		r.unstamped++
	}
	if r.config.Delivered != nil {
		r.config.Delivered(record, at)
	}
	r.records.Add(1)
}

// inbox is what has come of one partition and waits for its markers.
type inbox struct {
	filter   committed.Filter
	arrivals []arrival // in order
}

// arrival is when all before an offset had come that had not come earlier.
type arrival struct {
	next int64
	at   time.Time
}

// arrived notes records. Those that are read a second time came when they came first.
func (i *inbox) arrived(records []*kgo.Record, at time.Time) {
	if len(records) == 0 {
		return
	}
	next := records[len(records)-1].Offset + 1
	if n := len(i.arrivals); n == 0 || i.arrivals[n-1].next < next {
		i.arrivals = append(i.arrivals, arrival{next, at})
	}
}

// came tells when a record did. It must be asked in the order of offsets.
func (i *inbox) came(record *kgo.Record) time.Time {
	for i.arrivals[0].next <= record.Offset {
		i.arrivals = i.arrivals[1:]
	}
	return i.arrivals[0].at
}

// Records tells how many records were delivered so far. Any goroutine may call it.
func (r *Reader) Records() int64 { return r.records.Load() }

// Report tells what was delivered. Call it after Run has returned.
func (r *Reader) Report() Delivered {
	report := Delivered{
		Records:      r.records.Load(),
		Bytes:        r.bytes,
		Unstamped:    r.unstamped,
		Took:         r.last.Sub(r.first),
		FromSchedule: r.fromPlanned.Summary(),
		FromCall:     r.fromCall.Summary(),
	}
	if report.Took > 0 {
		report.Rate = float64(report.Records) / report.Took.Seconds()
	}
	return report
}

// Close ends the Reader's connections.
func (r *Reader) Close() { r.client.Close() }
