//go:build chaos && linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/cluster"
	"pawl/internal/message"
	"pawl/internal/testkit"
)

// shop is one application that runs the handlers orders and copy, with one partition per topic and
// one lane, so that what must come out has one order. Its topics are made by its own command.
type shop struct {
	*rig                            // input and output are those of copy
	orders, priced, ledger, effects string
}

// shopConfiguration takes the application, lines of the section kafka, and the path of the token.
const shopConfiguration = `application: %[1]s
kafka:
  heartbeat: 1s
%[2]s
routes:
  - {topics: [%[1]s.orders], handler: orders}
  - {topics: [%[1]s.in], handler: copy, config: {output: copied}}
outputs:
  priced: {topic: %[1]s.priced, partitions: 1}
  ledger: {topic: %[1]s.ledger, partitions: 1}
  copied: {topic: %[1]s.out, partitions: 1}
txn: {lanes: 1}
effects: {lanes: 1}
endpoints:
  payments: {url: "http://127.0.0.1:1/charges", allow_private: true}
admin: {listen: "127.0.0.1:0", token_file: %[3]q}
`

// newShop writes the configuration of an application that enters k by the listener that is open to
// all, unless lines of the section kafka say otherwise. There are no topics yet.
func newShop(t *testing.T, k *cluster.Kafka, kafka ...string) *shop {
	t.Helper()
	application := testkit.Name(t, "shop")
	folder := t.ArtifactDir()
	s := &shop{
		rig: &rig{
			t: t, kafka: k, application: application, input: application + ".in", output: application + ".out",
			deadLetter: application + ".dead-letter", folder: folder,
			config: filepath.Join(folder, "config.yaml"), token: filepath.Join(folder, "token"),
		},
		orders: application + ".orders", priced: application + ".priced", ledger: application + ".ledger", effects: application + ".effects",
	}
	s.client = testkit.Client(t, k.InternalBrokers(), kgo.ProducerBatchMaxBytes(inputBytesMax))
	s.admin = kadm.NewClient(s.client)
	if len(kafka) == 0 {
		kafka = []string{"brokers: [" + strings.Join(quoted(k.InternalBrokers()), ", ") + "]"}
	}
	s.write(t, s.config, fmt.Sprintf(shopConfiguration, application, "  "+strings.Join(kafka, "\n  "), s.token))
	s.write(t, s.token, "a token for this test\n")
	return s
}

func (s *shop) write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// configure replaces a part of the configuration.
func (s *shop) configure(t *testing.T, old, text string) {
	t.Helper()
	have, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(have), old) != 1 {
		t.Fatalf("%q is not once in\n%s", old, have)
	}
	s.write(t, s.config, strings.Replace(string(have), old, text, 1))
}

// limit sets the largest record batch that a topic takes, behind the back of the program.
func (s *shop) limit(t *testing.T, topic string, bytes int) {
	t.Helper()
	value := strconv.Itoa(bytes)
	altered, err := s.admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: &value}}, topic)
	if err != nil || altered[0].Err != nil {
		t.Fatalf("alter %s: %v %+v", topic, err, altered)
	}
}

