//go:build chaos && linux

package e2e

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/cluster"
	"pawl/internal/testkit"
)

// TestBadInput gives the program what it cannot use, one thing after the other: records, settings,
// credentials, topics, brokers and rights. Whatever it is: the message says what is wrong and what to
// do about it, nothing is lost, good records beside it go through once, and nothing turns in a loop.
func TestBadInput(t *testing.T) {
	k := testkit.OpenKafka(t, cluster.KafkaConfig{
		ACL: true,
		Listener: cluster.Listener{SASL: &cluster.SASL{
			Mechanisms: []string{"SCRAM-SHA-256"},
			Users:      []cluster.User{{Name: cluster.SuperUser, Password: "right"}, {Name: "reader", Password: "right"}},
		}},
	})
	for _, test := range []struct {
		name  string
		run   func(*testing.T, *cluster.Kafka)
		waits bool // most of the time: these go on side by side, after the others
	}{
		{"not JSON", testNotJSON, false},
		{"10 MB value", testLargeValue, false},
		{"10 MB value and a small dead-letter topic", testLargeDeadLetter, false},
		{"null key and value", testNull, false},
		{"10,000 headers", testManyHeaders, false},
		{"invalid UTF-8", testInvalidUTF8, false},
		{"unknown schema_version", testUnknownVersion, false},
		{"output beyond max.message.bytes", testLargeOutput, false},
		{"unknown config key", testUnknownKey, false},
		{"wrong password", testWrongPassword, true},
		{"wrong topic name", testWrongTopic, true},
		{"read-only ACLs", testReadOnly, true},
		{"Kafka 3.x", testOldKafka, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.waits {
				t.Parallel()
			}
			test.run(t, k)
		})
	}
}

// bad says that a record is refused.
func (g given) bad(reason string, story ...string) given {
	g.reason, g.story = reason, story
	return g
}

// with changes the record.
func (g given) with(change func(*kgo.Record)) given {
	change(g.record)
	return g
}

func header(key, value string) kgo.RecordHeader {
	return kgo.RecordHeader{Key: key, Value: []byte(value)}
}

// check is send, verify and rests: what is good around what is bad is in all.
func (s *shop) check(t *testing.T, p *processor, all ...given) {
	t.Helper()
	s.send(t, all...)
	s.verify(t, p, all...)
	p.rests(t, float64(2*len(all)), restTime)
}

func testNotJSON(t *testing.T, k *cluster.Kafka) {
	s := newShop(t, k)
	p := s.open(t)
	headers := []kgo.RecordHeader{header("trace", "7"), header("trace", "8"), {Key: "empty", Value: []byte{}}, {Key: "null"}}
	raw := func(value string) given {
		return given{to: "orders", record: &kgo.Record{Key: []byte("k"), Value: []byte(value), Headers: headers}}
	}
	s.check(
		t, p,
		order("o-1"),
		raw("this is not JSON").bad("bad_json", "invalid character"),
		raw(orderJSON("o-cut", 1)[:40]).bad("bad_json", "unexpected EOF", "offset 40"),
		order("o-2"),
		raw(orderJSON("o-tail", 1)+"{}").bad("bad_json"),
		raw(`["an", "array"]`).bad("bad_type", "array"),
		raw(strings.Repeat("[", 100_000)).bad("bad_type"),
		passes("k", "this is not JSON"), // which copy does not ask for
		order("o-3"),
	)
}

func testNull(t *testing.T, k *cluster.Kafka) {
	s := newShop(t, k)
	p := s.open(t)
	record := func(to string, key, value []byte) given {
		return given{to: to, record: &kgo.Record{Key: key, Value: value}}
	}
	s.check(
		t, p,
		passes("k", "v"),
		record("copy", nil, nil),
		record("copy", []byte("k"), nil),
		record("copy", nil, []byte("v")),
		record("copy", []byte{}, []byte{}), // which are not null
		order("o-1"),
		record("orders", nil, nil).bad("no_value", "no value"),
		record("orders", []byte("k"), nil).bad("no_value"),
		record("orders", []byte{}, []byte{}).bad("no_value"),
		record("orders", nil, []byte(orderJSON("o-2", 1))), // the key is in the order
		record("orders", nil, []byte("null")).bad("bad_type", "null"),
		order("o-3"),
		passes("k", "v"),
	)
}

