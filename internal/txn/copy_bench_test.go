package txn

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// BenchmarkCopy is what the engine itself does with a record between poll and produce: ns for each record of a batch.
func BenchmarkCopy(b *testing.B) {
	const n = 10_000
	records := manyInputs(n)
	for _, r := range records {
		r.Headers = nil
	}
	tr := newTestTransformer(1, copyHandler{})
	made := newBuilder(tr.config, tr.sizes)
	batch := newBatch()
	fetches := kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: inTopic, Partitions: []kgo.FetchPartition{{Records: records}}}}}}
	for b.Loop() {
		made.reset()
		batch.reset()
		batch.add(fetches, records[0].Timestamp)
		source := message.Source{Application: "app"}
		for part, err := range tr.run(batch.records, testTopicID, nil, 1) {
			if err != nil {
				b.Fatal(err)
			}
			for i, r := range part.records {
				source.Topic, source.Partition, source.Offset = r.Topic, r.Partition, r.Offset
				if err := made.build(r, source, &part.outcomes[i], "copy", func(*kgo.Record) {}); err != nil {
					b.Fatal(err)
				}
			}
		}
		if batch.oldest != records[0] {
			b.Fatal("the oldest is another one")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/record")
}
