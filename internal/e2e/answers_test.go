//go:build chaos && linux

package e2e

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/cluster"
	"pawl/internal/testkit"
)

// proxied is a rig whose processors reach the only broker through a proxy that knows the protocol.
func proxied(t testing.TB, settings ...string) (*rig, *testkit.KafkaProxies) {
	t.Helper()
	k, proxies := testkit.KafkaBehindProxies(t, cluster.KafkaConfig{Nodes: 1})
	return newRig(t, k, settings...), proxies
}

// send writes n records with values of their own, spread over all partitions.
func (r *rig) send(t testing.TB, from, n int) {
	t.Helper()
	records := make([]*kgo.Record, 0, n)
	for i := from; i < from+n; i++ {
		records = append(records, &kgo.Record{Topic: r.input, Key: fmt.Append(nil, i), Value: fmt.Appendf(nil, "value %d", i)})
	}
	testkit.Produce(t, r.kafka.InternalBrokers(), records...)
}

// awaitCaughtUp waits until the committed offsets are the ends of the input.
func (r *rig) awaitCaughtUp(t testing.TB) {
	t.Helper()
	testkit.WaitFor(t, time.Minute, "lag 0", func() bool {
		ends := testkit.EndOffsets(t, r.kafka.InternalBrokers(), r.input)
		committed := testkit.CommittedOffsets(t, r.kafka.InternalBrokers(), r.application, r.input)
		for partition, end := range ends {
			if offset, ok := committed[partition]; end > 0 && (!ok || offset != end) {
				return false
			}
		}
		return true
	})
}

// The broker commits, and the answer is cut off each time it is asked again, for longer than the
// processor waits. Nobody knows the outcome; what was committed must not be done again.
func TestLostEndTxnAnswersDoubleNothing(t *testing.T) {
	const rounds = 3
	r, proxies := proxied(t, "txn.timeout=8s", "txn.handler_timeout=1s")
	p := r.processor("a")
	p.start(t)
	p.awaitReady(t)
	r.send(t, 0, 1000)
	r.awaitCaughtUp(t)
	unknown := func() float64 { return p.metric("processor_transactions_total", `outcome="unknown"`) }
	lost := 0
	for round := range rounds {
		fault := proxies.Inject(t, testkit.Fault{Key: kmsg.EndTxn, LoseAnswer: true})
		before := unknown()
		r.send(t, 1000*(round+1), 1000)
		// Of every lane: one that is still waiting for its answer would be taken for one of the next round.
		p.await(t, time.Minute, "a transaction of unknown outcome in every lane", func() bool { return unknown() >= before+lanes })
		fault.Remove()
		lost += fault.Hits()
		r.awaitCaughtUp(t)
	}
	p.terminate(t, endTimeout)
	r.verify(t, nil)
	t.Logf("%d answers were lost in %d rounds", lost, rounds)
}

// The broker commits and the answer says UNKNOWN_SERVER_ERROR: the client reports a plain abort. Only
// the offsets tell that it was none.
func TestWrongEndTxnAnswersDoubleNothing(t *testing.T) {
	const rounds = 5
	r, proxies := proxied(t)
	p := r.processor("a")
	p.start(t)
	p.awaitReady(t)
	r.send(t, 0, 1000)
	r.awaitCaughtUp(t)
	var committed atomic.Int64 // answers that said so before they were changed
	for round := range rounds {
		fault := proxies.Inject(t, testkit.Fault{Key: kmsg.EndTxn, Times: 1, Match: isCommit, Rewrite: func(response kmsg.Response) {
			answer := response.(*kmsg.EndTxnResponse) //nolint:forcetypeassert // to EndTxn
			if answer.ErrorCode == 0 {
				committed.Add(1)
			}
			answer.ErrorCode = kerr.UnknownServerError.Code
		}})
		r.send(t, 1000*(round+1), 1000)
		fault.AwaitHits(t, time.Minute, 1)
		r.awaitCaughtUp(t)
	}
	if got := committed.Load(); got != rounds {
		t.Errorf("%d of %d transactions had been committed before their answers were changed, want all", got, rounds)
	}
	if rebuilt := p.metric("processor_session_rebuilds_total", `reason="offsets"`); rebuilt != rounds {
		t.Errorf("%v sessions were rebuilt because of their offsets, want %d", rebuilt, rounds)
	}
	p.terminate(t, endTimeout)
	r.verify(t, nil)
}

// isCommit matches the EndTxn of a commit.
func isCommit(request kmsg.Request) bool {
	end, ok := request.(*kmsg.EndTxnRequest)
	return ok && end.Commit
}

