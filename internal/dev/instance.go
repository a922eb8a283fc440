package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	readyTimeout = 60 * time.Second
	readyRetry   = 25 * time.Millisecond
	probeTimeout = time.Second
	stopTimeout  = 15 * time.Second // above txn.drain_timeout of the configuration we write
	logTailBytes = 4 << 10
	logTailLines = 8
)

// instance is one processor, run as a child under a name that stays the same over its restarts.
type instance struct {
	name    string
	admin   string // host:port
	log     string // path; it is appended to
	program string
	config  string   // path
	extra   []string // arguments

	process *process // nil before the first start
	began   time.Time
}

// arguments are what the child is run with.
func (i *instance) arguments() []string {
	return append([]string{"run", "-c", i.config, "--set", "instance=" + i.name, "--set", "admin.listen=" + i.admin}, i.extra...)
}

// start runs the child. It does not wait until the child is ready.
func (i *instance) start(ctx context.Context) (err error) {
	log, err := os.OpenFile(i.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", i.name, err)
	}
	defer func() { err = errors.Join(err, log.Close()) }() // the child has its own
	// The child outlives ctx: it is stopped in order.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), i.program, i.arguments()...) //nolint:gosec // this very program
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = environment(os.Environ())
	i.began = time.Now()
	if i.process, err = openProcess(cmd); err != nil {
		return fmt.Errorf("start %s: %w", i.name, err)
	}
	return nil
}

// environment is ours without the settings that would override the configuration we write.
func environment(ours []string) []string {
	var kept []string
	for _, pair := range ours {
		if !strings.HasPrefix(pair, "PROCESSOR_") {
			kept = append(kept, pair)
		}
	}
	return kept
}

// ready waits until the child says that it is ready. It fails early when the child ends.
func (i *instance) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not ready within %s", readyTimeout))
	defer cancel()
	client := &http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	ticker := time.NewTicker(readyRetry)
	defer ticker.Stop()
	answer := "no answer yet"
	for {
		select {
		case <-i.process.gone:
			return fmt.Errorf("%s ended before it was ready (%w); its log ends with:%s", i.name, i.process.howEnded(), i.logTail())
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: http://%s/readyz: %s; its log ends with:%s", i.name, context.Cause(ctx), i.admin, answer, i.logTail())
		case <-ticker.C:
		}
		var ok bool
		if ok, answer = i.probe(ctx, client); ok {
			return nil
		}
	}
}

func (i *instance) probe(ctx context.Context, client *http.Client) (ok bool, answer string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+i.admin+"/readyz", nil)
	if err != nil {
		return false, err.Error()
	}
	response, err := client.Do(request)
	if err != nil {
		return false, err.Error()
	}
	defer response.Body.Close() //nolint:errcheck // only read from
	body, err := io.ReadAll(io.LimitReader(response.Body, logTailBytes))
	if err != nil {
		return false, err.Error()
	}
	return response.StatusCode == http.StatusOK, response.Status + " " + strings.Join(strings.Fields(string(body)), " ")
}

// lanes asks the child how many lanes of effects it owns.
func (i *instance) lanes(ctx context.Context) (int, error) {
	client := &http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+i.admin+"/api/v1/status", nil)
	if err != nil {
		return 0, fmt.Errorf("ask %s for its lanes: %w", i.name, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, fmt.Errorf("ask %s for its lanes: %w", i.name, err)
	}
	defer response.Body.Close() //nolint:errcheck // only read from
	var status struct {
		Effects struct {
			Dispatch struct {
				Lanes []struct {
					Owner bool `json:"owner"`
				} `json:"lanes"`
			} `json:"dispatch"`
		} `json:"effects"`
	}
	if err := json.NewDecoder(response.Body).Decode(&status); err != nil {
		return 0, fmt.Errorf("ask %s for its lanes: %s: %w", i.name, response.Status, err)
	}
	owned := 0
	for _, lane := range status.Effects.Dispatch.Lanes {
		if lane.Owner {
			owned++
		}
	}
	return owned, nil
}

// stop ends the child in good order; a child that was never started, or has ended, is fine.
func (i *instance) stop(ctx context.Context) error {
	if i.process == nil || !i.process.alive() {
		return nil
	}
	if err := i.process.stop(ctx, stopTimeout); err != nil {
		return fmt.Errorf("stop %s: %w; its log ends with:%s", i.name, err, i.logTail())
	}
	return nil
}

// logTail gives the last lines of the child's log, indented for quoting in an error.
func (i *instance) logTail() string {
	file, err := os.Open(i.log)
	if err != nil {
		return "\n  | " + err.Error()
	}
	defer file.Close() //nolint:errcheck // only read from
	if size, err := file.Seek(0, io.SeekEnd); err == nil {
		_, _ = file.Seek(max(0, size-logTailBytes), io.SeekStart)
	}
	text, _ := io.ReadAll(file)
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	var b strings.Builder
	for _, line := range lines[max(0, len(lines)-logTailLines):] {
		b.WriteString("\n  | ")
		b.WriteString(line)
	}
	return b.String()
}

// newInstances names n instances a, b, c ... and finds a free port for each, from first on.
func newInstances(ctx context.Context, n, first int, program, config, folder string) ([]*instance, error) {
	ports, err := freePorts(ctx, first, n)
	if err != nil {
		return nil, err
	}
	var instances []*instance
	for i, port := range ports {
		name := instanceName(i)
		instances = append(instances, &instance{
			name: name, admin: net.JoinHostPort(loopback, strconv.Itoa(port)), program: program, config: config,
			log: filepath.Join(folder, name+".log"),
		})
	}
	return instances, nil
}

// instanceName gives a, b, ... z, a1, b1, ...
func instanceName(i int) string {
	name := string(rune('a' + i%26))
	if i >= 26 {
		name += strconv.Itoa(i / 26)
	}
	return name
}
