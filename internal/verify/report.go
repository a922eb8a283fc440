package verify

import (
	"maps"
	"slices"
)

// balance is an account that must be even.
type balance struct {
	sum   int64
	first Place
}

// Post adds to an account, which must come to 0: what is given with one sign must be taken with the
// other. The smallest unit of the currency counts, so that sums are exact.
func (c *Checker) Post(account string, amount int64, at Place) {
	b := c.sums[account]
	if b == nil {
		b = &balance{first: at}
		c.sums[account] = b
	}
	b.sum += amount
}

// Report judges what was fed. It may be called once.
func (c *Checker) Report() (Report, error) {
	c.judgeOpen()
	err := firstError(
		func() error { return c.ends.each(c.judgeAttempt) },
		func() error { return c.sources.each(c.judgeSource) },
		func() error { return c.intents.each(c.judgeIntent) },
		func() error { return c.orders.each(c.judgeOrder) },
		func() error { return c.ids.each(c.judgeID) },
		func() error { return c.places.each(c.judgePlace) },
	)
	if err != nil {
		return Report{}, err
	}
	c.judgeTiles()
	c.judgeDrained()
	c.judgeSums()
	c.judgeSanity()
	report := Report{Findings: []Finding{}, Counts: map[Verdict]int64{}, Saw: c.saw, Topics: []TopicSaw{}, Reasons: c.reasons, Fates: c.fates}
	report.Saw.Facts, report.Saw.Spilled = c.budget.facts, c.budget.spilled
	maps.Copy(report.Counts, c.findings.counts)
	for _, verdict := range Verdicts() {
		report.Findings = append(report.Findings, c.findings.first[verdict]...)
	}
	for _, name := range slices.Sorted(maps.Keys(c.byName)) {
		if name == "" {
			continue // what the plan does not have
		}
		saw := c.byName[name].saw
		saw.Topic, saw.Findings = name, c.findings.byTopic[name]
		report.Topics = append(report.Topics, saw)
	}
	return report, nil
}

func (c *Checker) judgeDrained() {
	if !c.plan.Drained {
		return
	}
	for _, b := range c.bounds {
		if b.Committed < b.End {
			c.findings.add(Undrained, Place{b.Topic, b.Partition, b.Committed}, "the committed offset is %d and the log ends at %d: the inputs from here on were not processed", b.Committed, b.End)
		}
	}
}

func (c *Checker) judgeSums() {
	for _, account := range slices.Sorted(maps.Keys(c.sums)) {
		if b := c.sums[account]; b.sum != 0 {
			c.findings.add(Unbalanced, b.first, "account %s is off by %d", account, b.sum)
		}
	}
}

// judgeSanity fails a history in which too little happened: a check that saw nothing proves nothing.
func (c *Checker) judgeSanity() {
	least := c.plan.Least
	if least.Inputs == 0 && !least.Idle {
		least.Inputs = 1
	}
	for _, one := range []struct {
		what      string
		got, want int64
	}{
		{"inputs judged", c.saw.Judged, least.Inputs},
		{"ends of committed transactions", c.saw.Commits, least.Committed},
		{"ends of aborted transactions", c.saw.Aborts, least.Aborted},
		{"committed effects", c.saw.Effects, least.Effects},
		{"calls", c.saw.Calls, least.Calls},
		{"result events", c.saw.Results, least.Results},
	} {
		if one.got < one.want {
			c.findings.add(Sanity, Place{}, "%d %s, want at least %d: too little happened for this to prove anything", one.got, one.what, one.want)
		}
	}
	reads := map[string]int64{}
	for way, span := range c.readers {
		reads[way.reader] += span.count
	}
	if c.plan.Readers && len(reads) == 0 {
		c.findings.add(Sanity, Place{}, "no reader got anything")
	}
	for _, reader := range slices.Sorted(maps.Keys(reads)) {
		if reads[reader] < least.Reads {
			c.findings.add(Sanity, Place{}, "reader %s got %d records, want at least %d", reader, reads[reader], least.Reads)
		}
	}
}
