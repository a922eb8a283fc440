package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// ran is what a command line left behind.
type ran struct {
	code           int
	stdout, stderr string
}

// invoke runs one command line in-process, without a terminal and with nothing but the given
// environment.
func invoke(t *testing.T, env []string, args ...string) ran {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := newCLI(strings.NewReader(""), &stdout, &stderr, env).execute(t.Context(), args)
	return ran{code, stdout.String(), stderr.String()}
}

func TestFrameMapsErrorsToExitCodes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args   []string
		err    error
		code   int
		stderr string // a part of it; empty means that nothing is printed
	}{
		"success":               {args: []string{"probe"}},
		"runtime error":         {args: []string{"probe"}, err: errors.New("dial: refused"), code: 1, stderr: "error: dial: refused\n"},
		"usage error":           {args: []string{"probe"}, err: usage(errors.New("bad")), code: 2, stderr: "error: bad\n"},
		"wrapped usage error":   {args: []string{"probe"}, err: fmt.Errorf("lag: %w", usage(errors.New("bad"))), code: 2, stderr: "error: lag: bad\n"},
		"findings":              {args: []string{"probe"}, err: findings(), code: 3},
		"cancelled":             {args: []string{"probe"}, err: context.Canceled, code: 1, stderr: "context canceled"},
		"unknown command":       {args: []string{"prob"}, code: 2, stderr: "Did you mean this?\n\tprobe"},
		"unknown flag":          {args: []string{"probe", "--nope"}, code: 2, stderr: "Run 'processor probe --help' for usage."},
		"unexpected argument":   {args: []string{"probe", "x"}, code: 2, stderr: `unknown command "x"`},
		"unknown format":        {args: []string{"probe", "-o", "xml"}, code: 2, stderr: `-o is "xml", want table or json`},
		"missing required flag": {args: []string{"demand"}, code: 2, stderr: `required flag(s) "must" not set`},
		"excluding flags":       {args: []string{"probe", "--yes", "--dry-run"}, code: 2, stderr: "[dry-run yes]"},
		"group alone":           {args: []string{"group"}},
		"group, unknown member": {args: []string{"group", "membr"}, code: 2, stderr: `unknown command "membr" for "processor group", did you mean member?`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			c := newCLI(strings.NewReader(""), &stdout, &stderr, nil)
			root := c.newRootCommand()
			probe := &cobra.Command{Use: "probe", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return test.err }}
			c.addChangeFlags(probe)
			demand := &cobra.Command{Use: "demand", RunE: probe.RunE}
			demand.Flags().Bool("must", false, "")
			if err := demand.MarkFlagRequired("must"); err != nil {
				t.Fatal(err)
			}
			root.AddCommand(probe, demand, newGroup("group", "", "", &cobra.Command{Use: "member", RunE: probe.RunE}))

			if code := c.executeRoot(t.Context(), root, test.args); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if got := stderr.String(); !strings.Contains(got, test.stderr) || test.stderr == "" && got != "" {
				t.Errorf("stderr %q, want %q in it", got, test.stderr)
			}
		})
	}
}

// An operator who reads --help finds an example to copy, and every flag says what it is for.
func TestEveryCommandHasExamplesAndHelp(t *testing.T) {
	t.Parallel()
	c := newCLI(nil, nil, nil, nil)
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Short == "" || !strings.Contains(cmd.Example, "processor ") {
			t.Errorf("%s: no short help or no example", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(c.newRootCommand())
}

func TestRenderPrintsTableOrJSON(t *testing.T) {
	t.Parallel()
	type row struct {
		Topic string `json:"topic"`
		Lag   int    `json:"lag"`
	}
	rows := []row{{"orders<1>", 12}, {"é", 3}}
	cells := table{
		header: []string{"TOPIC", "LAG", "STATE"},
		rows:   [][]string{{"orders<1>", "\x1b[31m12\x1b[0m", "x"}, {"é", "3", "y"}},
	}
	for _, test := range []struct {
		output, want string
		cells        table
		stderr       string
	}{
		{output: outputTable, cells: cells, want: "TOPIC      LAG  STATE\norders<1>   \x1b[31m12\x1b[0m  x\né            3  y\n"},
		{
			output: outputTable,
			cells:  table{header: []string{"TOPIC", "AT", "LAG", "KEY", "NOTE"}, rows: [][]string{{"a", "-", "1200", "null", ""}, {"b", "7", "-", "12", "7"}, {"", "", "5", "", "x"}}},
			want:   "TOPIC  AT   LAG   KEY  NOTE\na       -  1200  null\nb       7     -    12  7\n              5        x\n",
		},
		{output: outputTable, cells: table{rows: [][]string{{"letters", "12"}, {"markers", "3"}, {"none", ""}}}, want: "letters  12\nmarkers  3\nnone\n"},
		{output: outputTable, cells: table{header: cells.header, empty: "no lag"}, stderr: "no lag\n"},
		{output: outputJSON, cells: cells, want: "[\n  {\n    \"topic\": \"orders<1>\",\n    \"lag\": 12\n  },\n  {\n    \"topic\": \"é\",\n    \"lag\": 3\n  }\n]\n"},
	} {
		var stdout, stderr bytes.Buffer
		c := newCLI(nil, &stdout, &stderr, nil)
		c.output = test.output
		if err := c.render(rows, test.cells); err != nil {
			t.Fatal(err)
		}
		if stdout.String() != test.want || stderr.String() != test.stderr {
			t.Errorf("-o %s: got %q and %q, want %q and %q", test.output, stdout.String(), stderr.String(), test.want, test.stderr)
		}
	}
}

func TestConfirmNeedsAPersonOrYes(t *testing.T) {
	t.Parallel()
	c := newCLI(strings.NewReader("y\n"), nil, nil, nil)
	var exit *exitError
	if err := c.confirm("apply"); !errors.As(err, &exit) || exit.code != exitUsage {
		t.Errorf("confirm without a terminal: %v, want a usage error", err)
	}
	c.yes = true
	if err := c.confirm("apply"); err != nil {
		t.Errorf("confirm with --yes: %v", err)
	}
}

func TestVersionSpeaksJSON(t *testing.T) {
	t.Parallel()
	got := invoke(t, nil, "version", "-o", "json")
	if got.code != 0 || !strings.Contains(got.stdout, `"go": "go1.`) {
		t.Errorf("got %+v", got)
	}
}
