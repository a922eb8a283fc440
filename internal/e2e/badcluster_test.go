//go:build chaos && linux

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/cluster"
	"pawl/internal/testkit"
)

func testUnknownKey(t *testing.T, k *cluster.Kafka) {
	s := newShop(t, k)
	s.makeTopics(t)
	s.configure(t, "heartbeat: 1s", "heartbeet: 1s")
	s.configure(t, "txn: {lanes: 1}", "txn: {lanes: one, record_max: 5}")
	s.configure(t, "handler: orders}", "handler: oders}")
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	// at says where a text stands, as file:line:col.
	at := func(part string) string {
		before, _, _ := strings.Cut(string(text), part)
		line := strings.Count(before, "\n") + 1
		return fmt.Sprintf("%s:%d:%d: ", s.config, line, len(before)-strings.LastIndexByte(before, '\n'))
	}
	want := []string{
		at("heartbeet") + "kafka.heartbeet: is an unknown key, did you mean kafka.heartbeat?",
		at("oders}") + `routes.0.handler: is "oders"`, "did you mean orders?",
		at("one, record") + `txn.lanes: is "one", want a whole number`,
		at("record_max") + "txn.record_max: is an unknown key, did you mean txn.records_max?",
		"4 problems in the configuration",
	}
	for _, command := range []string{"run", "check", "lag", "topics plan", "dlq ls"} {
		stdout, stderr, code := s.command(t, strings.Fields(command)...)
		if code != 2 {
			t.Errorf("%s: exit code %d, want 2", command, code)
		}
		tells(t, command, stdout+stderr, want...)
	}
	if groups, err := s.admin.ListGroups(t.Context()); err != nil || slices.Contains(groups.Groups(), s.application) {
		t.Errorf("the group was joined, or: %v", err)
	}
}

const (
	unreadyTime = 7 * time.Second // more than one pause between two preflights
	mendTimeout = 20 * time.Second
	// attemptsMax is the number of logins that may be tried within unreadyTime with a password that was
	// refused: some brokers lock an account that fails often.
	attemptsMax = 8
)

// awaitUnready waits until /readyz tells all of the parts, and returns what it says.
func (p *processor) awaitUnready(t *testing.T, parts ...string) string {
	t.Helper()
	var said string
	p.awaitAdmin(t)
	defer func() {
		if t.Failed() {
			t.Logf("/readyz says last:\n%s", said)
		}
	}()
	p.await(t, startTimeout, fmt.Sprintf("unready, saying %q", parts), func() bool {
		var code int
		code, said = p.get(t.Context(), "/readyz")
		return code == http.StatusServiceUnavailable && !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(said, part) })
	})
	return said
}

// staysUnready watches a process that cannot work: it lives, says so, and makes no fuss about it. The
// problem is logged once however long it lasts.
func (p *processor) staysUnready(t *testing.T, watched time.Duration) {
	t.Helper()
	p.rests(t, 0, watched)
	for path, want := range map[string]int{"/livez": http.StatusOK, "/readyz": http.StatusServiceUnavailable, "/startupz": http.StatusServiceUnavailable} {
		if code, said := p.get(t.Context(), path); code != want {
			t.Errorf("%s says %d, want %d: %s", path, code, want, said)
		}
	}
}

// awaitMended waits until a process is ready that was not, without a restart.
func (p *processor) awaitMended(t *testing.T) {
	t.Helper()
	began := time.Now()
	p.await(t, mendTimeout, "ready after the correction", func() bool {
		code, _ := p.get(t.Context(), "/readyz")
		return code == http.StatusOK
	})
	t.Logf("ready %.1fs after the correction", time.Since(began).Seconds())
}

