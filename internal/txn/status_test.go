package txn

import (
	"encoding/json"
	"testing"
	"time"
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
