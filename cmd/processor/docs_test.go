package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/app"
	"pawl/internal/message"
	"pawl/internal/outbox/ledger"
)

const root = "../.." // of the repository, seen from this package

// elsewhere are the commands of the documents that no test of this package can run or understand, each with its reason. What follows " -- " in
// kubectl exec is a command of ours and looked at all the same.
var elsewhere = map[string]string{
	"kubectl":   "needs a cluster; the manifests and the chart are tested in deploy/helm",
	"helm":      "needs a cluster; the manifests and the chart are tested in deploy/helm",
	"docker":    "needs a Docker engine; Dockerfile, docker-compose.yml and the image of a release are tested in deploy/test",
	"podman":    "loads the image of a release, which deploy/test reads back",
	"skopeo":    "needs a registry; the image of a release is read back in deploy/test",
	"crane":     "needs a registry; the image of a release is read back in deploy/test",
	"curl":      "calls a process at an address of the reader's; the tests of internal/admin make the same request",
	"sha256sum": "checks a release; TestReleaseIsReproducible of deploy/test runs it",
	"cat":       "shows a file that another command has made",
}

// block is what a reader copies at once: indented by four spaces, or fenced as sh.
type block struct {
	file  string
	line  int
	lines []string
}

// A newcomer copies what stands in a document. Every line of it is one that our own programs understand, or its kind stands in the table above.
func TestDocumentsShowCommandsThatExist(t *testing.T) {
	t.Parallel()
	targets := makeTargets(t)
	seen, used := 0, map[string]bool{}
	for _, block := range blocks(t) {
		for _, line := range commands(block.lines) {
			seen++
			words, err := split(line)
			if err == nil {
				err = understand(words, targets, used)
			}
			if err != nil {
				t.Errorf("%s:%d: %s: %v", block.file, block.line, line, err)
			}
		}
	}
	if seen < 70 {
		t.Errorf("the documents have %d commands: they can't be read right", seen)
	}
	for name := range elsewhere {
		if !used[name] {
			t.Errorf("no document shows %s any more: take it out of the table", name)
		}
	}
}

// The check has to see mistakes, or it would agree with everything.
func TestCommandsThatDoNotExistAreSeen(t *testing.T) {
	t.Parallel()
	targets := makeTargets(t)
	for _, line := range []string{
		"processor lagg", "processor lag --nope", "processor lag here", "processor dlq", "processor effects retry 3:1042", "processor lag -o xml",
		"make nothing", "make sim NOPE=1", "terraform apply", "kubectl exec pawl-0 -- processor lagg", "cp deploy/nothing.yaml config.yaml",
		"go install ./internal/txn", "A=1", "processor lag 'x", "processor lag | sort",
	} {
		words, err := split(line)
		if err == nil {
			err = understand(words, targets, map[string]bool{})
		}
		if err == nil {
			t.Errorf("%s is taken for right", line)
		}
	}
}

// understand judges one command by its first word.
func understand(words []string, targets map[string]string, used map[string]bool) error {
	for len(words) > 0 && regexp.MustCompile(`^[A-Z_]+=`).MatchString(words[0]) {
		words = words[1:]
	}
	if len(words) == 0 {
		return errors.New("only variables and no command")
	}
	for _, word := range words {
		if err := findPath(word); err != nil {
			return err
		}
	}
	name, args := filepath.Base(words[0]), words[1:]
	switch name {
	case "processor":
		return parse(args)
	case "make":
		return checkMake(args, targets)
	case "go":
		if len(args) == 0 || args[0] != "test" && args[0] != "doc" {
			return errors.New("only go test and go doc are understood")
		}
		return nil
	case "cp", "cd", "git":
		return nil
	}
	if elsewhere[name] == "" {
		return fmt.Errorf("%s is neither understood nor in the table of what runs elsewhere", name)
	}
	used[name] = true
	if at := slices.Index(args, "--"); name == "kubectl" && at >= 0 {
		return understand(args[at+1:], targets, used)
	}
	return nil
}

// parse has the command line understood as far as cobra does before it runs: command, flags, number of arguments, and why.
func parse(args []string) error {
	c := newCLI(strings.NewReader(""), nil, nil, nil)
	cmd, rest, err := c.newRootCommand().Find(args)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	rest = cmd.Flags().Args()
	if cmd.HasSubCommands() && cmd.Args == nil { // made by newGroup
		return fmt.Errorf("%s needs one of its commands, not %q", cmd.CommandPath(), rest)
	}
	errs := []error{cmd.ValidateArgs(rest), c.checkFlags(cmd)}
	if cmd.PreRunE != nil {
		errs = append(errs, cmd.PreRunE(cmd, rest)) // see addReason
	}
	return errors.Join(errs...)
}

