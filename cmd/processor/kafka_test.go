package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/app"
	"pawl/internal/kafka"
	"pawl/internal/pause"
	"pawl/internal/testkit"
	"pawl/internal/testkit/golden"
)

// yard is a fake cluster and the configuration of an application named yard on it, for the commands
// that look at brokers.
type yard struct {
	t       *testing.T
	cluster *kfake.Cluster
	client  *kgo.Client
	admin   *kadm.Client
	config  string
}

func newYard(t *testing.T, opts ...kfake.Opt) *yard {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	config := filepath.Join(t.TempDir(), "config.yaml")
	text := fmt.Sprintf(`application: yard
instance: one
kafka: {brokers: [%q]}
routes: [{topics: [logs], handler: copy, config: {output: planks}}]
outputs: {planks: {topic: yard.planks, partitions: 2, settings: {compression.type: zstd}}}
effects: {lanes: 3}
`, cluster.ListenAddrs()[0])
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return &yard{t: t, cluster: cluster, client: client, admin: kadm.NewClient(client), config: config}
}

func (y *yard) run(args ...string) ran {
	y.t.Helper()
	got := invoke(y.t, nil, append(args, "-c", y.config)...)
	got.stdout = y.steady(got.stdout)
	got.stderr = y.steady(got.stderr)
	return got
}

var (
	agePattern = regexp.MustCompile(`\b[0-9]+(\.[0-9]+)?(ms|s)\b`)
	gapPattern = regexp.MustCompile(`AGE +`)
	idPattern  = regexp.MustCompile(`(producer |"producer_id": |"topic_id": "|pawl1 topic=)[0-9a-f]+`)
	timeStamp  = regexp.MustCompile(`"(started|last_write|oldest)": "[^"]*"`)
	seconds    = regexp.MustCompile(`"seconds": [0-9.]+`)
)

// steady puts a word in the place of what differs between two runs.
func (y *yard) steady(text string) string {
	text = strings.ReplaceAll(text, y.cluster.ListenAddrs()[0], "BROKER")
	text = idPattern.ReplaceAllString(text, "${1}ID")
	text = timeStamp.ReplaceAllString(text, `"$1": "TIME"`)
	text = seconds.ReplaceAllString(text, `"seconds": AGE`)
	text = agePattern.ReplaceAllString(text, "AGE")
	return gapPattern.ReplaceAllString(text, "AGE ") // columns are as wide as what they hold
}

// want runs a command and compares exit code and output with a golden file.
func (y *yard) want(code int, file string, args ...string) {
	y.t.Helper()
	got := y.run(args...)
	if got.code != code {
		y.t.Errorf("%s: exit code %d, want %d", strings.Join(args, " "), got.code, code)
	}
	text := fmt.Sprintf("$ processor %s\n%s", strings.Join(args, " "), got.stdout)
	if got.stderr != "" {
		text += "--- stderr\n" + got.stderr
	}
	golden.Is(y.t, filepath.Join("testdata", file), text)
}

// fit makes all topics, with logs in two partitions.
func (y *yard) fit() {
	y.t.Helper()
	if got := y.run("topics", "apply", "--yes", "--create-inputs", "2"); got.code != 0 {
		y.t.Fatalf("topics apply: %+v", got)
	}
}

func (y *yard) write(n int) {
	y.t.Helper()
	for range n {
		record := &kgo.Record{Topic: "logs", Value: []byte("log"), Timestamp: time.Now().Add(-time.Second)}
		if err := y.client.ProduceSync(y.t.Context(), record).FirstErr(); err != nil {
			y.t.Fatal(err)
		}
	}
}

func (y *yard) commit(partition int32, at int64, metadata string) {
	y.t.Helper()
	offsets := make(kadm.Offsets)
	offsets.Add(kadm.Offset{Topic: "logs", Partition: partition, At: at, LeaderEpoch: -1, Metadata: metadata})
	if err := y.admin.CommitAllOffsets(y.t.Context(), "yard", offsets); err != nil {
		y.t.Fatal(err)
	}
}

// transaction opens one that writes into partition 0 of yard.planks.
func (y *yard) transaction(id string) *kgo.Client {
	y.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(y.cluster.ListenAddrs()...), kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		y.t.Fatal(err)
	}
	y.t.Cleanup(client.Close)
	if err := client.BeginTransaction(); err != nil {
		y.t.Fatal(err)
	}
	if err := client.ProduceSync(y.t.Context(), &kgo.Record{Topic: "yard.planks", Value: []byte("plank")}).FirstErr(); err != nil {
		y.t.Fatal(err)
	}
	return client
}