func testManyHeaders(t *testing.T, k *cluster.Kafka) {
	s := newShop(t, k)
	p := s.open(t)
	many := func(r *kgo.Record) {
		for i := range 10_000 {
			r.Headers = append(r.Headers, header("header-"+strconv.Itoa(i), strconv.Itoa(i)))
		}
	}
	s.check(
		t, p,
		passes("k", "before"),
		passes("k", "with 10,000 headers").with(many),
		passes("k", "after"),
		order("o-1"),
		order("o-2").with(many),
		order("o-3").with(many).with(func(r *kgo.Record) { r.Value = []byte("{") }).bad("bad_json"),
		order("o-4"),
	)
}

func testInvalidUTF8(t *testing.T, k *cluster.Kafka) {
	s := newShop(t, k)
	p := s.open(t)
	const wrong = "a\xff\xfe\x80b\x1b[31m"
	key := func(r *kgo.Record) { r.Key = []byte(wrong) }
	headers := func(r *kgo.Record) { r.Headers = []kgo.RecordHeader{header(wrong, wrong), header("fine", "fine")} }
	s.check(
		t, p,
		passes("k", "before"),
		passes("k", wrong).with(key).with(headers),
		order("o-1").with(key).with(headers), // the order itself is in order
		order("o-2").with(key).with(headers).with(func(r *kgo.Record) { r.Value = []byte(orderJSON("o-2", 1) + wrong) }).bad("bad_json"),
		order("o-3").with(func(r *kgo.Record) { r.Value = bytes.Replace(r.Value, []byte("o-3"), []byte(wrong), 1) }).bad("bad_json", "UTF-8", "order_id"),
		order("o-4"),
		passes("k", "after"),
	)
	// Nothing of it reaches a terminal as it is.
	for _, arguments := range [][]string{{"dlq", "ls"}, {"dlq", "show", "0/0"}, {"dlq", "ls", "--group"}} {
		stdout, stderr, code := s.command(t, arguments...)
		if code != 0 || stdout == "" || strings.ToValidUTF8(stdout, "") != stdout || strings.ContainsAny(stdout, "\x1b\x00") {
			t.Errorf("%v: exit code %d, %q %s", arguments, code, stdout, stderr)
		}
	}
}

func testUnknownVersion(t *testing.T, k *cluster.Kafka) {
	s := newShop(t, k)
	p := s.open(t)
	version := func(text string) func(*kgo.Record) {
		return func(r *kgo.Record) {
			r.Value = bytes.Replace(r.Value, []byte(`"schema_version":1`), []byte(text), 1)
		}
	}
	s.check(
		t, p,
		order("o-1"),
		order("o-2").with(version(`"schema_version":2`)).bad("unknown_version", "schema_version is 2", "this release knows 1"),
		// A later version may well have members that this one does not know: its version is the reason.
		order("o-3").with(version(`"schema_version":3,"coupon":"SPRING"`)).bad("unknown_version", "schema_version is 3"),
		order("o-4").with(version(`"schema_version":-1`)).bad("missing_field"),
		order("o-5").with(version(`"schema_version":"1"`)).bad("bad_type", "schema_version"),
		order("o-6").with(version(`"comment":"none"`)).bad("unknown_member", "comment"),
		order("o-7"),
	)
}

// large is a value that cannot be mistaken for another one.
func large(bytes int) string {
	line := fmt.Sprintf("%d bytes of something. ", bytes)
	return strings.Repeat(line, bytes/len(line)+1)[:bytes]
}

func testLargeValue(t *testing.T, k *cluster.Kafka) {
	s := newShop(t, k)
	testkit.CreateTopics(t, k.InternalBrokers(), 1, map[string]string{"max.message.bytes": strconv.Itoa(inputBytesMax)}, s.input, s.orders)
	p := s.open(t)
	const size = 10 << 20
	s.check(
		t, p,
		passes("k", "before"),
		passes("k", large(size)).bad("output_too_large", s.output, strconv.Itoa(size)[:3], "max.message.bytes"),
		passes("k", "after"),
		order("o-1"),
		order("o-2").with(func(r *kgo.Record) { r.Value = []byte(large(size)) }).bad("value_too_large", strconv.Itoa(size)),
		order("o-3"),
	)
}

