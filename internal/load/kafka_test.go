package load

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"pawl/internal/transact"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// openBroker gives the options to reach an in-memory broker with the topic.
func openBroker(t *testing.T, topic string, partitions int32) (*kfake.Cluster, []kgo.Opt) {
	t.Helper()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	return broker, []kgo.Opt{kgo.SeedBrokers(broker.ListenAddrs()...), kgo.MetadataMinAge(20 * time.Millisecond)}
}

func newProducer(t *testing.T, config ProducerConfig) *Producer {
	t.Helper()
	if config.Generator == nil {
		plain, err := NewPlain(PlainConfig{Run: 7, Bytes: 100, Keys: 16})
		if err != nil {
			t.Fatal(err)
		}
		config.Generator = plain
	}
	producer, err := NewProducer(config)
	if err != nil {
		t.Fatal(err)
	}
	return producer
}

// Everything produced is delivered once and in order per key, and both ends measured every record.
func TestProducedRecordsAreDeliveredAndMeasured(t *testing.T) {
	t.Parallel()
	const count = 5000
	_, options := openBroker(t, "in", 4)
	tally := NewTally(7, count)
	reader, err := OpenReader(t.Context(), ReaderConfig{
		Options: options, Topics: []string{"in"}, Count: count,
		Delivered: func(record *kgo.Record, _ time.Time) { tally.Add(record.Key, record.Value) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var acked atomic.Int64
	producer := newProducer(t, ProducerConfig{
		Options: options, Topic: "in", Count: count,
		Acked: func(int64, *kgo.Record) { acked.Add(1) },
	})
	if err := producer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := reader.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	produced, delivered := producer.Report(), reader.Report()
	if result := tally.Result(); !result.Clean() {
		t.Errorf("tally = %+v, want clean", result)
	}
	if produced.Records != count || produced.Failed != 0 || int(producer.Acked()) != count || acked.Load() != count ||
		produced.FromCall.Count != count || produced.FromSchedule.Count != count || produced.Rate <= 0 {
		t.Errorf("produced = %+v, want %d everywhere", produced, count)
	}
	if delivered.Records != count || delivered.Unstamped != 0 || delivered.Bytes != produced.Bytes ||
		delivered.FromCall.Count != count || delivered.FromCall.P50 <= 0 {
		t.Errorf("delivered = %+v, want %d everywhere", delivered, count)
	}
}

// A schedule of 1,000 records a second for 2 seconds makes 2,000 records in 2 seconds, whatever the
// machine: time in the bubble is exact.
func TestProducerKeepsItsRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		producer := newProducer(t, ProducerConfig{Topic: "in", Rate: 1000, Duration: 2 * time.Second})
		var stamps []Stamp
		producer.began = time.Now()
		producer.hand = func(s *slot) {
			stamps = append(stamps, s.stamp)
			producer.free <- s
		}
		producer.schedule(t.Context())
		if len(stamps) != 2000 {
			t.Fatalf("%d records, want 2000", len(stamps))
		}
		for n, stamp := range stamps {
			want := producer.began.Add(time.Duration(n) * time.Millisecond)
			off := want.Sub(stamp.Scheduled) // the rate is no whole number of nanoseconds
			if stamp.N != int64(n) || off.Abs() > time.Nanosecond || !stamp.Called.Equal(stamp.Scheduled) {
				t.Fatalf("record %d = %+v, want at %v", n, stamp, want)
			}
		}
	})
}

// The broker stalls for a second. A producer that measured from its own calls would see one slow
// record; the schedule saw a thousand that came late, and so does the histogram.
func TestLatencyCountsFromTheScheduleThroughAStall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		producer := newProducer(t, ProducerConfig{Topic: "in", Rate: 1000, Count: 3000})
		producer.began = time.Now()
		producer.hand = func(s *slot) {
			if s.stamp.N == 1000 {
				time.Sleep(time.Second) //nolint:forbidigo // virtual time: the client blocks its caller
			}
			producer.answered(s, &s.record, nil)
		}
		producer.schedule(t.Context())
		report := producer.Report()
		if report.Records != 3000 {
			t.Fatalf("%d records, want 3000", report.Records)
		}
		if p90 := report.FromSchedule.P90; p90 < 600*time.Millisecond {
			t.Errorf("p90 from schedule = %v, want most of the stall", p90)
		}
		if p90 := report.FromCall.P90; p90 > 10*time.Millisecond {
			t.Errorf("p90 from call = %v, want nearly nothing", p90)
		}
	})
}

