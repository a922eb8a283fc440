//go:build chaos && linux

package e2e

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"pawl/internal/cluster"
	"pawl/internal/testkit"
)

var (
	tempestDuration = flag.Duration("tempest.duration", 170*time.Second, "how long a tempest does something; start, drain and check come on top")
	tempestRate     = flag.Float64("tempest.rate", 1000, "records a second to copy")
	tempestOrders   = flag.Float64("tempest.orders", 60, "orders a second")
	tempestScript   = flag.String("tempest.script", "", "`FILE` of a script to do instead of one that the seed writes")
	tempestResult   = flag.String("tempest.result", "", "`FILE` to write the result to, for the published report")
)

const (
	tempestLanes   = 6 // of effects
	databaseMost   = 80
	kafkaHeapMB    = 448
	drainedWithin  = 2 * time.Minute // from the last heal to rest; more is wrong
	drainedAtAll   = 6 * time.Minute // and with that there is nothing to check
	copyBytes      = 120
	copyKeys       = 512
	faultsMin      = 10 // that bit
	kindsMin       = 10
	overtime       = 2 // times its duration is what a script is long, where these have not come together before
	diskMBPerHour  = 6144
	diskMBMin      = 1024
	badShare       = 0.01
	keepEvery      = 200 * time.Millisecond
	readersTimeout = time.Minute
)

// tempestConfiguration takes the application, the brokers, the endpoint's address and the paths of the
// connection string and of the token, and the group protocol.
const tempestConfiguration = `application: %[1]s
kafka: {brokers: [%[2]s], protocol: %[10]s, heartbeat: 1s, session_timeout: 6s}
routes:
  - {topics: [%[1]s.in], handler: copy, config: {output: copied}}
  - {topics: [%[1]s.orders], handler: orders}
  - {topics: [%[1]s.effect-results], handler: order-results, config: {void: refunds}}
outputs:
  copied: {topic: %[1]s.out, partitions: %[3]d}
  priced: {topic: %[1]s.priced, partitions: 4}
  ledger: {topic: %[1]s.ledger, partitions: 4}
txn: {lanes: %[4]d, timeout: 20s, handler_timeout: 2s}
effects: {lanes: %[5]d}
endpoints:
  payments: {url: "http://%[6]s/charges", allow_private: true, timeout: %[7]s, attempts_max: 100}
  refunds: {url: "http://%[6]s/refunds", allow_private: true, timeout: %[7]s, attempts_max: 100}
postgres: {dsn_file: %[8]q, connections: 16}
admin: {listen: "127.0.0.1:0", token_file: %[9]q}
`

// tempest is an application with everything around it, and what is done to it.
type tempest struct {
	*rig
	ctx           context.Context // of the run
	protocol      string          // of the group
	proxies       *testkit.KafkaProxies
	database      *cluster.Postgres
	databaseProxy *testkit.Proxy
	disk          string // of the database, where it has one of its own
	till          *till
	tillProxy     *testkit.Proxy
	steady, extra []*worker
	monitor       *monitor
	watchers      []*watcher
	began         time.Time
	raged         time.Duration // how long something was done

	mu        sync.Mutex
	deeds     []deed
	takeovers []time.Duration
	ends      []string // of processes that ended by themselves
	twins     int      // so far; used under the seat of processors
}

// deed is an act that was done.
type deed struct {
	act
	Turn  int     `json:"turn"`
	From  float64 `json:"from"` // seconds since the first turn
	To    float64 `json:"to"`
	Proof string  `json:"proof,omitempty"` // that it bit
	Error string  `json:"error,omitempty"`
}

func (w *tempest) note(add func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	add()
}

