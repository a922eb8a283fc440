//go:build integration

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// testKafka opens a cluster and closes it at the end of the test.
func testKafka(t *testing.T, config KafkaConfig) *Kafka {
	t.Helper()
	config.Progress = func(step string) { t.Log(step) }
	begin := time.Now()
	k, err := OpenKafka(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("opened in %v", time.Since(begin))
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// testClient makes a client and closes it at the end of the test, before the cluster.
func testClient(t *testing.T, brokers []string, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	options = append(options, kgo.SeedBrokers(brokers...), kgo.MetadataMinAge(50*time.Millisecond))
	client, err := kgo.NewClient(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// testTopic makes a topic with a copy on every node.
func testTopic(t *testing.T, client *kgo.Client, topic string) {
	t.Helper()
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 1, -1, nil, topic); err != nil {
		t.Fatal(err)
	}
}

// readValues reads so many records of a topic from its start.
func readValues(t *testing.T, brokers []string, topic string, count int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client := testClient(t, brokers, kgo.ConsumeTopics(topic))
	var values []string
	for len(values) < count {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("read %s: %v; so far %q", topic, err, values)
		}
		fetches.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return values
}

// transactionVersion asks a node for the finalised level of its feature transaction.version, -1 when
// there is none.
func transactionVersion(t *testing.T, k *Kafka) int16 {
	t.Helper()
	versions, err := kmsg.NewPtrApiVersionsRequest().RequestWith(t.Context(), testClient(t, k.Brokers()))
	if err != nil {
		t.Fatal(err)
	}
	for _, feature := range versions.FinalizedFeatures {
		if feature.Name == "transaction.version" {
			return feature.MaxVersionLevel
		}
	}
	return -1
}

// What was acknowledged is there after the node was killed, and after it was stopped in good order;
// its address stays. Transactions have the second version of their protocol.
func TestKafkaNodeComesBackWithItsData(t *testing.T) {
	t.Parallel()
	k := testKafka(t, KafkaConfig{})
	client := testClient(t, k.Brokers())
	testTopic(t, client, "kept")
	if got := transactionVersion(t, k); got != 2 {
		t.Errorf("transaction.version is %d, want 2", got)
	}
	for i, end := range []func(int) error{k.Kill, k.Stop} {
		value := []string{"before kill", "before stop"}[i]
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "kept", Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		pid := k.Pid(0)
		if pid == 0 {
			t.Error("no process id of a running node")
		}
		if err := end(0); err != nil {
			t.Fatal(err)
		}
		if got := k.Pid(0); got != 0 {
			t.Errorf("process %d runs after its end", got)
		}
		begin := time.Now()
		if err := k.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: started again in %v", value, time.Since(begin))
	}
	if got := readValues(t, k.Brokers(), "kept", 2); got[0] != "before kill" || got[1] != "before stop" {
		t.Errorf("read %q", got)
	}
}

// Three nodes serve on while one of them is dead, and while another is frozen.
func TestKafkaClusterOutlivesOneNode(t *testing.T) {
	t.Parallel()
	k := testKafka(t, KafkaConfig{Nodes: 3})
	client := testClient(t, k.Brokers(), kgo.DefaultProduceTopic("replicated"))
	testTopic(t, client, "replicated")
	produce := func(value string) {
		t.Helper()
		if err := client.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr(); err != nil {
			t.Fatalf("%s: %v", value, err)
		}
	}
	produce("all up")
	if err := k.Kill(0); err != nil {
		t.Fatal(err)
	}
	produce("0 dead")
	if err := k.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	waitInSync(t, client, "replicated", 3)
	if err := k.Pause(1); err != nil {
		t.Fatal(err)
	}
	produce("1 frozen")
	if err := k.Resume(1); err != nil {
		t.Fatal(err)
	}
	if got := readValues(t, k.Brokers(), "replicated", 3); strings.Join(got, ", ") != "all up, 0 dead, 1 frozen" {
		t.Errorf("read %q", got)
	}
}

// waitInSync waits until all copies of partition 0 are in sync.
func waitInSync(t *testing.T, client *kgo.Client, topic string, copies int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		topics, err := kadm.NewClient(client).ListTopics(ctx, topic)
		if err == nil && len(topics[topic].Partitions[0].ISR) == copies {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d copies not in sync: %v, %v", copies, topics, err)
		case <-ticker.C:
		}
	}
}

// Kafka's own programs run on the class path of the cluster.
func TestKafkaToolProduces(t *testing.T) {
	t.Parallel()
	k := testKafka(t, KafkaConfig{})
	testTopic(t, testClient(t, k.Brokers()), "verifiable")
	var stderr bytes.Buffer
	cmd := k.Tool(t.Context(), "org.apache.kafka.tools.VerifiableProducer",
		"--bootstrap-server", k.Brokers()[0], "--topic", "verifiable", "--max-messages", "10")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	acknowledged := 0
	for line := range bytes.Lines(out) {
		var event struct{ Name string }
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if event.Name == "producer_send_success" {
			acknowledged++
		}
	}
	if acknowledged != 10 {
		t.Errorf("%d records acknowledged, want 10:\n%s", acknowledged, out)
	}
}

// An older Kafka runs too, without the transaction protocol that Pawl needs.
func TestKafkaOfAnOlderVersionOpens(t *testing.T) {
	t.Parallel()
	k := testKafka(t, KafkaConfig{Version: "3.9.1"})
	if got := transactionVersion(t, k); got >= 2 {
		t.Errorf("transaction.version is %d, want less than 2", got)
	}
}

// A node that ends at once is reported with its own words, and nothing is left behind.
func TestKafkaThatCannotStartSaysWhy(t *testing.T) {
	t.Parallel()
	k, err := OpenKafka(t.Context(), KafkaConfig{Settings: map[string]string{"log.retention.ms": "many"}})
	if err == nil {
		_ = k.Close()
		t.Fatal("opened with a wrong setting")
	}
	if !strings.Contains(err.Error(), "log.retention.ms") {
		t.Errorf("the error does not name the setting: %v", err)
	}
}

// A folder of one's own is kept, and serves again.
func TestKafkaKeepsItsFolder(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "kafka")
	k := testKafka(t, KafkaConfig{Dir: folder})
	client := testClient(t, k.Brokers(), kgo.DefaultProduceTopic("kept"))
	testTopic(t, client, "kept")
	if err := client.ProduceSync(t.Context(), kgo.StringRecord("first life")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKafka(t.Context(), KafkaConfig{Dir: folder}); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("a folder in use opened: %v", err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folder); err != nil {
		t.Fatal(err)
	}
	k = testKafka(t, KafkaConfig{Dir: folder})
	if got := readValues(t, k.Brokers(), "kept", 1); got[0] != "first life" {
		t.Errorf("read %q", got)
	}
}
