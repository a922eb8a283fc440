package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// flushTimeout is how long Run waits for the answers to what it has produced once it stops
	// producing, where the configuration says nothing else.
	flushTimeout = 30 * time.Second
	// inFlightMax is how many records wait for an answer at once; kgo's own buffer holds as many.
	inFlightMax = 10_000
	// warmTimeout is how long Run tries to reach brokers that refuse it, and warmPause how long it waits
	// in between.
	warmTimeout = time.Minute
	warmPause   = 100 * time.Millisecond
)

// ProducerConfig is what a Producer needs. A run ends with the first limit it meets: Count, Duration
// or its context; at least one of them has to be there for it to end.
type ProducerConfig struct {
	Options   []kgo.Opt     // seeds, security, and how to produce: acks, linger, compression
	Topic     string        // must exist
	Generator Generator     // Fill is called on Run's goroutine
	First     int64         // number of the first record
	Count     int64         // how many records; 0 means no such limit
	Duration  time.Duration // how long the schedule lasts; 0 means no such limit
	Rate      float64       // records per second; 0 means as fast as the broker takes them
	Flush     time.Duration // how long to wait for answers at the end; 0 means 30 s
	// Acked, where set, is told of each record that the broker has taken, with its number. The
	// record is used again afterwards: keep nothing of it. It runs on the client's goroutines, in
	// order within a partition: be brief.
	Acked func(n int64, record *kgo.Record)
}

// Producer writes a generator's records to a topic on a constant schedule. Records of one key are
// written in the order of their numbers (the client's partitioner puts one key into one partition).
type Producer struct {
	config      ProducerConfig
	scheduled   int64 // records handed to the client; Run's goroutine only
	acked       atomic.Int64
	bytes       atomic.Int64
	fromCall    Histogram
	fromPlanned Histogram
	failure     failure
	free        chan *slot  // slots without a record; holds inFlightMax
	made        int         // slots there are; Run's goroutine only
	hand        func(*slot) // gives a record to the client
	began       time.Time
	took        time.Duration
}

// Produced is what a run of a Producer did. Latencies end when the broker's answer is there:
// FromSchedule begins when the schedule wanted the record, FromCall when the client was given it.
type Produced struct {
	Records      int64         `json:"records"`
	Bytes        int64         `json:"bytes"` // keys and values
	Failed       int64         `json:"failed"`
	Took         time.Duration `json:"took_ns"`
	Rate         float64       `json:"records_per_second"`
	FromSchedule Summary       `json:"ack_from_schedule"`
	FromCall     Summary       `json:"ack_from_call"`
}

// NewProducer checks the configuration.
func NewProducer(config ProducerConfig) (*Producer, error) {
	var errs []error
	if config.Topic == "" {
		errs = append(errs, errors.New("topic is empty"))
	}
	if config.Generator == nil {
		errs = append(errs, errors.New("generator is missing"))
	}
	if config.Rate < 0 || config.First < 0 || config.Count < 0 || config.Duration < 0 {
		errs = append(errs, errors.New("rate, first, count and duration must not be negative"))
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("producer: %w", errors.Join(errs...))
	}
	if config.Flush <= 0 {
		config.Flush = flushTimeout
	}
	return &Producer{config: config, free: make(chan *slot, inFlightMax)}, nil
}

// slot is one record on its way, used again once the broker has answered.
type slot struct {
	record kgo.Record
	stamp  Stamp
	done   func(*kgo.Record, error)
}

// slot gives a free slot, a new one up to inFlightMax; nil if ctx ends before there is one.
func (p *Producer) slot(ctx context.Context) *slot {
	select {
	case s := <-p.free:
		return s
	default:
	}
	if p.made < inFlightMax {
		p.made++
		s := new(slot)
		s.done = func(record *kgo.Record, err error) { p.answered(s, record, err) }
		return s
	}
	select {
	case s := <-p.free:
		return s
	case <-ctx.Done():
		return nil
	}
}

// Run produces until a limit is met, then waits for what is on its way. It may be called once. Brokers
// that are away as it begins may take a minute to come, or until ctx ends, if that is sooner. Run
// returns nil when every record it produced was taken by the broker, also when ctx ended the run. An
// error tells how many were not and the first reason; any of those may have been written all the same.
func (p *Producer) Run(ctx context.Context) (err error) {
	client, err := kgo.NewClient(p.config.Options...)
	if err != nil {
		return fmt.Errorf("produce to %s: %w", p.config.Topic, err)
	}
	defer client.Close()
	// The connection, the topic and the producer id come before the clock starts: what is measured
	// is load, not a first hello.
	if err := patiently(ctx, func(ctx context.Context) error { return warm(ctx, client, p.config.Topic) }); err != nil {
		return fmt.Errorf("produce to %s: %w", p.config.Topic, err)
	}
	p.began = time.Now()
	// What has been handed over does not end with ctx: its answer is waited for below.
	handed := context.WithoutCancel(ctx)
	p.hand = func(s *slot) { client.Produce(handed, &s.record, s.done) }
	p.schedule(ctx)

	flushContext, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.config.Flush)
	defer cancel()
	err = client.Flush(flushContext)
	p.took = time.Since(p.began)
	if err != nil {
		return fmt.Errorf("produce to %s: no answer for some of %d records within %s: %w",
			p.config.Topic, p.scheduled, p.config.Flush, err)
	}
	if failed, first := p.failure.get(); failed > 0 {
		return fmt.Errorf("produce to %s: %d of %d records failed, the first: %w", p.config.Topic, failed, p.scheduled, first)
	}
	return nil
}

