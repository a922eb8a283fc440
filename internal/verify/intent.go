package verify

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"pawl/internal/message"
)

// repeat tells effects that the ledger leaves out: those that are not above what their origin gave to
// the lane before, because the input went back under the same replay generation.
func (c *Checker) repeat(lane int32, f *fact, from Origin, mark SourceMark) {
	if !f.has(flagCommitted) {
		return
	}
	at := laneOrigin{lane, from}
	if last, known := c.marks[at]; known && !mark.Above(last) {
		f.flags |= flagRepeat
		return
	}
	c.marks[at] = mark
}

// Row takes an effect that the ledger has.
func (c *Checker) Row(r *Row) error {
	c.saw.Rows++
	f := fact{
		kind: factStored, topic: c.byName[c.plan.Effects].number, partition: r.Lane, offset: r.Offset, id: r.ID, index: int32(r.Index), //nolint:gosec // as the record has it
		digest: c.digest.effect([]byte(r.Endpoint), []byte(r.Class), []byte(r.ContentType), []byte(r.BusinessKey), r.Key, r.Body),
		text:   r.Source.String(),
	}
	if err := c.intents.add(placeKey(0, r.Lane, r.Offset), &f); err != nil {
		return err
	}
	from := c.byName[r.Source.Topic]
	if from == nil || from.input == nil || from.input.TopicID != r.Source.TopicID {
		return nil
	}
	f.kind, f.extra, f.text = factRow, uint64(r.Source.ReplayGeneration), "" //nolint:gosec // bits
	return c.sources.add(placeKey(from.number, r.Source.Partition, r.Source.Offset), &f)
}

// Outcome takes a fate that the ledger has written down.
func (c *Checker) Outcome(o *Outcome) error {
	c.saw.Outcomes++
	return c.intents.add(placeKey(0, o.Lane, o.Offset), &fact{kind: factOutcome, partition: o.Lane, offset: o.Offset, number: o.Seq, text: o.Status})
}

// event is what is read of a result event.
type event struct {
	EffectID string `json:"effect_id"`
	Lane     int32  `json:"lane"`
	Offset   int64  `json:"offset"`
	Source   string `json:"source"`
	Status   string `json:"status"`
	Request  struct {
		Body []byte `json:"body"`
	} `json:"request"`
}

// event takes a record of the results topic.
func (c *Checker) event(t *topic, r *Record, tx *transaction) {
	var e event
	if err := json.Unmarshal(r.Value, &e); err != nil {
		// It is told when it is known to be committed: as the event of an effect that can't be there.
		tx.add(c.intents, placeKey(0, r.Partition, -1), fact{kind: factEvent, topic: t.number, partition: r.Partition, offset: r.Offset, text: "unreadable"})
		return
	}
	f := fact{kind: factEvent, topic: t.number, partition: r.Partition, offset: r.Offset, number: r.Offset, text: e.Status + "\n" + e.Source, extra: c.digest.key(r.Key)}
	f.id, _ = parseID([]byte(e.EffectID))
	if c.plan.Journal {
		f.digest = uint64(bodyDigest(sha256.Sum256(e.Request.Body))) //nolint:gosec // bits
	}
	if r.Partition != e.Lane {
		f.flags |= flagLost // it stands in another lane's partition
	}
	tx.add(c.intents, placeKey(0, e.Lane, e.Offset), f)
}

// Call takes what an endpoint saw next.
func (c *Checker) Call(call *Call) error {
	c.saw.Calls++
	c.calls++
	if call.Fence < c.fences[call.Lane] {
		c.saw.Stale++
	}
	c.fences[call.Lane] = max(c.fences[call.Lane], call.Fence)
	f := fact{
		kind: factCall, partition: call.Lane, offset: call.Offset, number: c.calls, index: int32(min(call.Attempt, math.MaxInt32)), //nolint:gosec // bounded
		extra: uint64(call.Fence), time: call.At.UnixMilli(), digest: uint64(bodyDigest(call.Body)), //nolint:gosec // bits
	}
	f.id, _ = parseID([]byte(call.ID))
	for flag, is := range map[uint16]bool{flagExecuted: call.Executed, flagRefused: call.Refused, flagLost: call.Lost, flagLate: call.Late} {
		if is {
			f.flags |= flag
		}
	}
	if call.Executed {
		c.saw.Executed++
	}
	return c.intents.add(placeKey(0, call.Lane, call.Offset), &f)
}

