package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pawl/internal/load"
	"pawl/internal/yardstick"
)

const (
	wireLanes     = 12 // partitions of an effects topic, the service's default
	wireDrain     = 30 * time.Second
	wireLateLimit = time.Second // a run whose schedule was missed by more is no run at that rate
)

// wireRun is one run of one peer of the wire part: from the answer to the end of the transaction that
// wrote an effect to the arrival of its call at the endpoint.
type wireRun struct {
	Peer       string        `json:"peer"`
	Round      int           `json:"round"`
	Latency    load.Summary  `json:"latency"`
	Late       time.Duration `json:"late_ns"`           // of a transaction behind its schedule, at most
	CPU        float64       `json:"cpu_us_per_effect"` // of the peer, from its start to its end
	Peak       float64       `json:"peak_rss_mib"`
	Repeated   int64         `json:"repeated"`
	Disordered int64         `json:"disordered"`
}

// By names the peer.
func (run wireRun) By() string { return run.Peer }

func wireP99(run wireRun) float64 { return yardstick.Milliseconds(run.Latency.P99) }

var wireColumns = []yardstick.Column[wireRun]{
	{Title: "p50", Unit: "p50-ms", Verb: "%.1f", Pick: func(run wireRun) float64 { return yardstick.Milliseconds(run.Latency.P50) }},
	{Title: "p99", Unit: "p99-ms", Verb: "%.1f", Pick: wireP99},
	{Title: "p99.9", Unit: "p99.9-ms", Verb: "%.1f", Pick: func(run wireRun) float64 { return yardstick.Milliseconds(run.Latency.P999) }},
	{Title: "CPU us per effect", Unit: "client-cpu-us/effect", Verb: "%.0f", Pick: func(run wireRun) float64 { return run.CPU }},
	{Title: "peak MiB", Unit: "peak-MiB", Verb: "%.0f", Pick: func(run wireRun) float64 { return run.Peak }},
	{Title: "calls out of order", Unit: "disordered", Verb: "%.0f", Pick: func(run wireRun) float64 { return float64(run.Disordered) }},
	{Title: "repeated", Unit: "repeated", Verb: "%.0f", Pick: func(run wireRun) float64 { return float64(run.Repeated) }},
	{Title: "producer late, ms", Unit: "late-ms", Verb: "%.0f", Pick: func(run wireRun) float64 { return yardstick.Milliseconds(run.Late) }},
}

// wireTask says what the runs of the wire part did.
func (r *report) wireTask() string {
	return fmt.Sprintf("latency in ms at %.0f effects/s of %d bytes, commit of the transaction to arrival of the call, %d lanes", r.WireRate, r.Body, wireLanes)
}

// wire lets every peer call for the effects that bench commits at a steady rate, in every round, in
// turn.
func (s *stage) wire(ctx context.Context, programs programs, report *report) (err error) {
	server, err := openDatabases(ctx, s.progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.close()) }()
	report.Postgres = server.version
	peers := newWirePeers(s.settings, programs)
	for turn, p := range yardstick.Turns(s.settings.warmRounds, s.settings.rounds, peers) {
		run, err := s.wireOnce(ctx, p, "bench-wire-"+turn.Name(), server)
		if err == nil && turn.Counts() && run.Late > wireLateLimit {
			err = fmt.Errorf("%s: effects were committed %s behind their schedule: this machine can't do %.0f a second now", p.name(), run.Late, s.settings.wireRate)
		}
		if err != nil {
			return err
		}
		if turn.Counts() {
			run.Round = turn.Round
			report.addWire(run)
		}
		s.progress(fmt.Sprintf("commit to call, %s: %s: %s, %.0f us of CPU per effect, producer late by %s at most",
			turn, p.name(), run.Latency, run.CPU, run.Late))
	}
	return nil
}

// newWirePeers are those of the peers who can call for effects.
func newWirePeers(s settings, programs programs) []peer {
	var peers []peer
	for name := range strings.SplitSeq(s.peers, ",") {
		switch name {
		case processorName:
			peers = append(peers, &wireProcessor{binary: programs.binary, folder: programs.folder})
		case loopName:
			peers = append(peers, &wireLoop{self: programs.self})
		}
	}
	return peers
}

// wireOnce runs a peer under an application's name of its own.
func (s *stage) wireOnce(ctx context.Context, p peer, application string, server *databases) (_ wireRun, err error) {
	run := wireRun{Peer: p.name()}
	warm := int64(s.settings.warmUp.Seconds() * s.settings.wireRate)
	count := warm + int64(s.settings.latencyDuration().Seconds()*s.settings.wireRate)
	seen := newArrivals(count)
	endpoint, err := openEndpoint(ctx, seen.add)
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, endpoint.close()) }()
	database := strings.ReplaceAll(application, "-", "_")
	dsn, err := server.create(ctx, database)
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, server.drop(context.WithoutCancel(ctx), database)) }()
	input := application + ".input"
	if err := s.createTopic(ctx, input, s.settings.parts); err != nil {
		return run, err
	}
	// The group of a processor's ledger has the name of its effects topic, and so the loop's has too.
	j := job{name: application, brokers: s.brokers, in: application + ".effects", url: endpoint.url, dsn: dsn}
	var committed commits
	used, err := s.with(ctx, p, j, func(processes []*yardstick.Process) error {
		if err := s.Joined(ctx, j.in, p.members(), processes); err != nil {
			return err
		}
		if committed, err = s.commitEffects(ctx, application, input, count, seen.began); err != nil {
			return errors.Join(err, yardstick.CheckAll(processes))
		}
		ctx, cancel := context.WithTimeout(ctx, wireDrain)
		defer cancel()
		if err := s.Poll(ctx, processes, func() (bool, error) { return seen.missing.Load() == 0, nil }); err != nil {
			return fmt.Errorf("%d of %d effects were not called: %w", seen.missing.Load(), count, err)
		}
		return nil
	})
	if err != nil {
		return run, err
	}
	run.Latency = seen.since(committed, warm)
	run.Late, run.Repeated, run.Disordered = committed.latest(warm), seen.repeated.Load(), seen.disordered.Load()
	run.CPU, run.Peak = each(used.CPU, count), float64(used.PeakKiB)/1024
	if p.exact() && run.Repeated+run.Disordered > 0 {
		return run, fmt.Errorf("%s: %d calls were repeated and %d out of order", p.name(), run.Repeated, run.Disordered)
	}
	return run, s.deleteTopics(ctx, application+".")
}

// deleteTopics makes room: it deletes every topic whose name begins so.
func (s *stage) deleteTopics(ctx context.Context, prefix string) error {
	topics, err := s.Admin.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	names := slices.DeleteFunc(topics.Names(), func(name string) bool { return !strings.HasPrefix(name, prefix) })
	if _, err := s.Admin.DeleteTopics(ctx, names...); err != nil {
		return fmt.Errorf("delete topics %s...: %w", prefix, err)
	}
	return nil
}
