//go:build chaos && linux

package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/cluster"
	"pawl/internal/kafka"
	"pawl/internal/testkit"
)

const (
	partitions = 8
	lanes      = 2 // of each processor
	// lookTimeout bounds one question to a broker that may just be down.
	lookTimeout = 2 * time.Second
	lookEvery   = 50 * time.Millisecond
)

// rig is one application on a cluster of its own. What it asks goes around proxies.
type rig struct {
	t           testing.TB
	kafka       *cluster.Kafka
	client      *kgo.Client
	admin       *kadm.Client
	application string // the group too
	input       string
	output      string
	deadLetter  string
	folder      string // of logs
	config      string // path
	token       string // path
	settings    settings
}

// configuration copies one topic to another. What a test wants otherwise it says on the command line.
const configuration = `application: %[1]s
kafka: {brokers: [%[2]s], heartbeat: 1s}
routes:
  - {topics: [%[3]s], handler: copy, config: {output: copied}}
outputs:
  copied: {topic: %[4]s, partitions: %[5]d}
txn: {lanes: %[6]d}
effects: {enabled: false}
admin: {listen: "127.0.0.1:0", token_file: %[7]s}
`

// newRig makes the topics and the configuration of an application on k.
func newRig(t testing.TB, k *cluster.Kafka, settings ...string) *rig {
	t.Helper()
	application := testkit.Name(t, "app")
	folder := t.ArtifactDir()
	r := &rig{
		t: t, kafka: k, application: application, input: application + ".in", output: application + ".out",
		deadLetter: application + ".dead-letter", folder: folder,
		config: filepath.Join(folder, "config.yaml"), token: filepath.Join(folder, "token"), settings: settings,
	}
	r.client = testkit.Client(t, k.InternalBrokers())
	r.admin = kadm.NewClient(r.client)
	testkit.CreateTopics(t, k.InternalBrokers(), partitions, nil, r.input, r.output)
	testkit.CreateTopics(t, k.InternalBrokers(), 1, nil, r.deadLetter)
	testkit.CreateTopics(t, k.InternalBrokers(), 1, map[string]string{"cleanup.policy": "compact"}, application+".control")
	text := fmt.Sprintf(configuration, application, strings.Join(quoted(k.Brokers()), ", "), r.input, r.output, partitions, lanes, strconv.Quote(r.token))
	for path, text := range map[string]string{r.config: text, r.token: "a token for this test\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			for node := range k.Nodes() {
				t.Logf("broker %d ends with:\n%s", node, tail(k.LogPath(node), logLines))
			}
		}
	})
	return r
}

func quoted(texts []string) []string {
	all := make([]string, len(texts))
	for i, text := range texts {
		all[i] = strconv.Quote(text)
	}
	return all
}

// run runs a command of the program to its end and fails the test if it does not succeed.
func (r *rig) run(t testing.TB, arguments ...string) {
	t.Helper()
	if text, err := r.try(t, arguments...); err != nil {
		t.Fatalf("processor %s: %v\n%s", strings.Join(arguments, " "), err, text)
	}
}

func (r *rig) try(t testing.TB, arguments ...string) (text []byte, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), build(t), append(arguments, "-c", r.config)...)
	cmd.Env = environment()
	return cmd.CombinedOutput()
}

// applyTopics makes the topics, and does so again where that fails, as an operator does: brokers that have just
// started on a machine with too much to do let requests run into their timeouts.
func (r *rig) applyTopics(t testing.TB, arguments ...string) {
	t.Helper()
	arguments = append([]string{"topics", "apply", "--yes"}, arguments...)
	for range appliedAgain {
		text, err := r.try(t, arguments...)
		if err == nil {
			return
		}
		t.Logf("topics apply, which is tried again: %v\n%s", err, text)
	}
	r.run(t, arguments...)
}

const appliedAgain = 4 // times at most

// owned finds the partitions of the input that the group has assigned to an instance, and whether
// any member of that instance is in the group. ok is false where nobody could be asked.
func (r *rig) owned(instance string) (partitions []int32, member, ok bool) {
	ctx, cancel := context.WithTimeout(r.t.Context(), lookTimeout)
	defer cancel()
	groups, err := r.admin.DescribeGroups(ctx, r.application)
	if err != nil || groups.Error() != nil {
		return nil, false, false
	}
	for _, m := range groups[r.application].Members {
		if m.InstanceID == nil || !strings.HasPrefix(*m.InstanceID, r.application+"."+instance+".") {
			continue
		}
		member = true
		if assigned, ok := m.Assigned.AsConsumer(); ok {
			for _, topic := range assigned.Topics {
				if topic.Topic == r.input {
					partitions = append(partitions, topic.Partitions...)
				}
			}
		}
	}
	return partitions, member, true
}

// awaitGone waits until no member of an instance is in the group.
func (r *rig) awaitGone(t testing.TB, timeout time.Duration, instance string) {
	t.Helper()
	testkit.WaitFor(t, timeout, "the group without "+instance, func() bool {
		_, member, ok := r.owned(instance)
		return ok && !member
	})
}

