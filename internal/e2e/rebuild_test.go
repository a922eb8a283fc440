//go:build chaos && linux

package e2e

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"pawl/internal/testkit"
)

// rebuiltLanes is what `ledger rebuild` prints.
type rebuiltLanes struct {
	Lanes []struct {
		Lane                                                int32
		Start, End, Next                                    int64
		Action                                              string
		Effects, Told, Unknown, Repeats, Twins, Held, Calls int64
	}
}

// The database is lost, without any backup, while calls are under way and results are not told; orders come in
// while there is none. The ledger that is made anew of the topics calls only what no result was told of, and at most
// once calls not at all. The second time the effects topic has lost its beginning.
func TestLostLedgerIsRebuiltFromItsTopics(t *testing.T) {
	for name, trimmed := range map[string]bool{"the topic is whole": false, "its beginning is gone": true} {
		t.Run(name, func(t *testing.T) { rebuildLedger(t, trimmed) })
	}
}

func rebuildLedger(t *testing.T, trimmed bool) {
	t.Helper()
	const (
		orders = 300
		meanly = 60 // orders that come while there is no ledger
		twice  = 20 // of those before
	)
	s := newSiege(t)
	v := newVault(t, s.dsn)
	s.processor.program = breakable
	s.processor.failpoint = "relay.produce:6" // called, and not told
	s.processor.start(t)
	s.feed(t, orders, placeRate)
	s.awaitDeath(t, "relay.produce")
	s.processor.failpoint, s.processor.program = "", nil
	before := s.receiver.count()

	s.processor.settings = settings{"postgres.dsn_file="}
	s.processor.arguments = nil
	s.processor.start(t)
	s.processor.awaitReady(t)
	s.feed(t, meanly, 0)
	testkit.Produce(t, s.kafka.InternalBrokers(), s.again(t, 0, twice, nil)...)
	testkit.WaitFor(t, workTimeout, "the effects of all orders", func() bool { return len(s.readEffects(t)) == orders+meanly+twice })
	s.processor.terminate(t, endTimeout)
	s.processor.settings = nil
	s.feedParcels(t)
	v.lose()
	s.run(t, "migrate", "up", "--yes")

	// Without more, a processor would call everything again.
	s.processor.start(t)
	s.processor.await(t, startTimeout, "all lanes halted", func() bool {
		halted := 0
		for _, line := range s.processor.lines(t) {
			if strings.Contains(line, "lane of effects halted") && strings.Contains(line, "results of effects were told") {
				halted++
			}
		}
		return halted == siegeLanes
	})
	s.processor.terminate(t, endTimeout)
	if got := s.receiver.count(); got != before {
		t.Fatalf("a ledger that knows nothing led to %d calls", got-before)
	}

	all := s.readEffects(t)
	effects := all
	if trimmed {
		trim := kadm.Offsets{}
		for lane, end := range testkit.EndOffsets(t, s.kafka.InternalBrokers(), s.application+".effects") {
			trim.AddOffset(s.application+".effects", lane, end/4, -1)
		}
		if deleted, err := s.admin.DeleteRecords(t.Context(), trim); err != nil || deleted.Error() != nil {
			t.Fatal(err, deleted.Error())
		}
		effects = s.readEffects(t)
	}
	program := &shop{rig: s.rig}
	stdout, stderr, code := program.command(t, "ledger", "rebuild", "--reason", "lost", "--yes", "-o", "json")
	var rebuilt rebuiltLanes
	if err := json.Unmarshal([]byte(stdout), &rebuilt); err != nil || code != 0 {
		t.Fatalf("ledger rebuild: exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	s.wantRebuilt(t, rebuilt, effects, all)
}

// wantRebuilt starts a processor on a rebuilt ledger and holds what it does against what had been told.
func (s *siege) wantRebuilt(t *testing.T, rebuilt rebuiltLanes, effects, all map[string]effect) {
	t.Helper()
	gone := len(all) - len(effects)
	earlier := s.tellings(t)
	known, charged := map[string]bool{}, map[string]bool{}
	for _, e := range earlier {
		known[e.at()] = true
		charged[e.ID] = true
	}
	// What is to be called: the first of each id, unless something was told of it. Parcels may have been sent.
	unknown, firsts, parcels, second := map[string]bool{}, map[string]string{}, 0, 0
	for _, at := range slices.SortedFunc(maps.Keys(effects), func(a, b string) int { return offsetOf(a) - offsetOf(b) }) {
		e := effects[at]
		_, again := firsts[e.id]
		switch {
		case known[at]:
			firsts[e.id] = at
		case strings.HasPrefix(e.key, "parcel-"):
			parcels++
		case again || charged[e.id]:
			second++
		default:
			firsts[e.id] = at
			unknown[at] = true
		}
	}
	var sum struct{ effects, told, unknown, repeats, twins, calls, below int64 }
	for _, lane := range rebuilt.Lanes {
		if lane.Action != "begun" || lane.Next != lane.End {
			t.Errorf("lane %d is %s and stands at %d of %d", lane.Lane, lane.Action, lane.Next, lane.End)
		}
		sum.effects += lane.Effects
		sum.told += lane.Told
		sum.unknown += lane.Unknown
		sum.repeats += lane.Repeats
		sum.twins += lane.Twins
		sum.calls += lane.Calls
		sum.below += lane.Start
	}
	t.Logf("rebuilt: %+v; %d effects are gone", sum, gone)
	present := 0
	for at := range effects {
		if known[at] {
			present++
		}
	}
	switch {
	case sum.effects != int64(len(effects)) || sum.told != int64(present) || sum.unknown != int64(parcels) || sum.calls != int64(len(unknown)) || sum.repeats+sum.twins != int64(second):
		t.Errorf("want %d effects, %d told, %d unknown, %d calls, %d twins or repeats", len(effects), present, parcels, len(unknown), second)
	case present == 0 || parcels == 0 || second == 0 || len(unknown) == 0:
		t.Error("there was nothing of one kind, so that nothing is shown of it")
	case (gone > 0) != (sum.below > 0) || (gone > 0) != (sum.repeats > 0):
		t.Errorf("%d effects are gone, the lanes begin at %d in all, and %d effects repeat what is gone", gone, sum.below, sum.repeats)
	}

	before := s.receiver.count()
	s.processor.arguments = nil
	s.processor.start(t)
	s.processor.awaitReady(t)
	events := s.awaitTold(t, len(earlier)+len(unknown)+second+parcels)
	fresh := countTold(events)
	for status, n := range countTold(earlier) {
		fresh[status] -= n
	}
	if fresh["done"] != len(unknown) || fresh["duplicate"] != second || fresh["unknown"] != parcels {
		t.Errorf("results %v were told since, want %d done, %d duplicate, %d unknown", fresh, len(unknown), second, parcels)
	}
	there := events[:0]
	for _, e := range events {
		if _, is := effects[e.at()]; is {
			there = append(there, e)
		}
	}
	wantToldOnce(t, there, effects)
	settled := map[string]bool{}
	for at := range effects {
		settled[at] = !unknown[at]
	}
	// A call that was made and not told is repeated: what was called before is no measure.
	repeated := 0
	made := s.receiver.since(0)[:before]
	for at := range unknown {
		if slices.ContainsFunc(made, func(call received) bool { return call.order == at && call.answered }) {
			repeated++
		}
	}
	s.wantRepeats(t, before, all, settled, unknown)
	if repeated == 0 && gone == 0 {
		t.Error("no call was under way when the ledger was lost")
	}
	t.Logf("%d effects were called since, %d of them for the second time, because nothing was told of them", len(unknown), repeated)
}
