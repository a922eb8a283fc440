package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestCourseIsTheSameAgainAndKeepsToItsKeys(t *testing.T) {
	t.Parallel()
	one, other := course{lane: 3}, course{lane: 3}
	turns := map[int]int64{}
	for range 10 * keysPerLane {
		key, body := one.body(100)
		if _, same := other.body(100); !bytes.Equal(body, same) {
			t.Fatalf("body %q and, the second time, %q", body, same)
		}
		gotKey, turn, err := parseBody(body)
		if err != nil || len(body) != 100 || gotKey != key || laneOf(key) != 3 || turn != turns[key] {
			t.Fatalf("body %q: key %d, turn %d, %v; want key %d of lane 3, turn %d", body, gotKey, turn, err, key, turns[key])
		}
		turns[key]++
	}
	if len(turns) < keysPerLane*9/10 {
		t.Errorf("%d keys, want nearly all of %d", len(turns), keysPerLane)
	}
}

func TestDeliveriesTellWhatIsMissingRepeatedAndOutOfOrder(t *testing.T) {
	t.Parallel()
	const asked = 4 * keysPerLane
	bodies := make([][]byte, asked)
	lane := course{lane: 1}
	for i := range bodies {
		_, bodies[i] = lane.body(bodyBytesMin)
	}
	// Two neighbours of one key.
	first, _, _ := parseBody(bodies[0])
	second := 1 + slices.IndexFunc(bodies[1:], func(body []byte) bool { key, _, _ := parseBody(body); return key == first })
	swapped := slices.Clone(bodies)
	swapped[0], swapped[second] = swapped[second], swapped[0]
	instead := slices.Clone(bodies)
	instead[0] = instead[second]
	tests := map[string]struct {
		calls [][]byte
		want  deliveryTally
	}{
		"in order":        {bodies, deliveryTally{Calls: asked}},
		"none":            {nil, deliveryTally{Missing: asked}},
		"last is missing": {bodies[:asked-1], deliveryTally{Calls: asked - 1, Missing: 1}},
		"first again":     {append(slices.Clone(bodies), bodies[0]), deliveryTally{Calls: asked + 1, Repeated: 1, Disordered: 1}},
		"swapped":         {swapped, deliveryTally{Calls: asked, Disordered: 1}},
		"one for another": {instead, deliveryTally{Calls: asked, Missing: 1, Repeated: 1}},
	}
	for name, test := range tests {
		d := newDeliveries(2)
		for _, body := range test.calls {
			if lane, err := d.add(body); lane != 1 || err != nil {
				t.Fatalf("%s: %q is of lane %d, %v", name, body, lane, err)
			}
		}
		got := d.tally([]int64{0, asked})
		if name == "swapped" || name == "one for another" {
			got.Disordered = min(got.Disordered, test.want.Disordered) // how many depends on what is between the two
			if name == "swapped" && got.Disordered == 0 {
				t.Errorf("%s: nothing is out of order", name)
			}
		}
		if got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

func TestForeignBodiesAreRefused(t *testing.T) {
	t.Parallel()
	d := newDeliveries(1)
	for _, body := range []string{"", "short", strings.Repeat("x", 100), "00000001 xxxxxxxxxxxx and", string(bodyOf(keysPerLane, 0, 50))} {
		if _, err := d.add([]byte(body)); err == nil {
			t.Errorf("%q was taken", body)
		}
	}
}

func TestProcessTimesAreRead(t *testing.T) {
	t.Parallel()
	text := "42 (a (b) c) S 7 42 42 0 -1 4194560 0 0 0 0 10 20 3 4 20 0 1 0 100 0 0"
	parent, used, err := parseStat(text)
	if err != nil || parent != 7 || used != 370*time.Millisecond {
		t.Errorf("parent %d, %s, %v; want 7 and 37 ticks", parent, used, err)
	}
	for _, bad := range []string{"", "42 (x) S 7", strings.Replace(text, " 20 3 ", " x 3 ", 1), strings.Replace(text, "S 7", "S x", 1)} {
		if _, _, err := parseStat(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestFiguresArePerEffect(t *testing.T) {
	t.Parallel()
	f := effectFigures{Asked: []int64{600, 400}}
	start := time.Now()
	f.add(reading{at: start, own: time.Second, server: time.Second, wal: 1000}, reading{at: start.Add(2 * time.Second), own: 1010 * time.Millisecond, server: 1005 * time.Millisecond, wal: 501_000})
	if f.Effects != 1000 || f.Rate != 500 || f.OwnCPU != 10 || f.ServerCPU != 5 || f.WAL != 500 {
		t.Errorf("%+v, want 1000 effects, 500/s, 10 us, 5 us, 500 B", f)
	}
	var none effectFigures
	none.add(reading{}, reading{})
	if none.Rate != 0 || none.WAL != 0 {
		t.Errorf("%+v of nothing, want zeros", none)
	}
}

func TestSteadinessComparesHalvesWithoutTheStart(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		slices []float64
		want   float64
	}{
		"too short":        {[]float64{1, 2}, 0},
		"steady":           {[]float64{1, 10, 10, 10, 10}, 1},
		"falling":          {[]float64{99, 10, 10, 7, 5, 5}, 0.5},
		"nothing at first": {[]float64{1, 0, 10}, 0},
	}
	for name, test := range tests {
		if got := (effectFigures{Slices: test.slices}).steadiness(); got != test.want {
			t.Errorf("%s: %g, want %g", name, got, test.want)
		}
	}
}

// memory is an engine that completes what it is given.
type memory struct {
	takes    time.Duration // of an insert
	mu       sync.Mutex
	inserted int64
	done     func(lane int, n int64)
	fail     error // of the first lane; then the others complete nothing
}

func (m *memory) shape() shape { return shape{lanes: 5, inserters: 2, batch: 100} }

func (m *memory) open(_ context.Context, done func(lane int, n int64)) error {
	m.done = done
	return nil
}

func (m *memory) insert(_ context.Context, lane *course, n int) error {
	if lane.lane == 0 && m.fail != nil {
		return m.fail
	}
	for range n {
		lane.step()
	}
	time.Sleep(m.takes) //nolint:forbidigo // virtual time
	m.mu.Lock()
	m.inserted += int64(n)
	m.mu.Unlock()
	if m.fail == nil {
		m.done(lane.lane, int64(n))
	}
	return nil
}

func (m *memory) settle(context.Context, *gauge) error { return nil }
func (m *memory) proof(context.Context) (int64, error) { return m.inserted, nil }
func (m *memory) close(context.Context) error          { return nil }

func TestFeedServesEveryLaneForTheWholeTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{takes: time.Millisecond}
		f := newFeed(m.shape(), 50*time.Millisecond)
		if err := m.open(t.Context(), f.done); err != nil {
			t.Fatal(err)
		}
		figures, err := f.run(t.Context(), m, nil)
		if err != nil {
			t.Fatal(err)
		}
		if figures.Effects != m.inserted || figures.Effects == 0 || figures.Rate <= 0 || figures.Took < 50*time.Millisecond || slices.Contains(figures.Asked, 0) {
			t.Errorf("%+v of %d inserted effects", figures, m.inserted)
		}
	})
}

func TestFailingInsertEndsTheFeed(t *testing.T) {
	t.Parallel()
	m := &memory{fail: errors.New("no room")}
	_, err := newFeed(m.shape(), time.Hour).run(t.Context(), m, nil)
	if !errors.Is(err, m.fail) {
		t.Errorf("error %v, want %v", err, m.fail)
	}
}

// sampleEffects is a report of the effects part, River's figures all 1000.
func sampleEffects(target string, rate, share float64, mine effectFigures) *report {
	r := newReport(settings{only: partEffects, duration: decayDuration, effectBytes: 200}, nil)
	for round := range 3 {
		figures := mine
		figures.Rate, figures.ServerCPU, figures.WAL = 1000*rate, 1000*share, 1000*share
		r.addEffects(effectRun{Peer: effectPawl, Target: target, Round: round + 1, effectFigures: figures})
		r.addEffects(effectRun{Peer: effectRiver, Target: target, Round: round + 1, effectFigures: effectFigures{Rate: 1000, ServerCPU: 1000, WAL: 1000, Tally: deliveryTally{Disordered: 5}}})
		figures.Rate *= 0.95
		r.addEffects(effectRun{Peer: effectPawl + effectHeld, Target: target, Round: round + 1, effectFigures: figures})
	}
	return r
}

func TestEffectTargetsAreJudged(t *testing.T) {
	t.Parallel()
	steady := effectFigures{Slices: []float64{9, 9, 9, 9}}
	falling := effectFigures{Slices: []float64{9, 9, 9, 5, 5}, Tally: deliveryTally{Disordered: 1}}
	tests := []struct {
		target      string
		rate, share float64
		figures     effectFigures
		missed      int
	}{
		{targetNothing, 12, 0.1, steady, 0},
		{targetNothing, 10, 0.2, steady, 2},
		{targetNothing, 9.9, 0.2, steady, 3},
		{targetHTTP, 5, 0.1, steady, 0},
		{targetHTTP, 4, 0.2, steady, 2},
		{targetHTTP, 3.9, 0.21, steady, 5},
		{targetHTTP, 5, 0.1, falling, 2},
	}
	for _, test := range tests {
		r := sampleEffects(test.target, test.rate, test.share, test.figures)
		var table bytes.Buffer
		r.print(&table)
		if len(r.measured()) != 8 || strings.Count(table.String(), "missed") != test.missed || r.met() != (test.missed == 0) {
			t.Errorf("%+v: want %d of eight missed\n%s", test, test.missed, &table)
		}
		for _, peer := range []string{effectPawl, effectPawl + effectHeld, effectRiver} {
			if !strings.Contains(table.String(), fmt.Sprintf("\n%s ", peer)) {
				t.Errorf("no row of %s\n%s", peer, &table)
			}
		}
	}
}

func TestShortRunsAreNotJudgedByTheirDecay(t *testing.T) {
	t.Parallel()
	r := sampleEffects(targetNothing, 10, 0.2, effectFigures{Slices: []float64{9, 9, 1}})
	r.Length = decayDuration - 1
	if r.judge(); len(r.measured()) != 7 {
		t.Errorf("targets %+v, want seven", r.measured())
	}
}

func TestPeersOfTheEffectsPart(t *testing.T) {
	t.Parallel()
	s := settings{effectPeers: "pawl,river-lean,http", holdXmin: true}
	if got, want := s.effectPeersOf(targetNothing), []string{"pawl", "river-lean", "pawl-held"}; !slices.Equal(got, want) {
		t.Errorf("peers %v, want %v", got, want)
	}
	if got, want := s.effectPeersOf(targetHTTP), []string{"pawl", "river-lean", "http", "pawl-held"}; !slices.Equal(got, want) {
		t.Errorf("peers %v, want %v", got, want)
	}
}
