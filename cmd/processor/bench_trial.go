package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"pawl/internal/kafka"
	"pawl/internal/load"
	"pawl/internal/yardstick"
)

// The peers of a trial.
const (
	benchPawl = "pawl"
	benchLoop = "loop"
)

// benchOutput names the output of the copy handler.
const benchOutput = "out"

// trial is one run of `processor bench`.
type trial struct {
	*cli
	flags   benchFlags
	name    string // what the names of all topics and groups begin with
	screen  *benchScreen
	brokers *brokers
	stage   *yardstick.Stage
	folder  string // for the logs of the processes
	program string // this one
	report  *benchReport
}

// open connects and finds out what is to be measured.
func (t *trial) open(ctx context.Context) (err error) {
	sets := t.sets(t.task(yardstick.Turn{}, benchPawl))
	conf, origins, err := t.loadBench(sets)
	if err != nil {
		return err
	}
	if t.brokers, err = t.connectTo(ctx, conf); err != nil {
		return err
	}
	options, err := t.brokers.kafka.Options()
	if err != nil {
		return usage(err)
	}
	if t.program, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program, to run it as a processor: %w", err)
	}
	if t.stage, err = yardstick.Open(ctx, options); err != nil {
		t.brokers.close()
		return err
	}
	t.report = newBenchReport(t, conf, origins)
	return nil
}

func (t *trial) close() {
	t.stage.Close()
	t.brokers.close()
}

// task names what a peer works on in its turn. Everything begins with the name of the trial, and what is of
// one turn with its group's.
func (t *trial) task(turn yardstick.Turn, peer string) yardstick.Task {
	group := t.name + "-" + peer + "-" + turn.Name()
	in := t.name + "-in"
	if t.flags.latency > 0 { // each stream is one's own
		in = group + ".in"
	}
	return yardstick.Task{Group: group, In: in, Out: group + ".out"}
}

// sets make the user's configuration one that copies this task and touches nothing else. How to connect and
// the settings of transactions are left as they are.
func (t *trial) sets(task yardstick.Task) []string {
	return []string{
		"application=" + task.Group,
		fmt.Sprintf("routes=[{topics: [%q], handler: copy, config: {output: %s}}]", task.In, benchOutput),
		fmt.Sprintf("outputs={%s: {topic: %q, partitions: %d, replication: %d}}", benchOutput, task.Out, t.flags.partitions, t.flags.replication),
		"endpoints={}", "effects.enabled=false", "input.start=earliest",
		"admin.listen=127.0.0.1:0", "admin.token_file=", "log.level=warn", "log.format=text",
	}
}

// ended is what the transactions of a task left behind so far.
type ended struct{ transactions, markers int64 }

// ended counts the transactions of the lanes of all processes, and their markers in an output of so many
// records; the loop has none.
func (t *trial) ended(ctx context.Context, peer string, task yardstick.Task, records int64) (found ended, err error) {
	if peer == benchLoop {
		return found, nil
	}
	var ids []string
	for process := range t.flags.processes {
		for lane := range t.report.Lanes {
			ids = append(ids, fmt.Sprintf("%s.%s.%d", task.Group, benchInstance(process), lane))
		}
	}
	if found.transactions, err = t.stage.Transactions(ctx, ids...); err == nil {
		found.markers, err = t.stage.Markers(ctx, task.Out, records)
	}
	return found, err
}

// benchInstance names a process.
func benchInstance(process int) string { return "bench-" + strconv.Itoa(process) }

// commands are the processes of a peer: this program with the user's own settings, files, environment and
// --set, under those of the task. So no secret is copied anywhere.
func (t *trial) commands(ctx context.Context, peer string, task yardstick.Task) []*exec.Cmd {
	commands := make([]*exec.Cmd, t.flags.processes)
	for i := range commands {
		args := []string{"run"}
		if peer == benchLoop {
			args = []string{"bench", "loop", "--members", strconv.Itoa(t.report.Lanes)}
		}
		if file := t.configFile(); file != "" {
			args = append(args, "-c", file)
		}
		sets := slices.Concat(t.set, t.sets(task), []string{"instance=" + benchInstance(i), "txn.lanes=" + strconv.Itoa(t.report.Lanes)})
		for _, set := range sets {
			args = append(args, "--set", set)
		}
		// They end by SIGTERM, in order, and not with ctx in the middle of their work.
		commands[i] = exec.CommandContext(context.WithoutCancel(ctx), t.program, args...) //nolint:gosec // this very program
		commands[i].Env = append(slices.Clip(t.env), "OTEL_SDK_DISABLED=true")            // traces of a bench are nobody's
	}
	return commands
}