// newTempest starts brokers, database and endpoint, and makes the topics. Processors are made and not
// started.
func newTempest(t *testing.T, protocol string) *tempest {
	t.Helper()
	w := &tempest{ctx: t.Context(), protocol: protocol}
	k, proxies := testkit.KafkaBehindProxies(t, cluster.KafkaConfig{Nodes: 3, HeapMB: kafkaHeapMB, Settings: map[string]string{
		// Transactions that nobody ends are looked for every second instead of every ten: only the speed of
		// this test hangs on it.
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
		// Under the newer protocol brokers decide what the configuration says for the classic one.
		"group.consumer.min.session.timeout.ms": "6000", "group.consumer.session.timeout.ms": "6000",
		"group.consumer.min.heartbeat.interval.ms": "1000", "group.consumer.heartbeat.interval.ms": "1000",
	}})
	w.proxies = proxies
	folder := t.ArtifactDir()
	application := testkit.Name(t, "app")
	w.rig = &rig{
		t: t, kafka: k, application: application, input: application + ".in", output: application + ".out",
		deadLetter: application + ".dead-letter", folder: folder,
		config: filepath.Join(folder, "config.yaml"), token: filepath.Join(folder, "token"),
	}
	w.client = testkit.Client(t, k.InternalBrokers())
	w.admin = kadm.NewClient(w.client)
	t.Cleanup(func() { keepFailed(t, folder) })
	w.openDatabase(t)
	w.till = openTill(t, folder)
	w.tillProxy = testkit.NewProxy(t, w.till.address())
	w.till.wasCut = w.tillProxy.WasCut
	secret := filepath.Join(folder, "dsn")
	for path, text := range map[string]string{
		w.token: "a token for this test\n",
		secret:  withHosts(t, w.database.DSN(), w.databaseProxy.Address()) + "\n",
		w.config: fmt.Sprintf(tempestConfiguration, application, strings.Join(quoted(k.Brokers()), ", "), partitions, lanes, tempestLanes,
			w.tillProxy.Address(), tillTimeout, secret, w.token, w.protocol),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.applyTopics(t, "--create-inputs", strconv.Itoa(partitions))
	w.run(t, "migrate", "up", "--yes")
	for i, name := range []string{"a", "b", "c", "d"} {
		v := &worker{processor: w.processor(name)}
		v.arguments = []string{"--set", "endpoints.payments.headers.Processor=" + name, "--set", "endpoints.refunds.headers.Processor=" + name}
		if i < 2 {
			w.steady = append(w.steady, v)
		} else {
			w.extra = append(w.extra, v)
		}
	}
	return w
}

// keepFailed keeps everything that a failed run has left: its script, its deeds, the calls and all logs.
func keepFailed(t *testing.T, folder string) {
	t.Helper()
	if !t.Failed() {
		return
	}
	kept, err := filepath.Abs(filepath.Join("..", "..", "bin", "tempest", "failed-"+time.Now().UTC().Format("20060102-150405")))
	if err == nil {
		err = os.CopyFS(kept, os.DirFS(folder))
	}
	t.Logf("script.json, deeds.json, calls.jsonl and all logs are kept in %s (%v)", kept, err)
}

func (w *tempest) openDatabase(t *testing.T) {
	t.Helper()
	size := max(diskMBMin, int(tempestDuration.Hours()*diskMBPerHour))
	config := cluster.PostgresConfig{Durable: true, Settings: map[string]string{
		"max_connections": strconv.Itoa(databaseMost), "max_wal_size": "128MB", // less than the disk
	}}
	if w.disk = mountDisk(t, size); w.disk != "" {
		config.Dir = w.disk
		// The server's log is proof of what happened to its disk, so it is on another one.
		if err := os.Symlink(filepath.Join(w.folder, "postgres.log"), filepath.Join(w.disk, "log")); err != nil {
			t.Fatal(err)
		}
	}
	w.database = testkit.OpenPostgres(t, config)
	w.databaseProxy = testkit.NewProxy(t, hostOf(t, w.database.DSN()))
}

// Orders and records to copy flow through two to four processors on three brokers, with charges over HTTP,
// while a script of faults is done to all of them: processes killed and frozen, leaders, coordinators and
// replicas moved, traffic cut, held, lost and slowed, the database and the endpoint broken in every way
// there is. After the last fault everything comes to rest in bounded time, and then every copy is there
// once and in order, every order has ended in one way, what was charged is what was confirmed and what was
// given back, to the cent and for each customer, and readers that followed all the time saw what a reader
// sees now.
//
//	go test -tags chaos ./internal/e2e -run Tempest -seed 7 -tempest.duration 30m -timeout 60m
//	go test -tags chaos ./internal/e2e -run Tempest -tempest.script FILE   # a script that was kept, or a part of it
func TestMoneyIsConservedThroughATempest(t *testing.T) {
	began := time.Now()
	s := theScript(t)
	w := newTempest(t, cmp.Or(s.Protocol, protocolClassic))
	keep(t, filepath.Join(w.folder, "script.json"), s)
	w.begin(t)
	load := w.produce(t)
	w.rage(s)
	o := &outcome{script: s, began: began, produced: load.halt(t)}
	o.drain = w.settle(t)
	w.check(t, o)
	w.report(t, o)
}

// theScript is that of the flags, or of the seed.
func theScript(t *testing.T) script {
	t.Helper()
	if *tempestScript != "" {
		s, err := readScript(*tempestScript)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	number := *seed
	if number == 0 {
		number = uint64(rand.Uint32()) // easy to type
	}
	t.Logf("choices are those of -seed %d", number)
	return write(number, troubles(), overtime**tempestDuration)
}
