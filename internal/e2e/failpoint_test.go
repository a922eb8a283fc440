//go:build chaos && linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/cluster"
	"pawl/internal/load"
	"pawl/internal/message"
	"pawl/internal/testkit"
)

// place is where a processor is killed.
type place struct {
	name string
	hit  int // the process dies when it is there for the how many-th time

	// No call is under way and no outcome unwritten when it dies, so that no call may be repeated.
	quiet bool
	// It dies with nothing to do but one order. Else it dies among many.
	alone bool
	// It is told to end, and dies of that.
	ended bool
	rate  float64 // of orders a second; 0 means placeRate
	// The effects are to be called at most once.
	once bool
}

const (
	placeOrders = 200
	placeRate   = 400
	parcels     = 40
)

// places are all that there are in the sources. Those of a process that starts are the first ones that
// come, so that nothing is under way.
var places = []place{
	{name: "ingest.fetched", hit: 1, quiet: true},
	{name: "ingest.appended", hit: 2},
	{name: "ledger.append", hit: 1, quiet: true},
	{name: "ledger.appended", hit: 2},
	{name: "ledger.flush", hit: 2},
	{name: "dispatch.acquired", hit: 1, quiet: true},
	{name: "dispatch.recovered", hit: 1, quiet: true},
	{name: "dispatch.send", hit: 60},
	{name: "dispatch.sent", hit: 60},
	{name: "dispatch.flush", hit: 3},
	{name: "dispatch.flushed", hit: 3},
	{name: "dispatch.renew", hit: 1, rate: 30}, // five seconds after the start
	{name: "dispatch.release", hit: siegeLanes, quiet: true, ended: true},
	{name: "relay.produce", hit: 1, quiet: true, alone: true},
	{name: "relay.produced", hit: 1, quiet: true, alone: true},
	{name: "relay.ended", hit: 1, quiet: true, alone: true},
	{name: "dispatch.begun", hit: parcels / 2, once: true},
}

const siegeLanes = 4 // of effectsConfiguration

// A process that dies at any place loses no effect, makes none up, doubles no row and breaks no order;
// the next one repeats at most the calls whose outcome was not written down.
func TestEffectsSurviveAKillAtEveryPlace(t *testing.T) {
	s := newSiege(t)
	s.processor.program = breakable
	breakable.build(t) // not while a process is awaited
	repeats := 0
	for _, p := range places {
		if !t.Run(p.name, func(t *testing.T) { repeats += s.strike(t, p) }) {
			return // what follows would count what is wrong again
		}
	}
	t.Logf("%d places, %d calls repeated because of them", len(places), repeats)
}

// Dispatch, ingest, relay and upkeep share two connections, of which flushes hold one for long.
func TestEffectsSurviveAPoolOfTwoConnections(t *testing.T) {
	s := newSiege(t)
	s.processor.settings = settings{"postgres.connections=2"}
	s.processor.start(t)
	s.feed(t, 5*placeOrders, placeRate)
	if repeated := s.settle(t); len(repeated) > 0 {
		t.Errorf("calls were repeated without a reason: %v", repeated)
	}
}

// siege is an application with a ledger, one processor, and what it was fed.
type siege struct {
	*rig
	receiver  *receiver
	processor *processor
	dsn       string
	generator *load.Orders
	orders    int64
	parcels   int
	unknown   int // effects, as last seen
	judged    int // calls
}

func newSiege(t *testing.T) *siege {
	t.Helper()
	dsn := testkit.Postgres(t)
	return besiege(t, testkit.OpenKafka(t, cluster.KafkaConfig{Nodes: 1}), dsn, dsn)
}

// besiege makes one whose processor has another way to the database than the test.
func besiege(t *testing.T, k *cluster.Kafka, dsn, processors string, settings ...string) *siege {
	t.Helper()
	s := &siege{dsn: dsn, receiver: openReceiver(t)}
	s.rig = newEffects(t, k, processors, s.receiver, settings...)
	s.processor = s.rig.processor("a")
	s.processor.arguments = []string{"--migrate"}
	var err error
	if s.generator, err = load.NewOrders(load.OrdersConfig{Seed: 1, Customers: 60}); err != nil {
		t.Fatal(err)
	}
	return s
}