// errand is the case of one effect: from the effects topic over ledger and calls to its result.
type errand struct {
	c        *Checker
	at       Place
	lane     *Lane
	intent   *fact
	stored   []*fact
	outcomes []*fact
	events   []*fact
	calls    []*fact
}

// judgeIntent judges what became of one effect.
func (c *Checker) judgeIntent(k key, facts []fact) error {
	_, lane, offset := k.place()
	e := errand{c: c, at: Place{c.plan.Effects, lane, offset}, lane: c.lanes[lane]}
	for i := range facts {
		switch f := &facts[i]; f.kind {
		case factIntent:
			e.intent = f
		case factStored:
			e.stored = append(e.stored, f)
		case factOutcome:
			e.outcomes = append(e.outcomes, f)
		case factEvent:
			e.events = append(e.events, f)
		case factCall:
			e.calls = append(e.calls, f)
		default:
		}
	}
	slices.SortStableFunc(e.outcomes, func(a, b *fact) int { return cmp.Compare(a.number, b.number) })
	slices.SortStableFunc(e.events, func(a, b *fact) int { return cmp.Compare(a.number, b.number) })
	if !e.known() {
		return nil
	}
	e.judgeLedger()
	e.judgeEvents()
	e.judgeCalls()
	return e.judgeOrder()
}

func (e *errand) committed() bool { return e.intent != nil && e.intent.has(flagCommitted) }

// known tells whether the log of effects was read at this place. What a lane at rest has no record of
// does not exist.
func (e *errand) known() bool {
	p := e.c.parts[spotOf{e.c.byName[e.c.plan.Effects].number, e.at.Partition}]
	switch {
	case e.at.Offset < 0:
		return true // not a place: an event that can't be read
	case e.c.plan.Drained:
		return p == nil || e.at.Offset >= p.begin
	default:
		return p != nil && p.first >= 0 && e.at.Offset >= p.first && e.at.Offset < p.stable()
	}
}

// stable is where what was read of a partition stops being decided: its end, or the first record of a
// transaction that was open then. The ledger is read later, and may have what has been committed since.
func (p *partition) stable() int64 {
	stable := p.next
	for _, tx := range p.open {
		stable = min(stable, tx.first)
	}
	return stable
}

func (e *errand) fate() string {
	switch {
	case e.intent == nil:
		return "no effect stands there"
	case e.committed():
		return "a committed effect stands there"
	default:
		return "the effect that stands there is of an aborted or open transaction"
	}
}

// kept tells whether the ledger still has rows of this place.
func (e *errand) kept() bool { return e.lane != nil && e.at.Offset >= e.lane.Floor }

func (e *errand) judgeLedger() {
	c := e.c
	if !c.plan.Ledger {
		return
	}
	repeat := e.intent != nil && e.intent.has(flagRepeat)
	ingested := e.lane != nil && e.at.Offset < e.lane.Next
	switch {
	case len(e.stored) == 0 && e.committed() && repeat:
		c.saw.Suppressed++
	case len(e.stored) == 0 && e.committed() && !ingested && !c.plan.Drained:
		e.wait()
	case len(e.stored) == 0 && e.committed() && ingested && e.kept():
		c.findings.add(PGLost, e.at, "this committed effect of %s is not in the ledger, which has ingested its lane up to %d", e.intent.text, e.lane.Next)
	case len(e.stored) == 0 && e.committed() && c.plan.Drained && e.kept():
		c.findings.add(Undrained, e.at, "this committed effect of %s was never ingested: the ledger stands at %d in its lane", e.intent.text, e.lane.Next)
	case len(e.stored) == 0 && e.committed() && c.plan.Drained && e.lane == nil:
		c.findings.add(PGLost, e.at, "this committed effect of %s is not in the ledger, which does not know its lane", e.intent.text)
	case len(e.stored) == 0 && len(e.outcomes) > 0 && e.kept():
		c.findings.add(PGPhantom, e.at, "the ledger has an outcome (%s) of an effect that it does not have; %s", e.outcomes[0].text, e.fate())
	case len(e.stored) > 0 && !e.committed():
		c.findings.add(PGPhantom, e.at, "the ledger has an effect of %s there, but %s", e.stored[0].text, e.fate())
	case len(e.stored) > 0 && repeat:
		c.findings.add(PGDup, e.at, "the ledger has taken this effect of %s, which it must leave out: its lane was given that or a later one of the same input partition before", e.intent.text)
	}
	if len(e.stored) > 1 {
		c.findings.add(PGDup, e.at, "the ledger has %s of this effect", counted(int64(len(e.stored)), "row"))
	}
	if e.committed() && len(e.stored) > 0 {
		e.compare(e.stored[0])
		if len(e.outcomes) == 0 {
			e.wait()
			if c.plan.Drained {
				c.findings.add(Undrained, e.at, "this effect of %s has no outcome after everything has ended", e.intent.text)
			}
		}
	}
}

