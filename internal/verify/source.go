package verify

import (
	"slices"
	"strconv"
)

// judgement is the case of one input: what it must lead to, and what the logs have of it.
type judgement struct {
	c         *Checker
	topic     *topic
	partition int32
	offset    int64
	input     *fact
	expected  []*fact
	seen      []outcome
}

// outcome is something committed that says it was made from an input.
type outcome struct {
	*fact

	generation int
	matched    bool
}

// within says where an input lies in what is to be judged.
type within int

const (
	unknown within = iota // nobody told how far the partition has been processed
	below                 // the range
	inside
	underWay // it may or may not have been processed while the logs were read
	beyond   // it was not processed before the reading was over
)

func (c *Checker) within(at spotOf, offset int64) within {
	bounds, known := c.bounds[at]
	switch {
	case !known:
		return unknown
	case offset < bounds.From:
		return below
	case offset < bounds.Committed:
		return inside
	case offset < bounds.After:
		return underWay
	default:
		return beyond
	}
}

// judgeSource judges what was made of one input.
func (c *Checker) judgeSource(k key, facts []fact) error {
	number, partition, offset := k.place()
	j := &c.judgement // its slices are used again
	*j = judgement{c: c, topic: c.topics[number], partition: partition, offset: offset, expected: j.expected[:0], seen: j.seen[:0]}
	rows := false
	for i := range facts {
		switch f := &facts[i]; f.kind {
		case factInput:
			j.input = f
		case factExpected:
			j.expected = append(j.expected, f)
		case factSeen:
			j.seen = append(j.seen, outcome{fact: f})
		case factRow:
			rows = true
		default:
		}
	}
	if rows {
		c.judgeRows(facts)
	}
	switch c.within(spotOf{number, partition}, offset) {
	case inside:
		j.judge()
	case below:
		c.saw.Outside += int64(len(j.seen))
		for _, o := range j.seen {
			if o.has(flagFresh) {
				c.findings.add(Duplicate, c.at(o.fact), "this was made from %s, whose outcome had been committed and judged before: it was processed again", j.place())
			}
		}
	case beyond:
		for _, o := range j.seen {
			c.findings.add(Torn, c.at(o.fact), "this was made from %s and is committed, but the committed offset of that partition is still %d: outputs and offsets of its transaction (producer %d, epoch %d) did not become visible together",
				j.place(), c.bounds[spotOf{number, partition}].After, o.producer, o.epoch)
		}
	default:
		c.saw.Outside += int64(len(j.seen))
	}
	return nil
}

func (j *judgement) place() Place { return Place{j.topic.name, j.partition, j.offset} }

// repeated tells whether it may have been processed more than once.
func (j *judgement) repeated() bool {
	return slices.ContainsFunc(j.c.plan.Repeated, func(r Range) bool {
		return r.Topic == j.topic.name && r.Partition == j.partition && j.offset >= r.From && j.offset < r.To
	})
}

func (j *judgement) modelled() bool { return j.input != nil && j.input.has(flagModelled) }

func (j *judgement) judge() {
	if j.input != nil {
		j.c.saw.Judged++
		if j.modelled() {
			j.c.saw.Modelled++
		}
	} else if j.phantomInput() {
		return
	}
	j.resolve()
	if len(j.seen) == 0 {
		j.judgeGeneration(j.c.plan.Generation)
		return
	}
	for i := range j.seen {
		generation := j.seen[i].generation
		if !slices.ContainsFunc(j.seen[:i], func(o outcome) bool { return o.generation == generation }) {
			j.judgeGeneration(generation)
		}
	}
}

// phantomInput tells whether what was seen is of an input that was never committed. Where the log has
// lost its beginning, or is compacted, the input may have been there.
func (j *judgement) phantomInput() bool {
	p := j.c.parts[spotOf{j.topic.number, j.partition}]
	if j.topic.input.Compacted || p == nil || p.first < 0 || j.offset < p.begin || j.offset < p.first || j.offset >= p.next || len(j.seen) == 0 {
		return false
	}
	for _, o := range j.seen {
		j.c.findings.add(Phantom, j.c.at(o.fact), "this was made from %s, where no committed record stands", j.place())
	}
	return true
}