// checkMake: every target is there, and its recipe reads every variable.
func checkMake(args []string, targets map[string]string) error {
	var recipe strings.Builder
	for _, word := range args {
		if text, known := targets[word]; known {
			recipe.WriteString(text)
		} else if !strings.Contains(word, "=") {
			return fmt.Errorf("make has no target %s", word)
		}
	}
	for _, word := range args {
		if name, _, is := strings.Cut(word, "="); is && !strings.Contains(recipe.String(), "$("+name+")") {
			return fmt.Errorf("the recipe reads no variable %s", name)
		}
	}
	return nil
}

// findPath complains about a path into the repository that is not there.
func findPath(word string) error {
	clean := strings.TrimPrefix(strings.TrimSuffix(word, "/..."), "./")
	for _, folder := range []string{"deploy/", "docs/", "hack/", "internal/", "cmd/"} {
		if strings.HasPrefix(clean, folder) {
			if _, err := os.Stat(filepath.Join(root, clean)); err != nil {
				return fmt.Errorf("there is no %s in the repository", word)
			}
		}
	}
	return nil
}

// makeTargets maps each target of the Makefile to its first line and recipe.
func makeTargets(t *testing.T) map[string]string {
	t.Helper()
	targets := map[string]string{}
	name := ""
	for line := range strings.Lines(string(readFile(t, filepath.Join(root, "Makefile")))) {
		if match := regexp.MustCompile(`^([a-z-]+):`).FindStringSubmatch(line); match != nil {
			name = match[1]
		}
		targets[name] += line
	}
	delete(targets, "")
	return targets
}

