//go:build chaos && linux

package e2e

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pawl/internal/cluster"
	"pawl/internal/testkit"
)

// pausing is an application under load with one partition that operators pause.
type pausing struct {
	*rig
	monitor *monitor
	paused  int32
	others  []int32
}

const pauseTimeout = time.Minute

// passes waits until partitions are committed further than they are now.
func (p *pausing) passes(t *testing.T, partitions []int32) {
	t.Helper()
	before := p.monitor.offsets()
	testkit.WaitFor(t, pauseTimeout, "commits of all of the partitions", func() bool {
		return len(p.monitor.passed(before, partitions)) == len(partitions)
	})
}

// stands waits until the others have gone on twice while the paused one has not, and returns where it stands.
func (p *pausing) stands(t *testing.T) (offset int64) {
	t.Helper()
	testkit.WaitFor(t, pauseTimeout, "the paused partition to stand still", func() bool {
		offset = p.monitor.offsets()[p.paused]
		p.passes(t, p.others)
		p.passes(t, p.others)
		return p.monitor.offsets()[p.paused] == offset
	})
	return offset
}

// stillStands wants it to stand where it did, after the others have gone on.
func (p *pausing) stillStands(t *testing.T, when string, want int64) {
	t.Helper()
	p.passes(t, p.others)
	if got := p.monitor.offsets()[p.paused]; got != want {
		t.Fatalf("%s: the paused partition is at %d, and was paused at %d", when, got, want)
	}
}

// owner is the one of the processors that has the paused partition.
func (p *pausing) owner(t *testing.T, processors ...*processor) (owner *processor) {
	t.Helper()
	testkit.WaitFor(t, pauseTimeout, "an owner of the paused partition", func() bool {
		for _, one := range processors {
			if owned, _, ok := p.owned(one.name); ok && slices.Contains(owned, p.paused) {
				owner = one
				return true
			}
		}
		return false
	})
	return owner
}

// obeys waits until a processor tells that a target is paused, or no longer.
func obeys(t *testing.T, p *processor, target string, paused bool) {
	t.Helper()
	p.await(t, pauseTimeout, target+" paused: "+strconv.FormatBool(paused), func() bool {
		return p.metric("processor_pause_age_seconds", `target="`+target+`"`) > 0 == paused
	})
}

// An operator pauses a partition under load. It stays paused while its owner is restarted, while the other process is
// killed, while a third one comes and while the owner leaves for good, so that the partition moves; the others go on all
// the time. It is resumed; then all input is paused for a while, which ends by itself. In the end every record is there
// once, in order, and a reader that followed has never seen anything else.
func TestPauseOutlivesRestartsAndScaling(t *testing.T) {
	k := testkit.OpenKafka(t, cluster.KafkaConfig{Nodes: 1})
	r := newRig(t, k, "kafka.session_timeout=6s")
	p := &pausing{rig: r, monitor: r.monitor(), paused: 3}
	for n := range int32(partitions) {
		if n != p.paused {
			p.others = append(p.others, n)
		}
	}
	reader := watch(t.Context(), t, "the reader that followed", k.Brokers(), "", r.output)
	a, b, c := r.processor("a"), r.processor("b"), r.processor("c")
	for _, one := range []*processor{a, b} {
		one.start(t)
	}
	for _, one := range []*processor{a, b} {
		one.awaitReady(t)
	}
	load := r.trickle(t, 400)
	p.passes(t, append(slices.Clone(p.others), p.paused))

	target := "input/" + r.input + "/" + strconv.Itoa(int(p.paused))
	ordered := time.Now()
	r.run(t, "pause", target, "--reason", "bad data", "--yes")
	obeys(t, a, target, true)
	obeys(t, b, target, true)
	t.Logf("the command and both processes took %s", time.Since(ordered).Round(time.Millisecond))
	offset := p.stands(t)
	owner := p.owner(t, a, b)
	owner.await(t, pauseTimeout, "to show the lag of what is paused", func() bool {
		return owner.metric("processor_consumer_lag_records", `partition="3"`) > 0 && owner.metric("processor_consumer_paused", `partition="3"`) == 1
	})

	owner.terminate(t, endTimeout)
	owner.start(t)
	owner.awaitReady(t)
	p.stillStands(t, "after a restart of the owner", offset)
	other := a
	if owner == a {
		other = b
	}
	other.kill()
	other.start(t)
	other.awaitReady(t)
	p.stillStands(t, "after a kill of the other one", offset)
	c.start(t)
	c.awaitReady(t)
	r.awaitOwns(t, pauseTimeout, "c")
	p.stillStands(t, "with a third process", offset)
	last := p.owner(t, a, b, c)
	last.leave(t)
	last.terminate(t, endTimeout)
	living := slices.DeleteFunc([]*processor{a, b, c}, func(one *processor) bool { return one == last })
	next := p.owner(t, living...)
	p.stillStands(t, "at its next owner", offset)
	obeys(t, next, target, true)

	shop := &shop{rig: r}
	if listed, _, code := shop.command(t, "pause", "ls"); code != 0 || !strings.Contains(listed, target) || !strings.Contains(listed, "bad data") {
		t.Errorf("pause ls ends with %d and says %s", code, listed)
	}
	if _, said, code := shop.command(t, "resume", "input", "--reason", "no", "--yes"); code != 2 || !strings.Contains(said, "paused are: "+target) {
		t.Errorf("to resume what is not paused ends with %d and says %s", code, said)
	}
	r.run(t, "resume", target, "--reason", "data is repaired", "--yes")
	p.passes(t, []int32{p.paused})

	r.run(t, "pause", "input", "--reason", "maintenance", "--for", "5s", "--yes")
	for _, one := range living {
		obeys(t, one, "input", true)
	}
	for _, one := range living {
		obeys(t, one, "input", false)
		log, err := os.ReadFile(one.log)
		if err != nil || !strings.Contains(string(log), "pause ended by itself") || !strings.Contains(string(log), "maintenance") {
			t.Errorf("the log of %s does not tell that and why: %v", one.name, err)
		}
	}
	p.passes(t, append(slices.Clone(p.others), p.paused))

	total := load.halt(t)
	p.monitor.awaitCaughtUp(t, pauseTimeout, total)
	for _, one := range living {
		one.terminate(t, endTimeout)
	}
	if saw := r.verify(t, nil); saw.Judged != total {
		t.Errorf("the input has %d records, want %d", saw.Judged, total)
	}
	r.verifyReader(t, reader)
}
