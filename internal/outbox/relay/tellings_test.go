package relay

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/outbox"
)

func (w *world) tellings(lane int32) (told []outbox.Result, err error) {
	err = Tellings(w.t.Context(), w.client, w.results, lane, func(r outbox.Result) error {
		told = append(told, r)
		return nil
	})
	return told, err
}

func TestTellingsAreWhatTheLedgerHad(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.settle(0, 12, 5, outbox.Done)
		w.settle(1, 3, 5, outbox.Done)
		offsets := w.ask(0, 2)
		w.flush(0, fates(outbox.Dead, offsets...)...)
		p := w.run([]int32{0, 1})
		p.told(17)
		want, err := w.ledger.Results(w.t.Context(), 0, 0, 100)
		if err != nil {
			w.t.Fatal(err)
		}
		for i := range want {
			have := &want[i].Intent
			want[i].Seq, want[i].Epoch = 0, 0
			want[i].Intent = outbox.Intent{
				Lane: have.Lane, Offset: have.Offset, ID: have.ID, Endpoint: have.Endpoint, BusinessKey: have.BusinessKey,
				ContentType: have.ContentType, Key: have.Key, Body: have.Body,
			}
		}
		got, err := w.tellings(0)
		if diff := cmp.Diff(want, got); err != nil || diff != "" || len(got) != 14 {
			w.t.Errorf("%d tellings, %v (-want +got):\n%s", len(got), err, diff)
		}
	})
}

func TestTellingOfATwinPointsToTheFirst(t *testing.T) {
	t.Parallel()
	twin := intent(1, 5)
	twin.BusinessKey, twin.Twin = "charge:1", &outbox.Twin{Lane: 0, Offset: 3, Same: true}
	r, _, err := record(resultsTopic, sizeDefault, outbox.Result{Outcome: outbox.Outcome{Offset: 5, Status: outbox.Duplicate, Error: "why"}, Intent: twin})
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeEvent(r, 1)
	if err != nil || got.Intent.BusinessKey != "charge:1" || !cmp.Equal(got.Intent.Twin, twin.Twin) {
		t.Errorf("decoded are %+v, %v", got, err)
	}
}

func TestTellingsRefuseWhatPawlDidNotWrite(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		for _, value := range []string{`{`, `{"format":2,"lane":0}`, `{"format":1,"lane":1}`, `{"format":1,"lane":0,"effect_id":"1234"}`} {
			if err := w.client.ProduceSync(w.t.Context(), &kgo.Record{Topic: w.results, Value: []byte(value)}).FirstErr(); err != nil {
				w.t.Fatal(err)
			}
			if _, err := w.tellings(0); err == nil || !strings.Contains(err.Error(), "only Pawl writes there") {
				w.t.Errorf("%s was read as %v", value, err)
			}
			if err := w.cluster.DeleteRecords(w.results, 0, w.cluster.PartitionInfo(w.results, 0).HighWatermark); err != nil {
				w.t.Fatal(err)
			}
		}
	})
}

// A relay dies between its events and the end of their transaction. Fenced, it is decided at once that they were
// never told.
func TestFenceDecidesWhatADeadRelayLeftOpen(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.settle(0, 5, 5, outbox.Done)
		p := w.run([]int32{0})
		p.told(5)
		p.wire.arm(fault{key: kmsg.EndTxn, kill: true, then: p.stop})
		w.settle(0, 5, 5, outbox.Done)
		p.relay.Wake(0)
		<-p.ended
		if p.wire.struck() != 1 {
			w.t.Fatal("the relay did not die")
		}
		begun := time.Now()
		if err := Fence(w.t.Context(), Config{Client: w.reach(w.dial), Application: w.application, ResultsTopic: w.results}, 0); err != nil {
			w.t.Fatal(err)
		}
		told, err := w.tellings(0)
		if err != nil || len(told) != 5 || slices.ContainsFunc(told, func(r outbox.Result) bool { return r.Outcome.Offset >= 5 }) {
			w.t.Errorf("told are %d effects, %v, want the first 5", len(told), err)
		}
		if took := time.Since(begun); took >= transactionTimeout/2 {
			w.t.Errorf("it took %s, as if nobody had ended the transaction", took)
		}
	})
}