func TestTopicsPlanAndApply(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.want(3, "topics-plan-empty.txt", "topics", "plan")
	y.want(3, "topics-apply-dry-run.txt", "topics", "apply", "--dry-run")
	if got := y.run("topics", "apply"); got.code != exitUsage || !strings.Contains(got.stderr, "give --yes") {
		t.Errorf("apply without anybody to ask: %+v", got)
	}
	if names, err := y.admin.ListTopics(t.Context()); err != nil || len(names) != 0 {
		t.Fatalf("topics were made before anybody said yes: %v, %v", names.Names(), err)
	}
	y.want(0, "topics-apply.txt", "topics", "apply", "--yes", "--create-inputs", "2")
	y.want(0, "topics-plan-clean.txt", "topics", "plan")
	y.want(0, "topics-apply-again.txt", "topics", "apply", "--yes")

	gzip := "gzip"
	if _, err := y.admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "compression.type", Value: &gzip}}, "yard.planks"); err != nil {
		t.Fatal(err)
	}
	more := []string{"--set", "outputs.planks.partitions=4", "--set", "effects.lanes=6"}
	y.want(3, "topics-plan-drift.txt", append([]string{"topics", "plan"}, more...)...)
	y.want(3, "topics-plan-drift.json", append([]string{"topics", "plan", "-o", "json"}, more...)...)
	y.want(3, "topics-apply-grow.txt", append([]string{"topics", "apply", "--yes", "--grow"}, more...)...)
	if got := y.run("topics", "plan", "--create-inputs", "-1"); got.code != exitUsage {
		t.Errorf("negative partitions: %+v", got)
	}
}

// All that may be read is done, and more waits behind somebody's open transaction: that has an age too, and a reason.
func TestLagTellsWhatHoldsRecordsBack(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	report := newLagReport("yard", []kafka.PartitionLag{
		{Topic: "logs", Committed: 4, Stable: 4, End: 6, Lag: 2, Held: 2, Oldest: now.Add(-3 * time.Minute), OldestHeld: true},
		{Topic: "logs", Partition: 1, Committed: 4, Stable: 6, End: 6, Lag: 2, Oldest: now.Add(-time.Minute)},
	}, true, now)
	var text strings.Builder
	if err := newCLI(strings.NewReader(""), &text, &text, nil).lagTable(report, true, now).write(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"3m0s           held back by an open transaction, see processor txn ls --all\n", "1m0s\n"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("printed is\n%s\nwant in it: %s", text.String(), want)
		}
	}
	if report.Partitions[0].Reason == "" || report.Partitions[1].Reason != "" {
		t.Errorf("reasons are %q and %q", report.Partitions[0].Reason, report.Partitions[1].Reason)
	}
}

func TestLagCommand(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.want(exitRuntime, "lag-missing.txt", "lag")
	y.want(exitRuntime, "offsets-show-missing.txt", "offsets", "show")
	y.fit()
	y.write(5)
	y.commit(0, 3, "")
	y.want(0, "lag.txt", "lag")
	y.want(0, "lag-seconds.txt", "lag", "--seconds")
	y.want(0, "lag.json", "lag", "--seconds", "-o", "json")
	for most, code := range map[string]int{"1": exitFindings, "2": exitOK} {
		if got := y.run("lag", "--max", most); got.code != code {
			t.Errorf("--max %s: exit code %d, want %d", most, got.code, code)
		}
	}
	y.commit(0, 5, "")
	var report lagReport
	if err := json.Unmarshal([]byte(y.run("lag", "-o", "json").stdout), &report); err != nil || report.Lag != 0 {
		t.Errorf("all is committed, lag %d, %v", report.Lag, err)
	}
}

