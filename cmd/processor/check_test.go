package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

const shop = `application: shop
instance: one
routes: [{topics: [raw], handler: copy, config: {output: out}}]
outputs: {out: {topic: out, partitions: 1}}
effects: {lanes: 1}
`

func writeFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCheckSaysThatAllIsWell(t *testing.T) {
	t.Parallel()
	file := writeFile(t, shop)
	got := invoke(t, []string{"PROCESSOR_CONFIG=" + file, "PROCESSOR_TXN_LANE=1"}, "check")
	want := "warning: env PROCESSOR_TXN_LANE: no setting has this name, did you mean PROCESSOR_TXN_LANES?\n" +
		"ok  configuration  " + file + ": application shop, instance one, 1 route, 1 output\n"
	if got.code != exitOK || got.stdout != want || got.stderr != "" {
		t.Errorf("got %+v, want %q", got, want)
	}
}

func TestCheckReportsEveryProblemAndExitsTwo(t *testing.T) {
	t.Parallel()
	file := writeFile(t, shop+"txn: {lanes: x, records_max: -1}\n")
	got := invoke(t, []string{"PROCESSOR_LOG_LEVEL=loud"}, "check", "-c", file, "--set", "input.start=middle")
	want := strings.ReplaceAll(`FILE:6:14: txn.lanes: is "x", want a whole number
    6 | txn: {lanes: x, records_max: -1}
      |              ^
FILE:6:30: txn.records_max: is -1, want 0..100000
    6 | txn: {lanes: x, records_max: -1}
      |                              ^
env PROCESSOR_LOG_LEVEL: log.level: is "loud", want one of debug, info, warn, error
--set input.start: is "middle", want one of earliest, latest, fail
`, "FILE", file)
	if got.code != exitUsage || got.stdout != want {
		t.Errorf("got %d and\n%s\nwant 2 and\n%s", got.code, got.stdout, want)
	}
	if want := "error: 4 problems in the configuration (" + file + ")\n"; got.stderr != want {
		t.Errorf("stderr %q, want %q", got.stderr, want)
	}

	got = invoke(t, []string{"PROCESSOR_LOG_LEVEL=loud"}, "check", "-c", file, "--set", "input.start=middle", "-o", "json")
	var result checked
	if err := json.Unmarshal([]byte(got.stdout), &result); err != nil {
		t.Fatal(err)
	}
	if got.code != exitUsage || result.OK || len(result.Problems) != 4 {
		t.Fatalf("got %d and %+v", got.code, result)
	}
	if want := (problem{Severity: "error", File: file, Line: 6, Column: 30, Path: "txn.records_max", Problem: "is -1, want 0..100000"}); result.Problems[1] != want {
		t.Errorf("got %+v, want %+v", result.Problems[1], want)
	}
	if result.Problems[2].Env != "PROCESSOR_LOG_LEVEL" || result.Problems[3].Set != "input.start" {
		t.Errorf("got %+v", result.Problems)
	}
}

