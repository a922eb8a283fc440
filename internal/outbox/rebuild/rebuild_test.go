package rebuild

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger/ledgertest"
)

// world is a topic of effects, what was told of them, and a ledger that is lost.
type world struct {
	t      *testing.T
	ledger *ledgertest.Memory
	topic  map[int32][]outbox.Intent
	told   map[int32][]outbox.Result
	holds  bool
	fills  []string // what was read, in order
	fail   func(step string) error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{t: t, ledger: &ledgertest.Memory{}, topic: map[int32][]outbox.Intent{}, told: map[int32][]outbox.Result{}}
}

// ask puts an effect on a lane and gives its offset, which leaves gaps.
func (w *world) ask(lane int32, change ...func(*outbox.Intent)) int64 {
	n := len(w.topic[lane])
	source := message.Source{Application: "shop", Topic: "orders", Partition: lane, Offset: int64(n), TopicID: [16]byte{9}}
	intent := outbox.Intent{
		Lane: lane, Offset: int64(10 + 2*n), ID: source.ID(0), Source: source, Endpoint: "payments", Class: message.AtLeastOnce,
		ContentType: "application/json", Key: fmt.Appendf(nil, "key %d", n%5), Body: fmt.Appendf(nil, "body %d", n), At: time.Unix(int64(n), 0).UTC(),
	}
	for _, c := range change {
		c(&intent)
	}
	w.topic[lane] = append(w.topic[lane], intent)
	return intent.Offset
}

func business(key, body string) func(*outbox.Intent) {
	return func(i *outbox.Intent) {
		i.BusinessKey, i.Body = key, []byte(body)
		i.ID = message.Source{Topic: key}.ID(0)
	}
}

func once(i *outbox.Intent) { i.Class = message.AtMostOnce }

func keyed(key string) func(*outbox.Intent) { return func(i *outbox.Intent) { i.Key = []byte(key) } }

// tell adds a result event, first being "lane:offset" or nothing.
func (w *world) tell(lane int32, offset int64, status outbox.Status, first ...*outbox.Twin) {
	r := outbox.Result{Outcome: outbox.Outcome{Offset: offset, Status: status, Attempts: 1, HTTPStatus: 200}, Intent: outbox.Intent{Lane: lane, Offset: offset}}
	for _, intent := range w.topic[lane] {
		if intent.Offset == offset {
			r.Intent = intent
		}
	}
	if status != outbox.Done {
		r.Outcome.HTTPStatus, r.Outcome.Error = 422, "422 no"
	}
	for _, twin := range first {
		r.Intent.Twin = twin
	}
	w.told[lane] = append(w.told[lane], r)
}

// worldFiller appends to the ledger in batches of three.
type worldFiller struct {
	w    *world
	lane int32
}

func (f worldFiller) Close() {}

func (f worldFiller) Fill(ctx context.Context, until int64) (int64, error) {
	if f.w.fail != nil {
		if err := f.w.fail("fill"); err != nil {
			return 0, err
		}
	}
	head, err := f.w.ledger.Head(ctx, f.lane)
	if err != nil {
		return 0, err
	}
	for base := head.Next; base < until; {
		batch := outbox.Batch{Lane: f.lane, TopicID: head.TopicID, Base: base, Next: until}
		for _, intent := range f.w.topic[f.lane] {
			if intent.Offset < base || intent.Offset >= until {
				continue
			}
			if len(batch.Intents) == 3 {
				batch.Next = intent.Offset
				break
			}
			batch.Intents = append(batch.Intents, intent)
			f.w.fills = append(f.w.fills, fmt.Sprintf("%d:%d", f.lane, intent.Offset))
		}
		if err := f.w.ledger.Append(ctx, &batch); err != nil {
			return base, err
		}
		base = batch.Next
	}
	return until, nil
}

func (w *world) config() Config {
	return Config{
		Store: w.ledger, TopicID: [16]byte{7},
		Fill: func(_ context.Context, lane int32) (Filler, error) { return worldFiller{w, lane}, nil },
		Told: func(_ context.Context, lane int32, visit func(outbox.Result) error) error {
			for _, r := range w.told[lane] {
				if err := visit(r); err != nil {
					return err
				}
			}
			return nil
		},
		Holds: func(string) bool { return w.holds },
	}
}