// A partition that nobody reads because somebody said so looks like an outage, unless it is told.
func TestLagTellsWhatIsPaused(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.fit()
	y.write(5)
	for _, order := range [][]string{
		{"pause", "input/logs", "--reason", "refill", "--yes"},
		{"pause", "input/logs/1", "--reason", "bad \x1b data", "--for", "2h", "--yes"},
	} {
		if got := y.run(order...); got.code != 0 {
			t.Fatalf("%v: %+v", order, got)
		}
	}
	got := y.run("lag")
	wide := regexp.MustCompile(`(?m)^logs +0 .* paused by input/logs \(.+: refill\): until it is resumed$`)
	narrow := regexp.MustCompile(`(?m)^logs +1 .* paused by input/logs/1 \(.+: bad \. data\): until [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}$`)
	if got.code != 0 || got.stderr != "" || !wide.MatchString(got.stdout) || !narrow.MatchString(got.stdout) {
		t.Errorf("%+v", got)
	}
	var report lagReport
	if err := json.Unmarshal([]byte(y.run("lag", "-o", "json").stdout), &report); err != nil || report.PausesError != "" || len(report.Partitions) != 2 {
		t.Fatalf("%+v, %v", report, err)
	}
	for i, want := range []pause.Target{"input/logs", "input/logs/1"} {
		if p := report.Partitions[i].Paused; p == nil || p.Target != want || p.Until.IsZero() != (i == 0) {
			t.Errorf("partition %d: paused is %+v, want %s", i, p, want)
		}
	}
	if got := y.run("resume", "input/logs", "--reason", "full", "--yes"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	if got := y.run("lag"); wide.MatchString(got.stdout) || !narrow.MatchString(got.stdout) {
		t.Errorf("what was resumed is still paused: %+v", got)
	}
}

// Who may see the lag need not be allowed to see what is paused.
func TestLagGoesOnWithoutKnowingWhatIsPaused(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]kmsg.Key{"no Read": kmsg.Fetch, "no Write": kmsg.Produce} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			y := newYard(t)
			y.fit()
			y.write(5)
			fault := y.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Topic: "yard.control", Err: kerr.TopicAuthorizationFailed, Count: -1})
			got := y.run("lag")
			if fault.Hits() == 0 {
				t.Error("nothing was refused")
			}
			if got.code != 0 || !strings.Contains(got.stdout, "total                               5     0\n") ||
				!strings.HasPrefix(got.stderr, "warning: what is paused is not known: ") || !strings.Contains(got.stderr, "TOPIC_AUTHORIZATION_FAILED") || strings.Count(got.stderr, "\n") != 1 {
				t.Errorf("%+v", got)
			}
			var report lagReport
			if err := json.Unmarshal([]byte(y.run("lag", "-o", "json").stdout), &report); err != nil || report.Lag != 5 || !strings.Contains(report.PausesError, "TOPIC_AUTHORIZATION_FAILED") {
				t.Errorf("%+v, %v", report, err)
			}
		})
	}
}

func TestLagReasonTellsAllThatHoldsAPartition(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	lag := partitionLag{Reason: "held back", Paused: &pause.Pause{Target: pause.AllInput, Actor: "anna", Reason: "refill", Expected: now.Add(-5 * time.Minute)}}
	if got, want := lag.why(now), "paused by input (anna: refill): until it is resumed, overdue by 5m0s; held back"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// join lets a member into the group of yard and returns when it reads, which takes a record in partition 0.
func (y *yard) join(name string, opts ...kgo.Opt) *kgo.Client {
	y.t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(y.cluster.ListenAddrs()...), kgo.ClientID(name), kgo.ConsumerGroup("yard"), kgo.ConsumeTopics("logs"), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
	}, opts...)...)
	if err != nil {
		y.t.Fatal(err)
	}
	y.t.Cleanup(client.Close)
	if fetches := client.PollFetches(y.t.Context()); fetches.Err() != nil || fetches.NumRecords() == 0 {
		y.t.Fatalf("%s read nothing: %v", name, fetches.Err())
	}
	return client
}

// owners gives that of each partition as the table shows it.
func (y *yard) owners() (shown []string) {
	y.t.Helper()
	var report lagReport
	if got := y.run("lag", "-o", "json"); json.Unmarshal([]byte(got.stdout), &report) != nil || got.stderr != "" {
		y.t.Fatalf("%+v", got)
	}
	for _, lag := range report.Partitions {
		shown = append(shown, lag.Owner.String())
	}
	return shown
}

func TestLagTellsWhoHasAPartition(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		opts  []kgo.Opt
		owner string
	}{
		"lane":     {[]kgo.Opt{kgo.InstanceID("yard.one.3")}, "one lane 3"},
		"stranger": {nil, "a.guest"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			y := newYard(t)
			y.fit()
			y.write(1)
			if got := y.owners(); !slices.Equal(got, []string{"", ""}) {
				t.Errorf("nobody is there, the owners are %q", got)
			}
			member := y.join("a.guest", test.opts...)
			testkit.WaitFor(t, time.Minute, "both partitions to have their owner", func() bool { return slices.Equal(y.owners(), []string{test.owner, test.owner}) })
			y.wantOwner(0, test.owner)
			y.wantOwner(1, test.owner)
			member.Close()
			if name == "stranger" { // a static member stays until its session times out
				testkit.WaitFor(t, time.Minute, "nobody to have a partition", func() bool { return slices.Equal(y.owners(), []string{"", ""}) })
			}
		})
	}
}