func (e *errand) compare(row *fact) {
	switch {
	case row.id != e.intent.id:
		e.c.findings.add(PGCorrupt, e.at, "the ledger has this effect under the id %s, the effects topic has it under %s", row.id, e.intent.id)
	case row.text != e.intent.text || row.index != e.intent.index:
		e.c.findings.add(PGCorrupt, e.at, "the ledger says that this effect is number %d of %s, the effects topic says number %d of %s", row.index, row.text, e.intent.index, e.intent.text)
	case row.digest != e.intent.digest:
		e.c.findings.add(PGCorrupt, e.at, "the ledger has this effect of %s with another endpoint, class, content type, key or body than the effects topic", e.intent.text)
	}
}

// judgeEvents holds the result events against the outcomes.
func (e *errand) judgeEvents() {
	c := e.c
	if c.plan.Results == "" {
		return
	}
	for _, event := range e.events {
		e.judgeEvent(event)
	}
	if !c.plan.Ledger {
		if len(e.events) > 1 && e.events[0].text == e.events[1].text {
			c.findings.add(ResultTwice, c.at(e.events[1]), "the result of effect %s was told before, at %s", e.at, c.at(e.events[0]))
		}
		return
	}
	c.byName[c.plan.Results].saw.Expected += int64(len(e.outcomes))
	for i, event := range e.events {
		switch {
		case i < len(e.outcomes):
			if got, want := statusOf(event), e.outcomes[i].text; got != want && !c.plan.Restored {
				c.findings.add(ResultStatus, c.at(event), "the event says that effect %s is %s, the ledger says %s (flush %d)", e.at, got, want, e.outcomes[i].number)
			}
		case e.kept() && !c.plan.Restored && i > 0:
			c.findings.add(ResultTwice, c.at(event), "effect %s has %s in the ledger and this is event number %d, the first is at %s", e.at, counted(int64(len(e.outcomes)), "outcome"), i+1, c.at(e.events[0]))
		case e.kept() && !c.plan.Restored && e.committed():
			c.findings.add(ResultPhantom, c.at(event), "the event tells that effect %s is %s, of which the ledger knows nothing", e.at, statusOf(event))
		}
	}
	for _, outcome := range e.outcomes[min(len(e.events), len(e.outcomes)):] {
		switch {
		case c.plan.Restored && len(e.events) > 0:
		case c.plan.Drained, e.lane != nil && outcome.number <= e.lane.Told:
			c.findings.blame(c.plan.Results, ResultMissing)
			c.findings.add(ResultMissing, e.at, "this effect is %s since flush %d of its lane, and no event tells it", outcome.text, outcome.number)
		default:
			e.wait()
		}
	}
}

// wait remembers that an effect is still on its way.
func (e *errand) wait() {
	e.c.saw.Waiting++
	if first, known := e.c.waiting[e.at.Partition]; !known || e.at.Offset < first {
		e.c.waiting[e.at.Partition] = e.at.Offset
	}
}

