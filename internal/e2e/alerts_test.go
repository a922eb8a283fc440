//go:build chaos && linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/cluster"
	"pawl/internal/testkit"
)

// alertTimeout bounds the wait for an alert to fire or to end: the ledger is asked every 15 s, and what is
// looked at over twenty seconds is seen for as long.
const alertTimeout = 2 * time.Minute

// watchtower is a running application that Prometheus looks after, and everything that can be broken of it.
type watchtower struct {
	*siege
	prometheus *prometheus
	proxies    *testkit.KafkaProxies
	database   *cluster.Postgres
	auditor    *auditor
	begun      time.Time // the fault in hand
	sightings  sightings
}

// openWatchtower runs an application under load until every metric that rules and dashboards live on is there, and
// no alert fires.
func openWatchtower(t *testing.T) *watchtower {
	t.Helper()
	w := &watchtower{prometheus: openPrometheus(t)} // first: it says when it is missing
	var k *cluster.Kafka
	k, w.proxies = testkit.KafkaBehindProxies(t, cluster.KafkaConfig{Nodes: 1})
	w.database = testkit.OpenPostgres(t, cluster.PostgresConfig{Durable: true})
	w.siege = besiege(t, k, w.database.DSN(), w.database.DSN(), "endpoints.payments.concurrency=16")
	w.receiver.be(well)
	w.processor.start(t)
	w.processor.awaitReady(t)
	w.trickleOf(t, w.generator, 200)
	w.prometheus.scrape(w.processor)
	w.processor.await(t, startTimeout, "with results told", func() bool { return w.processor.metric("processor_outbox_results_total") > 100 })
	w.auditor = openAuditor(t, w.rig) // there is a ledger to read
	w.prometheus.scrape(w.processor, w.auditor)
	w.prometheus.awaitSeries(t)
	return w
}

// first runs the first command of an alert's runbook, as it stands there, until it says what it is to say, and
// returns that. The words in capitals of the command are filled in.
func (w *watchtower) first(t *testing.T, alert string, words map[string]string, says ...string) string {
	t.Helper()
	text, err := os.ReadFile(deployed + "runbooks/" + alert + ".md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?s)## First command\n\n    processor ([^\n]*)\n`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("the runbook of %s has no first command of the program", alert)
	}
	var arguments []string
	for word := range strings.FieldsSeq(strings.ReplaceAll(string(found[1]), "-c config.yaml", "")) {
		for old, filled := range words {
			word = strings.ReplaceAll(word, old, filled)
		}
		arguments = append(arguments, word)
	}
	program := &shop{rig: w.rig}
	var said string
	defer func() {
		if t.Failed() {
			t.Logf("%v said last: %s", arguments, said)
		}
	}()
	testkit.WaitFor(t, alertTimeout, fmt.Sprintf("%v to say %q", arguments, says), func() bool {
		stdout, stderr, code := program.command(t, arguments...)
		if said = stdout + stderr; code == 2 {
			t.Fatalf("the first command of %s is wrong", alert)
		}
		return !slices.ContainsFunc(says, func(part string) bool { return !strings.Contains(said, part) })
	})
	t.Logf("processor %s\n%s", strings.Join(arguments, " "), said)
	known := make([]string, len(says))
	for i, part := range says {
		known[i] = w.anonymous(part)
	}
	w.sightings.answered(alert, "processor "+string(found[1]), w.anonymous(said), known)
	return said
}

// Every metric and label that rules and dashboards live on is shown by a running service under load. Then the seven
// faults that matter most are made, and with -long those of all other alerts. Each is seen by its alert, which ends
// when the fault does; the first command of each runbook says what the runbook says it does.
func TestAlertsFollowTheirFaults(t *testing.T) {
	w := openWatchtower(t)
	faults := []breach{
		{"an endpoint is away, input is bad, a stranger's transaction is open", w.breakEdges},
		{"a partition and an endpoint are paused for longer than was said", w.forgetPauses},
		{"the database is away, and a twin fights for the name", w.stopDatabase},
		{"no broker can be reached", w.refuseBrokers},
	}
	if *long {
		// The auditor comes before what breaks the promise that it watches over, such as an output that is deleted.
		faults = slices.Concat([]breach{
			{"the way of verify to the brokers hangs", w.holdAuditor},
			{"somebody writes an output a second time", w.forgeOutput},
		}, faults, w.others())
	} else {
		w.dismissAuditor()
	}
	w.prometheus.awaitSilence(t)
	began := time.Now()
	for _, fault := range faults {
		w.begun = time.Now()
		w.sightings.fault = fault.name
		if !t.Run(fault.name, fault.make) {
			return // what follows would begin in another state
		}
		w.prometheus.awaitSilence(t)
	}
	if *long {
		w.sightings.keep(t, began, len(faults))
	}
}