// A processor is killed after its offsets are in the transaction and before the transaction ends. Its
// successor of the same name takes the transaction over: it waits neither for the transaction's
// timeout nor for the session's, which are both far longer here than the three seconds it is given.
func TestRestartAfterKillCommitsWithinThreeSeconds(t *testing.T) {
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run(protocol, func(t *testing.T) { restartAfterKill(t, protocol) })
	}
}

func restartAfterKill(t *testing.T, protocol string) {
	t.Helper()
	const tries = 3
	r, proxies := proxied(t, "txn.timeout=60s", "kafka.session_timeout=45s", "kafka.protocol="+protocol)
	p := r.processor("a")
	p.start(t)
	p.awaitReady(t)
	r.send(t, 0, 1000)
	r.awaitCaughtUp(t)
	var took []time.Duration
	for try := range tries {
		fault := proxies.Inject(t, testkit.Fault{Key: kmsg.EndTxn, Times: 1, Match: isCommit, DropRequest: true, Strike: p.kill})
		r.send(t, 1000*(try+1), 1000)
		fault.AwaitHits(t, time.Minute, 1)
		testkit.WaitFor(t, endTimeout, "the death of the processor", func() bool { return !p.alive() })
		if open := r.ongoing(t, "a"); len(open) == 0 {
			t.Error("the kill hit no open transaction")
		}
		p.start(t)
		p.awaitCommits(t, time.Minute, 1)
		took = append(took, time.Since(p.began))
		r.awaitCaughtUp(t)
	}
	p.terminate(t, endTimeout)
	r.verify(t, nil)
	slices.Sort(took)
	t.Logf("from the start of the process to its first commit: %v", took)
	if median := took[len(took)/2]; median > 3*time.Second {
		t.Errorf("the first commit came %s after the start of the process, want at most 3s", median)
	}
}

// abortFirst makes the first commit of offsets fail as that of a member whom the group has forgotten, so that the transaction aborts
// before anything was ever committed in one.
func abortFirst(t testing.TB, proxies *testkit.KafkaProxies) {
	t.Helper()
	proxies.Inject(t, testkit.Fault{Key: kmsg.TxnOffsetCommit, Times: 1, Rewrite: func(response kmsg.Response) {
		answer, ok := response.(*kmsg.TxnOffsetCommitResponse)
		if !ok {
			return
		}
		for i := range answer.Topics {
			for j := range answer.Topics[i].Partitions {
				answer.Topics[i].Partitions[j].ErrorCode = kerr.UnknownMemberID.Code
			}
		}
	}})
}

// The log does not begin at 0 any more, nothing has been committed yet, and the first transaction
// aborts. A rewind to 0 would find nothing there.
func TestFirstAbortOnATrimmedLogRewindsToItsStart(t *testing.T) {
	r, proxies := proxied(t)
	r.send(t, 0, 4000)
	trim := kadm.Offsets{}
	for partition, end := range testkit.EndOffsets(t, r.kafka.InternalBrokers(), r.input) {
		trim.AddOffset(r.input, partition, end/2, -1)
	}
	if deleted, err := r.admin.DeleteRecords(t.Context(), trim); err != nil || deleted.Error() != nil {
		t.Fatal(err, deleted.Error())
	}
	abortFirst(t, proxies)
	p := r.processor("a")
	p.start(t)
	p.awaitReady(t)
	r.awaitCaughtUp(t)
	p.terminate(t, endTimeout)
	saw := r.verify(t, nil)
	if saw.Judged < 1900 || saw.Judged > 2100 {
		t.Errorf("the log had %d records left, want about 2000", saw.Judged)
	}
	if saw.TransactionsAborted == 0 {
		t.Error("no transaction was aborted")
	}
}

// Under latest, an abort before the first commit must not replay the history that was to be skipped.
func TestFirstAbortUnderLatestReplaysNothing(t *testing.T) {
	r, proxies := proxied(t, "input.start=latest")
	r.send(t, 0, 2000)
	history := testkit.EndOffsets(t, r.kafka.InternalBrokers(), r.input)
	abortFirst(t, proxies)
	p := r.processor("a")
	p.start(t)
	p.awaitReady(t)
	testkit.WaitFor(t, startTimeout, "a committed start of every partition", func() bool {
		committed := testkit.CommittedOffsets(t, r.kafka.InternalBrokers(), r.application, r.input)
		return len(committed) == len(history)
	})
	r.send(t, 2000, 2000)
	r.awaitCaughtUp(t)
	p.terminate(t, endTimeout)
	saw := r.verify(t, history)
	if saw.Judged != 2000 {
		t.Errorf("%d records came after the start, want 2000", saw.Judged)
	}
	if saw.TransactionsAborted == 0 {
		t.Error("no transaction was aborted")
	}
}
