package deploy

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// tool gives the path of a program that `make setup` brings. Without it the test is skipped by name, and fails
// where a build machine says that nothing is to be skipped.
func tool(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%v is missing: run `make setup`", names)
	}
	t.Skipf("SKIPPED %s: %v is missing, run `make setup`", t.Name(), names)
	return ""
}

// run runs a program in the root of the repository and fails the test if it does.
func run(t *testing.T, program string, arguments ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), program, arguments...)
	command.Dir = root
	text, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(arguments, " "), err, text)
	}
	return string(text)
}

// files gives those that match, seen from the root.
func files(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("no file is %s: %v", pattern, err)
	}
	for i, path := range found {
		if found[i], err = filepath.Rel(root, path); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

const (
	ruleFiles  = "deploy/prometheus/*.rules.yml"
	ruleTests  = "deploy/prometheus/tests/*.test.yml"
	dashboards = "deploy/grafana/dashboards/*.json"
	runbooks   = "deploy/runbooks/"
)

// rule is one of a rule file.
type rule struct {
	Record, Alert, Expr string
	Labels, Annotations map[string]string
}

func readRules(t *testing.T) (rules []rule) {
	t.Helper()
	for _, path := range files(t, ruleFiles) {
		var file struct{ Groups []struct{ Rules []rule } }
		readYAML(t, path, &file)
		for _, group := range file.Groups {
			rules = append(rules, group.Rules...)
		}
	}
	return rules
}

func TestPrometheusTakesRulesAndConfiguration(t *testing.T) {
	t.Parallel()
	promtool := tool(t, "promtool")
	run(t, promtool, append([]string{"check", "rules", "--lint=all", "--lint-fatal"}, files(t, ruleFiles)...)...)
	run(t, promtool, "check", "config", "--lint=all", "--lint-fatal", "deploy/prometheus/prometheus.yml")
}

func TestAlertsFireAndKeepSilent(t *testing.T) {
	t.Parallel()
	run(t, tool(t, "promtool"), append([]string{"test", "rules"}, files(t, ruleTests)...)...)
}

// Every alert is tried both ways, goes somewhere, and says what to read.
func TestEveryAlertHasCasesSeverityAndRunbook(t *testing.T) {
	t.Parallel()
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, path := range files(t, ruleTests) {
		var file struct {
			Tests []struct {
				Cases []struct {
					Alert string `yaml:"alertname"`
					Want  []any  `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			}
		}
		readYAML(t, path, &file)
		for _, test := range file.Tests {
			for _, c := range test.Cases {
				fires[c.Alert] = fires[c.Alert] || len(c.Want) > 0
				silent[c.Alert] = silent[c.Alert] || len(c.Want) == 0
			}
		}
	}
	pages := map[string]bool{}
	for _, rule := range readRules(t) {
		if rule.Alert == "" {
			continue
		}
		if !fires[rule.Alert] || !silent[rule.Alert] {
			t.Errorf("%s has a case in which it fires: %t, in which it is silent: %t; want both", rule.Alert, fires[rule.Alert], silent[rule.Alert])
		}
		if severity := rule.Labels["severity"]; severity != "page" && severity != "ticket" {
			t.Errorf("%s has severity %q, want page or ticket", rule.Alert, severity)
		}
		if rule.Annotations["summary"] == "" {
			t.Errorf("%s has no summary", rule.Alert)
		}
		pages[runbooks+rule.Alert+".md"] = true
		if rule.Annotations["runbook"] != runbooks+rule.Alert+".md" {
			t.Errorf("%s has the runbook %q, want %s", rule.Alert, rule.Annotations["runbook"], runbooks+rule.Alert+".md")
		}
	}
	for _, path := range files(t, runbooks+"Pawl*.md") {
		if !pages[path] {
			t.Errorf("%s is of no alert", path)
		}
		delete(pages, path)
	}
	for path := range pages {
		t.Errorf("%s is missing", path)
	}
}

// The parts of a runbook stand in the order in which they are needed.
func TestRunbooksHaveTheirParts(t *testing.T) {
	t.Parallel()
	want := []string{"## Meaning", "## Impact", "## First command", "## How to fix", "## How to verify"}
	for _, path := range files(t, runbooks+"Pawl*.md") {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "# "+strings.TrimSuffix(filepath.Base(path), ".md")+"\n") {
			t.Errorf("%s is not headed by its alert", path)
		}
		if got := regexp.MustCompile(`(?m)^## .*$`).FindAllString(string(text), -1); !slices.Equal(got, want) {
			t.Errorf("%s has the parts %q, want %q", path, got, want)
		}
		first, _, _ := strings.Cut(string(text[strings.Index(string(text), want[2]):]), want[3])
		if !strings.Contains(first, "\n    ") {
			t.Errorf("%s has no first command", path)
		}
	}
}

var (
	metricName = regexp.MustCompile(`\b(?:processor_[a-z0-9_]+|[a-z_]+:processor_[a-z0-9_:]+)(\{[^}]*\})?`)
	labelName  = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)`)
	histogram  = regexp.MustCompile(`_(?:bucket|sum|count)$`)
)

// expressions gives those of the rules and of the dashboards, by where they stand.
func expressions(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, rule := range readRules(t) {
		all["rule "+rule.Record+rule.Alert] = []string{rule.Expr}
	}
	for _, path := range files(t, dashboards) {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		var dashboard struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(text, &dashboard); err != nil {
			t.Fatalf("read %s: %v", path, err)
		}
		for _, panel := range dashboard.Panels {
			for _, target := range panel.Targets {
				at := path + ": " + panel.Title
				all[at] = append(all[at], target.Expr)
			}
		}
	}
	return all
}

// Rules and dashboards live on names; docs/metrics.md has them all, and is itself held against the program. What
// a running service shows is looked at in internal/e2e.
func TestRulesAndDashboardsNameMetricsThatExist(t *testing.T) {
	t.Parallel()
	labels := documented(t)
	for _, rule := range readRules(t) {
		if rule.Record != "" {
			labels[rule.Record] = nil
		}
	}
	used := map[string]bool{}
	for at, exprs := range expressions(t) {
		for _, expr := range exprs {
			for _, match := range metricName.FindAllStringSubmatch(expr, -1) {
				name, _, _ := strings.Cut(match[0], "{")
				have, found := labels[name]
				if !found {
					name = histogram.ReplaceAllString(name, "")
					have, found = labels[name]
				}
				if !found {
					t.Errorf("%s: there is no metric %s", at, name)
				}
				used[name] = true
				if strings.Contains(name, ":") {
					continue // a recorded one: its labels are those of its rule
				}
				for _, label := range labelName.FindAllStringSubmatch(match[1], -1) {
					if !slices.Contains(append(have, "job", "instance"), label[1]) {
						t.Errorf("%s: %s has no label %s, but %v", at, name, label[1], have)
					}
				}
			}
		}
	}
	for _, rule := range readRules(t) {
		if rule.Record != "" && !used[rule.Record] {
			t.Errorf("%s is recorded and used by nobody", rule.Record)
		}
	}
}

// documented reads the labels of every metric out of docs/metrics.md.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(processor_[a-z0-9_]+)` \\| [a-z]+ \\|([^|]*)\\|").FindAllStringSubmatch(string(text), -1) {
		labels[row[1]] = []string{}
		for _, label := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(row[2], -1) {
			labels[row[1]] = append(labels[row[1]], label[1])
		}
	}
	if len(labels) < 40 {
		t.Fatalf("docs/metrics.md has %d metrics: it can't be read right", len(labels))
	}
	return labels
}

func TestAlertmanagerTakesItsConfiguration(t *testing.T) {
	t.Parallel()
	run(t, tool(t, "amtool"), "check-config", "deploy/alertmanager/alertmanager.yml")
}

// A page reaches who is on call and a ticket does not wake anybody, for every alert there is.
func TestAlertsAreRoutedBySeverity(t *testing.T) {
	t.Parallel()
	amtool := tool(t, "amtool")
	for _, rule := range readRules(t) {
		if rule.Alert == "" {
			continue
		}
		run(t, amtool, "config", "routes", "test", "--config.file=deploy/alertmanager/alertmanager.yml", "--verify.receivers="+rule.Labels["severity"]+"s",
			"alertname="+rule.Alert, "severity="+rule.Labels["severity"], "job=orders")
	}
}

// An inhibition of an alert that was renamed inhibits nothing, and nobody would know before the next outage.
func TestInhibitionsNameAlertsThatExist(t *testing.T) {
	t.Parallel()
	var config struct {
		InhibitRules []struct {
			Source []string `yaml:"source_matchers"`
			Target []string `yaml:"target_matchers"`
			Equal  []string
		} `yaml:"inhibit_rules"`
	}
	readYAML(t, "deploy/alertmanager/alertmanager.yml", &config)
	known := map[string]bool{}
	for _, rule := range readRules(t) {
		known[rule.Alert] = true
	}
	named := map[string]bool{}
	for _, rule := range config.InhibitRules {
		for _, matcher := range append(rule.Source, rule.Target...) {
			for _, name := range regexp.MustCompile(`Pawl[A-Za-z]+`).FindAllString(matcher, -1) {
				named[name] = true
				if !known[name] {
					t.Errorf("an inhibition names %s, which is no alert", name)
				}
			}
		}
		if !slices.Equal(rule.Equal, []string{"job"}) {
			t.Errorf("the inhibition by %v is over %v, want job: another application is another incident", rule.Source, rule.Equal)
		}
	}
	if len(named) < 5 {
		t.Errorf("inhibitions name only %v", slices.Collect(maps.Keys(named)))
	}
}
