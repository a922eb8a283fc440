//go:build chaos && linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pawl/internal/testkit"
)

// fault is a kind of thing that is done to a running application.
type fault string

const (
	kill        fault = "processor killed"        // SIGKILL, started again under its name
	zombie      fault = "processor frozen"        // SIGSTOP until others have its work, SIGCONT
	brokerStop  fault = "broker stopped"          // in good order, started again
	brokerKill  fault = "broker killed"           // SIGKILL, started again
	join        fault = "processor joined"        // a third one
	leaveDrain  fault = "processor left by drain" // `processor drain --leave`
	leaveSilent fault = "processor ended"         // SIGTERM: its partitions move after the session timeout
)

const (
	flowTimeout    = 60 * time.Second // for records to move again after a fault
	flowMin        = 500              // records committed between two faults
	takeOverWithin = 60 * time.Second
	freezeTries    = 10
)

// plan puts so many of each kind of fault into an order of chance. Joins and leaves of the one extra
// processor take turns.
func plan(random *rand.Rand, kills, zombies, brokers, visits int) []fault {
	var faults []fault
	faults = append(faults, slices.Repeat([]fault{kill}, kills)...)
	faults = append(faults, slices.Repeat([]fault{zombie}, zombies)...)
	for i := range brokers {
		faults = append(faults, []fault{brokerKill, brokerStop}[i%2])
	}
	faults = append(faults, slices.Repeat([]fault{join}, 2*visits)...)
	random.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
	visit := 0
	for i, f := range faults {
		if f != join {
			continue
		}
		if visit%2 == 1 {
			faults[i] = []fault{leaveDrain, leaveSilent}[visit/2%2]
		}
		visit++
	}
	return faults
}

// nemesis breaks a running application, one fault after the other, each while records flow.
type nemesis struct {
	t       *testing.T
	rig     *rig
	random  *rand.Rand
	monitor *monitor
	total   int64 // records there will be
	steady  []*processor
	extra   *processor

	present bool // the extra one
	mark    int64
	counts  map[fault]int
	open    map[fault]int           // of these, those that hit an open transaction
	took    map[fault]time.Duration // until records flowed again
}

// strike waits until records flow, does one fault and waits until what it hit works again.
func (n *nemesis) strike(f fault) {
	n.t.Helper()
	testkit.WaitFor(n.t, flowTimeout, "records to flow before the next fault: "+string(f), func() bool {
		committed, ends := n.monitor.sums()
		return committed >= n.mark+flowMin && committed < ends
	})
	began := time.Now()
	before, _ := n.monitor.sums()
	hit := n.do(f)
	if before >= n.total {
		n.t.Fatalf("%s: all records were through before", f)
	}
	n.mark, _ = n.monitor.sums()
	n.counts[f]++
	n.took[f] += time.Since(began)
	n.t.Logf("%-24s %-28s at record %6d, well after %5.2fs", f, hit, before, time.Since(began).Seconds())
}

func (n *nemesis) do(f fault) (hit string) {
	n.t.Helper()
	switch f {
	case kill:
		return n.kill(n.any())
	case zombie:
		return n.zombie(n.steady[n.random.IntN(len(n.steady))])
	case brokerStop, brokerKill:
		return n.broker(f)
	case join:
		n.extra.start(n.t)
		n.rig.awaitOwns(n.t, takeOverWithin, n.extra.name)
		n.extra.awaitCommits(n.t, flowTimeout, 1)
		n.present = true
		return n.extra.name
	case leaveDrain, leaveSilent:
		return n.leave(f)
	default:
		n.t.Fatalf("no fault %q", f)
		return ""
	}
}

// any picks one of the processors that run.
func (n *nemesis) any() *processor {
	all := n.steady
	if n.present {
		all = append(slices.Clone(all), n.extra)
	}
	return all[n.random.IntN(len(all))]
}