// allow gives a user a right to all resources of a kind whose names begin with prefix.
func (s *shop) allow(t *testing.T, user string, operation kmsg.ACLOperation, kind kmsg.ACLResourceType, prefix string) {
	t.Helper()
	creation := kmsg.NewCreateACLsRequestCreation()
	creation.ResourceType, creation.ResourceName, creation.ResourcePatternType = kind, prefix, kmsg.ACLResourcePatternTypePrefixed
	creation.Principal, creation.Host = "User:"+user, "*"
	creation.Operation, creation.PermissionType = operation, kmsg.ACLPermissionTypeAllow
	request := kmsg.NewPtrCreateACLsRequest()
	request.Creations = append(request.Creations, creation)
	response, err := request.RequestWith(t.Context(), s.client)
	if err == nil {
		err = kerr.ErrorForCode(response.Results[0].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// makeTopics makes those that are missing, as an operator does.
func (s *shop) makeTopics(t *testing.T) {
	t.Helper()
	arguments := []string{"topics", "apply", "--yes", "--create-inputs", "1"}
	// By the listener that is open to all, whatever the configuration says.
	for _, setting := range []string{"brokers=" + strings.Join(s.kafka.InternalBrokers(), ","), "sasl.mechanism=", "sasl.username=", "sasl.password_file="} {
		arguments = append(arguments, "--set", "kafka."+setting)
	}
	s.run(t, arguments...)
}

// open makes the topics and starts a processor.
func (s *shop) open(t *testing.T) *processor {
	t.Helper()
	s.makeTopics(t)
	p := s.processor("a")
	p.start(t)
	p.awaitReady(t)
	return p
}

// command runs the program to its end and returns what it printed and its exit code.
func (s *shop) command(t *testing.T, arguments ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), build(t), append(arguments, "-c", s.config)...)
	cmd.Env = environment()
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

const (
	inputBytesMax = 16 << 20 // of the client that writes the input, and of topics that are to take 10 MB
	workTimeout   = 30 * time.Second
	// restTime is how long a process is watched that has nothing to do. Nothing happens then that one
	// could wait for: that is what is tested.
	restTime = time.Second
	// restCPU is the share of one core that a process at rest may use: heartbeats, empty fetches and
	// the scrapes of the test itself.
	restCPU = 0.2
	// restLines is the number of lines that it may log meanwhile: each part that asks the brokers may
	// tell once what is wrong. A loop logs hundreds.
	restLines = 6
)

// given is a record of an input and what must become of it.
type given struct {
	to     string // orders or copy
	record *kgo.Record
	reason string   // of the dead letter; empty: it goes through
	story  []string // parts of the dead letter's error
}

// passes is a record for copy that nothing is wrong with.
func passes(key, value string) given {
	return given{to: "copy", record: kgo.KeyStringRecord(key, value)}
}

// order is a valid order.
func order(id string) given {
	return given{to: "orders", record: kgo.KeyStringRecord("customer-7", orderJSON(id, 1))}
}

func orderJSON(id string, lines int) string {
	const line = `{"sku":"SKU-1","quantity":2,"unit_price":"9.99","tax":"standard"}`
	return fmt.Sprintf(`{"schema_version":1,"order_id":%q,"customer":{"id":"customer-7","tier":"standard"},"currency":"EUR","placed_at":"2026-11-23T08:00:00Z","lines":[%s]}`,
		id, strings.TrimSuffix(strings.Repeat(line+",", lines), ","))
}

// send writes the records into the inputs, in their order, and waits until all are committed.
func (s *shop) send(t *testing.T, all ...given) {
	t.Helper()
	s.produce(t, all...)
	s.awaitCommitted(t)
}

func (s *shop) produce(t *testing.T, all ...given) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), workTimeout)
	defer cancel()
	// All at once, so that good and bad records share transactions.
	var records []*kgo.Record
	for _, g := range all {
		g.record.Topic = map[string]string{"orders": s.orders, "copy": s.input}[g.to]
		records = append(records, g.record)
	}
	if err := s.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// awaitCommitted waits until the group has committed the ends of both inputs.
func (s *shop) awaitCommitted(t *testing.T) {
	t.Helper()
	testkit.WaitFor(t, workTimeout, "all inputs to be committed", func() bool {
		return s.committed(t, s.orders) && s.committed(t, s.input)
	})
}

// committed tells whether the group has committed the end of an input, as far as anybody answers.
func (s *shop) committed(t *testing.T, topic string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lookTimeout)
	defer cancel()
	committed, err := s.admin.FetchOffsetsForTopics(ctx, s.application, topic)
	if err != nil || committed.Error() != nil {
		return false
	}
	ends, err := s.admin.ListEndOffsets(ctx, topic)
	return err == nil && ends.Error() == nil && committed[topic][0].At == ends[topic][0].Offset
}

// verify reads all topics and fails the test unless everything that was ever sent is exactly where it
// must be, once: what is good in the outputs, in order, what is bad in the dead letters with its
// original bytes; and unless the log, the metrics and `dlq ls` tell of each dead letter.
func (s *shop) verify(t *testing.T, p *processor, all ...given) {
	t.Helper()
	refused, wanted := s.verifyRecords(t, all...)
	s.verifyTold(t, p, refused, wanted)
}

