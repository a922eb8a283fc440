package main

import (
	"slices"
	"strings"
	"testing"
)

// The defaults of Kafka Streams are its own: nothing is set but what names the job and asks for exactly
// once. The best settings differ by what counts.
func TestSettingsOfKafkaStreams(t *testing.T) {
	t.Parallel()
	backlog, stream := job{name: "a", brokers: []string{"b:1", "c:2"}}, job{name: "a", steady: true}
	plain := (&streamsPeer{}).properties(backlog)
	if len(plain) != 4 || plain["processing.guarantee"] != "exactly_once_v2" || plain["bootstrap.servers"] != "b:1,c:2" {
		t.Errorf("defaults %v", plain)
	}
	best := &streamsPeer{best: true, threads: 3}
	rate, latency := best.properties(backlog), best.properties(stream)
	if rate["processing.guarantee"] != "exactly_once_v2" || rate["num.stream.threads"] != "3" || best.members() != 3 {
		t.Errorf("for a backlog: %v, %d members", rate, best.members())
	}
	if rate["commit.interval.ms"] == latency["commit.interval.ms"] || latency["producer.linger.ms"] != "5" {
		t.Errorf("for a stream: %v", latency)
	}
}

func TestEveryPeerIsMadeByItsName(t *testing.T) {
	t.Parallel()
	var names []string
	for _, p := range newPeers(settings{peers: strings.Join(peerNames, ","), processes: 2, lanes: 2}, programs{}) {
		names = append(names, p.name())
		if p.exact() == (p.name() == loopName) {
			t.Errorf("%s: exactly once %t", p.name(), p.exact())
		}
	}
	if !slices.Equal(names, peerNames) {
		t.Errorf("made %v of %v", names, peerNames)
	}
}
