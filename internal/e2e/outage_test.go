//go:build chaos && linux

package e2e

import (
	"net/http"
	"testing"
	"time"
)

// All brokers are out of reach for a while, and records keep coming. The processor waits without
// spinning or growing, says that it lives, goes on when the brokers are back, and finds no record
// guilty.
//
// The brokers' end of the network breaks, not the brokers: a Kafka whose every replica is down may
// forget, when it is back, to mark a transaction as committed (internal/txn/DESIGN.md).
func TestOutageOfAllBrokersCostsNothingButTime(t *testing.T) {
	const (
		rate      = 5000
		cpuShare  = 0.2       // of one core
		memoryMax = 150 << 20 // bytes
	)
	outage := 20 * time.Second
	if *long {
		outage = 5 * time.Minute
	}
	r, proxies := proxied(t)
	m := r.monitor()
	p := r.processor("a")
	p.start(t)
	p.awaitReady(t)
	load := r.trickle(t, rate)
	p.awaitCommits(t, startTimeout, 20)

	proxies.Node(0).Refuse()
	before, err := p.cpu()
	if err != nil {
		t.Fatal(err)
	}
	timer := time.NewTimer(outage)
	defer timer.Stop()
	<-timer.C // the length of the outage is what is asked for, there is no event to wait for
	p.mustLive(t)
	after, err := p.cpu()
	if err != nil {
		t.Fatal(err)
	}
	if code, text := p.get(t.Context(), "/livez"); code != http.StatusOK {
		t.Errorf("/livez says %d in the outage, want 200: a restart would not bring the brokers back: %s", code, text)
	}
	committed, ends := m.sums()
	if committed == ends || proxies.Node(0).Hits() == 0 {
		t.Errorf("at the end of the outage %d of %d records are committed and %d connections were broken: it was none", committed, ends, proxies.Node(0).Hits())
	}
	share := (after - before).Seconds() / outage.Seconds()
	if share > cpuShare {
		t.Errorf("the processor used %.0f%% of a core while no broker was there, at most %.0f%% is rest", 100*share, 100*cpuShare)
	}

	commits := p.commits()
	proxies.Node(0).Accept()
	back := time.Now()
	p.awaitCommits(t, time.Minute, commits+1)
	resumed := time.Since(back)
	sent := load.halt(t)
	m.awaitCaughtUp(t, time.Minute, sent)
	peak, err := p.memoryPeak()
	if err != nil {
		t.Fatal(err)
	}
	if peak > memoryMax {
		t.Errorf("the processor grew to %d MiB, want at most %d", peak>>20, memoryMax>>20)
	}
	p.terminate(t, endTimeout)
	saw := r.verify(t, nil)
	t.Logf("%d records copied, %d of them behind at the end of the outage; %.1f%% of a core during %s without brokers; first commit %.1fs after it; peak %d MiB; %d connections broken",
		saw.Judged, ends-committed, 100*share, outage, resumed.Seconds(), peak>>20, proxies.Node(0).Hits())
}