// verifyRecords is the part of verify about topics. It returns what must be refused and why.
func (s *shop) verifyRecords(t *testing.T, all ...given) (refused []*kgo.Record, wanted []given) {
	t.Helper()
	brokers := s.kafka.InternalBrokers()
	inputs := map[string][]*kgo.Record{}
	for _, topic := range []string{s.orders, s.input} {
		inputs[topic] = testkit.ReadCommitted(t, brokers, topic)
	}
	var copied, sold []*kgo.Record
	next := map[string]int{}
	for _, g := range all {
		n := next[g.record.Topic]
		next[g.record.Topic]++
		if n >= len(inputs[g.record.Topic]) {
			t.Fatalf("input %s has %d records, want more", g.record.Topic, len(inputs[g.record.Topic]))
		}
		in := inputs[g.record.Topic][n]
		switch {
		case g.reason != "":
			refused, wanted = append(refused, in), append(wanted, g)
		case g.to == "copy":
			copied = append(copied, in)
		default:
			sold = append(sold, in)
		}
	}
	s.verifyCopies(t, testkit.ReadCommitted(t, brokers, s.output), copied)
	for _, topic := range []string{s.priced, s.ledger, s.effects} {
		same(t, "orders in "+topic, sources(t, testkit.ReadCommitted(t, brokers, topic)), spots(sold))
	}
	letters := testkit.ReadCommitted(t, brokers, s.deadLetter)
	same(t, "dead letters", slices.Sorted(slices.Values(sources(t, letters))), slices.Sorted(slices.Values(spots(refused))))
	for i, in := range refused {
		at := slices.IndexFunc(letters, func(r *kgo.Record) bool { return slices.Contains(sources(t, []*kgo.Record{r}), spotText(in)) })
		if at >= 0 {
			verifyLetter(t, letters[at], in, wanted[i])
		}
	}
	return refused, wanted
}

func (s *shop) verifyCopies(t *testing.T, outputs, inputs []*kgo.Record) {
	t.Helper()
	same(t, "copies", sources(t, outputs), spots(inputs))
	for i := range min(len(outputs), len(inputs)) {
		verifyBytes(t, "copy of "+spotText(inputs[i]), outputs[i], inputs[i], 2)
	}
}

// verifyBytes compares what must not change. ours is the number of headers that are added.
func verifyBytes(t *testing.T, what string, got, want *kgo.Record, ours int) {
	t.Helper()
	if !identical(got.Key, want.Key) {
		t.Errorf("%s has key %s, want %s", what, shown(got.Key), shown(want.Key))
	}
	if !identical(got.Value, want.Value) {
		t.Errorf("%s has value %s, want %s", what, shown(got.Value), shown(want.Value))
	}
	if !got.Timestamp.Equal(want.Timestamp) {
		t.Errorf("%s has timestamp %v, want %v", what, got.Timestamp, want.Timestamp)
	}
	if len(got.Headers) != len(want.Headers)+ours {
		t.Errorf("%s has %d headers, want the %d of the input and %d more", what, len(got.Headers), len(want.Headers), ours)
		return
	}
	for i, h := range want.Headers {
		if got.Headers[i].Key != h.Key || !identical(got.Headers[i].Value, h.Value) {
			t.Errorf("%s has header %d %.80q = %s, want %.80q = %s", what, i, got.Headers[i].Key, shown(got.Headers[i].Value), h.Key, shown(h.Value))
			return
		}
	}
}

func shown(b []byte) string {
	if b == nil {
		return "null"
	}
	return fmt.Sprintf("%d bytes %q", len(b), b[:min(len(b), 80)])
}

