package testkit

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// framed puts the size before a message.
func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...)
}

func batch(first int64, count int32, producer int64, attributes int16) []byte {
	b := kmsg.RecordBatch{FirstOffset: first, Magic: 2, Attributes: attributes, LastOffsetDelta: count - 1, ProducerID: producer, ProducerEpoch: 3, NumRecords: count}
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	return b.AppendTo(nil)
}

// A fetch and its answer pass in pieces, and so does an exchange of another kind.
func TestFetchWitnessTellsWhatTheBrokerListed(t *testing.T) {
	t.Parallel()
	client, broker := net.Pipe()
	defer broker.Close()
	w := NewFetchWitness()
	conn := w.watch(client, "broker:9092")
	defer conn.Close()

	request := kmsg.NewPtrFetchRequest()
	request.SetVersion(12)
	ask := append([]byte{0, 1, 0, 12, 0, 0, 0, 7, 0xff, 0xff, 0}, request.AppendTo(nil)...)
	other := append([]byte{0, 3, 0, 1, 0, 0, 0, 8}, 0xff, 0xff)
	p := kmsg.NewFetchResponseTopicPartition()
	p.Partition, p.HighWatermark, p.LastStableOffset = 2, 50, 40
	p.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{{ProducerID: 9, FirstOffset: 10}}
	p.RecordBatches = slices.Concat(
		batch(10, 2, 9, isTransactional), batch(12, 3, 9, isTransactional), batch(15, 1, 9, isTransactional|isControl), // listed
		batch(16, 4, 9, isTransactional), batch(20, 5, -1, 0), batch(25, 1, 9, isTransactional|isControl), // not listed
	)
	p.RecordBatches = append(p.RecordBatches, batch(26, 5, 9, isTransactional)[:60]...) // cut off
	topic := kmsg.NewFetchResponseTopic()
	topic.Topic, topic.Partitions = "topic", []kmsg.FetchResponseTopicPartition{p}
	response := kmsg.NewPtrFetchResponse()
	response.SetVersion(12)
	response.Topics = []kmsg.FetchResponseTopic{topic}
	answer := append([]byte{0, 0, 0, 7, 0}, response.AppendTo(nil)...)

	sent := slices.Concat(framed(other), framed(ask))
	answered := slices.Concat(framed([]byte{0, 0, 0, 8, 1, 2}), framed(answer))
	go func() {
		_, _ = io.ReadFull(broker, make([]byte, len(sent)))
		for piece := range slices.Chunk(answered, 7) {
			_, _ = broker.Write(piece)
		}
	}()
	for piece := range slices.Chunk(sent, 5) {
		if _, err := conn.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, len(answered))
	if _, err := io.ReadFull(conn, got); err != nil || !slices.Equal(got, answered) {
		t.Fatalf("the client was given something else: %v", err)
	}

	listed, unlisted := w.Answers("topic", [16]byte{}, 2, 9, 10, 14), w.Answers("topic", [16]byte{}, 2, 9, 16, 19)
	if len(listed) != 1 || !listed[0].Lists(9, -1, 14) {
		t.Errorf("of what the broker listed it says %+v", listed)
	}
	if len(unlisted) != 1 || unlisted[0].Lists(9, 15, 19) {
		t.Errorf("of what the broker did not list it says %+v", unlisted)
	}
	want := []BatchFetched{{10, 14, 9, 3, false}, {15, 15, 9, 3, true}, {16, 19, 9, 3, false}, {25, 25, 9, 3, true}}
	if a := listed[0]; a.High != 50 || a.Stable != 40 || a.Broker != "broker:9092" || !slices.Equal(a.Batches, want) {
		t.Errorf("it keeps %+v, want batches %v", a, want)
	}
	for _, nothing := range [][]FetchAnswer{
		w.Answers("topic", [16]byte{}, 1, 9, 10, 14), w.Answers("another", [16]byte{1}, 2, 9, 10, 14), w.Answers("topic", [16]byte{}, 2, 8, 10, 14), w.Answers("topic", [16]byte{}, 2, 9, 26, 30),
	} {
		if len(nothing) > 0 {
			t.Errorf("it has %+v of what was not there", nothing)
		}
	}
}
