//go:build chaos && linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pawl/internal/testkit"
)

const (
	deployed  = "../../deploy/"
	scrapeJob = "orders"
)

// prometheus is a server of its own that scrapes processors every second and evaluates our rules as often.
type prometheus struct {
	t       testing.TB
	address string
	targets string // file
}

// prometheusConfig takes the folder, and the job of the targets.
const prometheusConfig = `global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%[1]q]
scrape_configs:
  - job_name: %[2]s
    file_sd_configs: [{files: [%[3]q], refresh_interval: 1s}]
`

// openPrometheus runs one with the rules as they are deployed, but faster: see hasten.
func openPrometheus(t *testing.T) *prometheus {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("prometheus is missing: run `make setup`")
		}
		t.Skipf("SKIPPED %s: prometheus is missing, run `make setup`", t.Name())
	}
	folder := t.TempDir()
	p := &prometheus{t: t, address: freeAddress(t), targets: filepath.Join(folder, "targets.json")}
	rules, err := filepath.Glob(deployed + "prometheus/*.rules.yml")
	if err != nil || len(rules) < 3 {
		t.Fatalf("the rules are %v: %v", rules, err)
	}
	for _, path := range rules {
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, filepath.Base(path)), []byte(hasten(t, string(text))), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(folder, "prometheus.yml")
	text := fmt.Sprintf(prometheusConfig, filepath.Join(folder, "*.rules.yml"), scrapeJob, p.targets)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.ArtifactDir(), "prometheus.log")
	openProcess(t, exec.Command(program, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(folder, "data"), "--web.listen-address="+p.address), log)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("prometheus ends with:\n%s", tail(log, logLines))
		}
	})
	testkit.WaitFor(t, startTimeout, "prometheus", func() bool {
		var ready []any
		return p.ask("/api/v1/query?query=1", &ready) == nil
	})
	return p
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

// hasten makes minutes of the rules seconds, so that a fault need not last for a quarter of an hour: what
// must hold for a time does so for one second, what is looked at over minutes over twenty seconds, ages
// are large from three seconds on, and a check of a second is overdue after twenty. Everything else is what is deployed.
func hasten(t *testing.T, rules string) string {
	t.Helper()
	for _, shorter := range [][2]string{
		{`(?m)^(\s+for:) \d+m$`, `$1 1s`},
		{`\[(1|2)m\]`, `[10s]`},
		{`\[(5|10|15)m\]`, `[20s]`},
		{`(seconds:max) > (60|300|900)`, `$1 > 3`},
		{`(retention_used:ratio) > 0\.25`, `$1 > 0.000003`}, // 3.6 s of 14 days
		{`(last_clean_pass_timestamp_seconds\)) > 3600`, `$1 > 20`},
	} {
		pattern := regexp.MustCompile(shorter[0])
		rules = pattern.ReplaceAllString(rules, shorter[1])
	}
	if left := regexp.MustCompile(`\[\d+m\]|for: \d+m`).FindString(rules); left != "" {
		t.Fatalf("%s is left in the rules: this test would wait for so long", left)
	}
	return rules
}

// target is a process that serves metrics.
type target interface {
	awaitAdmin(t testing.TB)
	address() string // once that has returned
}

