//go:build chaos && linux

package e2e

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/testkit"
)

// A broker that does not list an aborted transaction, and the watcher that reads from it.
func TestWatcherAccusesTheBrokerThatDoesNotList(t *testing.T) {
	t.Parallel()
	var aborted []*kgo.Record
	for range 32 {
		aborted = append(aborted, &kgo.Record{Value: make([]byte, 1<<16)}) // two fetches, or more
	}
	kafka, topic := testkit.UnlistedKafka(t, &kgo.Record{}, aborted, &kgo.Record{})
	v := watch(t.Context(), t, "reader", kafka.Brokers(), "", topic)
	end := testkit.EndOffsets(t, kafka.Brokers(), topic)
	testkit.WaitFor(t, readersTimeout, "the reader at the end", func() bool { return v.reached(topic, end) })
	v.close()
	if len(v.aborted) != 1 {
		t.Fatalf("was given %d aborted transactions, want the one that the broker does not list: %v", len(v.aborted), v.aborted)
	}
	read := v.aborted[0]
	t.Log(read)
	// The first was aborted and listed, and stands at 0 with its marker behind it.
	if !read.BrokerWrong || read.First != 2 || read.Records == 0 || read.Marker != int64(2+len(aborted)) {
		t.Errorf("%+v", read)
	}
}