func statusOf(event *fact) string {
	for i, b := range []byte(event.text) {
		if b == '\n' {
			return event.text[:i]
		}
	}
	return event.text
}

func (e *errand) judgeEvent(event *fact) {
	c := e.c
	switch {
	case e.at.Offset < 0:
		c.findings.add(ResultPhantom, c.at(event), "this committed record of the results topic can't be read as an event")
	case !e.committed():
		c.findings.add(ResultPhantom, c.at(event), "the event tells of effect %s, but %s", e.at, e.fate())
	case event.id != e.intent.id || event.text != statusOf(event)+"\n"+e.intent.text || event.extra != e.intent.extra || event.has(flagLost):
		c.findings.add(ResultStatus, c.at(event), "the event of effect %s has another id, source, key or partition than the effect", e.at)
	case c.plan.Journal && int64(event.digest) != e.intent.number: //nolint:gosec // bits
		c.findings.add(ResultStatus, c.at(event), "the event of effect %s has another request than was asked for", e.at)
	}
}

// judgeCalls holds what endpoints saw against what was asked for.
func (e *errand) judgeCalls() {
	c := e.c
	if !c.plan.Journal {
		return
	}
	for _, call := range e.calls {
		switch {
		case !e.committed():
			c.findings.add(PhantomCall, e.at, "call number %d of the journal is for effect %s, but %s", call.number, e.at, e.fate())
		case call.id != e.intent.id:
			c.findings.add(Mutated, e.at, "call number %d was made with the key %s, the effect has %s", call.number, call.id, e.intent.id)
		case int64(call.digest) != e.intent.number: //nolint:gosec // bits
			c.findings.add(Mutated, e.at, "call number %d (attempt %d) had another body than the effect", call.number, call.index)
		case call.time < e.intent.time-c.plan.ClockSkew.Milliseconds():
			c.findings.add(EarlyCall, e.at, "call number %d came %d ms before the transaction of its effect was committed", call.number, e.intent.time-call.time)
		}
	}
	if !e.committed() {
		return
	}
	done, executed := 0, 0
	for _, outcome := range e.outcomes {
		if outcome.text == "done" {
			done++
		}
	}
	for _, call := range e.calls {
		if call.has(flagExecuted) {
			executed++
		}
	}
	if done > 0 && executed == 0 && e.kept() {
		c.findings.add(LostCall, e.at, "the ledger has this effect as done, and no endpoint has executed it (%s)", counted(int64(len(e.calls)), "call"))
	}
	if sent := e.transmissions(); e.intent.has(flagAtMostOnce) && sent > max(1, len(e.outcomes)) {
		c.findings.add(AMOViolation, e.at, "this effect must be sent once at most and was sent %d times", sent)
	}
	e.judgeRepeats()
}

// transmissions counts the calls. Where the ledger went back, the note that an only call was begun may have gone with
// what is lost, and then whoever took up the lane from the backup, under a higher fence, has made it again: those
// of the busiest fence count.
func (e *errand) transmissions() int {
	if !e.c.plan.Restored {
		return len(e.calls)
	}
	most, byFence := 0, map[uint64]int{}
	for _, call := range e.calls {
		byFence[call.extra]++
		most = max(most, byFence[call.extra])
	}
	return most
}

// judgeRepeats wants a reason for every call that came although the effect had been settled: the answer
// got lost, a later owner took over, the caller counts an attempt that it got no answer to in time, it had been made
// before the one that was read before it, or it had a tenure that had ended, where the plan says that one might not know.
func (e *errand) judgeRepeats() {
	c := e.c
	settled, lost := false, false
	var fence uint64
	var attempt int32
	extra := len(e.outcomes) - 1 // an operator's order lets it be sent again
	for _, call := range e.calls {
		if settled && call.has(flagLate) {
			c.saw.Explained++ // by the one before it, which stays the last: else one cut would explain two repeats
			continue
		}
		if settled {
			switch {
			case lost, call.extra > fence, call.extra == fence && call.index > attempt, c.plan.Overlaps && call.extra < fence:
				c.saw.Explained++
			case extra > 0:
				extra--
				c.saw.Explained++
			default:
				c.findings.add(UnexplainedDup, e.at, "call number %d (attempt %d, fence %d) came although the effect had been settled with attempt %d, fence %d, and that answer was not lost",
					call.number, call.index, call.extra, attempt, fence)
			}
		}
		switch {
		case call.extra > fence:
			fence, attempt = call.extra, call.index
		case call.extra == fence:
			attempt = max(attempt, call.index)
		}
		if call.has(flagExecuted) || call.has(flagRefused) {
			settled = true
		}
		lost = call.has(flagLost) || !call.has(flagExecuted) && !call.has(flagRefused)
	}
}

