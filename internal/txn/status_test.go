package txn

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Scripts and dashboards read the status by these names.
func TestStatusHasItsNamesInJSON(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	idle := &lane{state: LaneStatus{Lane: 1, Phase: PhaseOpening, Since: at}}
	busy := &lane{state: LaneStatus{
		Phase: PhaseWorking, Since: at, Joined: true, Partitions: map[string][]int32{"in": {0, 3}},
		Halted: []HaltedPartition{{"in", 3, "run offsets set"}}, LastCommit: at,
	}}
	for want, engine := range map[string]*Engine{
		`{"lanes":[]}`: {},
		`{"lanes":[` +
			`{"lane":0,"phase":"working","since":"2026-11-23T08:00:00Z","joined":true,"partitions":{"in":[0,3]},` +
			`"halted":[{"topic":"in","partition":3,"error":"run offsets set"}],"last_commit":"2026-11-23T08:00:00Z"},` +
			`{"lane":1,"phase":"opening","since":"2026-11-23T08:00:00Z","joined":false,"partitions":{},"halted":[]}]}`: {lanes: []*lane{busy, idle}},
	} {
		if got, err := json.Marshal(engine.Status()); err != nil || string(got) != want {
			t.Errorf("got %s, %v\nwant %s", got, err, want)
		}
	}
}

// A transaction is as old as its first handler call, from one phase to the next, and none is older than
// its end.
func TestLaneTellsSinceWhenItsTransactionRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &lane{}
		for _, step := range []struct {
			phase Phase
			age   time.Duration // of the transaction, a second into the phase; 0 means that there is none
		}{
			{PhaseOpening, 0},
			{PhasePolling, 0},
			{PhaseWorking, time.Second},
			{PhaseEnding, 2 * time.Second},
			{PhaseBackoff, 0},
			{PhaseWorking, time.Second},
			{PhaseStopped, 0},
		} {
			l.phase(step.phase)
			time.Sleep(time.Second) //nolint:forbidigo // virtual time
			begun := l.status().Begun
			if got := time.Since(begun); step.age == 0 != begun.IsZero() || step.age > 0 && got != step.age {
				t.Errorf("%s: a transaction since %s, want %s", step.phase, got, step.age)
			}
		}
	})
}

// The kind of a fence is a label, and an operator acts on it.
func TestFenceHasItsKind(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]Fence{
		kerr.FencedInstanceID:     FenceMember,
		kerr.ProducerFenced:       FenceProducer,
		kerr.InvalidProducerEpoch: FenceEpoch,
	} {
		if err := fmt.Errorf("end: %w", err); FenceOf(err) != want || !isFenced(err) {
			t.Errorf("%v is the fence %s, want %s", err, FenceOf(err), want)
		}
	}
}
