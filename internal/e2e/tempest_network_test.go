//go:build chaos && linux

package e2e

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/testkit"
)

// networkTroubles are those between processors and brokers. Kafka's other clients, the load and the
// readers of the test, go around.
func networkTroubles() []trouble {
	return []trouble{
		{name: "broker connections cut", seat: onNetwork, least: 3, most: 8, strike: func(ctx context.Context, w *tempest, a act) (string, error) {
			return cutAgain(ctx, nobody, w.links(a)...), nil
		}},
		{name: "broker refuses connections", seat: onNetwork, least: 3, most: 8, strike: func(ctx context.Context, w *tempest, a act) (string, error) {
			return overLinks(ctx, w.links(a)[:1], (*testkit.Proxy).Refuse, (*testkit.Proxy).Accept, "connections cut or refused"), nil
		}},
		{name: "broker traffic held", seat: onNetwork, least: 3, most: 12, strike: func(ctx context.Context, w *tempest, a act) (string, error) {
			return overLinks(ctx, w.links(a), hold(testkit.Both), (*testkit.Proxy).Release, "pieces held and let go late"), nil
		}},
		{name: "broker answers lost", seat: onNetwork, least: 3, most: 8, strike: func(ctx context.Context, w *tempest, a act) (string, error) {
			return overLinks(ctx, w.links(a), hold(testkit.ToClient), dropHeld, "pieces lost on their way from a broker"), nil
		}},
		{name: "broker requests lost", seat: onNetwork, least: 3, most: 8, strike: func(ctx context.Context, w *tempest, a act) (string, error) {
			return overLinks(ctx, w.links(a), hold(testkit.ToTarget), dropHeld, "pieces lost on their way to a broker"), nil
		}},
		{name: "broker latency creeps up", seat: onNetwork, least: 8, most: 14, strike: func(ctx context.Context, w *tempest, a act) (string, error) {
			return creep(ctx, w.links(a)), nil
		}},
		{name: "processor cut off from all brokers", seat: onNetwork, least: 7, most: 12, strike: isolate},
		exchange("EndTxn answers lost", testkit.Fault{Key: kmsg.EndTxn, LoseAnswer: true}, 3),
		exchange("offset commit answers lost", testkit.Fault{Key: kmsg.TxnOffsetCommit, LoseAnswer: true}, 5),
		exchange("produce answers lost", testkit.Fault{Key: kmsg.Produce, LoseAnswer: true}, 10),
		exchange("group heartbeats lost", testkit.Fault{Key: kmsg.Heartbeat, DropRequest: true}, 0),
		{name: "EndTxn held and late", seat: onNetwork, least: 5, most: 12, strike: lateEnds},
	}
}

// links picks the proxies of a trouble: mostly of one broker, sometimes of all.
func (w *tempest) links(a act) []*testkit.Proxy {
	random := a.random()
	first := random.IntN(w.kafka.Nodes())
	proxies := []*testkit.Proxy{w.proxies.Node(first)}
	if random.IntN(3) == 0 {
		for node := range w.kafka.Nodes() {
			if node != first {
				proxies = append(proxies, w.proxies.Node(node))
			}
		}
	}
	return proxies
}

func hold(direction testkit.Direction) func(*testkit.Proxy) {
	return func(p *testkit.Proxy) { p.Hold(direction) }
}

// dropHeld loses what is held: the connections that it was on are cut.
func dropHeld(p *testkit.Proxy) {
	p.Cut()
	p.Release()
}

func hitsOf(proxies []*testkit.Proxy) (hits int64) {
	for _, proxy := range proxies {
		hits += int64(proxy.Hits())
	}
	return hits
}

func overLinks(ctx context.Context, proxies []*testkit.Proxy, strike, heal func(*testkit.Proxy), what string) string {
	before := hitsOf(proxies)
	for _, proxy := range proxies {
		strike(proxy)
	}
	<-ctx.Done()
	hits := hitsOf(proxies) - before
	for _, proxy := range proxies {
		heal(proxy)
	}
	return proofOf(hits, what)
}

const (
	creepEvery = 400 * time.Millisecond
	creepBy    = 25 * time.Millisecond
)

// creep lets the latency grow, slowly, as a network does that fills up.
func creep(ctx context.Context, proxies []*testkit.Proxy) string {
	before, delay := hitsOf(proxies), time.Duration(0)
	ticker := time.NewTicker(creepEvery)
	defer ticker.Stop()
	for ctx.Err() == nil {
		delay += creepBy
		for _, proxy := range proxies {
			proxy.Delay(delay)
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	for _, proxy := range proxies {
		proxy.Delay(0)
	}
	hits := hitsOf(proxies) - before
	if hits == 0 {
		return ""
	}
	return fmt.Sprintf("%d pieces delayed by up to %s", hits, delay)
}

// isolate takes all brokers from one processor, by its clients' ids; the connections stay open. It loses
// its partitions and does not know.
func isolate(ctx context.Context, w *tempest, a act) (string, error) {
	random := a.random()
	victim := w.steady[random.IntN(len(w.steady))].name
	prefix := w.application + "." + victim
	w.proxies.Choose(func(id string) bool { return id == prefix || strings.HasPrefix(id, prefix+".") })
	var all []*testkit.Proxy
	for node := range w.kafka.Nodes() {
		all = append(all, w.proxies.Node(node))
	}
	heal := (*testkit.Proxy).Release
	if random.IntN(2) == 0 {
		heal = dropHeld
	}
	proof := overLinks(ctx, all, hold(testkit.Both), heal, "pieces of "+victim+" held")
	w.proxies.Choose(nil)
	return proof, nil
}

// exchange does something to the exchanges of one kind; at most so often in one turn, where times is not 0.
func exchange(name string, fault testkit.Fault, times int) trouble {
	return trouble{name: name, seat: onNetwork, least: 3, most: 8, strike: func(ctx context.Context, w *tempest, _ act) (string, error) {
		fault := fault
		fault.Times = times
		at := w.proxies.Try(fault)
		<-ctx.Done()
		at.Remove()
		return proofOf(int64(at.Hits()), "exchanges"), nil
	}}
}

// lateEnds holds ends of transactions until long after their clients have given them up, and lets them go
// on: they come when the next transaction is open.
func lateEnds(ctx context.Context, w *tempest, _ act) (string, error) {
	release := make(chan struct{})
	at := w.proxies.Try(testkit.Fault{Key: kmsg.EndTxn, Times: 2, HoldRequest: release})
	<-ctx.Done()
	at.Remove()
	close(release)
	return proofOf(int64(at.Hits()), "ends held"), nil
}