// The end of the context ends an endless run without an error and without losing what was taken.
func TestProducerEndsCleanlyWithItsContext(t *testing.T) {
	t.Parallel()
	_, options := openBroker(t, "in", 1)
	ctx, cancel := context.WithCancel(t.Context())
	producer := newProducer(t, ProducerConfig{
		Options: options, Topic: "in", Rate: 5000,
		Acked: func(n int64, _ *kgo.Record) {
			if n == 100 {
				cancel()
			}
		},
	})
	if err := producer.Run(ctx); err != nil {
		t.Fatal(err)
	}
	var delivered int64
	if err := Scan(t.Context(), options, []string{"in"}, func(*kgo.Record) { delivered++ }); err != nil {
		t.Fatal(err)
	}
	if report := producer.Report(); report.Records != delivered || report.Records < 101 {
		t.Errorf("acked %d, in the topic %d, want the same and more than 100", report.Records, delivered)
	}
}

// Refused records are counted and the first reason is told; the run goes on to its end.
func TestProducerReportsRefusedRecords(t *testing.T) {
	t.Parallel()
	_, options := openBroker(t, "in", 1)
	plain, err := NewPlain(PlainConfig{Bytes: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	producer := newProducer(t, ProducerConfig{Options: options, Topic: "in", Count: 3, Generator: plain})
	err = producer.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "3 of 3 records failed") {
		t.Errorf("error = %v, want that 3 of 3 failed", err)
	}
	if report := producer.Report(); report.Failed != 3 || report.Records != 0 {
		t.Errorf("report = %+v, want 3 failed", report)
	}
}

// A missing topic is an error that says what to run, before anything is produced.
func TestProducerNamesTheMissingTopic(t *testing.T) {
	t.Parallel()
	_, options := openBroker(t, "other", 1)
	err := newProducer(t, ProducerConfig{Options: options, Topic: "in", Count: 3}).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "processor topics apply") {
		t.Errorf("error = %v, want one that names `processor topics apply`", err)
	}
}

// The broker does not answer: after the end of the context Run waits for its flush time and no longer.
func TestProducerGivesUpWaitingForAnswers(t *testing.T) {
	t.Parallel()
	broker, options := openBroker(t, "in", 1)
	ctx, cancel := context.WithCancel(t.Context())
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		cancel()
		return nil, errors.New("no answer"), true
	})
	producer := newProducer(t, ProducerConfig{Options: options, Topic: "in", Flush: 50 * time.Millisecond})
	err := producer.Run(ctx)
	if err == nil || !strings.Contains(err.Error(), "no answer for some of") {
		t.Errorf("error = %v, want that answers are missing", err)
	}
}

