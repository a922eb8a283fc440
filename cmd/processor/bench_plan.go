package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
)

// agree says what is about to be done, and has it confirmed where the brokers are not of this machine.
func (t *trial) agree(ctx context.Context) error {
	metadata, err := t.brokers.admin.BrokerMetadata(ctx)
	if err != nil {
		return fmt.Errorf("ask for the brokers: %w", err)
	}
	t.report.Nodes = len(metadata.Brokers)
	found, err := ownNames(ctx, t.brokers.client, t.name+"-")
	if err != nil {
		return t.explain(err)
	}
	if taken := slices.Concat(found.topics, found.groups); len(taken) > 0 {
		return fmt.Errorf("this name is taken: %s: choose another --name, or delete them with `%s`", strings.Join(taken, ", "), t.cleanCommand())
	}
	for _, line := range t.plan() {
		fmt.Fprintln(t.stderr, line)
	}
	if t.dryRun || ofThisMachine(ctx, metadata.Brokers) {
		return nil
	}
	return t.confirm(fmt.Sprintf("Write %s to %s?", humanBytes(t.written()), strings.Join(t.brokers.conf.Kafka.Brokers, ", ")))
}

// ofThisMachine tells whether all brokers are reached over the loopback interface.
func ofThisMachine(ctx context.Context, brokers kadm.BrokerDetails) bool {
	for _, broker := range brokers {
		addresses, err := net.DefaultResolver.LookupIPAddr(ctx, broker.Host)
		if err != nil || slices.ContainsFunc(addresses, func(a net.IPAddr) bool { return !a.IP.IsLoopback() }) {
			return false
		}
	}
	return true
}

// recordOverhead is what a record has beside its value, about: its key, and what Kafka keeps of each.
const recordOverhead = 25

// written is how many bytes the whole trial writes, one replica's, about.
func (t *trial) written() int64 {
	size, rounds := int64(t.flags.bytes+recordOverhead), int64(t.flags.rounds+t.flags.warmRounds)
	if t.flags.latency > 0 {
		return size * t.streamed() * rounds * 2 * 2 // both peers, input and output
	}
	return size * t.flags.records * (1 + 2*rounds)
}

// streamed is how many records a latency run produces.
func (t *trial) streamed() int64 {
	return int64(t.flags.latency * (t.flags.warmUp + t.flags.duration).Seconds())
}

// plan says what will be done, a line each.
func (t *trial) plan() []string {
	f := t.flags
	task := fmt.Sprintf("a backlog of %d records of %d bytes, copied by each of two in %d+%d rounds", f.records, f.bytes, f.warmRounds, f.rounds)
	most := int64(f.bytes+recordOverhead) * f.records * 2
	if f.latency > 0 {
		task = fmt.Sprintf("%.0f records/s of %d bytes for %s, copied by each of two in %d+%d rounds", f.latency, f.bytes, f.warmUp+f.duration, f.warmRounds, f.rounds)
		most = int64(f.bytes+recordOverhead) * t.streamed() * 2
	}
	return []string{
		fmt.Sprintf("cluster  %s: %s", strings.Join(t.brokers.conf.Kafka.Brokers, ", "), count(t.report.Nodes, "broker")),
		"task     " + task,
		fmt.Sprintf("writes   about %s, at most %s of it at a time, times the replicas", humanBytes(t.written()), humanBytes(most)),
		fmt.Sprintf("topics   %s-*: %s each, deleted at the end", t.name, count(int(f.partitions), "partition")),
		fmt.Sprintf("copies   %s with %s each", count(f.processes, "process", "processes"), count(t.report.Lanes, "lane")),
		fmt.Sprintf("limit    %s", f.limit),
	}
}

func humanBytes(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.0f MB", float64(n)/1e6)
	default:
		return fmt.Sprintf("%d kB", (n+999)/1000)
	}
}