// wantOwner looks into the table.
func (y *yard) wantOwner(partition int, owner string) {
	y.t.Helper()
	row := regexp.MustCompile(fmt.Sprintf(`(?m)^logs +%d .* 0  %s$`, partition, owner))
	if got := y.run("lag"); got.code != 0 || !row.MatchString(got.stdout) {
		y.t.Errorf("no row %s in %+v", row, got)
	}
}

// Groups of the consumer protocol are described by another request. The fake's own answer to it has ids of topics and no names,
// which brokers give; so it is given here.
func TestLagTellsWhoHasAPartitionUnderTheConsumerProtocol(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.fit()
	var asked atomic.Int32
	y.cluster.ControlKey(int16(kmsg.ConsumerGroupDescribe), func(ask kmsg.Request) (kmsg.Response, error, bool) {
		y.cluster.KeepControl()
		asked.Add(1)
		group := kmsg.NewConsumerGroupDescribeResponseGroup()
		group.Group, group.State = "yard", "Stable"
		for partition, instance := range []string{"yard.one.0", "yard.two.1"} {
			member := kmsg.NewConsumerGroupDescribeResponseGroupMember()
			assigned, target := kmsg.NewAssignmentTopicPartition(), kmsg.NewAssignmentTopicPartition()
			assigned.Topic, assigned.Partitions = "logs", []int32{int32(partition)}
			target.Topic, target.Partitions = "logs", []int32{int32(1 - partition)} // what it is to have, and has not yet
			member.InstanceID, member.MemberID = &instance, instance
			member.Assignment.TopicPartitions, member.TargetAssignment.TopicPartitions = []kmsg.AssignmentTopicPartition{assigned}, []kmsg.AssignmentTopicPartition{target}
			group.Members = append(group.Members, member)
		}
		answer := ask.ResponseKind().(*kmsg.ConsumerGroupDescribeResponse)
		answer.Groups = append(answer.Groups, group)
		return answer, nil, true
	})
	if got := y.owners(); !slices.Equal(got, []string{"one lane 0", "two lane 1"}) || asked.Load() == 0 {
		t.Errorf("the owners are %q, asked %d times", got, asked.Load())
	}
}

func TestOwnerIsReadFromTheNameOfTheMember(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		member kafka.Member
		want   string
	}{
		{kafka.Member{Instance: "big.yard.one.12"}, "one lane 12"},
		{kafka.Member{Instance: "big.yard.one.x", Client: "c"}, "big.yard.one.x"},
		{kafka.Member{Instance: "yard.one.1", Client: "c"}, "yard.one.1"},
		{kafka.Member{Instance: "big.yard.12", Client: "c"}, "big.yard.12"},
		{kafka.Member{Client: "big.yard.one", ID: "an \x1b id"}, "big.yard.one"},
		{kafka.Member{Client: "\x1b[2J", Host: "/10.0.0.7", ID: "a"}, ".[2J"},
	} {
		o := newOwner("big.yard", test.member)
		if got := o.String(); got != test.want || o.Host != test.member.Host || (o.Lane == nil) != (o.Instance == "") {
			t.Errorf("%+v: got %q, want %q", test.member, got, test.want)
		}
	}
}

func TestOffsetsCommand(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.fit()
	y.write(5)
	y.commit(0, 3, "")
	y.want(0, "offsets-show.txt", "offsets", "show")
	y.want(0, "offsets-set-dry-run.txt", "offsets", "set", "--topic", "logs", "--all-partitions", "--to", "earliest", "--dry-run")
	y.want(0, "offsets-set.txt", "offsets", "set", "--topic", "logs", "--partition", "0", "--to", "5", "--reason", "test", "--yes")
	y.want(0, "offsets-set.json", "offsets", "set", "--topic", "logs", "--all-partitions", "--to", "earliest", "--reason", "test", "--yes", "-o", "json")
	y.want(0, "offsets-show.json", "offsets", "show", "-o", "json")

	y.commit(0, 3, app.OffsetMetadata([16]byte{1}))
	y.commit(1, 9, "")
	y.want(3, "offsets-show-bad.txt", "offsets", "show")

	for _, test := range []struct {
		args   string
		code   int
		stderr string
	}{
		{"offsets set --topic logs --all-partitions --to earliest --reason test", exitUsage, "nobody to ask"},
		{"offsets set --topic logs --all-partitions --to yesterday --yes --reason test", exitUsage, `--to: "yesterday" is no position`},
		{"offsets set --topic logs --partition x --to earliest --yes --reason test", exitUsage, `--partition: "x" is no list of partitions`},
		{"offsets set --topic logs --to earliest --yes --reason test", exitUsage, "at least one of the flags in the group [partition all-partitions]"},
		{"offsets set --topic logs --all-partitions --partition 1 --to earliest --yes --reason test", exitUsage, "[all-partitions partition]"},
		{"offsets set --topic yard.planks --all-partitions --to earliest --yes --reason test", exitUsage, "yard.planks is no input of yard, whose inputs are logs"},
		{"offsets set --topic logs --partition 0 --to 99 --yes --reason test", exitRuntime, "offset 99 is outside of logs/0, which has 0 to 5"},
		{"offsets set --all-partitions --to earliest --reason test", exitUsage, `required flag(s) "topic" not set`},
	} {
		if got := y.run(strings.Fields(test.args)...); got.code != test.code || !strings.Contains(got.stderr, test.stderr) {
			t.Errorf("%s: got %+v, want code %d and %q", test.args, got, test.code, test.stderr)
		}
	}
}

