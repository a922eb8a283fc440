//go:build chaos && linux

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/cluster"
	"pawl/internal/load"
	"pawl/internal/message"
	"pawl/internal/testkit"
)

// effectsConfiguration takes the application, brokers, the receiver's URL, and the paths of the
// connection string and of the token.
const effectsConfiguration = `application: %[1]s
kafka: {brokers: [%[2]s], heartbeat: 1s, session_timeout: 6s}
routes:
  - {topics: [%[1]s.orders], handler: orders}
  - {topics: [%[1]s.effect-results], handler: order-results}
outputs:
  priced: {topic: %[1]s.priced, partitions: 4}
  ledger: {topic: %[1]s.ledger, partitions: 4}
txn: {lanes: 2}
effects: {lanes: 4}
endpoints:
  payments: {url: "%[3]s/charges", allow_private: true, timeout: 2s, attempts_max: 100}
  parcels: {url: "%[3]s/parcels", allow_private: true, timeout: 2s, attempts_max: 100}
postgres: {dsn_file: %[4]q}
admin: {listen: "127.0.0.1:0", token_file: %[5]q}
`

// receiver is what an endpoint should be: it honours the idempotency key. At charges it fails often: it
// says so, or does what it was asked for and lets the answer get lost. At parcels it never does.
type receiver struct {
	server *httptest.Server

	mu    sync.Mutex
	calls []received
	made  map[string]int // calls by idempotency key
	mood  mood
	lost  int // answers
	busy  int // refusals
}

// mood is how the receiver answers.
type mood string

const (
	moody    mood = "failing at times"
	well     mood = "well"
	slow     mood = "slow" // and well, but for parcels
	down     mood = "down"
	hanging  mood = "hanging"
	erroring mood = "erroring"
)

// received is one call as it came in.
type received struct {
	id       string
	order    string // lane:offset
	fence    int64
	body     [sha256.Size]byte
	accepted bool
	answered bool // accepted, and the answer was not lost here
}

const (
	busyShare = 20 // every so many-th call is refused for now
	lostShare = 33 // every so many-th is carried out and its answer lost
)

func openReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{made: map[string]int{}, mood: moody}
	r.server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.server.Close)
	return r
}

