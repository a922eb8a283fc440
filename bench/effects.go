package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"pawl/internal/yardstick"
)

// The peers of the effects part. With effectHeld behind its name, a peer runs while a transaction is
// open in another connection, which keeps the server from cleaning up.
const (
	effectPawl      = "pawl"
	effectRiver     = "river"
	effectRiverLean = "river-lean"
	effectHTTP      = "http"
	effectHeld      = "-held"
)

// The targets of the effects part.
const (
	targetNothing = "no-op" // in the peer's process
	targetHTTP    = "http"  // an endpoint in the process of bench
)

// effectWarmUp bounds the runs of the round that does not count.
const effectWarmUp = 2 * time.Second

// effectRun is one run of one peer of the effects part.
type effectRun struct {
	Peer   string  `json:"peer"`
	Target string  `json:"target"`
	Round  int     `json:"round"`
	Peak   float64 `json:"peak_rss_mib"`
	// EndpointCPU is what the process of bench took meanwhile: the endpoint, and hardly anything else.
	EndpointCPU float64 `json:"endpoint_cpu_us_per_call,omitempty"`
	effectFigures
}

// By names the peer.
func (run effectRun) By() string { return run.Peer }

// effectStage is the Postgres that all peers share, each run with a database of its own.
type effectStage struct {
	settings  settings
	self      string // this program
	folder    string
	progress  func(string)
	databases *databases
}

// effects measures the peers of the effects part.
func effects(ctx context.Context, s settings, folder string, report *report, progress func(string)) (err error) {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	server, err := openDatabases(ctx, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.close()) }()
	report.Postgres = server.version
	stage := &effectStage{settings: s, self: self, folder: folder, progress: progress, databases: server}
	for target := range strings.SplitSeq(s.effectTargets, ",") {
		if err := stage.rounds(ctx, target, report); err != nil {
			return err
		}
	}
	return nil
}

// rounds lets every peer run in every round, in turn, after one that does not count.
func (s *effectStage) rounds(ctx context.Context, target string, report *report) error {
	peers := s.settings.effectPeersOf(target)
	for turn, name := range yardstick.Turns(1, s.settings.rounds, peers) {
		duration := s.settings.effectDuration()
		if !turn.Counts() {
			duration = min(duration, effectWarmUp)
		}
		database := strings.ReplaceAll("bench-"+strings.ReplaceAll(target, "-", "")+"-"+turn.Name(), "-", "_")
		run, err := s.run(ctx, name, target, database, duration)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if turn.Counts() {
			run.Round = turn.Round
			report.addEffects(run)
		}
		s.progress(fmt.Sprintf("effects, target %s, %s: %s: %.0f effects/s, Postgres %.1f us and %.0f B of WAL per effect, client %.1f us, endpoint %.1f us, %d out of order",
			target, turn, name, run.Rate, run.ServerCPU, run.WAL, run.OwnCPU, run.EndpointCPU, run.Tally.Disordered))
	}
	return nil
}