// strike kills the processor at a place, starts it again and holds everything against what was fed. It
// returns how many calls were repeated because of that.
func (s *siege) strike(t *testing.T, p place) int {
	began, before := time.Now(), s.receiver.count()
	s.processor.failpoint = fmt.Sprintf("%s:%d", p.name, p.hit)
	defer func() { s.processor.failpoint = "" }()
	s.processor.start(t)
	rate := float64(placeRate)
	if p.rate > 0 {
		rate = p.rate
	}
	switch {
	case p.once:
		s.feedParcels(t)
	case p.alone:
		s.feed(t, 1, rate)
	default:
		s.feed(t, placeOrders, rate)
	}
	if p.ended {
		testkit.WaitFor(t, startTimeout, "calls to end among", func() bool { return s.receiver.count() >= before+placeOrders/4 })
		if err := s.processor.signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	s.awaitDeath(t, p.name)
	died := time.Now()

	s.processor.failpoint = ""
	s.processor.start(t)
	if p.alone {
		s.feed(t, placeOrders-1, rate)
	}
	repeated := s.settle(t)
	switch {
	case p.quiet && len(repeated) > 0:
		t.Errorf("calls were repeated and nothing of theirs was lost: %v", repeated)
	case p.once && len(repeated) > 0:
		t.Errorf("calls were repeated that must be made at most once: %v", repeated)
	}
	if p.once && s.unknown == 0 {
		t.Error("no effect is unknown, want those that may have been called when the process died")
	}
	for at, n := range repeated {
		if n > 1 {
			t.Errorf("the call of %s was repeated %d times after one kill", at, n)
		}
	}
	s.processor.kill()
	t.Logf("killed once, after %s; %d calls repeated by it; all settled %s later",
		died.Sub(began).Round(time.Millisecond), len(repeated), time.Since(died).Round(time.Millisecond))
	return len(repeated)
}

// awaitDeath fails the test unless the process kills itself, at the place and nowhere else.
func (s *siege) awaitDeath(t *testing.T, name string) {
	t.Helper()
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	select {
	case <-s.processor.gone:
	case <-timer.C:
		t.Fatalf("the processor was not at %s within %s", name, startTimeout)
	}
	var exit *exec.ExitError
	if !errors.As(s.processor.err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the processor ended with %v, want SIGKILL", s.processor.err)
	}
	if injected := s.processor.reached(t, name); injected != 1 {
		t.Fatalf("%d kills were injected at %s, want 1", injected, name)
	}
}

// reached counts how often the process has said that it is at its failpoint.
func (p *processor) reached(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	times := 0
	for line := range strings.Lines(string(text)) {
		if line == "failpoint "+name+"\n" {
			times++
		}
	}
	return times
}

// feed writes the next orders.
func (s *siege) feed(t *testing.T, count int64, rate float64) {
	t.Helper()
	s.feeding(t, count, rate)()
}

// feeding begins to write the next orders; finish waits until they are there.
func (s *siege) feeding(t *testing.T, count int64, rate float64) (finish func()) {
	t.Helper()
	producer, err := load.NewProducer(load.ProducerConfig{
		Options: []kgo.Opt{kgo.SeedBrokers(s.kafka.InternalBrokers()...)}, Topic: s.input,
		Generator: s.generator, First: s.orders, Count: count, Rate: rate,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.orders += count
	done := make(chan error, 1)
	go func() { done <- producer.Run(t.Context()) }()
	return func() {
		t.Helper()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// feedParcels writes effects that are to be made at most once, as the engine would: no handler of ours
// asks for such.
func (s *siege) feedParcels(t *testing.T) {
	t.Helper()
	var records []*kgo.Record
	for i := range parcels {
		source := message.Source{Application: s.application, Topic: "parcels", TopicID: [16]byte{1}, Offset: int64(s.parcels + i)}
		record := &kgo.Record{Topic: s.application + ".effects", Key: fmt.Appendf(nil, "parcel-%d", i), Value: fmt.Appendf(nil, `{"parcel":%d}`, i)}
		for _, header := range [][2]string{
			{message.HeaderFormat, message.EffectFormat},
			{message.HeaderID, source.ID(0).String()},
			{message.HeaderSource, source.String()},
			{message.HeaderIndex, "0"},
			{message.HeaderTopicID, fmt.Sprintf("%x", source.TopicID)},
			{message.HeaderGeneration, "0"},
			{message.HeaderEndpoint, "parcels"},
			{message.HeaderClass, string(message.AtMostOnce)},
			{message.HeaderContentType, "application/json"},
		} {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: header[0], Value: []byte(header[1])})
		}
		records = append(records, record)
	}
	if err := s.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s.parcels += parcels
}

// settle waits until every effect has its result and holds topics, ledger and receiver against each
// other. It returns how often the calls since the last time were repeated although they had been
// answered, by lane:offset.
func (s *siege) settle(t *testing.T) map[string]int {
	t.Helper()
	total := int(s.orders) + s.parcels
	var effects map[string]effect
	var results map[string][]string
	testkit.WaitFor(t, time.Minute, fmt.Sprintf("results of %d effects", total), func() bool {
		if s.receiver.accepted() < int(s.orders) {
			return false
		}
		effects, results = s.readEffects(t), s.readResults(t)
		return len(effects) >= total && len(results) >= total
	})
	if len(effects) != total {
		t.Errorf("%d effects are committed, want %d", len(effects), total)
	}
	s.unknown = 0
	wanted := maps.Clone(effects) // to be carried out
	for at, statuses := range results {
		e, known := effects[at]
		once := strings.HasPrefix(e.key, "parcel-")
		switch {
		case !known || len(statuses) != 1:
			t.Errorf("effect %s has result events %v, want one of an effect that is there", at, statuses)
		case once && statuses[0] == "unknown":
			s.unknown++
			delete(wanted, at)
		case statuses[0] != "done":
			t.Errorf("effect %s is %s, want done", at, statuses[0])
		}
	}
	s.receiver.check(t, effects, wanted)
	s.checkLedger(t, effects)
	return s.repeated(t)
}

// repeated counts new calls of effects whose call before had been answered, by lane:offset.
func (s *siege) repeated(t *testing.T) map[string]int {
	t.Helper()
	s.receiver.mu.Lock()
	defer s.receiver.mu.Unlock()
	last, repeated := map[string]received{}, map[string]int{}
	for i, call := range s.receiver.calls {
		if before := last[call.order]; i >= s.judged && before.answered {
			repeated[call.order]++
			if call.fence <= before.fence {
				t.Errorf("the call of %s was repeated under fence %d after %d, want a later owner", call.order, call.fence, before.fence)
			}
		}
		last[call.order] = call
	}
	s.judged = len(s.receiver.calls)
	return repeated
}

// checkLedger asks the database itself: the effects are those of the topic, each once; the chain of each lane has no
// gap, nor have its flushes; every effect has one outcome, and nothing is left to do.
func (s *siege) checkLedger(t *testing.T, effects map[string]effect) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), workTimeout)
	defer cancel()
	connection, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close(ctx) }()
	rows, err := connection.Query(ctx, `SELECT e.lane || ':' || e.off FROM pawl.effect e`)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(stored)
	if want := slices.Sorted(maps.Keys(effects)); !slices.Equal(stored, want) {
		t.Errorf("the ledger has %d effects, %d different ones; the topic has %d", len(stored), len(slices.Compact(stored)), len(want))
	}
	if settled := settledOf(t, connection, effects); settled != len(effects) {
		t.Errorf("the ledger has %d effects settled, want %d", settled, len(effects))
	}
	for what, question := range map[string]struct {
		sql  string
		want int
	}{
		"outcomes":             {`SELECT coalesce(sum(f.n), 0) FROM pawl.flush f`, len(effects)},
		"gaps between flushes": {`SELECT count(*) FROM (SELECT f.seq - lag(f.seq, 1, 0::bigint) OVER (PARTITION BY f.lane ORDER BY f.seq) AS step FROM pawl.flush f) s WHERE s.step <> 1`, 0},
		"gaps in the chain": {`SELECT count(*) FROM (SELECT c.base_off <> lag(c.next_off) OVER w OR c.number <> 1 + lag(c.number) OVER w AS gap
			FROM pawl.ingest c WINDOW w AS (PARTITION BY c.lane ORDER BY c.base_off)) s WHERE s.gap AND s.gap IS NOT NULL`, 0},
		"parked, sending or dead": {`SELECT (SELECT count(*) FROM pawl.parked) + (SELECT count(*) FROM pawl.sending) + (SELECT count(*) FROM pawl.dead WHERE fate <> 'unknown')`, 0},
	} {
		var got int
		if err := connection.QueryRow(ctx, question.sql).Scan(&got); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got != question.want {
			t.Errorf("the ledger has %d %s, want %d", got, what, question.want)
		}
	}
}

