package dev

import (
	"fmt"
	"slices"
	"strings"

	"pawl/internal/verify"
)

// The roles of topics.
const (
	roleOutput     = "output"
	roleEffects    = "effects"
	roleResults    = "results"
	roleDeadLetter = "dead-letter"
)

// TopicProof is what the check found in a topic.
type TopicProof struct {
	Role       string `json:"role"` // output, effects, results or dead-letter
	Topic      string `json:"topic"`
	Expected   int64  `json:"expected"`
	Seen       int64  `json:"seen"`
	Missing    int64  `json:"missing"`    // expected and not there
	Duplicates int64  `json:"duplicates"` // there more than once
	Altered    int64  `json:"altered"`    // there, with other bytes than expected
	Unexpected int64  `json:"unexpected"` // there, and made from no input we know
	Disordered int64  `json:"disordered"` // behind a record of the same key that came later
	Aborted    int64  `json:"aborted"`    // in the log, in transactions that were aborted: no reader saw them
}

func newTopicProof(role string, saw *verify.TopicSaw) TopicProof {
	return TopicProof{
		Role: role, Topic: saw.Topic, Expected: saw.Expected, Seen: saw.Seen, Aborted: saw.Aborted,
		Missing:    saw.Findings[verify.Lost] + saw.Findings[verify.ResultMissing],
		Duplicates: saw.Findings[verify.Duplicate] + saw.Findings[verify.ResultTwice],
		Altered:    saw.Findings[verify.Corrupt] + saw.Findings[verify.ResultStatus],
		Unexpected: saw.Findings[verify.Phantom] + saw.Findings[verify.ResultPhantom],
		Disordered: saw.Findings[verify.Reordered] + saw.Findings[verify.ResultOrder],
	}
}

// conclude fills the proof from the check, which has seen everything, and holds it against two other witnesses: the
// generator, which counts the orders that it made wrong, and the endpoint, which counts charges. Without a ledger
// calls is nil.
func (p *Proof) conclude(report *verify.Report, plan *verify.Plan, calls *EndpointSummary, orders, wrong int64) {
	p.Wrong, p.Reasons, p.Aborted, p.Faults = wrong, report.Reasons, report.Saw.TransactionsAborted, []string{}
	p.Effects = EffectsProof{Committed: report.Saw.Effects, Calls: calls}
	fault := func(format string, args ...any) { p.Faults = append(p.Faults, fmt.Sprintf(format, args...)) }
	for i := range report.Topics {
		saw := &report.Topics[i]
		if saw.Topic == inputTopic {
			p.Inputs = saw.Inputs
		}
		if role := roleOf(plan, saw.Topic); role != "" {
			p.Topics = append(p.Topics, newTopicProof(role, saw))
		}
	}
	sortTopics(p.Topics)
	for _, verdict := range verify.Verdicts() {
		if count := report.Counts[verdict]; count > 0 {
			first := slices.IndexFunc(report.Findings, func(f verify.Finding) bool { return f.Verdict == verdict })
			fault("%s %s, such as %s", thousands(count), verdict, report.Findings[first])
		}
	}
	if p.Inputs != orders {
		fault("%s orders were produced, the input topic holds %s", thousands(orders), thousands(p.Inputs))
	}
	for _, topic := range p.Topics {
		if topic.Role == roleDeadLetter && topic.Expected != wrong {
			fault("%s orders were made wrong, the handler refuses %s", thousands(wrong), thousands(topic.Expected))
		}
	}
	if calls != nil {
		p.Effects.conclude(report)
		p.Faults = append(p.Faults, p.Effects.faults()...)
		if p.Kill.Calls == 0 {
			fault("no call was under way when the processor was killed: run it again")
		}
	}
	if p.Aborted == 0 {
		fault("no transaction was aborted, so nothing is proven about the kill: run it again")
	}
}

func roleOf(plan *verify.Plan, topic string) string {
	switch topic {
	case plan.Effects:
		return roleEffects
	case plan.Results:
		return roleResults
	case plan.DeadLetters:
		return roleDeadLetter
	}
	for _, output := range plan.Outputs {
		if output == topic {
			return roleOutput
		}
	}
	return ""
}

// sortTopics brings them in the order output, effects, results, dead-letter, then by name.
func sortTopics(proofs []TopicProof) {
	rank := map[string]int{roleOutput: 0, roleEffects: 1, roleResults: 2, roleDeadLetter: 3}
	slices.SortFunc(proofs, func(a, b TopicProof) int {
		if a.Role != b.Role {
			return rank[a.Role] - rank[b.Role]
		}
		return strings.Compare(a.Topic, b.Topic)
	})
}