// patiently says the first hello again while brokers are away, until ctx ends, at most for warmTimeout. The
// client does that for every later request, but not for the first: an address with a typo refuses it, too.
func patiently(ctx context.Context, hello func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, warmTimeout)
	defer cancel()
	began := time.Now()
	var last error // which ctx did not cut short
	for {
		err := hello(ctx)
		if err == nil || ctx.Err() == nil && !mayPass(err) {
			return err
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-time.After(warmPause):
		case <-ctx.Done():
			return fmt.Errorf("gave up after %s: %w", time.Since(began).Round(time.Millisecond), last)
		}
	}
}

// mayPass tells whether an error may be one of brokers that are away for the moment: something refused or
// reset a connection, or a broker said that it is not ready. Credentials and names are not mended by waiting.
func mayPass(err error) bool {
	var system *os.SyscallError
	return errors.As(err, &system) || kerr.IsRetriable(err) && !errors.Is(err, kerr.UnknownTopicOrPartition)
}

// warm checks the topic and fetches a producer id.
func warm(ctx context.Context, client *kgo.Client, topic string) error {
	request := kmsg.NewPtrMetadataRequest()
	wanted := kmsg.NewMetadataRequestTopic()
	wanted.Topic = new(topic)
	request.Topics = append(request.Topics, wanted)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("ask for the topic: %w", err)
	}
	for _, found := range response.Topics {
		err := kerr.ErrorForCode(found.ErrorCode)
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			return fmt.Errorf("%w: create it with `processor topics apply`", err)
		}
		if err != nil {
			return fmt.Errorf("ask for the topic: %w", err)
		}
	}
	if _, _, err := client.ProducerID(ctx); err != nil {
		return fmt.Errorf("get a producer id: %w", err)
	}
	return nil
}

// schedule hands records to the client when they are due, until a limit is met. It never skips one:
// where inFlightMax of them wait for an answer it runs late, the records keep the time at which they
// were due, and they are sent as fast as the broker takes them until the schedule is met again.
func (p *Producer) schedule(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := int64(0); p.config.Count == 0 || i < p.config.Count; i++ {
		now := time.Now()
		due := now
		if p.config.Rate > 0 {
			due = p.began.Add(time.Duration(float64(i) / p.config.Rate * float64(time.Second)))
		}
		if p.config.Duration > 0 && due.Sub(p.began) >= p.config.Duration {
			return
		}
		if wait := due.Sub(now); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		} else if ctx.Err() != nil {
			return
		}
		s := p.slot(ctx)
		if s == nil {
			return
		}
		s.stamp = Stamp{N: p.config.First + i, Scheduled: due, Called: time.Now()}
		p.fill(s)
		p.scheduled++
		p.hand(s)
	}
}

func (p *Producer) fill(s *slot) {
	// What the client wrote into the record last time goes, the memory stays.
	s.record = kgo.Record{Key: s.record.Key, Value: s.record.Value, Headers: s.record.Headers}
	p.config.Generator.Fill(&s.record, s.stamp)
	s.record.Topic = p.config.Topic
	if s.record.Timestamp.IsZero() {
		s.record.Timestamp = s.stamp.Called
	}
}

func (p *Producer) answered(s *slot, record *kgo.Record, err error) {
	if err != nil {
		p.failure.add(err)
		p.free <- s // has room for every slot there is
		return
	}
	now := time.Now()
	p.fromPlanned.Record(now.Sub(s.stamp.Scheduled))
	p.fromCall.Record(now.Sub(s.stamp.Called))
	p.bytes.Add(int64(len(record.Key) + len(record.Value)))
	if p.config.Acked != nil {
		p.config.Acked(s.stamp.N, record)
	}
	p.acked.Add(1)
	p.free <- s
}

// Acked tells how many records the broker has taken so far. Any goroutine may call it.
func (p *Producer) Acked() int64 { return p.acked.Load() }

// Report tells what the run did. Call it after Run has returned.
func (p *Producer) Report() Produced {
	failed, _ := p.failure.get()
	report := Produced{
		Records:      p.acked.Load(),
		Bytes:        p.bytes.Load(),
		Failed:       failed,
		Took:         p.took,
		FromSchedule: p.fromPlanned.Summary(),
		FromCall:     p.fromCall.Summary(),
	}
	if p.took > 0 {
		report.Rate = float64(report.Records) / p.took.Seconds()
	}
	return report
}

// failure counts errors and keeps the first.
type failure struct {
	mutex sync.Mutex
	count int64
	first error
}

func (f *failure) add(err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.count++
	if f.first == nil {
		f.first = err
	}
}

func (f *failure) get() (int64, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.count, f.first
}