// lanes gives the bounds of the topic, which begins at start.
func (w *world) lanes(start int64) []Lane {
	var lanes []Lane
	for lane := range int32(len(w.topic)) {
		lanes = append(lanes, Lane{Lane: lane, Start: start, End: 12 + 2*int64(len(w.topic[lane]))})
	}
	return lanes
}

func (w *world) rebuild(start int64, change ...func(*Config)) []Lane {
	w.t.Helper()
	lanes, err := w.try(start, change...)
	if err != nil {
		w.t.Fatal(err)
	}
	return lanes
}

func (w *world) try(start int64, change ...func(*Config)) ([]Lane, error) {
	c := w.config()
	for _, f := range change {
		f(&c)
	}
	lanes := w.lanes(start)
	plan, err := c.Plan(w.t.Context(), lanes)
	if err != nil {
		return nil, err
	}
	return lanes, plan.Run(w.t.Context())
}

// recovery is what the next owner of a lane finds.
func (w *world) recovery(lane int32) outbox.Recovery {
	w.t.Helper()
	tenure, err := w.ledger.Acquire(w.t.Context(), lane, "shop.a", time.Minute)
	if err != nil {
		w.t.Fatal(err)
	}
	recovery, err := w.ledger.Recover(w.t.Context(), tenure)
	if err != nil {
		w.t.Fatal(err)
	}
	return recovery
}

// left gives the effects that a process would find to do, and those that wait for an operator.
func (w *world) left() (open, held []string) {
	w.t.Helper()
	ctx := w.t.Context()
	for lane := range int32(len(w.topic)) {
		recovery := w.recovery(lane)
		parked := map[int64]bool{}
		for _, p := range recovery.Parked {
			parked[p.Offset] = true
			if p.Role != outbox.Held {
				w.t.Errorf("%d:%d is parked as %d", lane, p.Offset, p.Role)
			}
			held = append(held, fmt.Sprintf("%d:%d", lane, p.Offset))
		}
		intents, _, err := w.ledger.Page(ctx, lane, recovery.Low, 5000)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, intent := range intents {
			if !parked[intent.Offset] && !recovery.Settled.Contains(intent.Offset) {
				open = append(open, fmt.Sprintf("%d:%d", lane, intent.Offset))
			}
		}
	}
	return open, held
}

func (w *world) wantLeft(want ...string) {
	w.t.Helper()
	if open, held := w.left(); !slices.Equal(open, want) || len(held) > 0 {
		w.t.Errorf("effects %v are left to do and %v are held, want %v", open, held, want)
	}
}

// fates gives the outcomes in the ledger, by lane:offset.
func (w *world) fates() map[string]outbox.Outcome {
	w.t.Helper()
	fates := map[string]outbox.Outcome{}
	for lane := range int32(len(w.topic)) {
		results, err := w.ledger.Results(w.t.Context(), lane, 0, 1000)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, r := range results {
			fates[fmt.Sprintf("%d:%d", lane, r.Outcome.Offset)] = r.Outcome
		}
	}
	return fates
}

// What was told is settled as it was told, and only the rest is left to do.
func TestWhatWasToldIsNotCalledAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 2500 { // more than a page
		w.ask(0)
	}
	w.ask(1)
	for i, intent := range w.topic[0] {
		switch i {
		case 7, 2400: // nothing was told
		case 5:
			w.tell(0, intent.Offset, outbox.Unknown)
		case 6: // an operator retried it
			w.tell(0, intent.Offset, outbox.Dead)
			w.tell(0, intent.Offset, outbox.Done)
		case 8: // a ledger that had forgotten it called it again
			w.tell(0, intent.Offset, outbox.Done)
			w.tell(0, intent.Offset, outbox.Dead)
		case 9: // likewise, and the first one took two attempts
			w.tell(0, intent.Offset, outbox.Done)
			w.told[0][len(w.told[0])-1].Outcome.Attempts = 2
			w.tell(0, intent.Offset, outbox.Dead)
		default:
			w.tell(0, intent.Offset, outbox.Done)
		}
	}
	w.tell(1, 10, outbox.Dead)
	w.tell(1, 4000, outbox.Done) // of an effect that is not there
	lanes := w.rebuild(0)
	w.wantLeft("0:24", "0:4810")
	fates := w.fates()
	for at, want := range map[string]outbox.Status{"0:10": outbox.Done, "0:20": outbox.Unknown, "0:22": outbox.Done, "0:26": outbox.Done, "0:28": outbox.Done, "1:10": outbox.Dead} {
		if fates[at].Status != want {
			t.Errorf("%s is %q, want %q", at, fates[at].Status, want)
		}
	}
	if dead := fates["1:10"]; dead.Error != "422 no" || dead.HTTPStatus != 422 || dead.Attempts != 1 {
		t.Errorf("the dead effect is %+v", dead)
	}
	if l := lanes[0]; l.Action != Begun || l.Effects != 2500 || l.Told != 2498 || l.Calls != 2 || l.Next != l.End {
		t.Errorf("lane 0 is summed up as %+v", l)
	}
}

