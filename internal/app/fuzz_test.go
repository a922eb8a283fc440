package app

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Whatever the file, a variable and --set say: no panic, every problem of the file at a place in
// the file, and what loads prints to a file that loads to the same.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/problems/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, example) {
		if strings.Contains(file, "alias_bomb") {
			continue // its variants would take all the time
		}
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, "PROCESSOR_TXN_LANES=2", "txn.timeout=40s")
	}
	f.Add([]byte(minimal), "PROCESSOR_OUTPUTS={out: {topic: a}}", "routes.0.config={output: out}")
	f.Add([]byte(minimal), "PROCESSOR_OUTPUTS_OUT_SETTINGS_A_B=1", "outputs.out.settings.a.b=2")
	f.Add([]byte("application: a\nroutes: [{topics: [x], handler: copy, config: {output: out}}]\noutputs: {out: {topic: y, settings: {a: &a 1, b: *a}}}"), "", "routes.0.config.output.x=1")
	f.Fuzz(func(t *testing.T, text []byte, env, set string) {
		const name = "fuzz.yaml"
		opts := LoadOptions{File: name, Env: []string{env}, Set: []string{set}, Hostname: testHost}
		l := newLoader(name)
		conf, origins, err := l.finish(opts, l.readText(name, text))
		lines := len(origins.lines)
		problems, _ := err.(Problems) //nolint:errorlint // exactly this type is promised
		if err != nil && len(problems) == 0 {
			t.Fatalf("an error without a problem: %v", err)
		}
		for _, p := range append(problems, origins.Warnings()...) {
			at := p.Origin
			if at.Kind == FromDefault {
				t.Errorf("no place: %s", p)
			}
			if at.Kind == FromFile && (at.Line < 1 || at.Line > lines || at.Column < 1) {
				t.Errorf("not a place in %d lines: %s", lines, p)
			}
			if p.Text == "" || strings.Contains(p.String(), "\n") {
				t.Errorf("not one line: %q", p.String())
			}
		}
		var printed bytes.Buffer
		if printErr := origins.Print(&printed, conf); printErr != nil {
			t.Fatalf("print: %v", printErr)
		}
		origins.Settings(conf)
		if err != nil || !conf.Postgres.DSN.IsZero() {
			return
		}
		l = newLoader(name)
		again, _, err := l.finish(LoadOptions{File: name, Hostname: testHost}, l.readText(name, printed.Bytes()))
		if err != nil {
			t.Fatalf("what was printed does not load: %v\n%s", err, printed.String())
		}
		if diff := cmp.Diff(conf, again, equateEmpty, cmp.Comparer(func(a, b float64) bool { return a == b })); diff != "" {
			t.Errorf("printed and loaded (-want +got):\n%s", diff)
		}
	})
}
