package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/yardstick"
)

// job is one run of one peer: copy every record of one topic to another.
type job struct {
	name    string // unique in this run of bench; the consumer group
	brokers []string
	in, out string   // out is made by the peer's prepare, and in too in the wire part
	beside  []string // other outputs

	// steady: a stream comes at a rate and its latency counts; else a backlog waits and the rate counts.
	steady bool

	lasts time.Duration // of its load, where it may take longer than runTimeout

	// Of the wire part and of orders.
	url string // what to call
	dsn string // of a database of its own
}

func (j job) task() yardstick.Task {
	return yardstick.Task{Group: j.name, In: j.in, Out: j.out, Beside: j.beside}
}

// peer is somebody who copies, as a set of processes.
type peer interface {
	name() string
	// members is how many members its group has once all have joined.
	members() int
	// prepare makes the output topic and whatever else has to be there before the processes start.
	prepare(ctx context.Context, s *stage, j job) error
	// commands are the processes, not yet started. Each ends in good order on SIGTERM.
	commands(ctx context.Context, j job) []*exec.Cmd
	// exact tells whether a record must come out once, or at least once.
	exact() bool
}

// The names of the peers.
const (
	processorName   = "processor"
	loopName        = "loop"
	sessionName     = "session"
	streamsName     = "streams"
	streamsBestName = "streams-best"
)

// processorPeer is this project: the real binary with the copy handler.
type processorPeer struct {
	binary     string
	folder     string
	processes  int
	lanes      int // 0: no knob is set, and it has as many as it takes by itself
	partitions int
}

func newProcessorPeer(s settings, programs programs) *processorPeer {
	return &processorPeer{binary: programs.binary, folder: programs.folder, processes: s.processes, lanes: s.lanes, partitions: s.parts}
}

// defaultLanes is how many lanes a processor has where nothing says so: one for two cores.
func defaultLanes() int { return (runtime.GOMAXPROCS(0) + 1) / 2 }

func (p *processorPeer) name() string { return processorName }
func (p *processorPeer) exact() bool  { return true }

func (p *processorPeer) members() int {
	if p.lanes == 0 {
		return p.processes * defaultLanes()
	}
	return p.processes * p.lanes
}

func (p *processorPeer) configPath(j job) string { return filepath.Join(p.folder, j.name+".yaml") }

// config keeps every default but what names the job, the lanes, and a port that cannot collide.
func (p *processorPeer) config(j job) string {
	return processorConfig(j, fmt.Sprintf(`routes:
  - {topics: [%s], handler: copy, config: {output: out}}
outputs:
  out: {topic: %s, partitions: %d}
effects: {enabled: false}
`, j.in, j.out, p.partitions)) + p.lanesConfig()
}

func (p *processorPeer) lanesConfig() string {
	if p.lanes == 0 {
		return ""
	}
	return fmt.Sprintf("txn: {lanes: %d}\n", p.lanes)
}

// processorConfig is a configuration with what all processors of bench have beside their task.
func processorConfig(j job, task string) string {
	return fmt.Sprintf(`application: %s
kafka: {brokers: [%s]}
input: {start: earliest}
admin: {listen: "127.0.0.1:0"}
log: {level: warn, format: text}
`, j.name, strings.Join(j.brokers, ", ")) + task
}

func (p *processorPeer) prepare(ctx context.Context, _ *stage, j job) error {
	return prepareProcessor(ctx, p.binary, p.configPath(j), p.config(j))
}

// prepareProcessor writes a configuration and makes its topics.
func prepareProcessor(ctx context.Context, binary, path, config string) error {
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return fmt.Errorf("write the processor's configuration: %w", err)
	}
	command := exec.CommandContext(ctx, binary, "topics", "apply", "--yes", "-c", path) //nolint:gosec // the binary under test
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("make the processor's topics: %w\n%s", err, out)
	}
	return nil
}

func (p *processorPeer) commands(ctx context.Context, j job) []*exec.Cmd {
	commands := make([]*exec.Cmd, p.processes)
	for i := range commands {
		commands[i] = exec.CommandContext(ctx, p.binary, "run", "-c", p.configPath(j)) //nolint:gosec // the binary under test
		commands[i].Env = append(os.Environ(), "PROCESSOR_INSTANCE="+strconv.Itoa(i))
	}
	return commands
}

const loopCommand = "loop" // first argument with which this program is the loop

// runLoop is the loop, without compression, which no peer uses. Arguments: brokers, group, topic in, topic out.
func runLoop(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("%s: want brokers, group, topic in, topic out", loopCommand)
	}
	options := append(clientOptions(strings.Split(args[0], ",")), kgo.ProducerBatchCompression(kgo.NoCompression()))
	return yardstick.Loop(ctx, options, yardstick.Task{Group: args[1], In: args[2], Out: args[3]}, 1)
}

// loopPeer is what one writes without a framework: poll, produce, flush, commit. This program runs
// itself again as that loop, see runLoop.
type loopPeer struct {
	self      string
	processes int
}

func (l *loopPeer) name() string { return loopName }
func (l *loopPeer) members() int { return l.processes }
func (l *loopPeer) exact() bool  { return false }

func (l *loopPeer) prepare(ctx context.Context, s *stage, j job) error {
	return s.createTopic(ctx, j.out, s.settings.parts)
}

func (l *loopPeer) commands(ctx context.Context, j job) []*exec.Cmd {
	commands := make([]*exec.Cmd, l.processes)
	for i := range commands {
		commands[i] = exec.CommandContext(ctx, l.self, loopCommand, strings.Join(j.brokers, ","), j.name, j.in, j.out) //nolint:gosec // this very program
	}
	return commands
}
