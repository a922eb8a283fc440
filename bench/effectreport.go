package main

import (
	"fmt"
	"io"
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
	return slices.DeleteFunc(all, func(peer string) bool {
		return !slices.ContainsFunc(r.Effects, func(run effectRun) bool { return run.Target == target && run.Peer == peer })
	})
}

func (r *report) effects(target, peer string, pick func(effectRun) float64) yardstick.Spread {
	return yardstick.Figures(r.Effects, func(run effectRun) bool { return run.Target == target && run.Peer == peer }, pick)
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

// printEffects writes the table of a target.
func (r *report) printEffects(table io.Writer, target string) {
	fmt.Fprintf(table, "effects of %d bytes, target %s, %s a run, insert to completion on Postgres %s; median (least..most)\n", r.Body, target, r.Length, r.Postgres)
	fmt.Fprintln(table, "peer\teffects/s\tPostgres CPU us per effect\tWAL B per effect\tclient CPU us per effect\tendpoint CPU us per call\tpeak MiB\tsecond half by first\tcalls out of order\trepeated")
	for _, peer := range r.effectPeers(target) {
		column := func(verb string, pick func(effectRun) float64) string {
			return r.effects(target, peer, pick).Format(verb)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", peer,
			column("%.0f", effectRate), column("%.1f", effectServerCPU), column("%.0f", effectWAL),
			column("%.1f", func(run effectRun) float64 { return run.OwnCPU }),
			column("%.1f", func(run effectRun) float64 { return run.EndpointCPU }),
			column("%.0f", func(run effectRun) float64 { return run.Peak }),
			column("%.2f", func(run effectRun) float64 { return run.steadiness() }),
			column("%.0f", func(run effectRun) float64 { return float64(run.Tally.Disordered) }),
			column("%.0f", func(run effectRun) float64 { return float64(run.Tally.Repeated) }))
	}
	fmt.Fprintln(table)
}