// resolve finds for each outcome which entry of its input it is, by its id.
func (j *judgement) resolve() {
	kept := j.seen[:0]
	for _, o := range j.seen {
		if j.identify(&o) {
			kept = append(kept, o)
			continue
		}
		if j.c.plan.Shared {
			j.c.saw.Foreign++
			continue
		}
		j.c.findings.add(Phantom, j.c.at(o.fact), "this says that it was made from %s, but its id %s is none that this input can give: another application, topic id or replay generation, or a forgery", j.place(), o.id)
	}
	j.seen = kept
}

// identify finds generation and index. The newest generation is tried first, and what the model expects.
func (j *judgement) identify(o *outcome) bool {
	if o.has(flagBusiness) { // made from the business key; generation and index stand in the record
		o.generation = int(o.extra) //nolint:gosec // as it was put there
		return true
	}
	for generation := range slices.Backward(j.topic.spaces) {
		space := j.topic.spaces[generation]
		try := func(index int32) bool {
			if space.ID(j.partition, j.offset, int(index)) != o.id {
				return false
			}
			o.generation, o.index = generation, index
			return true
		}
		if o.index != noIndex {
			if try(o.index) {
				return true
			}
			continue
		}
		for _, e := range j.expected {
			if e.topic == o.topic && try(e.index) {
				return true
			}
		}
		for index := range int32(len(j.seen) + indexesTried) { //nolint:gosec // an input has some thousands at most
			if try(index) {
				return true
			}
		}
	}
	return false
}

// judgeGeneration holds the outcomes under one replay generation against what there must be.
func (j *judgement) judgeGeneration(generation int) {
	wanted := j.wanted(generation)
	var twice bool
	for _, want := range wanted {
		j.c.topics[want.topic].saw.Expected++
		var first *outcome
		for i := range j.seen {
			o := &j.seen[i]
			if o.generation != generation || o.topic != want.topic || o.index != want.index {
				continue
			}
			o.matched = true
			if first == nil {
				first = o
				continue
			}
			twice = true
			if j.repeated() {
				continue
			}
			j.c.findings.add(Duplicate, j.c.at(o.fact), "%s of %s is committed twice: first at %s (producer %d, epoch %d), again here (producer %d, epoch %d)",
				j.name(want), j.place(), j.c.at(first.fact), first.producer, first.epoch, o.producer, o.epoch)
		}
		j.compare(want, first)
	}
	for i := range j.seen {
		if o := &j.seen[i]; o.generation == generation && !o.matched {
			o.matched = true
			j.c.findings.add(Phantom, j.c.at(o.fact), "this is committed as %s of %s, which its handler does not ask for: it makes %s there",
				j.name(o.fact), j.place(), counted(int64(len(wanted)), "outcome"))
		}
	}
	if !twice {
		j.judgeTogether(generation)
	}
}

// wanted lists what must be there. Without a model, or where the engine itself rejected the record, that
// is what is there, each once.
func (j *judgement) wanted(generation int) []*fact {
	for i := range j.seen {
		if o := &j.seen[i]; o.generation == generation && j.c.topics[o.topic].letters && byEngine(o.text) {
			j.c.saw.Rejected++
			return []*fact{j.letter(o)}
		}
	}
	if j.modelled() {
		return j.expected
	}
	var each []*fact
	var letter, other *fact
	for i := range j.seen {
		o := &j.seen[i]
		if o.generation != generation {
			continue
		}
		if j.c.topics[o.topic].letters {
			letter = o.fact
		} else {
			other = o.fact
		}
		if !slices.ContainsFunc(each, func(f *fact) bool { return f.topic == o.topic && f.index == o.index }) {
			each = append(each, o.fact)
		}
	}
	if letter != nil && other != nil {
		j.c.findings.add(Duplicate, j.c.at(other), "%s has two fates: it is a dead letter at %s, and this was made from it", j.place(), j.c.at(letter))
	}
	if len(each) == 0 && j.input != nil {
		j.c.saw.Silent++
	}
	return each
}

