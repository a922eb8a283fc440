package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pawl/internal/top"
)

// newTold stands in for a process that works: its counters grow with each look.
func newTold(t *testing.T) (address string, asked func() int) {
	t.Helper()
	looks := make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/metrics":
			looks <- struct{}{}
			_, _ = io.WriteString(w, `processor_build_info{version="v9"} 1
processor_kafka_up 1
processor_transactions_total{outcome="committed",reason="none"} `+strings.Repeat("9", len(looks))+`
processor_consumer_lag_records{topic="orders",partition="3"} 42
`)
		case "/api/v1/status":
			_, _ = io.WriteString(w, `{"lanes":[{"lane":1,"phase":"working","partitions":{"orders":[3]}}]}`)
		case "/readyz":
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, "[-]group failed: "+r.URL.RawQuery+"\n")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://"), func() int { return len(looks) }
}

func TestTopPrintsOneSnapshotWithoutATerminal(t *testing.T) {
	t.Parallel()
	address, looks := newTold(t)
	got := invoke(t, nil, "top", "--admin", address, "--interval", "100ms")
	if got.code != 0 || got.stderr != "" || looks() != 2 {
		t.Errorf("%+v after %d looks", got, looks())
	}
	for _, want := range []string{"0 of 1 ready  v9", " 1  " + address, "not ready    group: verbose", "\norders/3 ", " 42 "} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("no %q in\n%s", want, got.stdout)
		}
	}
	if strings.Contains(got.stdout, "\x1b") {
		t.Errorf("it is painted: %q", got.stdout)
	}
}

func TestTopTellsMachines(t *testing.T) {
	t.Parallel()
	address, _ := newTold(t)
	got := invoke(t, nil, "top", "--admin", address, "--interval", "100ms", "-o", "json")
	var seen top.Snapshot
	if err := json.Unmarshal([]byte(got.stdout), &seen); err != nil || got.code != 0 {
		t.Fatalf("%+v: %v", got, err)
	}
	if seen.Lag != 42 || seen.Committed <= 0 || len(seen.Partitions) != 1 || seen.Partitions[0].Process != address || seen.Processes[0].Why != "group: verbose" {
		t.Errorf("%+v", seen)
	}
}

// What answers is shown beside what does not.
func TestTopShowsWhoDoesNotAnswer(t *testing.T) {
	t.Parallel()
	address, _ := newTold(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	got := invoke(t, nil, "top", "--once", "--admin", address+","+strings.TrimPrefix(gone.URL, "http://"), "--admin", other.URL, "--interval", "100ms")
	if got.code != exitFindings {
		t.Errorf("%+v", got)
	}
	for _, want := range []string{"unreachable  dial tcp", "connection refused", "unreachable  /metrics says 404", "\norders/3 "} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("no %q in\n%s", want, got.stdout)
		}
	}
}

func TestTopRefusesWhatItCannotMean(t *testing.T) {
	t.Parallel()
	for said, args := range map[string][]string{
		"--interval is 1ms":    {"--interval", "1ms"},
		`--admin is "x"`:       {"--admin", "x"},
		"unknown command":      {"x"},
		"give --url":           {"--set", "admin.listen=127.0.0.1:0"},
		"-o is \"yaml\", want": {"-o", "yaml"},
	} {
		if got := invoke(t, nil, append([]string{"top"}, args...)...); got.code != exitUsage || !strings.Contains(got.stderr, said) {
			t.Errorf("%v: %+v", args, got)
		}
	}
}