// settledOf counts the effects that some flush covers.
func settledOf(t *testing.T, connection *pgx.Conn, effects map[string]effect) int {
	t.Helper()
	type span struct {
		Lane     int32
		From, To int64
	}
	rows, err := connection.Query(t.Context(), `SELECT f.lane, lower(r), upper(r) FROM pawl.flush f, unnest(f.done) r`)
	if err != nil {
		t.Fatal(err)
	}
	spans, err := pgx.CollectRows(rows, pgx.RowToStructByPos[span])
	if err != nil {
		t.Fatal(err)
	}
	settled := map[string]bool{}
	for _, s := range spans {
		for offset := s.From; offset < s.To; offset++ {
			at := fmt.Sprintf("%d:%d", s.Lane, offset)
			if _, is := effects[at]; is {
				settled[at] = true
			}
		}
	}
	return len(settled)
}

// Every place in the sources has its kill, and every kill its place.
func TestEveryFailpointIsAimedAt(t *testing.T) {
	t.Parallel()
	hit := regexp.MustCompile(`failpoint\.Hit\("([^"]+)"\)`)
	var found, aimed []string
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, match := range hit.FindAllSubmatch(text, -1) {
			found = append(found, string(match[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range places {
		aimed = append(aimed, p.name)
	}
	slices.Sort(found)
	slices.Sort(aimed)
	if !slices.Equal(found, aimed) {
		t.Errorf("places are %v, kills are aimed at %v", found, aimed)
	}
}
