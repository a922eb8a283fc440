package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/testkit"
	"pawl/internal/transact"
)

func fake(t testing.TB, options ...kfake.Opt) []string {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(2)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs()
}

func TestLogsAreReadInBothViews(t *testing.T) {
	t.Parallel()
	readBothViews(t, fake(t))
}

// readBothViews writes committed, aborted and plain records under every compression and reads them both ways.
func readBothViews(t *testing.T, brokers []string) {
	const partitions, transactions, each = 3, 12, 30
	topic := testkit.Name(t, "log")
	testkit.CreateTopics(t, brokers, partitions, nil, topic)
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	fates := map[string]bool{} // by value
	for n, codec := range codecs {
		client := testkit.Client(t, brokers, kgo.TransactionalID(fmt.Sprintf("%s.%d", topic, n)), kgo.ProducerBatchCompression(codec), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		for i := range transactions {
			commit := i%3 != 0
			if err := client.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			var records []*kgo.Record
			for k := range each {
				value := fmt.Sprintf("%d %d %d %v", n, i, k, commit)
				fates[value] = commit
				records = append(records, &kgo.Record{Topic: topic, Partition: int32(k % partitions), Value: []byte(value), Headers: []kgo.RecordHeader{{Key: "n", Value: []byte{byte(n)}}}})
			}
			if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := transact.End(t.Context(), client, kgo.TransactionEndTry(commit), topic, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	fates["plain"] = true
	testkit.Produce(t, brokers, &kgo.Record{Topic: topic, Value: []byte("plain")})

	logs := NewLogs(testkit.Client(t, brokers))
	ranges := wholeLog(t, logs, topic)
	want := map[int32][]string{}
	for _, r := range testkit.ReadCommitted(t, brokers, topic) {
		want[r.Partition] = append(want[r.Partition], fmt.Sprintf("%d %s", r.Offset, r.Value))
	}
	got := map[int32][]string{}
	if err := logs.Read(t.Context(), Committed, ranges, func(e *Entry) error {
		got[e.Record.Partition] = append(got[e.Record.Partition], fmt.Sprintf("%d %s", e.Record.Offset, e.Record.Value))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for partition := range int32(partitions) {
		if !slices.Equal(got[partition], want[partition]) || len(want[partition]) == 0 {
			t.Errorf("partition %d, committed: got %d records, want the %d that a client gets", partition, len(got[partition]), len(want[partition]))
		}
	}

	open := map[spotOf]map[int64][]string{}
	told := map[string]bool{}
	markers := 0
	attempts := map[attempt]bool{}
	if err := logs.Read(t.Context(), Uncommitted, ranges, func(e *Entry) error {
		if m := e.Marker; m != nil {
			markers++
			at := spotOf{0, m.Partition}
			for _, value := range open[at][m.Producer] {
				told[value] = m.Commit
			}
			delete(open[at], m.Producer)
			return nil
		}
		r := e.Record
		if !r.Transactional {
			told[string(r.Value)] = true
			return nil
		}
		at := spotOf{0, r.Partition}
		if open[at] == nil {
			open[at] = map[int64][]string{}
		}
		attempts[attempt{r.Producer, r.Epoch}] = true
		open[at][r.Producer] = append(open[at][r.Producer], string(r.Value))
		if len(r.Headers) != 1 || r.Headers[0].Key != "n" || !bytes.HasPrefix(r.Value, strconv.AppendUint(nil, uint64(r.Headers[0].Value[0]), 10)) {
			t.Errorf("record %d has the headers %v", r.Offset, r.Headers)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(told) != len(fates) {
		t.Errorf("the fate of %d records is known, want %d", len(told), len(fates))
	}
	for value, commit := range fates {
		if told[value] != commit {
			t.Errorf("%q: committed is %v, want %v", value, told[value], commit)
		}
	}
	if want := len(codecs) * transactions * partitions; markers != want {
		t.Errorf("got %d markers, want %d", markers, want)
	}
	if want := len(codecs) * transactions; len(attempts) != want {
		t.Errorf("%d transactions have an epoch of their own, want %d: transaction.version 2", len(attempts), want)
	}
}

type attempt struct {
	producer int64
	epoch    int16
}

func wholeLog(t testing.TB, logs *Logs, topics ...string) (ranges []Range) {
	t.Helper()
	starts, err := logs.Starts(t.Context(), topics...)
	if err != nil {
		t.Fatal(err)
	}
	ends, err := logs.Ends(t.Context(), Uncommitted, topics...)
	if err != nil {
		t.Fatal(err)
	}
	for topic, partitions := range ends {
		for partition, end := range partitions {
			ranges = append(ranges, Range{topic, partition, starts[topic][partition], end})
		}
	}
	return ranges
}

// A range ends where it was told to, in the midst of a batch as at its end.
func TestRangesAreReadExactly(t *testing.T) {
	t.Parallel()
	const records = 100
	brokers := fake(t, kfake.SeedTopics(1, "log"))
	for i := range records {
		testkit.Produce(t, brokers, &kgo.Record{Topic: "log", Value: fmt.Append(nil, i)})
	}
	logs := NewLogs(testkit.Client(t, brokers))
	for _, r := range []Range{{"log", 0, 0, records}, {"log", 0, 17, 18}, {"log", 0, 3, 77}, {"log", 0, 5, 5}} {
		next := r.From
		if err := logs.Read(t.Context(), Uncommitted, []Range{r}, func(e *Entry) error {
			if e.Record.Offset != next {
				t.Errorf("%v: got offset %d, want %d", r, e.Record.Offset, next)
			}
			next++
			return nil
		}); err != nil || next != r.To {
			t.Errorf("%v: read to %d, %v", r, next, err)
		}
	}
}

func TestReadingSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	brokers := fake(t, kfake.SeedTopics(1, "log"))
	testkit.Produce(t, brokers, &kgo.Record{Topic: "log", Value: []byte("one")})
	logs := NewLogs(testkit.Client(t, brokers))
	logs.idle = 300 * time.Millisecond
	visit := func(*Entry) error { return nil }
	for _, test := range []struct {
		r    Range
		want string
	}{
		{Range{"log", 0, 0, 2}, "nothing came for 300ms"},
		{Range{"log", 0, 50, 60}, "begin later"},
		{Range{"log", 7, 0, 1}, "no partition 7"},
		{Range{"gone", 0, 0, 1}, "topic gone"},
	} {
		if err := logs.Read(t.Context(), Uncommitted, []Range{test.r}, visit); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: got %v, want %q", test.r, err, test.want)
		}
	}
	stop := errors.New("enough")
	if err := logs.Read(t.Context(), Uncommitted, []Range{{"log", 0, 0, 1}}, func(*Entry) error { return stop }); err != stop { //nolint:errorlint // as it was
		t.Errorf("got %v, want what visit gave", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := logs.Read(ctx, Uncommitted, []Range{{"log", 0, 0, 5}}, visit); err == nil {
		t.Error("a cancelled reading has no error")
	}
}
