//go:build chaos && linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/testkit"
)

// auditor is `processor verify --follow`, which judges what the application does.
type auditor struct {
	*process
	log     string
	listens string // host:port; empty until known
}

// openAuditor starts one that makes a pass every second.
func openAuditor(t *testing.T, r *rig) *auditor {
	t.Helper()
	a := &auditor{log: filepath.Join(r.folder, "verify.log")}
	arguments := []string{"verify", "-c", r.config, "--follow", "--interval", "1s", "--listen", "127.0.0.1:0"}
	for _, setting := range r.settings {
		arguments = append(arguments, "--set", setting)
	}
	cmd := exec.Command(build(t), arguments...)
	cmd.Env = environment()
	a.process = openProcess(t, cmd, a.log)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("verify ends with:\n%s", tail(a.log, logLines))
		}
	})
	return a
}

var listening = regexp.MustCompile(`(?m)^metrics on http://(.+)/metrics$`)

// awaitAdmin waits until the process has said where its metrics are.
func (a *auditor) awaitAdmin(t testing.TB) {
	t.Helper()
	testkit.WaitFor(t, startTimeout, "verify to name its metrics", func() bool {
		if text, err := os.ReadFile(a.log); err == nil && a.listens == "" {
			if found := listening.FindSubmatch(text); found != nil {
				a.listens = string(found[1])
			}
		}
		if a.listens == "" && !a.alive() {
			t.Fatalf("verify has ended by itself: %v\n%s", a.err, tail(a.log, logLines))
		}
		return a.listens != ""
	})
}

func (a *auditor) address() string { return a.listens }

// dismissAuditor ends it: what is broken next would be findings of its own.
func (w *watchtower) dismissAuditor() {
	w.prometheus.scrape(w.processor)
	w.auditor.kill()
}

// holdAuditor lets nothing pass between the brokers and whoever verifies; the service does not notice.
func (w *watchtower) holdAuditor(t *testing.T) {
	w.prometheus.awaitHolding(t, `processor_verify_passes_total{result="clean"} > 2`)
	proxy := w.proxies.Node(0)
	before := proxy.Hits()
	w.proxies.Choose(func(id string) bool {
		return id != "" && !strings.HasPrefix(id, w.application+"."+w.processor.name) && !strings.HasPrefix(id, w.application+".relay.")
	})
	proxy.Hold(testkit.ToClient)
	w.awaitFiring(t, "PawlVerifyStale")
	commits := w.processor.commits()
	w.first(t, "PawlVerifyStale", nil, "brokers")
	w.processor.awaitCommits(t, alertTimeout, commits+1)
	if firing, err := w.prometheus.firing(); err != nil || slices.Contains(firing, "PawlKafkaUnreachable") {
		t.Errorf("%v fire (%v): the service has lost its brokers, too", firing, err)
	}
	if proxy.Hits() == before {
		t.Error("nothing was held")
	}
	proxy.Release()
	w.proxies.Choose(nil)
}

// forgeOutput writes an output again, as a zombie would. The finding stays until verify ends.
func (w *watchtower) forgeOutput(t *testing.T) {
	committed := testkit.ReadCommitted(t, w.kafka.InternalBrokers(), w.output)
	if len(committed) == 0 {
		t.Fatal("there is no output to forge")
	}
	last := committed[len(committed)-1]
	client := testkit.Client(t, w.kafka.InternalBrokers(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	forged := &kgo.Record{Topic: last.Topic, Partition: last.Partition, Key: last.Key, Value: last.Value, Headers: last.Headers, Timestamp: last.Timestamp}
	if err := client.ProduceSync(t.Context(), forged).FirstErr(); err != nil {
		t.Fatal(err)
	}
	w.awaitFiring(t, "PawlVerifyFindings")
	w.first(t, "PawlVerifyFindings", nil, "DUPLICATE", sources(t, committed[len(committed)-1:])[0], "NOT PROVEN: 1 finding")
	w.dismissAuditor()
}
