package app

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/audit"
)

// A drain is in the audit with who ordered it and why, and a process that starts later minds nothing of it.
func TestDrainIsInTheAudit(t *testing.T) {
	t.Parallel()
	r := runMinimal(t, nothing)
	r.line("starting")
	r.awaitProbe("/readyz", http.StatusOK)
	if code, answer := r.ask(http.MethodPost, "/api/v1/drain", `{"leave": true, "reason": "node maintenance", "actor": "ann"}`); code != http.StatusAccepted {
		t.Fatalf("the drain answers %d %s", code, answer)
	}
	r.line("drained, resting until the process is told to end")
	r.end()
	trail, err := r.conf.OpenAudit([]kgo.Opt{kgo.SeedBrokers(r.conf.Kafka.Brokers...)})
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	orders, err := trail.Read(t.Context(), time.Time{}, 0)
	if err != nil || len(orders) != 1 {
		t.Fatalf("the audit has %+v, %v", orders, err)
	}
	if got := orders[0]; got.Action != "drain --leave" || got.Target != "instance "+r.conf.Instance || got.Reason != "node maintenance" || got.Actor != "ann@127.0.0.1" || got.Result != audit.Done {
		t.Errorf("the audit has %+v", got)
	}
	next := run(t, r.conf, Options{})
	next.line("starting")
	next.awaitProbe("/readyz", http.StatusOK)
	next.end()
}

// A drain that can't be written down is a drain all the same; the log has it.
func TestDrainDoesNotWaitForTheAudit(t *testing.T) {
	t.Parallel()
	r := runMinimal(t, nothing)
	r.line("starting")
	r.awaitProbe("/readyz", http.StatusOK)
	fault := r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: r.conf.ControlTopic(), Err: kerr.TopicAuthorizationFailed, Count: -1})
	if code, answer := r.ask(http.MethodPost, "/api/v1/drain", `{"reason": "a"}`); code != http.StatusAccepted || fault.Hits() == 0 {
		t.Fatalf("after %d faults the drain answers %d %s", fault.Hits(), code, answer)
	}
	fault.Remove()
	r.end()
	close(r.lines)
	told := map[string]logLine{}
	for line := range r.lines {
		told[line.Msg] = line
	}
	if line := told["the order to drain is not in the audit"]; !strings.Contains(line.Err, "right Write") {
		t.Errorf("the log says %+v", told)
	}
}
