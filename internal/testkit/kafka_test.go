//go:build integration

package testkit

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/transact"
)

func TestReadersSeeWhatTheirIsolationLevelAllows(t *testing.T) {
	t.Parallel()
	brokers := Kafka(t)
	topic := Name(t, "topic")
	CreateTopics(t, brokers, 2, nil, topic)
	if got := ReadCommitted(t, brokers, topic); len(got) != 0 {
		t.Errorf("an empty topic has %d records", len(got))
	}
	Produce(t, brokers, &kgo.Record{Topic: topic, Value: []byte("plain")})

	writer := Client(t, brokers, kgo.TransactionalID(Name(t, "id")), kgo.DefaultProduceTopic(topic))
	for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		if err := writer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		record := kgo.StringRecord("in a transaction")
		if err := writer.ProduceSync(t.Context(), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := transact.End(t.Context(), writer, end, topic, record.Partition); err != nil {
			t.Fatal(err)
		}
	}
	if got := ReadCommitted(t, brokers, topic); len(got) != 2 {
		t.Errorf("read_committed got %d records, want 2", len(got))
	}
	if got := ReadUncommitted(t, brokers, topic); len(got) != 3 {
		t.Errorf("read_uncommitted got %d records, want 3", len(got))
	}
	var end int64
	for _, offset := range EndOffsets(t, brokers, topic) {
		end += offset
	}
	if end != 5 { // two markers
		t.Errorf("end offsets add up to %d, want 5", end)
	}
}