// A transaction that was aborted is invisible to Scan and counted by ScanOutcomes; both read up to
// the last stable offset and no further, though a transaction is still open behind it.
func TestScanSeesCommittedRecordsOnly(t *testing.T) {
	t.Parallel()
	_, options := openBroker(t, "in", 2)
	write := func(id string, end kgo.TransactionEndTry, values ...string) *kgo.Client {
		client, err := kgo.NewClient(append(slices.Clone(options), kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for i, value := range values {
			record := &kgo.Record{Topic: "in", Partition: int32(i % 2), Value: []byte(value)}
			if err := client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if id != "open" {
			if err := transact.End(t.Context(), client, end, "in", 0); err != nil {
				t.Fatal(err)
			}
		}
		return client
	}
	write("a", kgo.TryCommit, "a0", "a1", "a2")
	write("b", kgo.TryAbort, "b0", "b1", "b2", "b3")
	write("c", kgo.TryCommit, "c0")
	write("d", kgo.TryAbort, "d0")
	write("open", kgo.TryCommit, "o0", "o1")
	write("late", kgo.TryCommit, "l0", "l1")

	var seen []string
	if err := Scan(t.Context(), options, []string{"in"}, func(record *kgo.Record) {
		seen = append(seen, string(record.Value))
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(seen)
	if want := []string{"a0", "a1", "a2", "c0"}; !slices.Equal(seen, want) {
		t.Errorf("scan = %v, want %v", seen, want)
	}
	outcomes, err := ScanOutcomes(t.Context(), options, []string{"in"})
	if err != nil {
		t.Fatal(err)
	}
	if got := outcomes.Topics["in"]; got != (Outcome{Committed: 4, Aborted: 5}) || outcomes.Aborted != 2 {
		t.Errorf("outcomes = %+v, want 4 committed, 5 aborted, 2 aborted transactions", outcomes)
	}
}

// A topic without records is read at once.
func TestScanOfAnEmptyTopicEnds(t *testing.T) {
	t.Parallel()
	_, options := openBroker(t, "in", 3)
	if err := Scan(t.Context(), options, []string{"in"}, func(*kgo.Record) { t.Error("a record") }); err != nil {
		t.Fatal(err)
	}
}

// A Reader from the end delivers what is committed after it was opened, one from the start all.
func TestReaderStartsWhereItWasOpened(t *testing.T) {
	t.Parallel()
	_, options := openBroker(t, "in", 2)
	if err := newProducer(t, ProducerConfig{Options: options, Topic: "in", Count: 10}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	open := func(fromStart bool, count int64) *Reader {
		reader, err := OpenReader(t.Context(), ReaderConfig{
			Options: options, Topics: []string{"in"}, FromStart: fromStart, Count: count, Stamp: StampTimestamp,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(reader.Close)
		return reader
	}
	end, start := open(false, 5), open(true, 15)
	if err := newProducer(t, ProducerConfig{Options: options, Topic: "in", First: 10, Count: 5}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, reader := range []*Reader{end, start} {
		if err := reader.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if reader.Records() != reader.config.Count || reader.Report().FromCall.Count != reader.config.Count {
			t.Errorf("delivered %+v, want %d", reader.Report(), reader.config.Count)
		}
	}
}

// A broker that lists nothing of what was aborted, and does not even hold back what is open, misleads neither Scan nor
// a Reader: the markers decide, also that of a transaction which is too large to be held until it comes.
func TestWhatIsCommittedTheMarkersSay(t *testing.T) {
	t.Parallel()
	const count, bytes = 64, 1 << 19
	broker, options := openBroker(t, "in", 1)
	var asked atomic.Int64
	broker.ControlKey(int16(kmsg.Fetch), func(request kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		request.(*kmsg.FetchRequest).IsolationLevel = 0 //nolint:forcetypeassert // the key says so
		asked.Add(1)
		return nil, nil, false
	})
	connect := func(id string) *kgo.Client {
		client, err := kgo.NewClient(append(slices.Clone(options), kgo.TransactionalID(id), kgo.DefaultProduceTopic("in"))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		return client
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	produce := func(client *kgo.Client, key string) {
		t.Helper()
		must(client.ProduceSync(t.Context(), &kgo.Record{Key: []byte(key), Value: make([]byte, bytes)}).FirstErr())
	}
	slow, quick := connect("slow"), connect("quick")
	want := []string{"slow"}
	must(slow.BeginTransaction())
	produce(slow, "slow")
	for n := range count {
		end, key := kgo.TransactionEndTry(n%8 > 0), strconv.Itoa(n)
		must(quick.BeginTransaction())
		produce(quick, key)
		must(transact.End(t.Context(), quick, end, "in", 0))
		if end {
			want = append(want, key)
		}
	}
	must(transact.Commit(t.Context(), slow, "in", 0))

	var scanned, read []string
	must(Scan(t.Context(), options, []string{"in"}, func(r *kgo.Record) { scanned = append(scanned, string(r.Key)) }))
	var times []time.Time
	reader, err := OpenReader(t.Context(), ReaderConfig{
		Options: options, Topics: []string{"in"}, FromStart: true, Count: int64(len(want)), Stamp: StampTimestamp,
		Delivered: func(r *kgo.Record, at time.Time) { read, times = append(read, string(r.Key)), append(times, at) },
	})
	must(err)
	defer reader.Close()
	must(reader.Run(t.Context()))
	for name, got := range map[string][]string{"scan": scanned, "reader": read} {
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if !slices.IsSortedFunc(times, time.Time.Compare) || asked.Load() == 0 {
		t.Errorf("delivered at %v, after %d fetches", times, asked.Load())
	}
}

// What is delivered with its marker counts from when it came, also where it was read twice until then.
func TestRecordsCountFromWhenTheyCame(t *testing.T) {
	t.Parallel()
	var in inbox
	at := func(offset int64) *kgo.Record { return &kgo.Record{Offset: offset} }
	first := time.Now()
	second, third := first.Add(time.Second), first.Add(2*time.Second)
	in.arrived([]*kgo.Record{at(3), at(4)}, first)
	in.arrived(nil, second)
	in.arrived([]*kgo.Record{at(7), at(8)}, second)
	in.arrived([]*kgo.Record{at(3), at(4), at(7)}, third)
	in.arrived([]*kgo.Record{at(8), at(9)}, third)
	for _, want := range []struct {
		offset int64
		at     time.Time
	}{{3, first}, {4, first}, {8, second}, {9, third}} {
		if got := in.came(at(want.offset)); got != want.at {
			t.Errorf("offset %d came at %s, want %s", want.offset, got, want.at)
		}
	}
}