// breach is what is broken and mended again.
type breach struct {
	name string
	make func(t *testing.T)
}

// others are those of the alerts that CI has no time for: make alerts.
func (w *watchtower) others() []breach {
	return []breach{
		{"an output topic is gone", w.loseOutput},
		{"answers of the coordinator get lost", w.loseAnswers},
		{"the database hangs", w.hangDatabase},
		{"an endpoint is slow", w.slowEndpoint},
		{"an endpoint may be called seldom", w.limitRate},
		{"an effect is given up", w.giveUp},
		{"a process has another configuration", w.differ},
		{"no process is left", w.leaveNobody},
		{"a process is started again and again", w.crashLoop},
		{"the log was trimmed past the committed offset", w.trim},
		{"the effects topic was deleted and made again", w.replaceEffects},
	}
}

// awaitFiring waits until all of these fire, and writes down when each did.
func (w *watchtower) awaitFiring(t *testing.T, names ...string) {
	t.Helper()
	w.prometheus.awaitFiring(t, func(name string) { w.sightings.fired(name, time.Since(w.begun)) }, names...)
}

// breakEdges makes an endpoint that is away, input that nobody can read, and somebody else's transaction on an output.
func (w *watchtower) breakEdges(t *testing.T) {
	w.receiver.be(down)
	refused := w.trickle(t, 20)
	held := w.output
	stranger := w.hold(t, held)
	w.awaitFiring(t, "PawlBreakerOpen", "PawlDeadLetters", "PawlReadersHeld", "PawlEffectsOldest")
	w.first(t, "PawlBreakerOpen", map[string]string{"ENDPOINT": "payments"}, "payments", "parked")
	w.first(t, "PawlEffectsOldest", map[string]string{"15m": "3s"}, "payments")
	w.first(t, "PawlDeadLetters", nil, "bad_json", "orders")
	w.first(t, "PawlReadersHeld", nil, stranger, held+"/0", "open")
	w.receiver.be(well)
	if refused.halt(t) == 0 {
		t.Error("no record was refused")
	}
	w.run(t, "txn", "abort", stranger, "--foreign", "--yes", "--reason", "test")
}

