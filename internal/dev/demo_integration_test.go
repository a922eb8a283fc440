//go:build integration

package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pawl/internal/cluster"
)

// program is the binary under test, built once.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "processor")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "pawl/cmd/processor")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	return path
}

// requireJava skips by name where the real broker cannot be had, which is a failure in CI.
func requireJava(t *testing.T) {
	t.Helper()
	require(t, "real Kafka", cluster.JavaAvailable("", ""))
}

// requirePostgres does the same for the database.
func requirePostgres(t *testing.T) {
	t.Helper()
	require(t, "Postgres", cluster.PostgresAvailable(""))
}

func require(t *testing.T, what string, missing error) {
	t.Helper()
	switch {
	case missing == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("no %s: %v", what, missing)
	default:
		t.Skipf("SKIPPED: no %s: %v", what, missing)
	}
}

// run starts the binary as a person would, with a temporary folder of its own.
type run struct {
	cmd            *exec.Cmd
	temp           string
	stdout, stderr lockedBuffer
}

func openRun(t *testing.T, path string, arguments ...string) *run {
	t.Helper()
	// Unlike t.TempDir, one that Postgres can pass: for root it runs under another account.
	temp, err := os.MkdirTemp("", "dev-test-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(temp) })
	if err := letPass(temp); err != nil {
		t.Fatal(err)
	}
	return openRunIn(t, temp, path, arguments...)
}

// openRunIn starts it where another run has been.
func openRunIn(t *testing.T, temp, path string, arguments ...string) *run {
	t.Helper()
	r := &run{temp: temp}
	r.cmd = exec.Command(path, arguments...)
	r.cmd.Env = append(os.Environ(), "TMPDIR="+r.temp)
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.cmd.Process.Kill() })
	return r
}

// wait returns the exit code.
func (r *run) wait(t *testing.T) int {
	t.Helper()
	err := r.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return r.cmd.ProcessState.ExitCode()
}

// told waits until stderr says something.
func (r *run) told(t *testing.T, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := until(ctx, 5*time.Millisecond, func() (bool, error) {
		return strings.Contains(r.stderr.String(), text), nil
	}); err != nil {
		t.Fatalf("did not say %q: %v\n%s", text, err, r.stderr.String())
	}
}

// clean checks that nothing was left behind: no folder, and no process that was started with a path
// in the run's temporary folder on its command line, as the processors and the brokers are.
func (r *run) clean(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(r.temp, "pawl-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range left {
		if !strings.Contains(folder, "pawl-ports") { // lock files, shared and empty
			t.Errorf("left behind: %s", folder)
		}
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		if text, err := os.ReadFile(line); err == nil && bytes.Contains(text, []byte(r.temp)) {
			t.Errorf("left behind: %s %s", line, bytes.ReplaceAll(text, []byte{0}, []byte{' '}))
		}
	}
}

// lockedBuffer is written by the child and read by the test.
type lockedBuffer struct {
	mutex sync.Mutex
	bytes bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.bytes.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.bytes.String()
}

// The demo on each broker: a processor dies in mid-transaction with calls under way, comes back, and
// the proof holds up to the orders that were confirmed by the results of their charges. What it prints is the proof and nothing else, and progress is plain text where nobody watches.
func TestDemoProvesItself(t *testing.T) {
	t.Parallel()
	requirePostgres(t)
	path := program(t)
	for _, broker := range []Broker{BrokerEmbedded, BrokerReal} {
		t.Run(string(broker), func(t *testing.T) {
			t.Parallel()
			if broker == BrokerReal {
				requireJava(t)
			}
			r := openRun(t, path, "dev", "--demo", "--kafka", string(broker), "--orders", "10000", "--rate", "2000", "-o", "json")
			if code := r.wait(t); code != 0 {
				t.Fatalf("exit code %d\n%s\n%s", code, r.stdout.String(), r.stderr.String())
			}
			var proof struct {
				Proof
				Proven    bool    `json:"proven"`
				Took      float64 `json:"took_seconds"`
				Processor struct {
					Calls     int     `json:"calls_under_way"`
					Recovered float64 `json:"recovered_seconds"`
				} `json:"kill"`
			}
			decoder := json.NewDecoder(strings.NewReader(r.stdout.String()))
			if err := decoder.Decode(&proof); err != nil {
				t.Fatalf("decode %s: %v", r.stdout.String(), err)
			}
			if decoder.More() {
				t.Errorf("more than the proof on stdout: %s", r.stdout.String())
			}
			if !proof.Proven || proof.Inputs != 10_000 || proof.Wrong == 0 || proof.Aborted < 1 || len(proof.Topics) != 5 {
				t.Errorf("proof = %s", r.stdout.String())
			}
			var aborted int64
			for _, topic := range proof.Topics {
				aborted += topic.Aborted
			}
			if aborted == 0 || proof.Processor.Calls == 0 {
				t.Errorf("%d records were aborted and %d calls under way: the kill hit nothing", aborted, proof.Processor.Calls)
			}
			good := proof.Inputs - proof.Wrong
			effects, calls := proof.Effects, proof.Effects.Calls
			if effects.Committed != good || calls == nil || calls.Charged+calls.Declined != good || calls.Calls <= good ||
				calls.Duplicates == 0 || calls.Declined == 0 || effects.Results["done"]+effects.Results["dead"] != good {
				t.Errorf("effects = %+v, calls = %+v of %d good orders", effects, calls, good)
			}
			if strings.Contains(r.stderr.String(), "\x1b") {
				t.Errorf("escape sequences where there is no terminal:\n%q", r.stderr.String())
			}
			t.Logf("%s: %.1f s in all, committing again %.2f s after the restart", broker, proof.Took, proof.Processor.Recovered)
			r.clean(t)
		})
	}
}