func TestCheckListsTheRightsThatTheServiceNeeds(t *testing.T) {
	t.Parallel()
	file := writeFile(t, shop)
	got := invoke(t, nil, "check", "--rights", "-c", file)
	for _, want := range []string{
		"raw: Read: records come from here", "kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:ANONYMOUS --operation Read --topic raw`",
		"shop.*: Write: each instance and lane has its own", "--transactional-id shop. --resource-pattern-type prefixed`",
	} {
		if got.code != exitOK || !strings.Contains(got.stdout, want) {
			t.Errorf("got %+v, want %q", got, want)
		}
	}
	got = invoke(t, nil, "check", "--rights", "-c", file, "-o", "json")
	var printed checked
	if err := json.Unmarshal([]byte(got.stdout), &printed); err != nil || len(printed.Rights) < 5 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestCheckWithoutAFileSaysHowToGiveOne(t *testing.T) {
	t.Parallel()
	got := invoke(t, nil, "check")
	if got.code != exitUsage || !strings.Contains(got.stderr, "(no file was given: use -c FILE or PROCESSOR_CONFIG)") || !strings.Contains(got.stdout, "application: must be given") {
		t.Errorf("got %+v", got)
	}
}

func TestCheckConnectHoldsTheConfigurationAgainstTheBrokers(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "raw", "out", "shop.effects"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	file := writeFile(t, shop+fmt.Sprintf("kafka: {brokers: [%q]}\n", cluster.ListenAddrs()[0]))
	got := invoke(t, nil, "check", "--connect", "-c", file)
	if got.code != exitFindings || !strings.Contains(got.stdout, "ok       configuration") ||
		!strings.Contains(got.stdout, "problem  topics") || !strings.Contains(got.stdout, "shop.dead-letter") || !strings.Contains(got.stdout, "-> run `processor topics apply`") {
		t.Errorf("got %+v, want the missing topics and what to run", got)
	}
	got = invoke(t, nil, "check", "--connect", "-c", file, "-o", "json")
	if got.code != exitFindings || !strings.Contains(got.stdout, `"ok": false`) || !strings.Contains(got.stdout, `"check": "topics"`) {
		t.Errorf("got %+v", got)
	}
}

func TestCommandsRefuseAConfigurationThatIsWrong(t *testing.T) {
	t.Parallel()
	file := writeFile(t, shop+"log: {level: loud}\n")
	got := invoke(t, nil, "run", "-c", file)
	if got.code != exitUsage || !strings.HasPrefix(got.stderr, file+":6:14: log.level: is \"loud\"") || !strings.HasSuffix(got.stderr, "error: 1 problem in the configuration ("+file+")\n") {
		t.Errorf("got %+v", got)
	}
}

func TestConfigPrintShowsOriginsAlsoOfAWrongConfiguration(t *testing.T) {
	t.Parallel()
	file := writeFile(t, shop+"postgres: {dsn: \"postgres://me:hunter2@db/pawl\"}\n")
	got := invoke(t, []string{"PROCESSOR_TXN_LANES=2"}, "config", "print", "-c", file)
	for _, want := range []string{
		"application: shop # " + file + ":1\n",
		"  lanes: 2 # env PROCESSOR_TXN_LANES\n",
		"  records_max: 0 # default\n",
		"  dsn: \"***\" # " + file + ":6\n",
	} {
		if got.code != exitOK || !strings.Contains(got.stdout, want) {
			t.Errorf("exit code %d, no %q in\n%s", got.code, want, got.stdout)
		}
	}
	got = invoke(t, nil, "config", "print", "-c", file, "-o", "json", "--set", "txn.lanes=-1")
	if got.code != exitUsage || !strings.Contains(got.stdout, `"value": -1,`+"\n"+`    "origin": "--set"`) || !strings.HasPrefix(got.stderr, "--set txn.lanes: is -1, want 0..64\n") {
		t.Errorf("got %+v", got)
	}
	if strings.Contains(got.stdout+got.stderr, "hunter2") {
		t.Errorf("the secret is printed: %+v", got)
	}
}

func TestCompletionKnowsCommandsFormatsAndSettings(t *testing.T) {
	t.Parallel()
	file := writeFile(t, shop+"endpoints: {payments: {url: \"https://pay.example\"}}\n")
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"comp"}, []string{"completion\tPrint"}},
		{[]string{"completion", ""}, []string{"bash\n", "zsh\n", "fish\n", "powershell\n"}},
		{[]string{"check", "-o", ""}, []string{"table\n", "json\n"}},
		{[]string{"check", "-c", file, "--set", "outputs."}, []string{"outputs.out.topic=\n", "outputs.out.partitions=\n"}},
		{[]string{"dlq", "ls", "-c", file, "--topic", ""}, []string{"raw\n"}},
		{[]string{"offsets", "set", "-c", file, "--topic", ""}, []string{"raw\n"}},
		{[]string{"effects", "dead", "ls", "-c", file, "--endpoint", ""}, []string{"payments\n"}},
	} {
		got := invoke(t, nil, append([]string{"__complete"}, test.args...)...)
		for _, want := range test.want {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("%v: no %q in %q", test.args, want, got.stdout)
			}
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := invoke(t, nil, "completion", shell); got.code != exitOK || !strings.Contains(got.stdout, "processor") {
			t.Errorf("completion %s: %d, %d bytes", shell, got.code, len(got.stdout))
		}
	}
	if got := invoke(t, nil, "completion", "tcsh"); got.code != exitUsage {
		t.Errorf("completion tcsh: %+v", got)
	}
}

// What the environment says of tracing is configuration as well.
func TestCheckReportsWhatIsWrongWithTracing(t *testing.T) {
	t.Parallel()
	env := []string{"OTEL_TRACES_SAMPLER=often", "OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318/?token=hush"}
	got := invoke(t, env, "check", "-c", writeFile(t, shop))
	if got.code != exitUsage || !strings.Contains(got.stdout, "env OTEL_TRACES_SAMPLER: ") || !strings.Contains(got.stdout, "env OTEL_EXPORTER_OTLP_ENDPOINT: ") || strings.Contains(got.stdout, "hush") {
		t.Errorf("got %d and\n%s\n%s", got.code, got.stdout, got.stderr)
	}
}
