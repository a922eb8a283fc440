//go:build chaos && linux

package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/handlers"
	"pawl/internal/load"
	"pawl/internal/testkit"
	"pawl/internal/verify"
)

// scanTimeout bounds the reading of all topics of a test.
const scanTimeout = 2 * time.Minute

// plan says what the application of a rig does, for the checker.
func (r *rig) plan(t testing.TB) verify.Plan {
	t.Helper()
	handler, err := handlers.New("copy", handlers.Settings{Config: map[string]any{"output": "copied"}, Outputs: []string{"copied"}})
	if err != nil {
		t.Fatal(err)
	}
	return verify.Plan{
		Application: r.application, Drained: true, Readers: true, Dir: r.folder,
		Inputs:  []verify.Input{{Topic: r.input, Handler: handler}},
		Outputs: map[string]string{"copied": r.output}, DeadLetters: r.deadLetter,
	}
}

// verify gives all logs to the exactly-once checker, from the given offsets of the input where it names some, and
// fails the test unless exactly the inputs came out, in order, and nothing went to the dead letters or hangs in an
// open transaction. It returns what the checker saw: Judged are the inputs.
func (r *rig) verify(t testing.TB, from map[int32]int64) verify.Saw {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*scanTimeout)
	defer cancel()
	system, err := verify.NewSystem(ctx, r.client, nil, r.application, r.plan(t))
	if err != nil {
		t.Fatal(err)
	}
	report, _, _, err := system.Pass(ctx, verify.Window{From: verify.Positions{r.input: from}})
	if err != nil {
		t.Fatal(err)
	}
	for _, finding := range report.Findings {
		t.Errorf("%s, %d such, at %s: %s", finding.Verdict, report.Counts[finding.Verdict], finding.At, finding.Story)
	}
	// What was made of inputs before from is outside of what is judged. There must be none of it.
	if saw := report.Saw; saw.Outputs != saw.Judged || saw.Outside != 0 {
		t.Errorf("%d output records are committed, %d of them made from before the start, want one for each of %d inputs", saw.Outputs, saw.Outside, saw.Judged)
	}
	for partition, end := range testkit.EndOffsets(t, r.kafka.InternalBrokers(), r.deadLetter) {
		if end != 0 {
			t.Errorf("partition %d of the dead letters has come to offset %d, want none ever written", partition, end)
		}
	}
	return report.Saw
}

// verifyReader holds what a reader that followed the output was given, while faults happened, against what is there
// at rest: a record of an aborted transaction, one twice or one left out would make a difference.
func (r *rig) verifyReader(t testing.TB, v *watcher) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scanTimeout)
	defer cancel()
	chains, there, o := map[at]uint64{}, map[at]offsets{}, &outcome{}
	var count int64
	if err := load.Scan(ctx, []kgo.Opt{kgo.SeedBrokers(r.kafka.InternalBrokers()...)}, []string{r.output}, func(record *kgo.Record) {
		here := at{record.Topic, record.Partition}
		chains[here], there[here] = chain(chains[here], record), there[here].with(record.Offset)
		count++
	}); err != nil {
		t.Fatal(err)
	}
	testkit.WaitFor(t, time.Minute, "the reader that followed to see all", func() bool { return v.count(r.output) >= count })
	v.close()
	v.conclude(o, chains, there)
	for _, one := range o.wrong {
		t.Errorf("%s: %s", one.kind, one.text)
	}
	if t.Failed() {
		t.Logf("%s saw %d records of %d, up to offsets %v, and the errors %v", v.name, v.count(r.output), count, v.next, v.failed)
	}
}

// hash stands for a value.
type hash [sha256.Size]byte

// verifyByConsole reads as many values as the input has with Kafka's own console consumer, whose code shares nothing
// with ours: each must be the value of an input, none may come twice.
func (r *rig) verifyByConsole(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scanTimeout)
	defer cancel()
	unseen, twice, unknown, count := map[hash]bool{}, 0, 0, 0
	if err := load.Scan(ctx, []kgo.Opt{kgo.SeedBrokers(r.kafka.InternalBrokers()...)}, []string{r.input}, func(record *kgo.Record) {
		unseen[sha256.Sum256(record.Value)] = true
		count++
	}); err != nil {
		t.Fatal(err)
	}
	if len(unseen) != count {
		t.Fatalf("%d inputs have %d values, want one each", count, len(unseen))
	}
	cmd := r.kafka.Tool(ctx, "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", r.kafka.Brokers()[0],
		"--topic", r.output, "--from-beginning", "--isolation-level", "read_committed", "--max-messages", strconv.Itoa(count))
	log, err := os.Create(r.folder + "/console-consumer.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	values, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(values); lines.Scan(); {
		value := hash(sha256.Sum256(lines.Bytes()))
		fresh, known := unseen[value]
		switch {
		case !known:
			unknown++
		case !fresh:
			twice++
		default:
			unseen[value] = false
			count--
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(fmt.Errorf("console consumer: %w\n%s", err, tail(log.Name(), logLines)))
	}
	if twice > 0 || unknown > 0 || count != 0 {
		t.Errorf("the console consumer did not get %d of %d values, got %d twice, and %d that are no input", count, len(unseen), twice, unknown)
	}
}