// Without Postgres the demo runs as well, says that nothing is called, and proves the rest.
func TestDemoDoesWithoutPostgres(t *testing.T) {
	t.Parallel()
	var told lockedBuffer
	proof, err := Demo(t.Context(), DemoConfig{
		Config: Config{
			Broker: BrokerEmbedded, Nodes: 1, Instances: 2, Rate: 2000, Program: program(t), Screen: Screen{Out: &told},
			postgres: func() error { return errors.New("no Postgres today") },
		},
		Orders: 4000, BadShare: 0.01, Seed: 1,
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, told.String())
	}
	if !proof.Proven() || proof.Effects.Calls != nil || proof.Effects.Committed != proof.Inputs-proof.Wrong || len(proof.Topics) != 4 {
		t.Errorf("proof:\n%s", proof.Report())
	}
	if text := "ledger      none, effects wait: no Postgres today"; !strings.Contains(told.String(), text) {
		t.Errorf("did not say %q:\n%s", text, told.String())
	}
}

// Ctrl-C in every phase ends the demo within seconds and leaves nothing behind: no process, no
// folder. With the real broker those phases are tried in which there is more to stop.
func TestInterruptedDemoLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	path := program(t)
	const ledger = "ledger      starting"
	const choice, processors = "broker      starting", "processors  starting"
	const waiting, freezing, restart = "kill -9     waiting", "kill -9     freezing", "restart     starting"
	const drain, proof = "drain       waiting", "proof       reading"
	phases := map[Broker][]string{
		BrokerEmbedded: {choice, ledger, processors, waiting, freezing, restart, drain, proof},
		BrokerReal:     {choice, processors, freezing, restart},
	}
	for broker, phases := range phases {
		for _, phase := range phases {
			t.Run(string(broker)+"/"+phase, func(t *testing.T) {
				if broker == BrokerReal {
					requireJava(t) // one after the other: each is a JVM
				} else {
					t.Parallel()
				}
				interrupt(t, path, broker, phase)
			})
		}
	}
}

func interrupt(t *testing.T, path string, broker Broker, phase string) {
	t.Helper()
	r := openRun(t, path, "dev", "--demo", "--kafka", string(broker), "--orders", "3000", "--rate", "1500")
	r.told(t, phase)
	if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	code := r.wait(t)
	// The last phases may be through before the signal is heard.
	if out := r.stderr.String(); code != 0 && (code != 1 || !strings.Contains(out, "interrupted: everything was stopped and removed")) {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if took := time.Since(began); took > closeTimeout {
		t.Errorf("gone after %s", took)
	}
	r.clean(t)
}

// A killed run takes its children along, and the next one removes its folders.
func TestKilledDemoTakesItsChildrenAlong(t *testing.T) {
	t.Parallel()
	path := program(t)
	r := openRun(t, path, "dev", "--demo", "--kafka", "embedded", "--orders", "100000")
	r.told(t, "progress    ")
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if code := r.wait(t); code != -1 {
		t.Fatalf("exit code %d, want that it was killed", code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := until(ctx, 10*time.Millisecond, func() (bool, error) {
		lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, line := range lines {
			if text, err := os.ReadFile(line); err == nil && bytes.Contains(text, []byte(r.temp)) {
				return false, nil
			}
		}
		return true, err
	}); err != nil {
		t.Errorf("a child lives on: %v", err)
	}
	next := openRunIn(t, r.temp, path, "dev", "--demo", "--kafka", "embedded")
	next.told(t, "topics      creating")
	if err := next.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := next.wait(t); code != 1 {
		t.Errorf("exit code %d, want that it was interrupted", code)
	}
	next.clean(t)
}

// get reads what is at an address, which must answer well.
func get(t *testing.T, address string) []byte {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s answers %s: %v", address, response.Status, err)
	}
	return text
}

// seeOrders waits until the status page, which draws what /api/v1/view says, shows orders that were committed.
func seeOrders(t *testing.T, page string) {
	t.Helper()
	type input struct {
		Topic     string
		Committed int64
	}
	if text := get(t, page); !bytes.Contains(text, []byte("<html")) {
		t.Fatalf("%s is no page: %s", page, text)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := until(ctx, 50*time.Millisecond, func() (bool, error) {
		var snapshot struct {
			View struct{ Inputs []input }
		}
		err := json.Unmarshal(get(t, page+"api/v1/view"), &snapshot)
		return slices.ContainsFunc(snapshot.View.Inputs, func(i input) bool { return i.Topic == "orders" && i.Committed > 0 }), err
	}); err != nil {
		t.Errorf("the page shows no order: %v", err)
	}
}

// dev stays up, shows orders on its page as docs/quickstart.md says, brings a killed processor back under its name, prints addresses that answer, and
// ends well on Ctrl-C.
func TestDevBringsAKilledProcessorBack(t *testing.T) {
	t.Parallel()
	r := openRun(t, program(t), "dev", "--kafka", "embedded", "--rate", "200")
	r.told(t, "progress")
	var pid int
	var address string
	for line := range strings.SplitSeq(r.stdout.String(), "\n") {
		if at := strings.Index(line, "b  pid "); at >= 0 {
			if _, err := fmt.Sscanf(line[at:], "b  pid %d  http://%s", &pid, &address); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
	}
	if pid == 0 {
		t.Fatalf("no processor b in:\n%s", r.stdout.String())
	}
	seeOrders(t, "http://"+address)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.told(t, "b is back as pid")
	get(t, "http://"+strings.TrimSuffix(address, "/")+"/readyz")
	if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := r.wait(t); code != 0 {
		t.Errorf("exit code %d after Ctrl-C:\n%s", code, r.stderr.String())
	}
	r.clean(t)
}
