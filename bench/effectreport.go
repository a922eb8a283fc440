package main

import (
	"fmt"
	"slices"

	"pawl/internal/yardstick"
)

// effectTargets are the targets that were measured, in the order of the runs.
func (r *report) effectTargets() []string {
	var targets []string
	for _, run := range r.Effects {
		if !slices.Contains(targets, run.Target) {
			targets = append(targets, run.Target)
		}
	}
	return targets
}

// effectPeers are the peers that were measured with a target.
func (r *report) effectPeers(target string) []string {
	all := []string{effectPawl, effectPawl + effectHeld, effectRiver, effectRiver + effectHeld, effectRiverLean, effectHTTP}
	runs := r.effectsOf(target)
	return slices.DeleteFunc(all, func(peer string) bool {
		return !slices.ContainsFunc(runs, func(run effectRun) bool { return run.Peer == peer })
	})
}

func (r *report) effects(target, peer string, pick func(effectRun) float64) yardstick.Spread {
	return yardstick.SpreadFor(r.effectsOf(target), peer, pick)
}

// steadiness is the rate of the second half of a run by that of its first, 0 where the run was too
// short to tell. The first slice is left out: it begins with nothing inserted.
func (f effectFigures) steadiness() float64 {
	if len(f.Slices) < 3 {
		return 0
	}
	slices := f.Slices[1:]
	half := len(slices) / 2
	first, second := mean(slices[:half]), mean(slices[len(slices)-half:])
	if first <= 0 {
		return 0
	}
	return second / first
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

func effectRate(run effectRun) float64      { return run.Rate }
func effectServerCPU(run effectRun) float64 { return run.ServerCPU }
func effectWAL(run effectRun) float64       { return run.WAL }

var effectColumns = []yardstick.Column[effectRun]{
	{Title: "effects/s", Unit: "effects/s", Verb: "%.0f", Pick: effectRate},
	{Title: "Postgres CPU us per effect", Unit: "postgres-cpu-us/effect", Verb: "%.1f", Pick: effectServerCPU},
	{Title: "WAL B per effect", Unit: "wal-B/effect", Verb: "%.0f", Pick: effectWAL},
	{Title: "client CPU us per effect", Unit: "client-cpu-us/effect", Verb: "%.1f", Pick: func(run effectRun) float64 { return run.OwnCPU }},
	{Title: "endpoint CPU us per call", Unit: "endpoint-cpu-us/call", Verb: "%.1f", Pick: func(run effectRun) float64 { return run.EndpointCPU }},
	{Title: "peak MiB", Unit: "peak-MiB", Verb: "%.0f", Pick: func(run effectRun) float64 { return run.Peak }},
	{Title: "second half by first", Unit: "steadiness", Verb: "%.2f", Pick: func(run effectRun) float64 { return run.steadiness() }},
	{Title: "calls out of order", Unit: "disordered", Verb: "%.0f", Pick: func(run effectRun) float64 { return float64(run.Tally.Disordered) }},
	{Title: "repeated", Unit: "repeated", Verb: "%.0f", Pick: func(run effectRun) float64 { return float64(run.Tally.Repeated) }},
}

// effectsOf are the runs with a target.
func (r *report) effectsOf(target string) []effectRun {
	return slices.DeleteFunc(slices.Clone(r.Effects), func(run effectRun) bool { return run.Target != target })
}

func (r *report) effectRows(target string) [][]string {
	return yardstick.Rows(r.effectPeers(target), r.effectsOf(target), effectColumns)
}

// effectTask says what the runs with a target did.
func (r *report) effectTask(target string) string {
	return fmt.Sprintf("effects of %d bytes, target %s, %s a run, insert to completion on Postgres %s", r.Body, target, r.Length, r.Postgres)
}
