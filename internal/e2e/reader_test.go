//go:build chaos && linux

package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// tailReader is a read_committed reader that follows the output from its start while faults happen.
// Whatever it is given it was given for good: it must never get an offset that is not above the last
// one of the partition, an input twice, or an input that comes before one that it has.
type tailReader struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu     sync.Mutex
	c      *check
	seen   int64
	last   map[int32]int64
	errors map[string]int // what the brokers said instead of records, and how often
}

// tailReader runs until close. It knows no inputs, so that it judges order and repetition alone.
func (r *rig) tailReader(t testing.TB) *tailReader {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(r.kafka.Brokers()...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeTopics(r.output), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	reader := &tailReader{stop: stop, c: newCheck(r.input), last: map[int32]int64{}, errors: map[string]int{}}
	reader.done.Go(func() {
		defer client.Close()
		for ctx.Err() == nil {
			fetches := client.PollFetches(ctx)
			reader.mu.Lock()
			fetches.EachError(func(_ string, partition int32, err error) {
				// Most are a broker that is down, and the client tries again.
				reader.errors[fmt.Sprintf("output %d: %v", partition, err)]++
				if loss := (*kgo.ErrDataLoss)(nil); errors.As(err, &loss) {
					reader.c.problem("data loss", "output %d: %v", partition, err)
				}
			})
			fetches.EachRecord(reader.take)
			reader.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		reader.close()
		if t.Failed() {
			t.Logf("the reader that followed saw %d records up to offsets %v, the errors %v and the problems %q",
				reader.seen, reader.last, reader.errors, reader.c.problems)
		}
	})
	return reader
}

func (t *tailReader) take(r *kgo.Record) {
	t.seen++
	if last, ok := t.last[r.Partition]; ok && r.Offset <= last {
		t.c.problem("goes back", "output %d: offset %d after %d", r.Partition, r.Offset, last)
	}
	t.last[r.Partition] = r.Offset
	if source, err := sourceOf(r); err == nil {
		// Whether this is the input's value is for the final check, which has the input.
		t.c.inputs[spot{source.Partition, source.Offset}] = sha256.Sum256(r.Value)
	}
	t.c.out(r)
}

// count is the number of records seen so far.
func (t *tailReader) count() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen
}

func (t *tailReader) close() {
	t.stop()
	t.done.Wait()
}

// verifyByConsole reads as many values as c has inputs with Kafka's own console consumer, whose code
// shares nothing with ours: each must be the value of an input, none may come twice.
func (r *rig) verifyByConsole(t testing.TB, c *check) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scanTimeout)
	defer cancel()
	cmd := r.kafka.Tool(ctx, "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", r.kafka.Brokers()[0],
		"--topic", r.output, "--from-beginning", "--isolation-level", "read_committed", "--max-messages", strconv.Itoa(len(c.inputs)))
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
	seen := make(map[hash]bool, len(c.inputs))
	var twice, unknown int
	for lines := bufio.NewScanner(values); lines.Scan(); {
		value := hash(sha256.Sum256(lines.Bytes()))
		switch {
		case seen[value]:
			twice++
		case c.values[value] == 0:
			unknown++
		}
		seen[value] = true
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(fmt.Errorf("console consumer: %w\n%s", err, tail(log.Name(), logLines)))
	}
	if twice > 0 || unknown > 0 || len(seen) != len(c.inputs) {
		t.Errorf("the console consumer got %d of %d values, %d twice, %d that are no input", len(seen)-unknown, len(c.inputs), twice, unknown)
	}
}
