//go:build chaos && linux

package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pawl/internal/testkit"
)

const (
	startTimeout = 2 * time.Minute
	askTimeout   = 5 * time.Second
	endTimeout   = 30 * time.Second // above txn.drain_timeout
	logLines     = 25               // of each process, shown when a test fails
)

// processor is the program under test. It keeps its instance name over its restarts.
type processor struct {
	*process
	rig       *rig
	name      string
	starts    int
	began     time.Time // of the last start
	log       string    // of the last start
	admin     string    // host:port; empty until known
	arguments []string  // beside the settings
	program   *program  // nil: as it is shipped
	failpoint string    // NAME:N, at which the program dies; only a breakable one does
	settings
}

// settings override the configuration file, as PATH=VALUE.
type settings []string

// processor makes one that is not started.
func (r *rig) processor(name string) *processor {
	return &processor{rig: r, name: name, settings: r.settings}
}

// explain logs what is known about a processor when a test has failed.
func (p *processor) explain() {
	if p.alive() && p.admin != "" {
		_, status := p.get(context.Background(), "/api/v1/status") // the test's context has ended
		p.rig.t.Logf("processor %s has status %s", p.name, status)
	}
	p.rig.t.Logf("processor %s, start %d, ends with:\n%s", p.name, p.starts, tail(p.log, logLines))
}

// start runs the program and does not wait for anything.
func (p *processor) start(t testing.TB) {
	t.Helper()
	p.starts++
	p.admin = ""
	p.log = filepath.Join(p.rig.folder, p.name+"-"+strconv.Itoa(p.starts)+".log")
	arguments := []string{"run", "-c", p.rig.config, "--set", "instance=" + p.name}
	for _, setting := range p.settings {
		arguments = append(arguments, "--set", setting)
	}
	arguments = append(arguments, p.arguments...)
	cmd := exec.Command(cmp.Or(p.program, shipped).build(t), arguments...)
	cmd.Env = environment()
	if p.failpoint != "" {
		cmd.Env = append(cmd.Env, "PAWL_FAILPOINT="+p.failpoint)
	}
	p.began = time.Now()
	p.process = openProcess(t, cmd, p.log)
	number := p.starts
	t.Cleanup(func() { // before it is killed
		if t.Failed() && number == p.starts {
			p.explain()
		}
	})
}

// environment is ours without what would override the configuration.
func environment() []string {
	var kept []string
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "PROCESSOR_") {
			kept = append(kept, pair)
		}
	}
	return kept
}

func (p *processor) pause(t testing.TB) {
	t.Helper()
	if err := p.signal(syscall.SIGSTOP); err != nil {
		t.Fatalf("pause %s: %v", p.name, err)
	}
}

func (p *processor) resume(t testing.TB) {
	t.Helper()
	if err := p.signal(syscall.SIGCONT); err != nil {
		t.Fatalf("resume %s: %v", p.name, err)
	}
}

// leave drains the process by the program's own command and makes it leave the group.
func (p *processor) leave(t testing.TB) {
	t.Helper()
	p.awaitAdmin(t)
	p.rig.run(t, "drain", "--leave", "--yes", "--reason", "scale-down", "--url", "http://"+p.admin, "--token-file", p.rig.token)
}

// awaitReady waits until the process says that it is ready.
func (p *processor) awaitReady(t testing.TB) {
	t.Helper()
	p.await(t, startTimeout, "ready", func() bool {
		code, _ := p.get(t.Context(), "/readyz")
		return code == http.StatusOK
	})
}

// awaitCommits waits until the process has committed so many transactions since its start.
func (p *processor) awaitCommits(t testing.TB, timeout time.Duration, count float64) {
	t.Helper()
	p.await(t, timeout, fmt.Sprintf("%v transactions committed", count), func() bool { return p.commits() >= count })
}

// commits is the number of transactions that the process has committed since its start.
func (p *processor) commits() float64 {
	return p.metric("processor_transactions_total", `outcome="committed"`)
}

// await waits for an answer that the process gives, and fails early if it ends.
func (p *processor) await(t testing.TB, timeout time.Duration, what string, done func() bool) {
	t.Helper()
	p.awaitAdmin(t)
	testkit.WaitFor(t, timeout, "processor "+p.name+": "+what, func() bool {
		p.mustLive(t)
		return done()
	})
}

// awaitAdmin waits until the process has logged where its operations HTTP listens.
func (p *processor) awaitAdmin(t testing.TB) {
	t.Helper()
	testkit.WaitFor(t, startTimeout, "processor "+p.name+" to name its operations HTTP", func() bool {
		if p.learnAdmin() {
			return true // a twin may be gone by now, and was there
		}
		p.mustLive(t)
		return false
	})
}

func (p *processor) address() string { return p.admin }

// learnAdmin looks in the log for where the operations HTTP listens, and tells whether it is known.
func (p *processor) learnAdmin() bool {
	if p.admin != "" {
		return true
	}
	text, err := os.ReadFile(p.log)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		var entry struct {
			Message string `json:"msg"`
			Admin   string `json:"admin"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Message == "starting" {
			p.admin = entry.Admin
		}
	}
	return p.admin != ""
}

// isReady tells whether the process says that it is ready.
func (p *processor) isReady() bool {
	if !p.alive() || !p.learnAdmin() {
		return false
	}
	code, _ := p.get(context.Background(), "/readyz") // has a timeout of its own
	return code == http.StatusOK
}

func (p *processor) mustLive(t testing.TB) {
	t.Helper()
	if !p.alive() {
		t.Fatalf("processor %s has ended by itself: %v", p.name, p.err)
	}
}

// get asks the operations HTTP; code 0 means that there is no answer.
func (p *processor) get(ctx context.Context, path string) (code int, body string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+path, http.NoBody)
	if err != nil {
		return 0, err.Error()
	}
	client := http.Client{Timeout: askTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(text)
}

// metric adds up the series of a metric that carry all the given labels, each as name="value".
func (p *processor) metric(name string, labels ...string) float64 {
	_, text := p.get(p.rig.t.Context(), "/metrics")
	var sum float64
	for line := range strings.Lines(text) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		matches := true
		for _, label := range labels {
			matches = matches && strings.Contains(series, label)
		}
		if n, err := strconv.ParseFloat(value, 64); err == nil && matches {
			sum += n
		}
	}
	return sum
}
