package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// wireProcessor is this project as a peer of the wire part: the real binary with its ledger. It has an
// input and a handler too, which have nothing to do; what it calls for stands on its effects topic.
type wireProcessor struct {
	binary string
	folder string
}

func (p *wireProcessor) name() string { return processorName }
func (p *wireProcessor) members() int { return 1 }
func (p *wireProcessor) exact() bool  { return true }

func (p *wireProcessor) configPath(j job) string { return filepath.Join(p.folder, j.name+".yaml") }

// config keeps every default but what names the job, the endpoint on loopback, and a port that cannot
// collide.
func (p *wireProcessor) config(j job) string {
	return processorConfig(j, fmt.Sprintf(`instance: bench
routes:
  - {topics: [%[1]s.input], handler: copy, config: {output: out}}
outputs:
  out: {topic: %[1]s.out, partitions: %[2]d}
effects: {lanes: %[2]d}
endpoints:
  %[3]s: {url: %[4]q, allow_private: true, concurrency: %[5]d}
postgres: {dsn: %[6]q}
`, j.name, wireLanes, wireEndpoint, j.url, effectConcurrency, j.dsn))
}

func (p *wireProcessor) prepare(ctx context.Context, _ *stage, j job) error {
	return prepareProcessor(ctx, p.binary, p.configPath(j), p.config(j))
}

func (p *wireProcessor) commands(ctx context.Context, j job) []*exec.Cmd {
	return []*exec.Cmd{exec.CommandContext(ctx, p.binary, "run", "--migrate", "-c", p.configPath(j))} //nolint:gosec // the binary under test
}

const (
	wireLoopCommand = "wire-loop" // first argument with which this program is that loop
	// wireFetchWait is how long a broker holds a fetch for which it has nothing, as for the ledger's
	// readers.
	wireFetchWait = 500 * time.Millisecond
)

// wireLoop is what one writes without a ledger: read the effects topic and call. It keeps no order and
// no account of what it has called; a crash loses or repeats. This program runs itself again as that
// loop, see runWireLoop.
type wireLoop struct{ self string }

func (l *wireLoop) name() string { return loopName }
func (l *wireLoop) members() int { return 1 }
func (l *wireLoop) exact() bool  { return false }

func (l *wireLoop) prepare(ctx context.Context, s *stage, j job) error {
	return s.createTopic(ctx, j.in, wireLanes)
}

func (l *wireLoop) commands(ctx context.Context, j job) []*exec.Cmd {
	return []*exec.Cmd{exec.CommandContext(ctx, l.self, wireLoopCommand, strings.Join(j.brokers, ","), j.in, j.in, j.url)} //nolint:gosec // this very program
}

// runWireLoop calls for every committed record of a topic, as many at once as the processor may, until
// ctx ends. The client commits its offsets by itself. Arguments: brokers, group, topic, address to call.
func runWireLoop(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("%s: want brokers, group, topic, address to call", wireLoopCommand)
	}
	client, err := kgo.NewClient(append(clientOptions(strings.Split(args[0], ",")),
		kgo.ConsumerGroup(args[1]),
		kgo.ConsumeTopics(args[2]),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(wireFetchWait),
	)...)
	if err != nil {
		return fmt.Errorf("open client: %w", err)
	}
	defer client.Close()
	poster := newPoster(args[3])
	defer poster.close()
	bodies := make(chan string)
	callers, calling := errgroup.WithContext(ctx)
	for range effectConcurrency {
		callers.Go(func() error {
			for {
				select {
				case body := <-bodies:
					if err := poster.post(calling, body); err != nil {
						return err
					}
				case <-calling.Done():
					return nil
				}
			}
		})
	}
	callers.Go(func() error { return readBodies(calling, client, bodies) })
	err = callers.Wait()
	if ctx.Err() != nil {
		return nil // asked to end, which cuts off calls
	}
	return err
}

func readBodies(ctx context.Context, client *kgo.Client, bodies chan<- string) error {
	for ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("poll: %w", err)
		}
		for records := fetches.RecordIter(); !records.Done(); {
			select {
			case bodies <- string(records.Next().Value):
			case <-ctx.Done():
				return nil
			}
		}
	}
	return nil
}
