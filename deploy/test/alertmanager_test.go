//go:build integration

package deploy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// pager takes what Alertmanager sends.
type pager struct {
	*httptest.Server

	mu    sync.Mutex
	pages [][]string // alerts of each notification
	calls chan struct{}
}

func openPager(t *testing.T) *pager {
	t.Helper()
	p := &pager{calls: make(chan struct{}, 100)}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var page struct {
			Alerts []struct{ Labels map[string]string }
		}
		if err := json.NewDecoder(r.Body).Decode(&page); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var names []string
		for _, alert := range page.Alerts {
			names = append(names, alert.Labels["job"]+" "+alert.Labels["alertname"])
		}
		slices.Sort(names)
		p.mu.Lock()
		p.pages = append(p.pages, names)
		p.mu.Unlock()
		p.calls <- struct{}{}
	}))
	t.Cleanup(p.Close)
	return p
}

// An outage of Kafka brings every alert about the stream, of two applications. Who is on call gets one page. A
// fault beside it, in another application, is a page of its own.
func TestOneOutageOfKafkaIsOnePage(t *testing.T) {
	t.Parallel()
	p := openPager(t)
	address := openAlertmanager(t, p.URL)
	var outage []map[string]string
	alert := func(job, name, severity string) map[string]string {
		return map[string]string{"alertname": name, "severity": severity, "job": job}
	}
	for _, job := range []string{"orders", "refunds"} {
		outage = append(outage, alert(job, "PawlKafkaUnreachable", "page"))
		for _, name := range []string{"PawlNobodyReads", "PawlNoCommit", "PawlLagRising", "PawlReadersHeld", "PawlEffectsNotIngested"} {
			outage = append(outage, alert(job, name, "page"))
		}
		for _, name := range []string{"PawlAbortRatio", "PawlUnknownOutcomes", "PawlVerifyStale"} {
			outage = append(outage, alert(job, name, "ticket"))
		}
	}
	post(t, address, outage)
	p.await(t, 1)
	post(t, address, append(outage, alert("orders", "PawlPartitionHalted", "page")))
	p.await(t, 2)
	p.mu.Lock()
	defer p.mu.Unlock()
	want := [][]string{{"orders PawlKafkaUnreachable", "refunds PawlKafkaUnreachable"}, {"orders PawlPartitionHalted"}}
	if fmt.Sprint(p.pages) != fmt.Sprint(want) {
		t.Errorf("the pages are %v, want %v", p.pages, want)
	}
}

// await waits until so many notifications have come.
func (p *pager) await(t *testing.T, count int) {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		p.mu.Lock()
		got := len(p.pages)
		p.mu.Unlock()
		if got >= count {
			return
		}
		select {
		case <-p.calls:
		case <-timeout:
			t.Fatalf("%d pages came, want %d", got, count)
		}
	}
}

// openAlertmanager runs the example with both receivers at url, and groups that wait for a second instead of
// half a minute and more, and working hours that never end.
func openAlertmanager(t *testing.T, url string) (address string) {
	t.Helper()
	program := tool(t, "prometheus-alertmanager", "alertmanager")
	text, err := os.ReadFile(filepath.Join(root, "deploy/alertmanager/alertmanager.yml"))
	if err != nil {
		t.Fatal(err)
	}
	config := string(text)
	for old, changed := range map[string]string{
		"http://pager.example.invalid/pages":     url,
		"http://tracker.example.invalid/tickets": url,
		"group_wait: 30s":                        "group_wait: 1s",
		"group_interval: 5m":                     "group_interval: 1s",
		// A ticket that comes at night waits for the morning, and nobody would see that it is not inhibited.
		`weekdays: ["monday:friday"]`:              `weekdays: ["sunday:saturday"]`,
		`{start_time: "08:00", end_time: "18:00"}`: `{start_time: "00:00", end_time: "24:00"}`,
	} {
		if strings.Count(config, old) != 1 {
			t.Fatalf("%q is not once in the example", old)
		}
		config = strings.Replace(config, old, changed, 1)
	}
	folder := t.TempDir()
	file := filepath.Join(folder, "alertmanager.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	address = freeAddress(t)
	var log bytes.Buffer
	command := exec.CommandContext(t.Context(), program, "--config.file="+file, "--storage.path="+folder,
		"--web.listen-address="+address, "--cluster.listen-address=")
	command.Stdout, command.Stderr = &log, &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		if t.Failed() {
			t.Logf("alertmanager: %s", log.String())
		}
	})
	deadline := time.Now().Add(30 * time.Second)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for ; ; <-ticker.C {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/-/ready", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := (&http.Client{}).Do(request)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return address
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("alertmanager is not ready")
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// post reports alerts as Prometheus does: again and again, all that fire.
func post(t *testing.T, address string, alerts []map[string]string) {
	t.Helper()
	var firing []map[string]any
	for _, labels := range alerts {
		firing = append(firing, map[string]any{"labels": labels})
	}
	text, err := json.Marshal(firing)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/api/v2/alerts", bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := (&http.Client{}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("alertmanager answers %s", response.Status)
	}
}