// kill ends a processor with SIGKILL and starts it again under its name: every other time whatever it
// is doing, the other times in mid-transaction.
func (n *nemesis) kill(p *processor) string {
	p.mustLive(n.t)
	if n.counts[kill]%2 == 0 {
		n.freeze(p)
	}
	p.kill()
	hit := n.inTransaction(kill, p)
	p.start(n.t)
	p.awaitCommits(n.t, flowTimeout, 1)
	return hit
}

// freeze stops a processor (SIGSTOP), if it can in mid-transaction.
func (n *nemesis) freeze(p *processor) {
	for range freezeTries {
		p.pause(n.t)
		if len(n.rig.ongoing(n.t, p.name)) > 0 {
			return
		}
		p.resume(n.t)
		commits := p.commits()
		p.awaitCommits(n.t, flowTimeout, commits+1)
	}
	p.pause(n.t)
}

// inTransaction looks whether a processor that is dead or frozen has a transaction open.
func (n *nemesis) inTransaction(f fault, p *processor) string {
	open := n.rig.ongoing(n.t, p.name)
	if len(open) > 0 {
		n.open[f]++
	}
	return fmt.Sprintf("%s, open transactions: %d", p.name, len(open))
}

// zombie freezes a processor until the group has thrown it out and another one has committed from a
// partition that it had, lets it go on, and waits until it is back and commits.
func (n *nemesis) zombie(p *processor) string {
	owned := n.rig.awaitOwns(n.t, takeOverWithin, p.name)
	p.mustLive(n.t)
	n.freeze(p)
	hit := n.inTransaction(zombie, p)
	before := n.monitor.offsets()
	n.rig.awaitGone(n.t, takeOverWithin, p.name)
	testkit.WaitFor(n.t, takeOverWithin, fmt.Sprintf("another processor to commit from partitions %v of %s", owned, p.name), func() bool {
		return len(n.monitor.passed(before, owned)) > 0
	})
	p.resume(n.t)
	commits := p.commits()
	n.rig.awaitOwns(n.t, takeOverWithin, p.name)
	p.awaitCommits(n.t, flowTimeout, commits+1)
	return hit
}

// broker ends one of the brokers, waits until records flow without it, starts it again and waits
// until it is in sync.
func (n *nemesis) broker(f fault) string {
	node := n.random.IntN(n.rig.kafka.Nodes())
	end := n.rig.kafka.Stop
	if f == brokerKill {
		end = n.rig.kafka.Kill
	}
	if err := end(node); err != nil {
		n.t.Fatal(err)
	}
	before, _ := n.monitor.sums()
	testkit.WaitFor(n.t, flowTimeout, fmt.Sprintf("records to flow without broker %d", node), func() bool {
		committed, _ := n.monitor.sums()
		return committed > before
	})
	if err := n.rig.kafka.Start(n.t.Context(), node); err != nil {
		n.t.Fatal(err)
	}
	n.rig.awaitInSync(n.t)
	return fmt.Sprintf("node %d", node)
}

// leave ends the extra processor and waits until others have committed from every partition that it
// had and that has more.
func (n *nemesis) leave(f fault) string {
	owned := n.rig.awaitOwns(n.t, takeOverWithin, n.extra.name)
	before := n.monitor.offsets()
	if f == leaveDrain {
		n.extra.leave(n.t)
		n.rig.awaitGone(n.t, takeOverWithin, n.extra.name)
		n.extra.terminate(n.t, endTimeout)
	} else {
		n.extra.terminate(n.t, endTimeout)
		if _, member, ok := n.rig.owned(n.extra.name); ok && !member {
			n.t.Errorf("%s left the group on SIGTERM, it was to stay for a restart", n.extra.name)
		}
		n.rig.awaitGone(n.t, takeOverWithin, n.extra.name)
	}
	n.present = false
	testkit.WaitFor(n.t, flowTimeout, fmt.Sprintf("others to commit from partitions %v of %s", owned, n.extra.name), func() bool {
		return len(n.monitor.waiting(before, owned)) == 0
	})
	return n.extra.name
}