// run gives a peer a database of its own, and takes it away afterwards.
func (s *effectStage) run(ctx context.Context, name, target, database string, duration time.Duration) (_ effectRun, err error) {
	peer, held := strings.CutSuffix(name, effectHeld)
	spec := effectSpec{Peer: peer, Bytes: s.settings.effectBytes, Duration: duration, Result: filepath.Join(s.folder, database+".result")}
	result := effectRun{Peer: name, Target: target}
	if peer != effectHTTP {
		if spec.DSN, err = s.databases.create(ctx, database); err != nil {
			return result, err
		}
		defer func() { err = errors.Join(err, s.databases.drop(context.WithoutCancel(ctx), database)) }()
	}
	if held {
		release, err := hold(ctx, spec.DSN)
		if err != nil {
			return result, err
		}
		defer release()
	}
	lanes := effectLanes
	if peer == effectHTTP {
		lanes = effectConcurrency
	}
	seen := newDeliveries(lanes)
	if target == targetHTTP {
		endpoint, err := openEndpoint(ctx, func(body []byte) error {
			_, err := seen.add(body)
			return err
		})
		if err != nil {
			return result, err
		}
		defer func() { err = errors.Join(err, endpoint.close()) }()
		spec.URL = endpoint.url
	}
	before, err := ownTime()
	if err != nil {
		return result, err
	}
	if result.Peak, err = s.start(ctx, spec, database); err != nil {
		return result, err
	}
	after, err := ownTime()
	if err != nil {
		return result, err
	}
	text, err := os.ReadFile(spec.Result)
	if err == nil {
		err = json.Unmarshal(text, &result.effectFigures)
	}
	if err != nil {
		return result, fmt.Errorf("read what the peer found: %w", err)
	}
	if target == targetHTTP {
		result.Tally = seen.tally(result.Asked)
		result.EndpointCPU = each(after-before, result.Tally.Calls)
	}
	if result.Tally.Missing > 0 {
		return result, fmt.Errorf("effects were lost: %+v", result.Tally)
	}
	return result, nil
}

// start runs the process of a peer to its end.
func (s *effectStage) start(ctx context.Context, spec effectSpec, name string) (peakMiB float64, err error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return 0, fmt.Errorf("write what to do: %w", err)
	}
	path := filepath.Join(s.folder, name+".json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return 0, fmt.Errorf("write what to do: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, runTimeout+spec.Duration)
	defer cancel()
	command := exec.CommandContext(ctx, s.self, effectsCommand, path) //nolint:gosec // this very program
	if err := s.settings.profile(command, name+"-"+spec.Peer); err != nil {
		return 0, err
	}
	peakKiB, err := yardstick.RunToEnd(command, filepath.Join(s.folder, name+".log"))
	return float64(peakKiB) / 1024, err
}

// hold opens a transaction with a snapshot and an id of its own and leaves it open until release.
func hold(ctx context.Context, dsn string) (release func(), err error) {
	connection, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	if _, err := connection.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()"); err != nil {
		return nil, errors.Join(fmt.Errorf("hold a transaction open: %w", err), connection.Close(ctx))
	}
	return func() { _ = connection.Close(context.WithoutCancel(ctx)) }, nil // the database is dropped by force
}

// effectPeersOf are the peers that a target has: without a call, the bare HTTP loop has nothing to do.
func (s settings) effectPeersOf(target string) []string {
	peers := strings.Split(s.effectPeers, ",")
	if s.holdXmin {
		for _, name := range []string{effectPawl, effectRiver} {
			if slices.Contains(peers, name) {
				peers = append(peers, name+effectHeld)
			}
		}
	}
	if target != targetHTTP {
		peers = slices.DeleteFunc(peers, func(name string) bool { return name == effectHTTP })
	}
	return peers
}

// effectDuration is the length of a run.
func (s settings) effectDuration() time.Duration {
	if s.duration > 0 {
		return s.duration
	}
	return 10 * time.Second
}

// checkEffects checks what the command line says of the effects part.
func (s settings) checkEffects() error {
	var errs []error
	if s.effectBytes < bodyBytesMin || s.effectBytes > effectBodyMax {
		errs = append(errs, fmt.Errorf("effect-bytes must be from %d to %d", bodyBytesMin, effectBodyMax))
	}
	for name := range strings.SplitSeq(s.effectPeers, ",") {
		if !slices.Contains([]string{effectPawl, effectRiver, effectRiverLean, effectHTTP}, name) {
			errs = append(errs, fmt.Errorf("-effect-peers names %q, want %s, %s, %s or %s", name, effectPawl, effectRiver, effectRiverLean, effectHTTP))
		}
	}
	for name := range strings.SplitSeq(s.effectTargets, ",") {
		if name != targetNothing && name != targetHTTP {
			errs = append(errs, fmt.Errorf("-effect-targets names %q, want %s or %s", name, targetNothing, targetHTTP))
		}
	}
	return errors.Join(errs...)
}
