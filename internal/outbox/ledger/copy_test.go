package ledger

import (
	"io"
	"math"
	"testing"
	"testing/iotest"
	"time"

	"pawl/internal/outbox"
)

// The driver reads in pieces of its own choice, which end anywhere in a row.
func TestACopyIsTheSameInWhateverPiecesItIsRead(t *testing.T) {
	t.Parallel()
	intents := make([]outbox.Intent, 20)
	for i := range intents {
		intents[i] = outbox.Intent{Offset: int64(i), At: time.Unix(int64(i), 0), Endpoint: "payments", Body: make([]byte, 100*i)}
	}
	for _, n := range []int{0, 1, len(intents)} {
		whole, err := io.ReadAll(newCopyStream(intents[:n], 1))
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(newCopyStream(intents[:n], 1), whole); err != nil {
			t.Errorf("%d rows: %v", n, err)
		}
	}
}

// A number that is cut to the size of its column would be another one, silently.
func TestNumbersTooLargeForTheirColumnsAreRefused(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*outbox.Intent){
		func(i *outbox.Intent) { i.Index = math.MaxInt32 + 1 },
		func(i *outbox.Intent) { i.Source.ReplayGeneration = math.MaxInt32 + 1 },
		func(i *outbox.Intent) { i.Index = math.MinInt32 - 1 },
	} {
		batch := &outbox.Batch{Next: 1, Intents: make([]outbox.Intent, 1)}
		if err := checkBatch(batch); err != nil {
			t.Fatal(err)
		}
		change(&batch.Intents[0])
		if err := checkBatch(batch); err == nil {
			t.Errorf("%+v was taken", batch.Intents[0])
		}
	}
}