// sent tells whether the effect was one to be sent, as its result says. A duplicate and a conflict are not:
// what became of them is known when they are ingested, and is told while earlier effects of the key wait.
func (e *errand) sent() bool {
	status, _, _ := strings.Cut(e.events[0].text, "\n")
	// What was being sent when its owner was lost is unknown at once, too, while those before it may be sent again.
	return status != "duplicate" && status != "conflict" && status != "unknown"
}

// judgeOrder hands on who was first, for the comparison with the others of the key.
func (e *errand) judgeOrder() error {
	if !e.committed() {
		return nil
	}
	c := e.c
	first := fact{partition: e.at.Partition, offset: e.at.Offset, text: fmt.Sprintf("%d:%d", e.at.Partition, e.at.Offset)}
	if len(e.outcomes) > 1 || len(e.events) > 1 {
		first.flags |= flagRetried
	}
	k := pairKey(uint64(e.at.Partition), e.intent.extra) //nolint:gosec // bits
	if len(e.events) > 0 && e.sent() {
		told := first
		told.kind, told.number = factTold, e.events[0].number
		if err := c.orders.add(k, &told); err != nil {
			return err
		}
	}
	for _, call := range e.calls {
		if !call.has(flagExecuted) {
			continue
		}
		executed := first
		executed.kind, executed.number, executed.extra = factExecuted, call.number, call.extra
		if e.intent.has(flagBusiness) {
			if err := c.ids.add(key(e.intent.id), &executed); err != nil {
				return err
			}
		}
		return c.orders.add(k, &executed)
	}
	return nil
}

// judgeOrder holds the effects of one lane and key against their order. Where the ledger went back, one that was
// a duplicate may be the first with its business key now, and be called and told when later ones have been: then
// only what one owner has done can be judged, and not what was told.
func (c *Checker) judgeOrder(_ key, facts []fact) error {
	for _, kind := range []kind{factExecuted, factTold} {
		slices.SortStableFunc(facts, func(a, b fact) int { return cmp.Compare(b.offset, a.offset) })
		var earliest *fact // of the later effects
		for i := range facts {
			f := &facts[i]
			if f.kind != kind || f.has(flagRetried) {
				continue
			}
			at := Place{c.plan.Effects, f.partition, f.offset}
			switch {
			case earliest == nil || f.number < earliest.number:
				earliest = f
			case c.plan.Restored && (kind == factTold || f.extra != earliest.extra):
			case kind == factTold:
				c.findings.add(ResultOrder, at, "the result of effect %s was told after that of %s, which is of the same key and comes later", f.text, earliest.text)
			case f.extra >= earliest.extra:
				c.findings.add(CallReorder, at, "effect %s was executed first by call number %d, after effect %s, which is of the same key and comes later, had been by call number %d", f.text, f.number, earliest.text, earliest.number)
			}
		}
	}
	return nil
}

// judgeID finds effects with one business key of which more than one was executed. A ledger that went back may
// take another one for the first: the receiver, who knows the key, is asked twice.
func (c *Checker) judgeID(k key, facts []fact) error {
	if c.plan.Restored {
		return nil
	}
	for i := 1; i < len(facts); i++ {
		if !facts[i].has(flagRetried) && !facts[0].has(flagRetried) {
			c.findings.add(UnexplainedDup, Place{c.plan.Effects, facts[i].partition, facts[i].offset}, "effects %s and %s have one idempotency key (%s), and both were executed", facts[0].text, facts[i].text, message.ID(k))
		}
	}
	return nil
}