// testLargeDeadLetter has a dead-letter topic that somebody made by hand, so that it does not take
// what the input takes: the partition waits for an operator, because to go on would be to lose the
// record, and everything else goes on.
func testLargeDeadLetter(t *testing.T, k *cluster.Kafka) {
	s := newShop(t, k)
	testkit.CreateTopics(t, k.InternalBrokers(), 1, map[string]string{"max.message.bytes": strconv.Itoa(inputBytesMax)}, s.input)
	p := s.open(t)
	s.limit(t, s.deadLetter, 1<<20)
	p.terminate(t, endTimeout)
	p.start(t) // it knows the limit now
	p.awaitReady(t)

	all := []given{passes("k", "before"), passes("k", large(10<<20)).bad("output_too_large"), passes("k", "after")}
	s.produce(t, all...)
	p.await(t, workTimeout, "the partition to halt", func() bool { return p.metric("processor_halted_partitions") == 1 })
	tells(t, "the log", p.line(t, "partition halted"), s.input+"/0/1", s.deadLetter, "max.message.bytes", "raise it", "restart")
	orders := []given{order("o-1"), order("o-2").with(func(r *kgo.Record) { r.Value = nil }).bad("no_value"), order("o-3")}
	s.produce(t, orders...)
	p.await(t, workTimeout, "the orders", func() bool { return s.committed(t, s.orders) })
	p.rests(t, 20, restTime)

	p.terminate(t, endTimeout)
	s.makeTopics(t) // which gives the dead letters the limit they are to have
	p.start(t)
	s.awaitCommitted(t)
	s.verifyRecords(t, append(all, orders...)...)
}

// testLargeOutput has a limit that the engine knows from its start and refuses by, and one that only
// the broker knows, because it was lowered since: there whole batches are refused, and the one record
// that is guilty is found by halving them.
func testLargeOutput(t *testing.T, k *cluster.Kafka) {
	s := newShop(t, k)
	const limit = 10_000
	s.configure(t, "priced: {", `priced: {settings: {max.message.bytes: "`+strconv.Itoa(limit)+`"}, `)
	p := s.open(t)
	all := []given{
		order("o-1"),
		{to: "orders", record: kgo.KeyStringRecord("customer-7", orderJSON("o-2", 100))},
		order("o-3"),
		passes("k", large(2*limit)), // to a topic that has no such limit
	}
	all[1] = all[1].bad("output_too_large", s.priced, "max.message.bytes", strconv.Itoa(limit), "raise", "redrive")
	s.check(t, p, all...)

	s.limit(t, s.output, limit)
	lowered := []given{passes("k", "before")}
	for i := range 30 {
		// Any ten of them are too large for the broker together, and none alone.
		lowered = append(lowered, passes("k", strconv.Itoa(i)+": "+large(limit/10)))
	}
	lowered[11] = passes("k", large(2*limit)).bad("poison", "MESSAGE_TOO_LARGE", s.output)
	s.send(t, lowered...)
	all = append(all, lowered...)
	s.verify(t, p, all...)
	p.rests(t, 80, restTime)

	// What the messages say to do is enough.
	p.terminate(t, endTimeout)
	s.limit(t, s.output, 10*limit)
	s.configure(t, `max.message.bytes: "`+strconv.Itoa(limit), `max.message.bytes: "`+strconv.Itoa(100*limit))
	s.makeTopics(t)
	p.start(t)
	p.awaitReady(t)
	s.run(t, "dlq", "redrive", "--because", "the limit is raised", "--yes")
	s.awaitCommitted(t)
	for topic, want := range map[string]int{s.priced: 3, s.ledger: 3, s.effects: 3, s.output: len(lowered) + 1} {
		if got := len(testkit.ReadCommitted(t, k.InternalBrokers(), topic)); got != want {
			t.Errorf("%s has %d records after the redrive, want %d", topic, got, want)
		}
	}
	if stdout, _, _ := s.command(t, "dlq", "ls", "-o", "json"); strings.TrimSpace(stdout) != "[]" {
		t.Errorf("dead letters after the redrive:\n%s", stdout)
	}
}
