package yardstick

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/load"
)

// openStage gives a stage on an in-memory broker with topics in and out, and the broker's address.
func openStage(t *testing.T) (*Stage, string) {
	t.Helper()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "in", "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	address := broker.ListenAddrs()[0]
	stage, err := Open(t.Context(), []kgo.Opt{kgo.SeedBrokers(address), kgo.MetadataMinAge(20 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stage.Close)
	return stage, address
}

// self is this test binary as a process that copies.
func self(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(context.WithoutCancel(t.Context()), program, args...)
}

// lockThread holds the test's goroutine on its thread, with which the processes that it starts would end.
func lockThread(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
}

var task = Task{Group: "copiers", In: "in", Out: "out"}

// A process copies a backlog: every record is there, and what it took was seen.
func TestACopyIsMeasured(t *testing.T) {
	t.Parallel()
	lockThread(t)
	const count = 3000
	stage, address := openStage(t)
	filled, copied := int64(0), int64(0)
	if err := stage.Fill(t.Context(), task.In, load.PlainConfig{Run: 7, Bytes: 100}, count, func(n int64) { filled = max(filled, n) }); err != nil {
		t.Fatal(err)
	}
	resident := int64(0)
	var result Copied
	used, err := Run([]*exec.Cmd{self(t, "loop", address, task.Group, task.In, task.Out)}, t.TempDir(), "loop", func(processes []*Process) (err error) {
		result, err = stage.Copy(t.Context(), task, count, time.Now(), processes, func(n int64) { copied, resident = n, ResidentKiB(processes) })
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS == "linux" && (resident == 0 || resident > used.PeakKiB) {
		t.Errorf("%d KiB were resident, want some and no more than the peak, %d", resident, used.PeakKiB)
	}
	if filled == 0 || copied != count || result.StartUp <= 0 || used.CPU <= 0 || runtime.GOOS == "linux" && used.PeakKiB == 0 {
		t.Errorf("filled %d, copied %d, %+v, %+v: want %d records and figures", filled, copied, result, used, count)
	}
	if tally, err := stage.Check(t.Context(), task.Out, 7, count, false); err != nil || tally.Seen != count {
		t.Errorf("tally %+v, %v, want %d records", tally, err, count)
	}
	// Where its second member joined late, the loop copied some twice, as it may; markers it has none.
	twice, _ := stage.Check(t.Context(), task.Out, 7, count, true)
	if markers, err := stage.Markers(t.Context(), task.Out, count+twice.Duplicates); err != nil || markers != 0 {
		t.Errorf("%d markers, %v, want none of a loop without transactions", markers, err)
	}
}

// A copy that lacks a record is no copy, however quick.
func TestACopyThatLacksRecordsIsAnError(t *testing.T) {
	t.Parallel()
	stage, _ := openStage(t)
	if err := stage.Fill(t.Context(), task.Out, load.PlainConfig{Run: 7, Bytes: 100}, 99, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	if tally, err := stage.Check(t.Context(), task.Out, 7, 100, true); err == nil || tally.Missing != 1 {
		t.Errorf("tally %+v, %v, want one missing and an error", tally, err)
	}
}

// A steady stream is delivered through a process, and each record has a latency from when it was due.
func TestAStreamIsMeasured(t *testing.T) {
	t.Parallel()
	lockThread(t)
	stage, address := openStage(t)
	_, err := Run([]*exec.Cmd{self(t, "loop", address, task.Group, task.In, task.Out)}, t.TempDir(), "loop", func(processes []*Process) error {
		if err := stage.Joined(t.Context(), task.Group, loopMembers, processes); err != nil {
			return err
		}
		delivered, err := stage.Stream(t.Context(), task, Stream{Count: 200, Bytes: 100, Rate: 1000}, processes)
		if delivered.FromSchedule.Count != 200 || delivered.FromCall.Count != 200 {
			t.Errorf("delivered %+v, want the latency of 200 records", delivered)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Streams follow each other without a pause for delivery, each record of them is told once, and between two of them
// the watcher is asked, whose error ends it.
func TestStreamsFollowEachOther(t *testing.T) {
	t.Parallel()
	lockThread(t)
	stage, address := openStage(t)
	streams := []Stream{{Count: 50, Bytes: 100, Rate: 1000}, {First: 50, Count: 150, Bytes: 100, Rate: 3000}}
	var produced []int
	told := 0
	refused := errors.New("no more")
	_, err := Run([]*exec.Cmd{self(t, "loop", address, task.Group, task.In, task.Out)}, t.TempDir(), "loop", func(processes []*Process) error {
		if err := stage.Joined(t.Context(), task.Group, loopMembers, processes); err != nil {
			return err
		}
		watch := Watch{Delivered: func(*kgo.Record, time.Time) { told++ }, Produced: func(stream int, _ int64) error {
			produced = append(produced, stream)
			return nil
		}}
		delivered, err := stage.Streams(t.Context(), task, streams, watch, processes)
		if err != nil || delivered.FromSchedule.Count != 200 || told != 200 || !slices.Equal(produced, []int{0, 1}) {
			t.Errorf("delivered %+v, told %d, produced %v, %v: want 200 records of two streams", delivered, told, produced, err)
		}
		watch.Produced = func(int, int64) error { return refused }
		if _, err := stage.Streams(t.Context(), task, streams, watch, processes); !errors.Is(err, refused) {
			t.Errorf("error %v, want %v", err, refused)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A process that ends before its time ends the wait for it, with its last words.
func TestAProcessThatEndsIsSeen(t *testing.T) {
	t.Parallel()
	lockThread(t)
	stage, _ := openStage(t)
	_, err := Run([]*exec.Cmd{self(t, "fail")}, t.TempDir(), "fail", func(processes []*Process) error {
		_, err := stage.Copy(t.Context(), task, 1, time.Now(), processes, func(int64) {})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "the last words") {
		t.Errorf("error %v, want that the process ended, and its last words", err)
	}
}

// Where one process has done all the work before another could say what SIGTERM is to do, the other ends by it. That is no
// failure; to end in another way is.
func TestAProcessThatHadNotBegunIsStopped(t *testing.T) {
	t.Parallel()
	lockThread(t)
	at := func([]*Process) error { return nil }
	if _, err := Run([]*exec.Cmd{exec.CommandContext(t.Context(), "sleep", "60")}, t.TempDir(), "sleep", at); err != nil {
		t.Errorf("error %v of a process that ended by the signal", err)
	}
	killed := func(processes []*Process) error { return processes[0].command.Process.Kill() }
	if _, err := Run([]*exec.Cmd{exec.CommandContext(t.Context(), "sleep", "60")}, t.TempDir(), "sleep", killed); err == nil {
		t.Error("a process that was killed ended well")
	}
}

// The end of the context ends every wait, and the error says why it ended.
func TestWaitsEndWithTheirContext(t *testing.T) {
	t.Parallel()
	stage, _ := openStage(t)
	asked := errors.New("asked to end")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(asked)
	if err := stage.Poll(ctx, nil, func() (bool, error) { return false, nil }); !errors.Is(err, asked) {
		t.Errorf("error %v, want %v", err, asked)
	}
	if err := stage.Fill(ctx, task.In, load.PlainConfig{Run: 7, Bytes: 100}, 10, func(int64) {}); err == nil {
		t.Error("a backlog that was not written is taken for one")
	}
}