// Nobody may dispatch a lane that was rebuilt in part, and another run goes on with it.
func TestRebuildThatIsCutOffIsGoneOnWith(t *testing.T) {
	t.Parallel()
	for step := range 11 {
		t.Run(fmt.Sprintf("at change %d", step), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for range 2500 {
				w.ask(0)
			}
			w.ask(1)
			for i, intent := range w.topic[0] {
				if i != 1200 {
					w.tell(0, intent.Offset, outbox.Done)
				}
			}
			w.tell(1, 10, outbox.Done)
			broken, changes := errors.New("connection reset"), 0
			w.ledger.Fail = func(method string, after bool) error {
				if slices.Contains([]string{"Acquire", "Seed", "Append", "Flush", "Release"}, method) && after == (step%2 == 0) {
					if method != "Append" || changes < 5 { // there are hundreds of these
						changes++
					}
					if changes == step+1 {
						changes++
						return broken
					}
				}
				return nil
			}
			if _, err := w.try(0); !errors.Is(err, broken) {
				t.Fatalf("the rebuild ended with %v, want %v", err, broken)
			}
			for lane, outcomes := range []int{2499, 1} {
				lane := int32(lane)
				head, err := w.ledger.Head(t.Context(), lane)
				if err != nil {
					t.Fatal(err)
				}
				has, err := w.ledger.Owner(t.Context(), lane)
				if err != nil {
					t.Fatal(err)
				}
				results, err := w.ledger.Results(t.Context(), lane, 0, 1000)
				if err != nil {
					t.Fatal(err)
				}
				if head.Known && has != owner && len(results) != outcomes {
					t.Errorf("lane %d has %d outcomes of %d and anybody may dispatch it", lane, len(results), outcomes)
				}
			}
			w.rebuild(0)
			w.wantLeft("0:2410")
			if len(w.fates()) != 2500 {
				t.Errorf("%d effects have outcomes, want 2500", len(w.fates()))
			}
		})
	}
}

// The first with a business key waits in lane 1, and it was told of its duplicate in lane 0. If the duplicate were read
// first it would be the first, and neither would ever be called.
func TestFirstWithABusinessKeyStaysFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 4 {
		w.ask(0)
		w.ask(1)
	}
	first := w.ask(1, business("charge:1", "10 EUR"))
	twin := w.ask(0, business("charge:1", "10 EUR"))
	conflict := w.ask(0, business("charge:1", "99 EUR"))
	late := w.ask(0, business("charge:2", "20 EUR")) // nothing was told of this, but of its first
	done := w.ask(1, business("charge:2", "20 EUR"))
	for _, intent := range w.topic[0][:4] {
		w.tell(0, intent.Offset, outbox.Done)
	}
	for _, intent := range w.topic[1][:4] {
		w.tell(1, intent.Offset, outbox.Done)
	}
	w.tell(0, twin, outbox.Duplicate, &outbox.Twin{Lane: 1, Offset: first, Same: true})
	w.tell(0, conflict, outbox.Conflict, &outbox.Twin{Lane: 1, Offset: first})
	w.tell(1, done, outbox.Done)
	lanes := w.rebuild(0)
	w.wantLeft(fmt.Sprintf("0:%d", late), fmt.Sprintf("1:%d", first))
	intents, err := w.ledger.Get(t.Context(), 0, []int64{twin, late})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []outbox.Twin{{Lane: 1, Offset: first, Same: true}, {Lane: 1, Offset: done, Same: true}} {
		if got := intents[i].Twin; got == nil || *got != want {
			t.Errorf("%d is a twin of %+v, want %+v", intents[i].Offset, got, want)
		}
	}
	if lanes[0].Twins != 1 || lanes[1].Calls != 1 || lanes[0].Calls != 0 {
		t.Errorf("lanes are summed up as %+v", lanes)
	}
}