// letter is what the dead letter of the engine must be: the record as it came.
func (j *judgement) letter(o *outcome) *fact {
	want := *o.fact
	if j.input != nil {
		want.digest = j.input.digest
	}
	return &want
}

func (j *judgement) name(f *fact) string {
	t := j.c.topics[f.topic]
	switch {
	case t.letters:
		return "the dead letter"
	case t.effects:
		return "effect " + strconv.Itoa(int(f.index))
	default:
		return "the outcome"
	}
}

// compare holds one outcome against what the model makes.
func (j *judgement) compare(want *fact, got *outcome) {
	c := j.c
	if got == nil {
		if c.mayBeGone(j, want) {
			c.saw.Expired++
			return
		}
		bounds := c.bounds[spotOf{j.topic.number, j.partition}]
		c.findings.blame(c.topics[want.topic].name, Lost)
		c.findings.add(Lost, j.place(), "%s must be on %s%s and is not: the input is committed, and so is the offset %d behind it", j.name(want), c.topics[want.topic].name, because(want.text), bounds.Committed)
		return
	}
	if got.has(flagBehind) && !j.repeated() {
		c.findings.add(Reordered, c.at(got.fact), "this was made from %s and stands behind what was made from offset %d of the same partition", j.place(), got.number)
	}
	switch {
	case got.text != want.text:
		c.findings.add(Corrupt, c.at(got.fact), "%s was rejected as %s, its handler rejects it as %s", j.place(), got.text, want.text)
	case got.digest != want.digest && (want.extra == 0 || got.digest != want.extra):
		c.findings.add(Corrupt, c.at(got.fact), "this was made from %s and has other content than its handler makes of it (key, value, headers or time)", j.place())
	case want.has(flagBusiness) && got.id != want.id:
		c.findings.add(Corrupt, c.at(got.fact), "this effect of %s has the id %s, its business key gives %s", j.place(), got.id, want.id)
	}
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (reason " + reason + ")"
}

// mayBeGone tells whether what is missing can have stood where a log has lost its beginning: before the
// first that a road has left, in a partition that does not begin at 0.
func (c *Checker) mayBeGone(j *judgement, want *fact) bool {
	if c.topics[want.topic].compacted {
		return true
	}
	for at, p := range c.parts {
		if at.topic != want.topic || p.begin == 0 {
			continue
		}
		last := c.roads[road{spotOf{j.topic.number, j.partition}, at}]
		if last == nil || j.offset < last.first {
			return true
		}
	}
	return false
}

// judgeTogether looks whether all that was made of an input is of one transaction.
func (j *judgement) judgeTogether(generation int) {
	var first *outcome
	for i := range j.seen {
		o := &j.seen[i]
		if o.generation != generation {
			continue
		}
		if first == nil {
			first = o
			continue
		}
		if o.producer != first.producer || o.epoch != first.epoch {
			j.c.findings.add(Torn, j.c.at(o.fact), "what was made of %s is of two transactions: %s of producer %d, epoch %d, and this of producer %d, epoch %d",
				j.place(), j.c.at(first.fact), first.producer, first.epoch, o.producer, o.epoch)
			return
		}
	}
}

// judgeRows finds an effect that is in the ledger twice.
func (c *Checker) judgeRows(facts []fact) {
	for i := range facts {
		for k := range i {
			a, b := &facts[k], &facts[i]
			if a.kind == factRow && b.kind == factRow && a.index == b.index && a.extra == b.extra {
				c.findings.add(PGDup, Place{c.plan.Effects, b.partition, b.offset}, "the ledger has the effect with index %d of one input twice: as %d:%d and as %d:%d", b.index, a.partition, a.offset, b.partition, b.offset)
			}
		}
	}
}