// testWrongPassword corrects the password while the process runs.
func testWrongPassword(t *testing.T, k *cluster.Kafka) {
	password := filepath.Join(t.ArtifactDir(), "password")
	s := newShop(t, k, "brokers: ["+strings.Join(quoted(k.Brokers()), ", ")+"]",
		"sasl: {mechanism: SCRAM-SHA-256, username: "+cluster.SuperUser+", password_file: "+password+"}")
	s.write(t, password, "wrong\n")
	s.makeTopics(t)
	all := []given{passes("k", "before"), order("o-1")}
	s.produce(t, all...)
	refusals := func() int {
		log, err := os.ReadFile(k.LogPath(0))
		if err != nil {
			t.Fatal(err)
		}
		return len(regexp.MustCompile(`(?m)Failed authentication with`).FindAllIndex(log, -1))
	}
	story := []string{cluster.SuperUser, "SCRAM-SHA-256", password, "kafka.sasl.password_file"}
	stdout, stderr, code := s.command(t, "lag")
	if code != 1 || stdout != "" {
		t.Errorf("lag: exit code %d, %s", code, stdout)
	}
	tells(t, "lag", stderr, story...)
	stdout, _, code = s.command(t, "check", "--connect")
	if code != 3 {
		t.Errorf("check --connect: exit code %d, want 3", code)
	}
	tells(t, "check --connect", stdout, story...)

	p := s.processor("a")
	p.start(t)
	p.awaitUnready(t, append(story, "preflight")...)
	tells(t, "the log", p.line(t, "preflight found a problem"), story...)
	before := refusals()
	p.staysUnready(t, unreadyTime)
	if attempts := refusals() - before; attempts == 0 || attempts > attemptsMax {
		t.Errorf("%d attempts to log in within %s, want a few", attempts, unreadyTime)
	} else {
		t.Logf("%d attempts to log in within %s, %d in all", attempts, unreadyTime, before+attempts)
	}

	s.write(t, password, "right\n")
	p.awaitMended(t)
	after := passes("k", "after")
	s.send(t, after)
	s.verifyRecords(t, append(all, after)...)
	p.rests(t, 10, restTime)
}

// testWrongTopic creates the topic while the process runs.
func testWrongTopic(t *testing.T, k *cluster.Kafka) {
	s := newShop(t, k)
	s.makeTopics(t)
	wrong := s.application + ".ordres"
	s.configure(t, s.orders, wrong)
	story := []string{"input topic " + wrong + " does not exist", "there is one named " + s.orders, "routes.topics", "processor topics apply --create-inputs"}
	stdout, _, code := s.command(t, "check", "--connect")
	if code != 3 {
		t.Errorf("check --connect: exit code %d, want 3", code)
	}
	tells(t, "check --connect", stdout, story...)
	p := s.processor("a")
	p.start(t)
	p.awaitUnready(t, append(story, "preflight")...)
	tells(t, "the log", p.line(t, "preflight found a problem"), story...)
	p.staysUnready(t, unreadyTime)

	s.orders = wrong // as if it had been meant
	s.makeTopics(t)
	p.awaitMended(t)
	s.check(t, p, passes("k", "v"), order("o-1"), order("o-2").with(func(r *kgo.Record) { r.Value = nil }).bad("no_value"))
}

// aclCommand is a next step that gives a right.
var aclCommand = regexp.MustCompile("run `kafka-acls.sh --bootstrap-server (\\S+) (.+?)`")