// The first with a business key is the last of its lane, and nothing was told of it nor of any effect beside it.
func TestFirstOfWhichNothingWasToldStaysFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	twin := w.ask(0, business("charge:1", "10 EUR"))
	w.ask(1)
	first := w.ask(1, business("charge:1", "10 EUR"))
	w.tell(0, twin, outbox.Duplicate, &outbox.Twin{Lane: 1, Offset: first, Same: true})
	w.rebuild(0)
	w.wantLeft("1:10", fmt.Sprintf("1:%d", first))
	if intents, err := w.ledger.Get(t.Context(), 1, []int64{first}); err != nil || intents[0].Twin != nil {
		t.Errorf("the first is a twin of %+v, %v", intents[0].Twin, err)
	}
}

// An effect in lane 0 has the business key of one in lane 1. Of the latter the result was told, so that it was first.
func TestWhatWasToldIsFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	late := w.ask(0, business("charge:1", "10 EUR"))
	done := w.ask(1, business("charge:1", "10 EUR"))
	w.tell(1, done, outbox.Done)
	lanes := w.rebuild(0)
	if lanes[0].Twins != 1 || lanes[0].Calls != 0 {
		t.Errorf("the lane is summed up as %+v, want %d not to be called", lanes[0], late)
	}
}

// What two ledgers told in turn can contradict: then the rebuild goes on all the same.
func TestContradictoryTwinsDoNotBlock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one := w.ask(0, business("a", "x"))
	two := w.ask(1, business("a", "x"))
	w.tell(0, one, outbox.Duplicate, &outbox.Twin{Lane: 1, Offset: two, Same: true})
	w.tell(1, two, outbox.Duplicate, &outbox.Twin{Lane: 0, Offset: one, Same: true})
	w.rebuild(0)
	w.wantLeft()
}

// The topic's beginning is gone. Effects whose first was there, and was told of, are not called.
func TestRepeatsOfWhatIsGoneAreNotCalled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const start = 20
	for range 5 {
		w.tell(0, w.ask(0), outbox.Done)
	}
	w.tell(0, w.topic[0][0].Offset, outbox.Done)
	old := w.topic[0][1]
	w.topic[0][2].BusinessKey, w.topic[0][2].Body = "charge:1", []byte("10 EUR")
	w.told[0][2].Intent = w.topic[0][2]
	rewound := w.ask(0, func(i *outbox.Intent) { i.ID, i.Body, i.Source = old.ID, old.Body, old.Source })
	other := w.ask(0, func(i *outbox.Intent) { i.ID, i.BusinessKey, i.Body = w.topic[0][2].ID, "charge:1", []byte("11 EUR") })
	fresh := w.ask(0)
	w.topic[0] = w.topic[0][5:]
	lanes := w.rebuildAt(start)
	w.wantLeft(fmt.Sprintf("0:%d", fresh))
	fates := w.fates()
	if got := fates[fmt.Sprintf("0:%d", rewound)].Status; got != outbox.Duplicate {
		t.Errorf("the repeat is %q", got)
	}
	if got := fates[fmt.Sprintf("0:%d", other)].Status; got != outbox.Conflict {
		t.Errorf("the one with another body is %q", got)
	}
	if lanes[0].Repeats != 2 || lanes[0].Calls != 1 {
		t.Errorf("the lane is summed up as %+v", lanes[0])
	}
}

// rebuildAt is for a lane whose effects below start are gone.
func (w *world) rebuildAt(start int64) []Lane {
	w.t.Helper()
	c := w.config()
	last := w.topic[0][len(w.topic[0])-1]
	lanes := []Lane{{Lane: 0, Start: start, End: last.Offset + 1}}
	plan, err := c.Plan(w.t.Context(), lanes)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := plan.Run(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return lanes
}

// Whether an at-most-once call was begun stood in the ledger that is lost.
func TestAtMostOnceCallIsNotRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tell(0, w.ask(0, once), outbox.Done)
	w.ask(0, once)
	w.ask(0)
	lanes := w.rebuild(0)
	w.wantLeft("0:14")
	if got := w.fates()["0:12"]; got.Status != outbox.Unknown || got.Error == "" {
		t.Errorf("the call that may have been made is %+v", got)
	}
	if lanes[0].Unknown != 1 {
		t.Errorf("the lane is summed up as %+v", lanes[0])
	}
}