func (r *receiver) serve(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return // cut off before it was a call
	}
	fence, _ := strconv.ParseInt(request.Header.Get("Pawl-Fence"), 10, 64)
	call := received{
		id: request.Header.Get("Idempotency-Key"), order: request.Header.Get("Pawl-Order"),
		fence: fence, body: sha256.Sum256(body),
	}
	if request.URL.Path != "/parcels" {
		r.linger(request.Context())
	}
	r.mu.Lock()
	if r.outage(w, request, call) {
		return
	}
	r.made[call.id]++
	fate := fnv.New32a()
	_, _ = fmt.Fprintf(fate, "%s %d", call.id, r.made[call.id])
	busy, lost := fate.Sum32()%busyShare == 0, fate.Sum32()%lostShare == 1
	if r.mood == well || r.mood == slow || request.URL.Path == "/parcels" {
		busy, lost = false, false
	}
	call.accepted, call.answered = !busy, !busy && !lost
	r.calls = append(r.calls, call)
	switch {
	case busy:
		r.busy++
	case lost:
		r.lost++
	}
	r.mu.Unlock()
	switch {
	case busy:
		w.WriteHeader(http.StatusServiceUnavailable)
	case lost:
		panic(http.ErrAbortHandler) // the connection is reset
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"status":"charged"}`)
	}
}

// slowTime is what a slow receiver needs for a call.
const slowTime = 500 * time.Millisecond

// linger takes its time if the receiver is slow.
func (r *receiver) linger(ctx context.Context) {
	r.mu.Lock()
	is := r.mood == slow
	r.mu.Unlock()
	if !is {
		return
	}
	waitOr(ctx.Done(), slowTime)
}

// outage reports whether the receiver is in a mood to do nothing, and shows it. It gives the lock back then.
func (r *receiver) outage(w http.ResponseWriter, request *http.Request, call received) bool {
	mood := r.mood
	if mood != down && mood != hanging && mood != erroring {
		return false
	}
	r.calls = append(r.calls, call)
	r.mu.Unlock()
	switch mood {
	case down:
		panic(http.ErrAbortHandler)
	case hanging:
		<-request.Context().Done()
	default:
		w.WriteHeader(http.StatusInternalServerError)
	}
	return true
}

// be makes the receiver answer in another way from now on.
func (r *receiver) be(m mood) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mood = m
}

// accepted counts the keys that were carried out.
func (r *receiver) accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := map[string]bool{}
	for _, call := range r.calls {
		if call.accepted {
			keys[call.id] = true
		}
	}
	return len(keys)
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.calls)
}

// newEffects writes the configuration of an application with a ledger and makes its topics.
func newEffects(t *testing.T, k *cluster.Kafka, dsn string, receiver *receiver, settings ...string) *rig {
	t.Helper()
	application := testkit.Name(t, "app")
	folder := t.ArtifactDir()
	r := &rig{
		t: t, kafka: k, application: application, input: application + ".orders", output: application + ".priced",
		deadLetter: application + ".dead-letter", folder: folder,
		config: filepath.Join(folder, "config.yaml"), token: filepath.Join(folder, "token"), settings: settings,
	}
	r.client = testkit.Client(t, k.InternalBrokers())
	r.admin = kadm.NewClient(r.client)
	secret := filepath.Join(folder, "dsn")
	s := &shop{rig: r}
	s.write(t, secret, dsn+"\n")
	s.write(t, r.token, "a token for this test\n")
	s.write(t, r.config, fmt.Sprintf(effectsConfiguration, application, strings.Join(quoted(k.Brokers()), ", "), receiver.server.URL, secret, r.token))
	arguments := []string{"topics", "apply", "--yes", "--create-inputs", "4"}
	for _, setting := range settings {
		arguments = append(arguments, "--set", setting)
	}
	r.run(t, arguments...)
	return r
}

// effect is a record of the effects topic.
type effect struct {
	id, key string
	body    [sha256.Size]byte
}

// Every order's charge is called, in the order of its customer, through kills of processors and of the
// database; calls are repeated only with the same key and bytes; every effect has one result event.
func TestEffectsHappenOnceThroughFaults(t *testing.T) {
	const (
		orders = 3000
		rate   = 400
		kills  = 6
		stops  = 2 // of the database
	)
	k := testkit.OpenKafka(t, cluster.KafkaConfig{Nodes: 1})
	database := testkit.OpenPostgres(t, cluster.PostgresConfig{Durable: true})
	receiver := openReceiver(t)
	r := newEffects(t, k, database.DSN(), receiver)
	processors := []*processor{r.processor("a"), r.processor("b")}
	for _, p := range processors {
		p.arguments = []string{"--migrate"}
		p.start(t)
	}
	for _, p := range processors {
		p.awaitReady(t)
	}
	generator, err := load.NewOrders(load.OrdersConfig{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	producer, err := load.NewProducer(load.ProducerConfig{
		Options: []kgo.Opt{kgo.SeedBrokers(k.InternalBrokers()...)}, Topic: r.input, Generator: generator, Count: orders, Rate: rate,
	})
	if err != nil {
		t.Fatal(err)
	}
	var producing sync.WaitGroup
	var failed error
	producing.Go(func() { failed = producer.Run(t.Context()) })
	defer producing.Wait()

	struck := map[string]int{}
	await := func(what string, timeout time.Duration, done func() bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		ticker := time.NewTicker(lookEvery)
		defer ticker.Stop()
		for !done() {
			select {
			case <-ctx.Done():
				t.Fatalf("%s: not within %s; %d keys accepted", what, timeout, receiver.accepted())
			case <-ticker.C:
			}
		}
	}
	for i := range kills + stops {
		goal := (i + 1) * orders / (kills + stops + 2)
		await("charges to kill into", time.Minute, func() bool { return receiver.accepted() >= goal })
		if i%4 == 3 {
			if err := database.Kill(); err != nil {
				t.Fatal(err)
			}
			struck["database killed"]++
			if err := database.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		victim := processors[i%len(processors)]
		victim.kill()
		struck["processor killed"]++
		victim.start(t)
	}
	producing.Wait()
	if failed != nil {
		t.Fatal(failed)
	}
	if struck["processor killed"] != kills || struck["database killed"] != stops {
		t.Fatalf("the faults were %v, want %d kills and %d of the database", struck, kills, stops)
	}

	effects, results := map[string]effect{}, map[string][]string{}
	await("a result of every effect", 2*time.Minute, func() bool {
		effects, results = r.readEffects(t), r.readResults(t)
		return len(effects) == orders && len(results) == orders
	})
	receiver.check(t, effects, effects)
	for at, statuses := range results {
		if !slices.Equal(statuses, []string{"done"}) || effects[at].id == "" {
			t.Errorf("effect %s has result events %v, want one of an effect that is done", at, statuses)
		}
	}
	receiver.mu.Lock()
	defer receiver.mu.Unlock()
	t.Logf("%d effects, %d calls: %d refused for now, %d answers lost; %v", len(effects), len(receiver.calls), receiver.busy, receiver.lost, struck)
	if receiver.busy == 0 || receiver.lost == 0 {
		t.Error("the receiver never failed, so nothing is shown about it")
	}
}

// readEffects reads the effects topic as an ordinary reader, by lane:offset.
func (r *rig) readEffects(t *testing.T) map[string]effect {
	t.Helper()
	all := map[string]effect{}
	err := load.Scan(t.Context(), []kgo.Opt{kgo.SeedBrokers(r.kafka.InternalBrokers()...)}, []string{r.application + ".effects"}, func(record *kgo.Record) {
		e := effect{key: string(record.Key), body: sha256.Sum256(record.Value)}
		for _, header := range record.Headers {
			if header.Key == message.HeaderID {
				e.id = string(header.Value)
			}
		}
		all[fmt.Sprintf("%d:%d", record.Partition, record.Offset)] = e
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// readResults reads the statuses of the result events, by lane:offset of their effect.
func (r *rig) readResults(t *testing.T) map[string][]string {
	t.Helper()
	statuses := map[string][]string{}
	var broken error
	err := load.Scan(t.Context(), []kgo.Opt{kgo.SeedBrokers(r.kafka.InternalBrokers()...)}, []string{r.application + ".effect-results"}, func(record *kgo.Record) {
		var event struct {
			Lane   int32  `json:"lane"`
			Offset int64  `json:"offset"`
			Status string `json:"status"`
		}
		if err := json.Unmarshal(record.Value, &event); err != nil {
			broken = fmt.Errorf("decode result %s: %w", record.Value, err)
		}
		at := fmt.Sprintf("%d:%d", event.Lane, event.Offset)
		statuses[at] = append(statuses[at], event.Status)
	})
	if err == nil {
		err = broken
	}
	if err != nil {
		t.Fatal(err)
	}
	return statuses
}

// check compares what was called with what was committed. wanted are those of the effects that must
// have been carried out.
func (r *receiver) check(t *testing.T, effects, wanted map[string]effect) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	first := map[string]int{} // position of the first accepted call of an effect
	repeats := 0
	for i, call := range r.calls {
		e, known := effects[call.order]
		switch {
		case !known:
			t.Errorf("call %s of %s was made for no committed effect", call.id, call.order)
		case call.id != e.id || call.body != e.body:
			t.Errorf("call of %s has key %s and other bytes or another key than its effect (%s)", call.order, call.id, e.id)
		}
		if !call.accepted {
			continue
		}
		if _, again := first[call.order]; again {
			repeats++
			continue
		}
		first[call.order] = i
	}
	lines := map[string][]string{} // effects by key, in the order of their lane
	for at, e := range wanted {
		if _, called := first[at]; !called {
			t.Errorf("effect %s (%s) was never carried out", at, e.id)
		}
		lines[e.key] = append(lines[e.key], at)
	}
	for key, line := range lines {
		slices.SortFunc(line, func(a, b string) int { return offsetOf(a) - offsetOf(b) })
		for i := 1; i < len(line); i++ {
			if first[line[i-1]] > first[line[i]] {
				t.Errorf("key %s: effect %s was carried out before %s", key, line[i], line[i-1])
			}
		}
	}
	t.Logf("%d calls were repeated after they had been carried out", repeats)
}

func offsetOf(at string) int {
	_, offset, _ := strings.Cut(at, ":")
	n, _ := strconv.Atoi(offset)
	return n
}
