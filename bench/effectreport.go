package main

import (
	"fmt"
	"io"
	"math"
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

func (r *report) judgeEffects(target string) {
	ratio := func(peer, base string, pick func(effectRun) float64) (float64, bool) {
		peers := r.effectPeers(target)
		below := r.effects(target, base, pick).Median
		if !slices.Contains(peers, peer) || below <= 0 {
			return 0, false
		}
		return r.effects(target, peer, pick).Median / below, true
	}
	atLeast := func(what string, wanted, value float64, measured bool) {
		if measured {
			r.Verdicts = append(r.Verdicts, verdict{what + ", target " + target, value, fmt.Sprintf("at least %.1f", wanted), value >= wanted})
		}
	}
	atMost := func(what string, wanted, value float64, measured bool) {
		if measured {
			r.Verdicts = append(r.Verdicts, verdict{what + ", target " + target, value, fmt.Sprintf("at most %.1f", wanted), value <= wanted})
		}
	}
	wanted := float64(targetNothingRate)
	if target == targetHTTP {
		wanted = targetHTTPRate
	}
	value, measured := ratio(effectPawl, effectRiver, effectRate)
	atLeast("effects/s by those of river", wanted, value, measured)
	value, measured = ratio(effectPawl, effectRiver, effectServerCPU)
	atMost("CPU of Postgres per effect by that of river", targetServerShare, value, measured)
	value, measured = ratio(effectPawl, effectRiver, effectWAL)
	atMost("WAL per effect by that of river", targetServerShare, value, measured)
	value, measured = ratio(effectPawl+effectHeld, effectPawl, effectRate)
	atLeast("effects/s under a transaction held open by those without", targetHeldRate, value, measured)

	worst, steadiest, once := 0.0, math.Inf(1), false
	for _, run := range r.Effects {
		if run.Target == target && (run.Peer == effectPawl || run.Peer == effectPawl+effectHeld) {
			once = true
			worst = max(worst, float64(run.Tally.Disordered+run.Tally.Repeated))
			steadiest = min(steadiest, run.steadiness())
		}
	}
	atMost("calls of pawl that were out of order or repeated, in any run", 0, worst, once)
	atLeast("second half of a run of pawl by its first, the worst", targetDecayRate, steadiest, once && r.Length >= decayDuration)
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