// Those behind a dead effect wait for an operator where the endpoint says so, and only there.
func TestDeadEffectStillHoldsItsKey(t *testing.T) {
	t.Parallel()
	for _, holds := range []bool{true, false} {
		w := newWorld(t)
		w.holds = holds
		w.tell(0, w.ask(0, keyed("a")), outbox.Dead)
		w.tell(0, w.ask(0, keyed("b")), outbox.Dead)
		w.ask(0, keyed("a"))
		w.ask(0, keyed("c"))
		w.tell(0, w.ask(0, keyed("b")), outbox.Done) // an operator let it go
		w.ask(0, keyed("b"))
		w.ask(0, keyed("a"))
		w.rebuild(0)
		open, held := w.left()
		wantOpen, wantHeld := []string{"0:16", "0:20"}, []string{"0:14", "0:22"}
		if !holds {
			wantOpen, wantHeld = []string{"0:14", "0:16", "0:20", "0:22"}, nil
		}
		if !slices.Equal(open, wantOpen) || !slices.Equal(held, wantHeld) {
			t.Errorf("holds %t: open are %v and held %v, want %v and %v", holds, open, held, wantOpen, wantHeld)
		}
		var wantHolds []outbox.Hold
		if holds {
			wantHolds = []outbox.Hold{{Offset: 10, Endpoint: "payments", Key: []byte("a")}}
		}
		if !reflect.DeepEqual(w.recovery(0).Holds, wantHolds) {
			t.Errorf("holds are %+v, want %+v", w.recovery(0).Holds, wantHolds)
		}
	}
}

// A key that was let go more than a flush later does not wait.
func TestHoldOfAnEarlierFlushEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.holds = true
	w.tell(0, w.ask(0, keyed("a")), outbox.Dead)
	for range pageMax {
		w.tell(0, w.ask(0), outbox.Done)
	}
	w.tell(0, w.ask(0, keyed("a")), outbox.Done)
	w.rebuild(0)
	if recovery := w.recovery(0); len(recovery.Holds) != 0 || recovery.Seq < 2 {
		t.Errorf("after %d flushes holds are %+v", recovery.Seq, recovery.Holds)
	}
}

func TestKnownLanesAreKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ask(0)
	w.tell(0, 10, outbox.Done)
	w.ask(1)
	if err := w.ledger.Seed(t.Context(), 0, [16]byte{7}, 10); err != nil {
		t.Fatal(err)
	}
	lanes := w.rebuild(0)
	if lanes[0].Action != Kept || lanes[0].Next != 10 || lanes[1].Action != Begun || lanes[1].Calls != 1 {
		t.Errorf("lanes are %+v", lanes)
	}
	if open, _ := w.left(); !slices.Equal(open, []string{"1:10"}) {
		t.Errorf("effects %v are left to do", open)
	}
}

func TestRebuildLooksAtNothingWhereItIsToldSo(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*Config)
		next   int64
	}{
		"latest": {func(c *Config) { c.Latest = true }, 16},
		"repeat": {func(c *Config) { c.Repeat = true }, 4},
	} {
		w := newWorld(t)
		w.tell(0, w.ask(0), outbox.Done)
		w.ask(0)
		lanes := w.rebuild(4, test.change)
		head, err := w.ledger.Head(t.Context(), 0)
		if err != nil || head.Next != test.next || lanes[0].Next != test.next || lanes[0].Action != Begun {
			t.Errorf("%s: the lane stands at %d and is told as %+v, want %d", name, head.Next, lanes[0], test.next)
		}
		w.left() // a process may have it
	}
}

func TestRunningProcessStopsARebuild(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ask(0)
	if _, err := w.ledger.Acquire(t.Context(), 0, "shop.a", time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := w.try(0); !errors.Is(err, outbox.ErrHeld) || !strings.Contains(err.Error(), "stop every process") {
		t.Errorf("the rebuild ended with %v", err)
	}
}