// documents are the pages that a newcomer reads.
func documents(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(paths) < 10 {
		t.Fatalf("there are no documents: %v, %v", paths, err)
	}
	return append(paths, filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md"))
}

// blocks returns every block of commands. What is indented is one: anything else stands within fences that name its language.
func blocks(t *testing.T) (found []block) {
	t.Helper()
	for _, path := range documents(t) {
		before, fence, open := "", "", false // open: the last block goes on
		for i, line := range strings.Split(string(readFile(t, path)), "\n") {
			text, indented := strings.CutPrefix(line, "    ")
			if language, is := strings.CutPrefix(line, "```"); is {
				if fence == "" && language == "" {
					t.Errorf("%s:%d: a fence names its language", path, i+1)
				}
				if fence != "" {
					language = ""
				}
				fence, open = language, false
				before = line
				continue
			}
			shell := slices.Contains([]string{"sh", "bash", "console"}, fence)
			if text = strings.TrimPrefix(text, "$ "); shell && text != "" || fence == "" && indented && (open || before == "") {
				if !open {
					found = append(found, block{file: filepath.Base(path), line: i + 1})
				}
				last := &found[len(found)-1]
				last.lines, open = append(last.lines, text), true
			} else if fence == "" || text == "" {
				open = shell && open
			}
			before = line
		}
	}
	return found
}

// commands joins lines that end with a backslash.
func commands(lines []string) []string {
	return strings.Split(strings.ReplaceAll(strings.Join(lines, "\n"), "\\\n", " "), "\n")
}

// split takes a line apart as a shell does, as far as the documents need it: quotes, and comments at the end.
func split(line string) (words []string, err error) {
	word, inside, quote := "", false, rune(0)
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word += string(r)
		case r == '\'' || r == '"':
			quote, inside = r, true
		case r == '#' && !inside:
			return words, nil
		case strings.ContainsRune("|;&<>`", r):
			return nil, fmt.Errorf("%q is more than this test understands of a shell: one command a line", r)
		case r == ' ' || r == '\t':
			if inside {
				words, word, inside = append(words, word), "", false
			}
		default:
			word, inside = word+string(r), true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if inside {
		words = append(words, word)
	}
	return words, nil
}

// notRun are the commands of ours that TestCommandsOfTheDocumentsRun only parses, each with its reason. A flag behind the name: only with that flag.
var notRun = map[string]string{
	"run":             "does not end; internal/e2e runs it",
	"dev":             "does not end; internal/dev runs it",
	"verify --follow": "does not end; verify_integration_test.go runs it",
	"drain":           "ends the process that it is sent to; operations_test.go",
	"bench":           "takes minutes with what the documents ask for; bench_test.go runs less",
	"top":             "looks at processes by addresses of the reader's; top_test.go",
	"bundle":          "asks processes at addresses of the reader's; bundle_test.go",
	"check --connect": "the embedded broker does not tell of rights; internal/e2e asks a real one",
}

// Everything else that the documents tell an operator to run does what they say, as it stands, on the configuration that README.md shows: topics made,
// records in, dead letters and a dead effect.
func TestCommandsOfTheDocumentsRun(t *testing.T) {
	t.Parallel()
	config := regexp.MustCompile("(?s)```yaml\n(application: orders.*?)```").FindSubmatch(readFile(t, filepath.Join(root, "README.md")))
	if config == nil {
		t.Fatal("README.md shows no configuration")
	}
	run, used := 0, map[string]bool{}
	for _, block := range blocks(t) {
		for _, line := range commands(block.lines) {
			words, err := split(line)
			if at := slices.Index(words, "--"); at >= 0 && len(words) > 0 && words[0] == "kubectl" {
				words = words[at+1:]
			}
			if err != nil || len(words) == 0 || filepath.Base(words[0]) != "processor" {
				continue // the other test judges it
			}
			if name := listed(t, words[1:]); name != "" {
				used[name] = true
				continue
			}
			run++
			t.Run(strings.Join(words[1:], " "), func(t *testing.T) {
				t.Parallel()
				o := newOrders(t, string(config[1]))
				if words[1] == "resume" { // what has been paused
					o.run(append([]string{"pause"}, words[2:]...))
				}
				if got := o.run(words[1:]); got.code != exitOK {
					t.Errorf("%s:%d: exit code %d: %s%s", block.file, block.line, got.code, got.stdout, got.stderr)
				}
			})
		}
	}
	if run < 30 {
		t.Errorf("%d commands were run: they can't be read right", run)
	}
	for name := range notRun {
		if !used[name] {
			t.Errorf("no document shows processor %s any more: take it out of the table", name)
		}
	}
}

// listed returns the entry of notRun that a command line falls under.
func listed(t *testing.T, args []string) string {
	t.Helper()
	cmd, rest, err := newCLI(nil, nil, nil, nil).newRootCommand().Find(args)
	if err != nil {
		t.Fatal(err)
	}
	for name := range notRun {
		path, flag, _ := strings.Cut(name, " --")
		if cmd.CommandPath() == "processor "+path && (flag == "" || cmd.ParseFlags(rest) == nil && cmd.Flags().Changed(flag)) {
			return name
		}
	}
	return ""
}

// orders is the application of README.md on an embedded broker, with a ledger in memory.
type orders struct {
	t      *testing.T
	config string
	office *office
}

func newOrders(t *testing.T, config string) *orders {
	t.Helper()
	const partitions = 12
	y := newYard(t, kfake.SeedTopics(partitions, "orders"))
	config = strings.NewReplacer("localhost:9092", y.cluster.ListenAddrs()[0], "/run/secrets/ledger-dsn", writeFile(t, "postgres://127.0.0.1:1/pawl")).Replace(config)
	o := &orders{t: t, config: writeFile(t, config), office: newOffice(t)}
	o.office.config = o.config
	o.office.ledger.effects = append(o.office.ledger.effects, effect(3, 1042, ledger.Dead))
	if got := o.run([]string{"topics", "apply", "--yes", "-c", "config.yaml"}); got.code != exitOK {
		t.Fatalf("topics apply: %+v", got)
	}
	topics, err := y.admin.ListTopics(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	id := topics["orders"].ID
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond) // a dead letter has the time of its input
	for i := range int64(50) {                                    // the documents look at record 42
		source := message.Source{Application: "orders", Topic: "orders", TopicID: id, Partition: 3, Offset: i}
		letter := &kgo.Record{Topic: "orders.dead-letter", Value: []byte("{"), Timestamp: at, Headers: []kgo.RecordHeader{
			{Key: message.HeaderSource, Value: []byte(source.String())},
			{Key: message.HeaderID, Value: []byte(source.ID(-1).String())},
			{Key: message.HeaderHandler, Value: []byte("orders")},
			{Key: message.HeaderReason, Value: []byte("bad_json")},
			{Key: message.HeaderError, Value: []byte("cut off")},
		}}
		if err := y.client.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: 3, Value: []byte("{"), Timestamp: at}, letter).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: "orders", Partition: 3, At: 50, LeaderEpoch: -1, Metadata: "pawl1 topic=" + hex.EncodeToString(id[:])})
	if err := y.admin.CommitAllOffsets(t.Context(), "orders", offsets); err != nil {
		t.Fatal(err)
	}
	return o
}

// run runs a command as it stands in a document. Who answers questions is not there: --yes does.
func (o *orders) run(args []string) ran {
	o.t.Helper()
	args = slices.Clone(args)
	if cmd, rest, err := newCLI(nil, nil, nil, nil).newRootCommand().Find(args); err == nil && cmd.Flags().Lookup("yes") != nil &&
		cmd.ParseFlags(rest) == nil && !cmd.Flags().Changed("dry-run") && !cmd.Flags().Changed("yes") {
		args = append(args, "--yes")
	}
	if args[0] == "verify" {
		args = append(args, "--no-ledger") // it reads a real one, and verify_integration_test.go has that
	}
	if at := slices.Index(args, "config.yaml"); at >= 0 {
		args[at] = o.config
	}
	var stdout, stderr bytes.Buffer
	c := newCLI(strings.NewReader(""), &stdout, &stderr, []string{"USER=anna", envConfig + "=" + o.config})
	c.openLedger = func(context.Context, app.Config) (effectLedger, error) { return o.office.ledger, nil }
	return ran{c.execute(o.t.Context(), args), stdout.String(), stderr.String()}
}