// awaitOwns waits until an instance has partitions, and returns them.
func (r *rig) awaitOwns(t testing.TB, timeout time.Duration, instance string) []int32 {
	t.Helper()
	var owned []int32
	testkit.WaitFor(t, timeout, "partitions of "+instance, func() bool {
		owned, _, _ = r.owned(instance)
		return len(owned) > 0
	})
	return owned
}

// awaitInSync waits until every replica of every topic is in sync.
func (r *rig) awaitInSync(t testing.TB) {
	t.Helper()
	testkit.WaitFor(t, startTimeout, "all replicas in sync", func() bool { return r.inSync(t.Context()) })
}

// inSync tells whether they are, as far as anybody answers.
func (r *rig) inSync(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	topics, err := r.admin.ListTopicsWithInternal(ctx)
	if err != nil || topics.Error() != nil {
		return false
	}
	for _, topic := range topics {
		for _, partition := range topic.Partitions {
			if partition.Err != nil || len(partition.ISR) < len(partition.Replicas) {
				return false
			}
		}
	}
	return true
}

// ongoing lists the transactional ids of an instance whose transaction is open and undecided.
func (r *rig) ongoing(t testing.TB, instance string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
	defer cancel()
	open, err := kafka.OpenTransactions(ctx, r.admin, r.application+"."+instance+".")
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, one := range open {
		if one.State == "Ongoing" {
			ids = append(ids, one.TransactionalID)
		}
	}
	return ids
}

// monitor looks at the group's committed offsets and at the end of the input all the time. It keeps
// the highest of each: a broker that has just come back answers for a moment as the coordinator that
// it was, with what it knew then.
type monitor struct {
	mu        sync.Mutex
	committed map[int32]int64
	ends      map[int32]int64
	asked     time.Time // for ends
}

// monitor runs until the test ends.
func (r *rig) monitor() *monitor {
	m := &monitor{committed: map[int32]int64{}, ends: map[int32]int64{}}
	ctx, stop := context.WithCancel(r.t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		ticker := time.NewTicker(lookEvery)
		defer ticker.Stop()
		for ctx.Err() == nil {
			m.look(ctx, r)
			select {
			case <-ctx.Done():
			case <-ticker.C:
			}
		}
	})
	r.t.Cleanup(func() {
		stop()
		done.Wait()
		if r.t.Failed() {
			r.t.Logf("committed offsets, as last seen: %v\nends of the input, as last seen:  %v", m.committed, m.ends)
		}
	})
	return m
}

// look takes the answers there are; a broker that is down gives none.
func (m *monitor) look(ctx context.Context, r *rig) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	committed, err := r.admin.FetchOffsetsForTopics(ctx, r.application, r.input)
	if err == nil && committed.Error() == nil {
		m.mu.Lock()
		for partition, offset := range committed[r.input] {
			m.committed[partition] = max(m.committed[partition], offset.At)
		}
		m.mu.Unlock()
	}
	asked := time.Now()
	ends, err := r.admin.ListEndOffsets(ctx, r.input)
	if err == nil && ends.Error() == nil {
		m.mu.Lock()
		m.asked = asked
		for partition, end := range ends[r.input] {
			m.ends[partition] = max(m.ends[partition], end.Offset)
		}
		m.mu.Unlock()
	}
}

// sums returns how many records are committed and how many there are, as last seen. The input is not
// transactional, so that offsets count records.
func (m *monitor) sums() (committed, ends int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, offset := range m.committed {
		committed += offset
	}
	for _, offset := range m.ends {
		ends += offset
	}
	return committed, ends
}

// fed returns how many records there are, and as of when that is known.
func (m *monitor) fed() (ends int64, asked time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, offset := range m.ends {
		ends += offset
	}
	return ends, m.asked
}

// offsets returns the committed offsets as last seen.
func (m *monitor) offsets() map[int32]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.committed)
}

// passed tells which of the partitions are committed further than they were.
func (m *monitor) passed(before map[int32]int64, partitions []int32) (passed []int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, partition := range partitions {
		if m.committed[partition] > before[partition] {
			passed = append(passed, partition)
		}
	}
	return passed
}

// waiting tells which of the partitions have more and are not committed further than they were.
func (m *monitor) waiting(before map[int32]int64, partitions []int32) (waiting []int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, partition := range partitions {
		if m.committed[partition] <= before[partition] && m.committed[partition] < m.ends[partition] {
			waiting = append(waiting, partition)
		}
	}
	return waiting
}

// awaitCaughtUp waits until all of total records are in the input and committed.
func (m *monitor) awaitCaughtUp(t testing.TB, timeout time.Duration, total int64) {
	t.Helper()
	testkit.WaitFor(t, timeout, fmt.Sprintf("%d records committed", total), func() bool {
		committed, ends := m.sums()
		return ends == total && committed == total
	})
}