// measure lets both have their turn in every round.
func (t *trial) measure(ctx context.Context) (err error) {
	if t.folder, err = os.MkdirTemp("", t.name+"-"); err != nil {
		return fmt.Errorf("make a folder for the logs of the processes: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(t.folder)) }()
	began := time.Now()
	run := rand.Uint64() //nolint:gosec // tells this trial's records from others
	if t.flags.latency == 0 {
		if err := t.fill(ctx, run); err != nil {
			return err
		}
	}
	for turn, peer := range yardstick.Turns(t.flags.warmRounds, t.flags.rounds, t.report.Peers) {
		task := t.task(turn, peer)
		if t.flags.latency > 0 {
			err = t.waitOnce(ctx, turn, peer, task)
		} else {
			err = t.copyOnce(ctx, turn, peer, task, run)
		}
		if err != nil {
			return fmt.Errorf("%s, %s: %w", peer, turn, t.explain(err))
		}
		if err := clean(ctx, t.brokers.client, task.Group); err != nil {
			return err
		}
	}
	t.report.Took = time.Since(began).Seconds()
	return nil
}

// fill writes the backlog that all copy.
func (t *trial) fill(ctx context.Context, run uint64) error {
	in := t.task(yardstick.Turn{}, benchPawl).In
	if err := t.makeTopic(ctx, in); err != nil {
		return err
	}
	err := t.stage.Fill(ctx, in, load.PlainConfig{Run: run, Bytes: t.flags.bytes}, t.flags.records, func(n int64) {
		t.screen.live("filling %s: %d of %d records", in, n, t.flags.records)
	})
	if err != nil {
		return t.explain(err)
	}
	t.screen.step(fmt.Sprintf("filled %s with %d records", in, t.flags.records))
	return nil
}

func (t *trial) copyOnce(ctx context.Context, turn yardstick.Turn, peer string, task yardstick.Task, run uint64) error {
	if err := t.prepare(ctx, peer, task); err != nil {
		return err
	}
	result := yardstick.CopyRun{Peer: peer, Round: turn.Round}
	used, err := yardstick.Run(t.commands(ctx, peer, task), t.folder, task.Group, func(processes []*yardstick.Process) (err error) {
		result.Copied, err = t.stage.Copy(ctx, task, t.flags.records, time.Now(), processes, func(n int64) {
			t.screen.live("%s, %s: %d of %d records copied", peer, turn, n, t.flags.records)
		})
		return err
	})
	if err != nil {
		return err
	}
	result.CPU, result.Peak = yardstick.PerMillion(used.CPU, t.flags.records), float64(used.PeakKiB)/1024
	t.screen.live("%s, %s: reading the copy back", peer, turn)
	if result.Tally, err = t.stage.Check(ctx, task.Out, run, t.flags.records, peer == benchPawl); err != nil {
		return err
	}
	all, err := t.ended(ctx, peer, task, t.flags.records)
	if err != nil {
		return err
	}
	result.Transactions, result.Markers = all.transactions, all.markers
	t.screen.step(fmt.Sprintf("%s, %s: %.0f records/s, %.2f CPU s per million, %.0f MiB", peer, turn, result.Rate, result.CPU, result.Peak))
	if turn.Counts() {
		t.report.Copies = append(t.report.Copies, result)
	}
	return nil
}

func (t *trial) waitOnce(ctx context.Context, turn yardstick.Turn, peer string, task yardstick.Task) error {
	if err := t.makeTopic(ctx, task.In); err != nil {
		return err
	}
	if err := t.prepare(ctx, peer, task); err != nil {
		return err
	}
	warm := yardstick.Stream{Count: int64(t.flags.latency * t.flags.warmUp.Seconds()), Bytes: t.flags.bytes, Rate: t.flags.latency}
	stream := warm
	stream.First, stream.Count = warm.Count, t.streamed()-warm.Count
	var delivered load.Delivered
	var before, after ended
	used, err := yardstick.Run(t.commands(ctx, peer, task), t.folder, task.Group, func(processes []*yardstick.Process) (err error) {
		t.screen.live("%s, %s: joining the group", peer, turn)
		if err := t.stage.Joined(ctx, task.Group, t.flags.processes*t.report.Lanes, processes); err != nil {
			return err
		}
		t.screen.live("%s, %s: %d records within %s", peer, turn, t.streamed(), t.flags.warmUp+t.flags.duration)
		if warm.Count > 0 {
			if _, err := t.stage.Stream(ctx, task, warm, processes); err != nil {
				return fmt.Errorf("warm up: %w", err)
			}
		}
		if before, err = t.ended(ctx, peer, task, warm.Count); err != nil {
			return err
		}
		if delivered, err = t.stage.Stream(ctx, task, stream, processes); err != nil {
			return err
		}
		after, err = t.ended(ctx, peer, task, t.streamed())
		return err
	})
	if err != nil {
		return err
	}
	result := yardstick.WaitRun{
		Peer: peer, Round: turn.Round, Latency: delivered.FromCall, Scheduled: delivered.FromSchedule,
		CPU: yardstick.PerMillion(used.CPU, t.streamed()), Peak: float64(used.PeakKiB) / 1024,
		Transactions: after.transactions - before.transactions, Markers: after.markers - before.markers,
	}
	t.screen.step(fmt.Sprintf("%s, %s: %s", peer, turn, result.Scheduled))
	if turn.Counts() {
		t.report.Waits = append(t.report.Waits, result)
	}
	return nil
}

// prepare makes what a peer writes to. For this program it then looks whether everything is there that it
// needs, rights above all: a process that lacks one waits for it, and would be taken for a slow one.
func (t *trial) prepare(ctx context.Context, peer string, task yardstick.Task) error {
	conf, _, err := t.loadBench(append(t.sets(task), "instance="+benchInstance(0)))
	if err != nil {
		return err
	}
	topics := slices.DeleteFunc(conf.Topics(), func(topic kafka.Topic) bool {
		return topic.Role == kafka.RoleInput || peer == benchLoop && topic.Role != kafka.RoleOutput
	})
	if err := t.makeTopics(ctx, topics); err != nil || peer == benchLoop {
		return err
	}
	return kafka.Failed(kafka.Preflight(ctx, t.kafkaConfig(conf), conf.Preflight()))
}
