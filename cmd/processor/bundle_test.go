package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/app"
	"pawl/internal/bundle"
	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger"
)

// readBundle gives the files of an archive, without its folder.
func readBundle(t *testing.T, file string) (files map[string]string, manifest bundle.Manifest) {
	t.Helper()
	packed, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = packed.Close() }()
	stream, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	for archive := tar.NewReader(stream); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(header.Name, "/")
		files[name] = string(body)
	}
	if err := json.Unmarshal([]byte(files["manifest.json"]), &manifest); err != nil {
		t.Fatal(err)
	}
	return files, manifest
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func entries(manifest bundle.Manifest) map[string]bundle.Entry {
	found := map[string]bundle.Entry{}
	for _, entry := range manifest.Pieces {
		found[entry.Path] = entry
	}
	return found
}

// talkative is a process that tells secrets wherever it can.
func talkative(t *testing.T, secrets ...string) string {
	t.Helper()
	all := strings.Join(secrets, " ")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/version":
			_ = json.NewEncoder(w).Encode(map[string]string{"version": all})
		case "/api/v1/status":
			_ = json.NewEncoder(w).Encode(map[string]any{"lanes": []any{}, "error": all})
		case "/api/v1/view":
			_ = json.NewEncoder(w).Encode(map[string]any{"view": map[string]any{"transactions": map[string]any{"failed": []any{map[string]any{"outcome": "aborted", "reason": "rebalance"}}}, "away": all}})
		case "/metrics":
			fmt.Fprintf(w, "# HELP x %s\nprocessor_lanes{phase=%q} 1\n", all, all)
		case "/readyz":
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintf(w, "[-]group failed: %s\n", all)
		default:
			http.Error(w, all, http.StatusTeapot)
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// vault is a yard whose configuration, brokers, ledger, log and process hold secrets and payloads everywhere.
type vault struct {
	*yard
	ledger  *fakeLedger
	process string
	log     string
	planted []string
}

func newVault(t *testing.T, database bool) *vault {
	t.Helper()
	v := &vault{yard: newYard(t), planted: []string{
		"plant-dsn-password", "plant-admin-token", "plant-header-value", "plant-header-file", "plant-signing-key", "plant-url-key", "plant \"quoted\" <one>",
		"plant-body", "plant-order-key", "plant-business-key", "plant-answer", "plant-value", "plant-record-key", "plant-elsewhere",
	}}
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	v.config = write("config.yaml", string(readFile(t, v.config))+fmt.Sprintf(`endpoints:
  payments:
    url: "https://pay.example/charges?key=plant-url-key"
    headers: {X-Key: plant-header-value, X-Odd: 'plant "quoted" <one>'}
    header_files: {Authorization: %q}
    secret_files: [%q]
admin: {token_file: %q}
`, write("header", "plant-header-file\n"), write("signing", "plant-signing-key"), write("token", "plant-admin-token\n")))
	known := v.planted[1:7] // to the configuration
	if database {
		known = v.planted[:7]
		if err := os.WriteFile(v.config, append(readFile(t, v.config), `postgres: {dsn: "postgres://anna:plant-dsn-password@db.example/pawl"}`...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v.log = write("pawl-0.log", fmt.Sprintf("{\"msg\":\"first\",\"err\":%q,\"url\":\"amqp://u:plant-elsewhere@h\"}\n{\"msg\":\"plain\",\"lane\":3}\n", strings.Join(known, " ")))
	v.process = talkative(t, known...)

	source := message.Source{Application: "yard", Topic: "logs", Offset: 1}
	dead := ledger.Effect{
		State: ledger.Dead, Error: "422 plant-answer",
		Intent: outbox.Intent{
			ID: source.ID(0), Source: source, Endpoint: "payments", Key: []byte("plant-order-key"), BusinessKey: "plant-business-key", Body: []byte("plant-body"),
		},
		Outcome: &outbox.Outcome{Response: &outbox.Response{Body: []byte("plant-answer")}},
	}
	v.ledger = &fakeLedger{effects: []ledger.Effect{dead}, audit: []outbox.Audit{{
		Order: outbox.Order{Number: 7, Action: outbox.RetryNow, Reason: "plant-header-file was wrong"}, Actor: "anna plant-dsn-password",
	}}}
	v.fit()
	for range 3 {
		record := &kgo.Record{Topic: "logs", Key: []byte("plant-record-key"), Value: []byte("plant-value"), Headers: []kgo.RecordHeader{{Key: "x", Value: []byte("plant-value")}}}
		if err := v.client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func (v *vault) bundle(args ...string) (ran, string) {
	v.t.Helper()
	file := filepath.Join(v.t.TempDir(), "bundle.tar.gz")
	var stdout, stderr strings.Builder
	c := newCLI(strings.NewReader(""), &stdout, &stderr, nil)
	c.openLedger = func(context.Context, app.Config) (effectLedger, error) { v.ledger.closed--; return v.ledger, nil }
	code := c.execute(v.t.Context(), append([]string{"bundle", "-c", v.config, "--admin", v.process, "--log", v.log, "--file", file}, args...))
	if v.ledger.closed != 0 {
		v.t.Error("the ledger was not closed")
	}
	return ran{code, stdout.String(), stderr.String()}, file
}

func TestBundleHoldsTheFactsAndNoSecret(t *testing.T) {
	t.Parallel()
	v := newVault(t, true)
	v.transaction("yard.one.0")
	got, file := v.bundle("--set", "routes.0.config.output=planks")
	// The process answers /livez with an odd status, and the fake cluster may lack something: 3 is right, the files tell.
	if got.code != exitFindings || got.stdout != file+"\n" {
		t.Errorf("%+v", got)
	}
	files, manifest := readBundle(t, file)
	at := bundle.Folder("instances", v.process, "")
	for path, want := range map[string]string{
		"version.json":            `"version"`,
		"config/config.yaml":      "dsn: \"***\"",
		"config/settings.json":    `"path": "postgres.dsn"`,
		"config/problems.json":    "a secret stands in the file",
		at + "/version.json":      `"version": "***`,
		at + "/status.json":       `"lanes":[]`,
		at + "/view.json":         `"failed":[{"outcome":"aborted","reason":"rebalance"}]`,
		at + "/metrics.txt":       "processor_lanes{",
		at + "/readyz.txt":        "[-]group failed: ***",
		"kafka/lag.json":          `"lag": 3`,
		"kafka/transactions.json": "yard.one.0",
		"kafka/preflight.json":    `"check"`,
		"kafka/audit.json":        "[]",
		"ledger/effects.json":     `"endpoint": "payments"`,
		"ledger/audit.json":       `"reason": "*** was wrong"`,
		"ledger/schema.json":      "{",
		"log/1-pawl-0.log":        `{"msg":"plain","lane":3}`,
	} {
		if !strings.Contains(strings.ReplaceAll(files[path], `": `, `":`), strings.ReplaceAll(want, `": `, `":`)) {
			t.Errorf("%s lacks %q:\n%s", path, want, files[path])
		}
	}
	wantNoSecret(t, v, got, files)
	told := entries(manifest)
	if entry := told[at+"/livez.txt"]; entry.State != bundle.Failed || !strings.Contains(entry.Why, "says 418") {
		t.Errorf("livez: %+v", entry)
	}
	if entry := told["verify/report.json"]; entry.State != bundle.Skipped || entry.Why != "not asked for: give --verify" {
		t.Errorf("verify: %+v", entry)
	}
	if !strings.Contains(got.stderr, "collected  kafka/lag.json (") || !strings.Contains(got.stderr, "manifest.json in it says which and why") {
		t.Errorf("progress:\n%s", got.stderr)
	}
	if manifest.Application != "yard" || len(manifest.Notes) != 0 {
		t.Errorf("manifest %+v", manifest)
	}
}

// wantNoSecret looks for every plant in what was written and said, and makes sure that the plants were met at all.
func wantNoSecret(t *testing.T, v *vault, got ran, files map[string]string) {
	t.Helper()
	hidden := 0
	for name, text := range files {
		hidden += strings.Count(text, "***")
		if strings.Contains(text, "plant-") || strings.Contains(text, `plant \"`) {
			t.Errorf("%s holds a secret or a payload:\n%s", name, text)
		}
	}
	for _, plant := range v.planted {
		if strings.Contains(got.stdout+got.stderr, plant) {
			t.Errorf("%q was printed", plant)
		}
	}
	if hidden < 20 {
		t.Errorf("only %d secrets were met: the plants are in the wrong places", hidden)
	}
}

// Whoever opens an archive asks the document what is where.
func TestDocumentTellsWhatABundleHolds(t *testing.T) {
	t.Parallel()
	b := &bundler{cli: newCLI(strings.NewReader(""), io.Discard, io.Discard, nil), flags: &bundleFlags{logs: []string{"pawl-0.log"}}}
	processes, err := instances([]string{"10.0.0.7:9090"}, "")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"manifest.json"}
	for _, piece := range b.pieces(t.Context(), processes, nil) {
		path := piece.Path
		if parts := strings.Split(path, "/"); parts[0] == "instances" || parts[0] == "log" {
			parts[1] = "*" // the name of the process or of the file
			path = strings.Join(parts, "/")
		}
		want = append(want, path)
	}
	_, section, _ := strings.Cut(string(readFile(t, filepath.Join(root, "docs", "operating.md"))), "\n## After an incident\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var got []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| [^|]+ \\|$").FindAllStringSubmatch(section, -1) {
		got = append(got, row[1])
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the table below After an incident of docs/operating.md does not list what a bundle holds (-bundle +table):\n%s", diff)
	}
}

// A verdict names records by their place and says nothing of what is in them.
func TestBundleVerifiesATimeRange(t *testing.T) {
	t.Parallel()
	v := newVault(t, false) // the fake ledger is none that verify could read
	v.commit(0, 3, "")
	got, file := v.bundle("--verify", "--since", "1h")
	files, manifest := readBundle(t, file)
	entry := entries(manifest)["verify/report.json"]
	if entry.State != bundle.Collected || entry.Finding == "" || got.code != exitFindings {
		t.Errorf("three inputs are committed and led to nothing: %+v\n%s", entry, got.stderr)
	}
	var report struct {
		Clean    bool
		Findings []struct{ Verdict, Story string }
	}
	if err := json.Unmarshal([]byte(files["verify/report.json"]), &report); err != nil || report.Clean || len(report.Findings) == 0 {
		t.Errorf("report %+v, %v", report, err)
	}
	if !strings.Contains(files["verify/report.txt"], "NOT PROVEN") {
		t.Errorf("report:\n%s", files["verify/report.txt"])
	}
	if entry := entries(manifest)["ledger/audit.json"]; entry.State != bundle.Skipped || !strings.Contains(entry.Why, "no effect ledger is configured") {
		t.Errorf("audit: %+v", entry)
	}
	wantNoSecret(t, v, got, files)
}

// In an incident much is away. What is there is collected all the same.
func TestBundleIsMadeWhateverIsAway(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	got := invoke(t, nil, "bundle", "--admin", gone.URL, "--log", file+".log", "--file", file, "--set", "txn.lanes=100", "--set", "log.level=loud", "-o", "json")
	if got.code != exitFindings {
		t.Errorf("%+v", got)
	}
	var printed bundled
	if err := json.Unmarshal([]byte(got.stdout), &printed); err != nil || printed.File != file || len(printed.Pieces) == 0 {
		t.Errorf("printed %s: %v", got.stdout, err)
	}
	files, manifest := readBundle(t, file)
	told := entries(manifest)
	for path, why := range map[string]string{
		bundle.Folder("instances", strings.TrimPrefix(gone.URL, "http://"), "metrics.txt"): "refused",
		"kafka/lag.json":          "the configuration has problems: see config/problems.json",
		"log/1-bundle.tar.gz.log": "no such file",
		"kafka/transactions.json": "the configuration has problems",
	} {
		if entry := told[path]; entry.State != bundle.Failed || !strings.Contains(entry.Why, why) {
			t.Errorf("%s: %+v, want %q", path, entry, why)
		}
	}
	if !strings.Contains(files["config/problems.json"], `"path": "txn.lanes"`) || !strings.Contains(files["config/config.yaml"], "lanes: 100") {
		t.Errorf("problems:\n%s\n%s", files["config/problems.json"], files["config/config.yaml"])
	}
	if len(manifest.Notes) != 1 || !strings.Contains(manifest.Notes[0], "the configuration has problems") {
		t.Errorf("notes %v", manifest.Notes)
	}
}

func TestBundleRefusesWhatItCannotMean(t *testing.T) {
	t.Parallel()
	file := tokenFile(t, "there already")
	for name, test := range map[string]struct {
		args []string
		said string
	}{
		"no time":        {[]string{"--since", "soon"}, "--since"},
		"empty time":     {[]string{"--since", ""}, "--since is empty"},
		"no timeout":     {[]string{"--timeout", "1ms"}, "--timeout is 1ms, want 1s..24h"},
		"too large":      {[]string{"--size", "5000"}, "--size is 5000"},
		"no address":     {[]string{"--admin", "localhost"}, `--admin is "localhost", want host:port or a URL`},
		"other scheme":   {[]string{"--admin", "ftp://a:1"}, "--admin is"},
		"file is there":  {[]string{"--file", file}, "is there already: name another with --file"},
		"no such folder": {[]string{"--file", file + "/x/y"}, "--file: "},
		"argument":       {[]string{"x"}, "unknown command"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := invoke(t, nil, append([]string{"bundle"}, test.args...)...)
			if got.code != exitUsage || !strings.Contains(got.stderr, test.said) {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestInstancesAreNamedOnce(t *testing.T) {
	t.Parallel()
	found, err := instances([]string{"10.0.0.7:9090", "https://pawl-1.pawl:9090", "http://10.0.0.7:9090", "[::1]:80"}, "")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, one := range found {
		names = append(names, one.base.String())
	}
	if got := strings.Join(names, " "); got != "http://10.0.0.7:9090 https://pawl-1.pawl:9090 http://[::1]:80" {
		t.Errorf("found %s", got)
	}
	if found, err := instances(nil, ":9090"); err != nil || len(found) != 1 || found[0].name() != "127.0.0.1:9090" {
		t.Errorf("%v, %v", found, err)
	}
}

// A secret that the cut goes through would not be recognised.
func TestEndOfALogBeginsWithALine(t *testing.T) {
	t.Parallel()
	file := tokenFile(t, "a secret-that-is-cut b\nsecond\nthird\n")
	for limit, want := range map[int64]string{1000: "a secret-that-is-cut b\nsecond\nthird\n", 20: "second\nthird\n", 8: "third\n", 3: "", 0: ""} {
		if got, err := readEnd(file, limit); err != nil || string(got) != want {
			t.Errorf("%d bytes: %q, %v, want %q", limit, got, err, want)
		}
	}
	if _, err := readEnd(filepath.Dir(file), 10); err == nil || !strings.Contains(err.Error(), "no plain file") {
		t.Errorf("error %v", err)
	}
}