// identical tells null from empty.
func identical(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

// letterHeaders are those that a dead letter has behind the original ones, in this order.
var letterHeaders = []string{message.HeaderSource, message.HeaderID, message.HeaderHandler, message.HeaderReason, message.HeaderError}

func verifyLetter(t *testing.T, letter, in *kgo.Record, want given) {
	t.Helper()
	what := "dead letter of " + spotText(in)
	verifyBytes(t, what, letter, in, len(letterHeaders))
	story := map[string]string{}
	var keys []string
	for _, h := range letter.Headers[max(0, len(letter.Headers)-len(letterHeaders)):] {
		keys = append(keys, h.Key)
		story[h.Key] = string(h.Value)
	}
	same(t, what+": its last headers", keys, letterHeaders)
	for key, value := range map[string]string{
		message.HeaderSource: spotText(in), message.HeaderHandler: want.to, message.HeaderReason: want.reason,
	} {
		if story[key] != value {
			t.Errorf("%s has %s %q, want %q", what, key, story[key], value)
		}
	}
	tells(t, what, story[message.HeaderError], want.story...)
}

// verifyTold checks what an operator gets to see: the log, the metrics and the command dlq ls.
func (s *shop) verifyTold(t *testing.T, p *processor, refused []*kgo.Record, wanted []given) {
	t.Helper()
	if got := p.metric("processor_dead_letter_records_total"); got != float64(len(refused)) {
		t.Errorf("the metrics count %v dead letters, want %d", got, len(refused))
	}
	log := p.lines(t)
	stdout, stderr, code := s.command(t, "dlq", "ls", "-o", "json")
	var listed []struct{ Source, Handler, Reason, Error, State string }
	if err := json.Unmarshal([]byte(stdout), &listed); err != nil || code != 0 {
		t.Fatalf("dlq ls: exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	if len(listed) != len(refused) {
		t.Errorf("dlq ls lists %d dead letters, want %d", len(listed), len(refused))
	}
	for i, in := range refused {
		at := slices.IndexFunc(listed, func(l struct{ Source, Handler, Reason, Error, State string }) bool { return l.Source == spotText(in) })
		if at < 0 || listed[at].Reason != wanted[i].reason || listed[at].Handler != wanted[i].to || listed[at].State != "open" {
			t.Errorf("dlq ls does not list %s as %s: %+v", spotText(in), wanted[i].reason, listed)
			continue
		}
		tells(t, "dlq ls of "+spotText(in), listed[at].Error, wanted[i].story...)
		logged := func(line string) bool {
			return strings.Contains(line, "record dead-lettered") && strings.Contains(line, strconv.Quote(spotText(in))) && strings.Contains(line, strconv.Quote(wanted[i].reason))
		}
		if !slices.ContainsFunc(log, logged) {
			t.Errorf("the log does not tell that %s is dead-lettered as %s", spotText(in), wanted[i].reason)
		}
	}
}

// tells fails the test unless a text has all the parts.
func tells(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s does not say %q:\n%s", what, part, text)
		}
	}
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// sources lists the inputs of outputs.
func sources(t *testing.T, outputs []*kgo.Record) []string {
	t.Helper()
	var all []string
	for _, r := range outputs {
		for _, h := range slices.Backward(r.Headers) { // those before ours may be anything
			if h.Key == message.HeaderSource {
				all = append(all, string(h.Value))
				break
			}
		}
	}
	if len(all) != len(outputs) {
		t.Errorf("%d of %d outputs name their source", len(all), len(outputs))
	}
	return all
}

func spotText(r *kgo.Record) string {
	return message.Source{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}.String()
}

func spots(records []*kgo.Record) []string {
	var all []string
	for _, r := range records {
		all = append(all, spotText(r))
	}
	return all
}

// effort is what a process has done since its start.
type effort struct {
	transactions float64 // ended, whatever the outcome
	lines        int     // logged
	cpu          time.Duration
}

func (p *processor) effort(t *testing.T) effort {
	t.Helper()
	cpu, err := p.cpu()
	if err != nil {
		t.Fatal(err)
	}
	return effort{transactions: p.metric("processor_transactions_total"), lines: len(p.lines(t)), cpu: cpu}
}

// lines gives those that a process has logged since its start.
func (p *processor) lines(t *testing.T) []string {
	t.Helper()
	log, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(log), "\n"), "\n")
}

// line gives the first line logged that has a text, or fails the test.
func (p *processor) line(t *testing.T, text string) string {
	t.Helper()
	lines := p.lines(t)
	at := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, text) })
	if at < 0 {
		t.Fatalf("nothing logged about %q:\n%s", text, tail(p.log, logLines))
	}
	return lines[at]
}

// rests fails the test if the process has taken more transactions than that so far, or does anything
// while it is watched for a time.
func (p *processor) rests(t *testing.T, transactions float64, watched time.Duration) {
	t.Helper()
	before, began := p.effort(t), time.Now()
	if before.transactions > transactions {
		t.Errorf("%v transactions so far, want at most %v", before.transactions, transactions)
	}
	timer := time.NewTimer(watched)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.gone:
		t.Fatalf("processor %s has ended by itself: %v", p.name, p.err)
	}
	after, took := p.effort(t), time.Since(began)
	if after.transactions != before.transactions {
		t.Errorf("%v transactions in %s at rest, want none", after.transactions-before.transactions, took)
	}
	if lines := after.lines - before.lines; lines > restLines {
		t.Errorf("%d lines logged in %s at rest, such as:\n%s", lines, took, tail(p.log, min(lines, logLines)))
	}
	if cpu := after.cpu - before.cpu; cpu > time.Duration(restCPU*float64(took)) {
		t.Errorf("%s of processor time used in %s at rest", cpu, took)
	}
}