// testReadOnly runs as a user who may only read, and then carries out what the messages say.
func testReadOnly(t *testing.T, k *cluster.Kafka) {
	password := filepath.Join(t.ArtifactDir(), "password")
	s := newShop(t, k, "brokers: ["+strings.Join(quoted(k.Brokers()), ", ")+"]",
		"sasl: {mechanism: SCRAM-SHA-256, username: reader, password_file: "+password+"}")
	s.write(t, password, "right\n")
	s.makeTopics(t)
	all := []given{passes("k", "v"), order("o-1"), order("o-2").with(func(r *kgo.Record) { r.Value = nil }).bad("no_value")}
	s.produce(t, all...)
	for _, resource := range []struct {
		kind kmsg.ACLResourceType
		name string
	}{{kmsg.ACLResourceTypeTopic, s.application}, {kmsg.ACLResourceTypeGroup, s.application}} {
		s.allow(t, "reader", kmsg.ACLOperationRead, resource.kind, resource.name)
	}
	p := s.processor("a")
	p.start(t)
	said := p.awaitUnready(t, "preflight", "rights: ")
	for _, topic := range []string{s.output, s.priced, s.ledger, s.effects, s.deadLetter, s.application + ".control"} {
		tells(t, "/readyz", said, "topic "+topic+": no right to Write", "--allow-principal User:reader --operation Write --topic "+topic)
	}
	tells(t, "/readyz", said, "transactional id "+s.application+".a.0: no right to Write", "--transactional-id "+s.application+". --resource-pattern-type prefixed")
	for _, right := range []string{"Read", s.input + ": no right", s.orders + ": no right"} {
		if strings.Contains(said, "no right to "+right) || strings.Contains(said, right+": no right") {
			t.Errorf("/readyz complains of a right that is there: %s:\n%s", right, said)
		}
	}
	stdout, _, code := s.command(t, "check", "--connect")
	if code != 3 {
		t.Errorf("check --connect: exit code %d, want 3", code)
	}
	tells(t, "check --connect", stdout, "no right to Write", "kafka-acls.sh")
	p.staysUnready(t, unreadyTime)
	for _, topic := range []string{s.output, s.priced, s.ledger, s.effects, s.deadLetter, s.application + ".control"} {
		if end := testkit.EndOffsets(t, k.InternalBrokers(), topic)[0]; end != 0 {
			t.Errorf("%s has come to offset %d, want nothing ever written", topic, end)
		}
	}
	for _, topic := range []string{s.input, s.orders} {
		if committed := testkit.CommittedOffsets(t, k.InternalBrokers(), s.application, topic); len(committed) > 0 {
			t.Errorf("offsets of %s are committed: %v", topic, committed)
		}
	}

	commands := aclCommand.FindAllStringSubmatch(said, -1)
	for _, command := range commands {
		if command[1] != strings.Join(k.Brokers(), ",") {
			t.Errorf("%s asks %s", command[0], command[1])
		}
		arguments := append([]string{"--bootstrap-server", k.InternalBrokers()[0]}, strings.Fields(command[2])...)
		if text, err := k.Tool(t.Context(), "org.apache.kafka.tools.AclCommand", arguments...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command[0], err, text)
		}
	}
	t.Logf("%d commands carried out", len(commands))
	p.awaitMended(t)
	s.awaitCommitted(t)
	s.verifyRecords(t, all...)
	p.rests(t, 10, restTime)
}

// testOldKafka needs a broker of its own.
func testOldKafka(t *testing.T, _ *cluster.Kafka) {
	k := testkit.OpenKafka(t, cluster.KafkaConfig{Version: "3.9.1"})
	s := newShop(t, k)
	s.makeTopics(t)
	s.produce(t, passes("k", "v"), order("o-1"))
	story := []string{"older than Kafka 4.0", "3.9", "transaction.version 2", "upgrade the brokers to Kafka 4.0 or later", "kafka-features.sh"}
	stdout, _, code := s.command(t, "check", "--connect")
	if code != 3 {
		t.Errorf("check --connect: exit code %d, want 3", code)
	}
	tells(t, "check --connect", stdout, story...)
	p := s.processor("a")
	p.start(t)
	p.awaitUnready(t, append(story, "preflight")...)
	tells(t, "the log", p.line(t, "preflight found a problem"), story...)
	p.staysUnready(t, unreadyTime)
	for _, topic := range []string{s.output, s.priced, s.ledger, s.effects, s.deadLetter, s.application + ".control"} {
		if end := testkit.EndOffsets(t, k.InternalBrokers(), topic)[0]; end != 0 {
			t.Errorf("%s has come to offset %d, want nothing ever written", topic, end)
		}
	}
	if groups, err := s.admin.ListGroups(t.Context()); err != nil || slices.Contains(groups.Groups(), s.application) {
		t.Errorf("the group was joined, or: %v", err)
	}
	if ids, err := s.admin.ListTransactions(t.Context(), nil, nil); err != nil || len(ids.Sorted()) > 0 {
		t.Errorf("transactional ids %v are in use, or: %v", ids, err)
	}
	p.terminate(t, endTimeout)
}
