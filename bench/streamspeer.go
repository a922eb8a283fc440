package main

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"pawl/internal/cluster"
)

//go:embed streams/Copy.java
var streamsCopy string

const streamsClass = "Copy"

// streamsJVM are the flags of its virtual machine. A heap of this size is never full in these runs, and
// it bounds what the collector lets lie about.
func streamsJVM() []string { return []string{"-Xmx1g", "-Djava.awt.headless=true"} }

// streamsPeer is Kafka Streams with exactly_once_v2: one process, with its defaults or with settings
// that were found to be its best here.
type streamsPeer struct {
	program *cluster.Streams
	folder  string
	best    bool
	threads int // of the best settings
}

func (p *streamsPeer) name() string {
	if p.best {
		return streamsBestName
	}
	return streamsName
}

// members: each thread has a consumer.
func (p *streamsPeer) members() int {
	if p.best {
		return p.threads
	}
	return 1
}

func (p *streamsPeer) exact() bool { return true }

// properties are the settings of a job. The defaults are a commit every 100 ms and one thread. The best
// for a backlog are large batches and few commits; for a stream whose latency counts, commits as often as
// the broker keeps up with and short waits for a batch.
func (p *streamsPeer) properties(j job) map[string]string {
	all := map[string]string{
		"application.id":       j.name,
		"bootstrap.servers":    strings.Join(j.brokers, ","),
		"processing.guarantee": "exactly_once_v2",
		"state.dir":            filepath.Join(p.folder, j.name+"-state"),
	}
	if !p.best {
		return all
	}
	all["num.stream.threads"] = strconv.Itoa(p.threads)
	if j.steady {
		maps.Copy(all, map[string]string{"commit.interval.ms": "20", "producer.linger.ms": "5"})
		return all
	}
	maps.Copy(all, map[string]string{
		"commit.interval.ms":                      "500",
		"buffered.records.per.partition":          "20000",
		"input.buffer.max.bytes":                  "268435456",
		"producer.linger.ms":                      "20",
		"producer.batch.size":                     "262144",
		"producer.buffer.memory":                  "134217728",
		"main.consumer.max.poll.records":          "10000",
		"main.consumer.fetch.min.bytes":           "65536",
		"main.consumer.fetch.max.wait.ms":         "100",
		"main.consumer.max.partition.fetch.bytes": "8388608",
	})
	return all
}

func (p *streamsPeer) propertiesPath(j job) string {
	return filepath.Join(p.folder, j.name+".properties")
}

// prepare makes the topic and the file of settings.
func (p *streamsPeer) prepare(ctx context.Context, s *stage, j job) error {
	var text strings.Builder
	properties := p.properties(j)
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		fmt.Fprintf(&text, "%s=%s\n", key, properties[key])
	}
	if err := os.WriteFile(p.propertiesPath(j), []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("write the settings of Kafka Streams: %w", err)
	}
	return s.createTopic(ctx, j.out, s.settings.parts)
}

func (p *streamsPeer) commands(ctx context.Context, j job) []*exec.Cmd {
	return []*exec.Cmd{p.program.Command(ctx, streamsJVM(), p.propertiesPath(j), j.in, j.out)}
}