// scrape makes these the targets.
func (p *prometheus) scrape(processes ...target) {
	p.t.Helper()
	var targets []string
	for _, one := range processes {
		one.awaitAdmin(p.t)
		targets = append(targets, one.address())
	}
	text, err := json.Marshal([]map[string]any{{"targets": targets}})
	if err == nil {
		err = os.WriteFile(p.targets+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(p.targets+".new", p.targets) // never half of it
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// ask puts a question to the server and decodes the part of the answer that holds the data.
func (p *prometheus) ask(path string, into any) error {
	ctx, cancel := context.WithTimeout(p.t.Context(), askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+path, http.NoBody)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct{ Result, Alerts, Groups json.RawMessage }
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("ask %s: %w", path, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("ask %s: %s", path, answer.Error)
	}
	for _, data := range []json.RawMessage{answer.Data.Result, answer.Data.Alerts, answer.Data.Groups} {
		if data != nil && string(data[:1]) == "[" {
			return json.Unmarshal(data, into)
		}
	}
	return nil
}

// series counts those of an expression.
func (p *prometheus) series(expr string) (int, error) {
	var found []struct{}
	err := p.ask("/api/v1/query?query="+url.QueryEscape(expr), &found)
	return len(found), err
}

// firing names the alerts that fire, each once.
func (p *prometheus) firing() (names []string, err error) {
	var alerts []struct {
		State  string
		Labels map[string]string
	}
	if err := p.ask("/api/v1/alerts", &alerts); err != nil {
		return nil, err
	}
	for _, alert := range alerts {
		if alert.State == "firing" {
			names = append(names, alert.Labels["alertname"])
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// awaitFiring waits until all of these fire, and tells of each whenever it is seen to.
func (p *prometheus) awaitFiring(t *testing.T, seen func(name string), names ...string) {
	t.Helper()
	began := time.Now()
	var firing []string
	testkit.WaitFor(t, alertTimeout, fmt.Sprintf("%v to fire", names), func() bool {
		var err error
		if firing, err = p.firing(); err != nil {
			return false
		}
		for _, name := range names {
			if slices.Contains(firing, name) {
				seen(name)
			}
		}
		return !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(firing, name) })
	})
	t.Logf("%v fired after %s; in all %v", names, time.Since(began).Round(100*time.Millisecond), firing)
}

// awaitHolding waits until an expression gives one series.
func (p *prometheus) awaitHolding(t *testing.T, expr string) {
	t.Helper()
	testkit.WaitFor(t, alertTimeout, expr, func() bool {
		n, err := p.series(expr)
		return err == nil && n == 1
	})
}

// awaitSilence waits until none fires but the given.
func (p *prometheus) awaitSilence(t *testing.T, but ...string) {
	t.Helper()
	began := time.Now()
	var firing []string
	defer func() {
		if t.Failed() {
			t.Logf("%v fire", firing)
		}
	}()
	testkit.WaitFor(t, alertTimeout, fmt.Sprintf("no alert but %v", but), func() bool {
		var err error
		firing, err = p.firing()
		return err == nil && !slices.ContainsFunc(firing, func(name string) bool { return !slices.Contains(but, name) })
	})
	t.Logf("silence after %s", time.Since(began).Round(100*time.Millisecond))
}

// expressions gives those of the loaded rules, and those of the dashboards with their variables filled in, by
// where they stand.
func (p *prometheus) expressions(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	var groups []struct {
		Rules []struct{ Name, Query string }
	}
	if err := p.ask("/api/v1/rules", &groups); err != nil {
		t.Fatal(err)
	}
	for _, group := range groups {
		for _, rule := range group.Rules {
			all["rule "+rule.Name] = []string{rule.Query}
		}
	}
	paths, err := filepath.Glob(deployed + "grafana/dashboards/*.json")
	if err != nil || len(paths) < 3 {
		t.Fatalf("the dashboards are %v: %v", paths, err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var dashboard struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr, LegendFormat string }
			}
		}
		if err := json.Unmarshal(text, &dashboard); err != nil {
			t.Fatalf("read %s: %v", path, err)
		}
		for _, panel := range dashboard.Panels {
			for _, target := range panel.Targets {
				at := filepath.Base(path) + " " + panel.Title
				all[at] = append(all[at], strings.NewReplacer("$job", scrapeJob, "$instance", ".+").Replace(target.Expr))
			}
		}
	}
	return all
}

var (
	selector  = regexp.MustCompile(`\b(?:[a-z_]+:)?(?:processor|process|go)_[a-z0-9_:]+(?:\{[^}]*\})?`)
	groupings = regexp.MustCompile(`\b(?:by|on) \(([a-z_, ]+)\)`)
)

// awaitSeries waits until the running service shows every metric with its labels of every expression, and fails
// the test for what it does not show, and for an expression that is none.
func (p *prometheus) awaitSeries(t *testing.T) {
	t.Helper()
	all := p.expressions(t)
	var missing []string
	var looked int
	defer func() {
		for _, one := range missing {
			t.Error(one)
		}
	}()
	testkit.WaitFor(t, alertTimeout, "all series of rules and dashboards", func() bool {
		missing, looked = p.missing(all)
		return len(missing) == 0
	})
	if looked < 60 {
		t.Errorf("only %d series were looked for", looked)
	}
	t.Logf("%d selectors of %d rules and panels have series", looked, len(all))
}

// missing tells what has no series, and how many selectors were looked for.
func (p *prometheus) missing(all map[string][]string) (missing []string, looked int) {
	seen := map[string]bool{}
	for at, exprs := range all {
		for _, expr := range exprs {
			if _, err := p.series(expr); err != nil {
				missing = append(missing, fmt.Sprintf("%s: %v", at, err))
			}
			selectors := selector.FindAllString(groupings.ReplaceAllString(expr, ""), -1)
			for _, one := range selectors {
				if seen[one] {
					continue
				}
				seen[one] = true
				if n, err := p.series(one); err != nil || n == 0 {
					missing = append(missing, fmt.Sprintf("%s: there is no series %s (%v)", at, one, err))
				}
			}
			for _, grouping := range groupings.FindAllStringSubmatch(expr, -1) {
				for label := range strings.SplitSeq(grouping[1], ",") {
					if label = strings.TrimSpace(label); len(selectors) > 0 && !p.hasLabel(label, selectors) {
						missing = append(missing, fmt.Sprintf("%s: no series of %v has the label %s", at, selectors, label))
					}
				}
			}
		}
	}
	return missing, len(seen)
}

// hasLabel tells whether one of the selectors has series with the label.
func (p *prometheus) hasLabel(label string, selectors []string) bool {
	for _, one := range selectors {
		name, matchers, _ := strings.Cut(strings.TrimSuffix(one, "}"), "{")
		if n, err := p.series(fmt.Sprintf("%s{%s}", name, strings.TrimPrefix(matchers+","+label+`!=""`, ","))); err == nil && n > 0 {
			return true
		}
	}
	return false
}