func TestTxnCommand(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.fit()
	y.want(0, "txn-ls-none.txt", "txn", "ls")
	y.transaction("yard.one.0")
	y.transaction("zoo.one.0")
	y.want(0, "txn-ls.txt", "txn", "ls")
	y.want(0, "txn-ls-all.txt", "txn", "ls", "--all")
	y.want(0, "txn-ls.json", "txn", "ls", "-o", "json")
	y.want(0, "txn-abort-dry-run.txt", "txn", "abort", "yard.one.0", "--reason", "test", "--dry-run")
	y.want(0, "txn-abort.txt", "txn", "abort", "yard.one.0", "--reason", "test", "--yes")
	for _, test := range []struct {
		args   string
		code   int
		stderr string
	}{
		{"txn abort yard.one.0 --reason test --yes", exitRuntime, "transactional id yard.one.0 has no open transaction"},
		{"txn abort yard.none.0 --reason test --yes", exitRuntime, "transactional id yard.none.0 does not exist"},
		{"txn abort zoo.one.0 --reason test --yes", exitUsage, "give --foreign"},
		{"txn abort zoo.one.0 --foreign --yes", exitUsage, `--reason is empty: say why, the audit keeps it; for example --reason "pod-3 is gone for good"`},
		{"txn abort --reason test", exitUsage, "give either a transactional id or --hanging"},
		{"txn abort x --hanging yard.planks/0 --reason test", exitUsage, "give either a transactional id or --hanging"},
		{"txn abort --hanging yard.planks --reason test", exitUsage, "want TOPIC/PARTITION"},
		{"txn abort --hanging yard.planks/0 --reason test --yes", exitRuntime, "belongs to zoo.one.0 and is not hanging: run `processor txn abort zoo.one.0 --reason WHY`"},
	} {
		if got := y.run(strings.Fields(test.args)...); got.code != test.code || !strings.Contains(got.stderr, test.stderr) {
			t.Errorf("%s: got %+v, want code %d and %q", test.args, got, test.code, test.stderr)
		}
	}
	y.want(0, "txn-abort-hanging.txt", "txn", "abort", "--hanging", "yard.planks/0", "--force", "--reason", "test", "--yes")
	y.want(0, "txn-abort.json", "txn", "abort", "zoo.one.0", "--foreign", "--reason", "test", "--yes", "-o", "json")
}

// What connects nowhere is a runtime error with the next step; what cannot is the operator's.
func TestBrokerCommandsExplainWhyTheyCannotConnect(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	for _, command := range []string{"topics plan", "topics apply --yes", "lag", "dlq ls", "dlq show 0/0", "dlq redrive --because test --yes", "offsets show", "offsets set --topic logs --all-partitions --to latest --reason test --yes", "txn ls", "txn abort yard.one.0 --reason test --yes"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			args := append(strings.Fields(command), "-c", y.config)
			got := invoke(t, nil, append(args, "--set", "kafka.brokers=127.0.0.1:1")...)
			if got.code != exitRuntime || !strings.Contains(got.stderr, "connect to kafka: nothing listens at 127.0.0.1:1: check kafka.brokers") {
				t.Errorf("no broker: %+v", got)
			}
			wantNoPassword(t, args...)
		})
	}
	wantNoPassword(t, "run", "-c", y.config)
}

func wantNoPassword(t *testing.T, args ...string) {
	t.Helper()
	got := invoke(t, nil, append(args, "--set", "kafka.sasl.mechanism=PLAIN", "--set", "kafka.sasl.username=yard", "--set", "kafka.sasl.password_file=/nowhere/password")...)
	if got.code != exitUsage || !strings.Contains(got.stderr, "error: kafka.sasl.password_file: stat /nowhere/password") {
		t.Errorf("no password: %+v", got)
	}
}