func (w *watchtower) stopDatabase(t *testing.T) {
	if err := w.database.Stop(); err != nil {
		t.Fatal(err)
	}
	w.fightTwins(t)
	w.awaitFiring(t, "PawlLedgerUnreachable")
	w.first(t, "PawlLedgerUnreachable", nil, "nothing listens")
	if err := w.database.Start(w.t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (w *watchtower) refuseBrokers(t *testing.T) {
	before := w.proxies.Node(0).Hits()
	w.proxies.Node(0).Refuse()
	w.awaitFiring(t, "PawlKafkaUnreachable")
	w.first(t, "PawlKafkaUnreachable", nil, "problem", "brokers")
	if w.proxies.Node(0).Hits() == before {
		t.Error("no connection was refused")
	}
	w.proxies.Node(0).Accept()
}

// hold opens a transaction on a topic that nobody ends, and gives its transactional id.
func (w *watchtower) hold(t *testing.T, topic string) string {
	t.Helper()
	id := testkit.Name(t, "stranger")
	client := testkit.Client(t, w.kafka.InternalBrokers(), kgo.TransactionalID(id), kgo.TransactionTimeout(10*time.Minute),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("{}")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return id
}

// forgetPauses pauses a partition and holds an endpoint for longer than was said. That is all that there is to see: what is
// paused waits, and raises no alert of its own. Whoever says that it takes longer, and whoever ends it, ends the alert.
func (w *watchtower) forgetPauses(t *testing.T) {
	t.Helper()
	partition := "input/" + w.input + "/0"
	w.run(t, "pause", partition, "--expect", "1s", "--reason", "bad data", "--yes")
	w.run(t, "hold", "endpoint/payments", "--expect", "1s", "--reason", "maintenance", "--yes")
	w.awaitFiring(t, "PawlPauseOverdue")
	w.first(t, "PawlPauseOverdue", nil, partition, "bad data", "endpoint/payments", "maintenance", "overdue by")
	w.processor.await(t, alertTimeout, "what waits to be old", func() bool {
		return w.processor.metric("processor_consumer_lag_seconds", `partition="0"`) > 5 && w.processor.metric("processor_outbox_oldest_pending_age_seconds", `sink="payments"`) > 5
	})
	w.run(t, "resume", partition, "--reason", "data is repaired", "--yes")
	w.run(t, "hold", "endpoint/payments", "--expect", "4h", "--reason", "it takes longer", "--yes")
	w.prometheus.awaitSilence(t)
	w.run(t, "resume", "endpoint/payments", "--reason", "the receiver is back", "--yes")
}

// fightTwins starts a second process of our processor's name. Whichever is fenced three times stops working and stays
// up to be scraped.
func (w *watchtower) fightTwins(t *testing.T) {
	t.Helper()
	twin := w.rig.processor("a")
	twin.starts, twin.settings = 100, w.processor.settings // its log is another one
	twin.start(t)
	w.prometheus.scrape(w.processor, twin)
	w.awaitFiring(t, "PawlFencedTwin")
	w.first(t, "PawlFencedTwin", nil, w.application+".a.")
	testkit.WaitFor(t, alertTimeout, "one of the twins to give up", func() bool {
		return w.processor.metric("processor_twin")+twin.metric("processor_twin") == 1
	})
	w.processor.kill()
	twin.kill()
	w.processor.start(w.t)
	w.prometheus.scrape(w.processor)
}

func (w *watchtower) loseOutput(t *testing.T) {
	if _, err := w.admin.DeleteTopic(t.Context(), w.output); err != nil {
		t.Fatal(err)
	}
	w.awaitFiring(t, "PawlNoCommit", "PawlLagRising", "PawlAbortRatio")
	w.first(t, "PawlNoCommit", nil, "problem", w.output)
	w.first(t, "PawlAbortRatio", nil, "problem", w.output)
	w.first(t, "PawlLagRising", nil, w.input)
	w.applyTopics(t)
}

func (w *watchtower) loseAnswers(t *testing.T) {
	fault := w.proxies.Inject(t, testkit.Fault{Key: kmsg.EndTxn, LoseAnswer: true})
	w.awaitFiring(t, "PawlUnknownOutcomes")
	fault.Remove()
	w.first(t, "PawlUnknownOutcomes", nil, "all brokers answer")
	if fault.Hits() == 0 {
		t.Error("no answer was lost")
	}
}

func (w *watchtower) hangDatabase(t *testing.T) {
	if err := w.database.Pause(); err != nil {
		t.Fatal(err)
	}
	w.awaitFiring(t, "PawlEffectsNotIngested", "PawlEffectsRetention", "PawlLedgerUnreachable")
	w.first(t, "PawlEffectsRetention", nil, "as configured")
	w.first(t, "PawlEffectsNotIngested", nil, "error")
	if err := w.database.Resume(); err != nil {
		t.Fatal(err)
	}
}

func (w *watchtower) slowEndpoint(t *testing.T) {
	w.receiver.be(slow) // 32 calls a second, and 200 are asked for
	w.awaitFiring(t, "PawlDispatcherSaturated")
	w.prometheus.awaitHolding(t, `job_sink_by:processor_outbox_saturated:ratio{sink="payments",by="concurrency"} >= 0.95`)
	w.first(t, "PawlDispatcherSaturated", map[string]string{"ENDPOINT": "payments"}, "payments")
	w.receiver.be(well)
}

// limitRate lets an endpoint be called less often than is asked for. It answers at once, so that hardly a call is under
// way: that effects wait for the rate is seen by nothing but the time in which they do.
func (w *watchtower) limitRate(t *testing.T) {
	settings := w.processor.settings
	w.processor.settings = append(slices.Clone(settings), "endpoints.payments.rate=5")
	w.processor.kill()
	w.restart(t)
	w.awaitFiring(t, "PawlDispatcherSaturated")
	w.prometheus.awaitHolding(t, `job_sink_by:processor_outbox_saturated:ratio{sink="payments",by="rate"} >= 0.95
		and on (job, sink) job_sink:processor_outbox_calls_saturation:ratio < 0.95`)
	w.first(t, "PawlDispatcherSaturated", map[string]string{"ENDPOINT": "payments"}, "payments")
	w.processor.settings = settings
	w.processor.kill()
	w.restart(t)
}

func (w *watchtower) giveUp(t *testing.T) {
	w.receiver.be(down)
	program := &shop{rig: w.rig}
	var parked []struct{ Effect string }
	testkit.WaitFor(t, alertTimeout, "a parked effect", func() bool {
		stdout, _, _ := program.command(t, "effects", "ls", "--state", "parked", "--max", "1", "-o", "json")
		return json.Unmarshal([]byte(stdout), &parked) == nil && len(parked) == 1
	})
	w.run(t, "effects", "cancel", parked[0].Effect, "--reason", "test", "--yes")
	w.receiver.be(well)
	w.awaitFiring(t, "PawlEffectsNotDelivered")
	w.first(t, "PawlEffectsNotDelivered", nil, parked[0].Effect, "dead")
}

func (w *watchtower) differ(t *testing.T) {
	other := w.rig.processor("b")
	other.settings = append(slices.Clone(w.processor.settings), "txn.records_max=100")
	other.start(t)
	w.prometheus.scrape(w.processor, other)
	w.awaitFiring(t, "PawlConfigDiffers")
	w.first(t, "PawlConfigDiffers", nil, "records_max")
	other.leave(t)
	other.terminate(t, endTimeout)
	w.prometheus.scrape(w.processor)
}

func (w *watchtower) leaveNobody(t *testing.T) {
	w.processor.kill()
	w.awaitFiring(t, "PawlNobodyReads", "PawlProcessDown")
	w.first(t, "PawlNobodyReads", nil, "all brokers answer", "all rights are there")
	w.first(t, "PawlProcessDown", map[string]string{"HOST:9090": w.processor.admin}, "refused")
	w.restart(t)
}

// restart starts the processor that has ended, whose operations HTTP has another address then. It is to
// outlive the fault, and with it a part of the test.
func (w *watchtower) restart(t *testing.T) {
	t.Helper()
	w.processor.start(w.t)
	w.processor.awaitReady(t)
	w.prometheus.scrape(w.processor)
}

func (w *watchtower) crashLoop(t *testing.T) {
	settings := w.processor.settings
	w.processor.settings = append(slices.Clone(settings), "admin.listen="+freeAddress(t)) // one series for all its starts
	w.processor.kill()
	w.restart(t)
	// The targets are read anew every few seconds; it is seen to live before it dies.
	w.prometheus.awaitHolding(t, fmt.Sprintf("up{instance=%q} == 1", w.processor.admin))
	for n := range 5 {
		w.processor.kill()
		w.processor.start(w.t)
		w.processor.awaitAdmin(t)
		w.prometheus.awaitHolding(t, fmt.Sprintf("changes(process_start_time_seconds{instance=%q}[1m]) > %d", w.processor.admin, n))
	}
	w.awaitFiring(t, "PawlCrashLoop")
	w.first(t, "PawlCrashLoop", nil, w.application)
	w.processor.settings = settings
	w.processor.kill()
	w.restart(t)
}

func (w *watchtower) trim(t *testing.T) {
	w.stop(t)
	ends, err := w.admin.ListEndOffsets(t.Context(), w.input)
	if err != nil {
		t.Fatal(err)
	}
	gone := kadm.Offsets{}
	ends.Each(func(end kadm.ListedOffset) {
		if end.Partition == 0 {
			gone.AddOffset(w.input, 0, end.Offset, -1)
		}
	})
	if _, err := w.admin.DeleteRecords(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	w.processor.start(w.t)
	w.prometheus.scrape(w.processor)
	w.awaitFiring(t, "PawlPartitionHalted")
	w.first(t, "PawlPartitionHalted", nil, "lost")
	w.stop(t)
	w.run(t, "offsets", "set", "--topic", w.input, "--partition", "0", "--to", "earliest", "--reason", "test", "--yes")
	w.restart(t)
}

// replaceEffects makes the effects topic anew while nobody looks: the ledger has read another one. A ledger that is
// begun anew is the way out, as the log says.
func (w *watchtower) replaceEffects(t *testing.T) {
	w.stop(t)
	if _, err := w.admin.DeleteTopic(t.Context(), w.application+".effects"); err != nil {
		t.Fatal(err)
	}
	w.applyTopics(t)
	w.processor.start(w.t)
	w.prometheus.scrape(w.processor)
	w.awaitFiring(t, "PawlEffectsLaneHalted")
	w.first(t, "PawlEffectsLaneHalted", nil, "schema", "pawl", "version")
	tells(t, "the log", w.processor.line(t, "lane of effects halted"), w.application+".effects/", "deleted and made again", "processor ledger rebuild")
	w.stop(t)
	w.run(t, "ledger", "rebuild", "--reason", "test", "--yes")
	w.restart(t)
}
