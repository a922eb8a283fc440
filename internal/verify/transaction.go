package verify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// transaction is what a producer wrote to one partition and has not ended yet. Its facts wait here,
// because what they are worth is known only from the marker that ends it.
type transaction struct {
	producer int64
	epoch    int16
	first    int64 // offset
	records  int32
	facts    []waiting
	strange  []strangeRecord
	origins  []Origin     // of the intents among facts, in their order
	marks    []SourceMark // likewise
}

type waiting struct {
	group *groups
	key   key
	fact  fact
}

// strangeRecord is an outcome that names no source of ours.
type strangeRecord struct {
	offset int64
	source string
	named  bool // it has a source and an id, but of another topic
	effect bool
}

func (tx *transaction) add(g *groups, k key, f fact) { tx.facts = append(tx.facts, waiting{g, k, f}) }

// begin gives the transaction that a record belongs to. One without any has one of its own.
func (c *Checker) begin(p *partition, r *Record) *transaction {
	if r.Transactional {
		if tx := p.open[r.Producer]; tx != nil {
			tx.records++
			return tx
		}
	}
	tx := &transaction{}
	if n := len(c.pool); n > 0 {
		tx, c.pool = c.pool[n-1], c.pool[:n-1]
	}
	tx.producer, tx.epoch, tx.first, tx.records = r.Producer, r.Epoch, r.Offset, 1
	if r.Transactional {
		p.open[r.Producer] = tx
	}
	return tx
}

// poolMax bounds the transactions that are kept to be used again, pooledFacts what each may hold.
const (
	poolMax     = 64
	pooledFacts = 16 << 10
)

func (c *Checker) recycle(tx *transaction) {
	if len(c.pool) < poolMax && cap(tx.facts) <= pooledFacts {
		tx.facts, tx.strange, tx.origins, tx.marks = tx.facts[:0], tx.strange[:0], tx.origins[:0], tx.marks[:0]
		c.pool = append(c.pool, tx)
	}
}

// Marker takes the control record that stands next in a log.
func (c *Checker) Marker(m *Marker) error {
	t, p, err := c.advance(m.Topic, m.Partition, m.Offset)
	if err != nil {
		return err
	}
	if m.Commit {
		c.saw.Commits++
	} else {
		c.saw.Aborts++
	}
	tx := p.open[m.Producer]
	if tx == nil {
		return nil // nothing was written here, or it was trimmed
	}
	delete(p.open, m.Producer)
	end := fact{kind: factEnd, topic: t.number, partition: m.Partition, offset: tx.first, number: m.Offset, index: tx.records}
	if m.Commit {
		end.flags |= flagCommitted
	} else {
		end.flags |= flagAborted
	}
	if t.input != nil && !t.results {
		end.flags |= flagTheirs
	}
	if err := c.ends.add(attemptKey(tx.producer, tx.epoch), &end); err != nil {
		return err
	}
	return c.settle(t, p, m.Partition, tx, decision{m.Commit, m.Offset, m.Timestamp.UnixMilli()})
}

func attemptKey(producer int64, epoch int16) key {
	return pairKey(uint64(producer), uint64(uint16(epoch))) //nolint:gosec // bits
}

// decision is the end of a transaction in a partition: that of its marker, or of a record without one.
type decision struct {
	committed bool
	offset    int64
	time      int64 // Unix ms
}

// settle turns what waited into evidence.
func (c *Checker) settle(t *topic, p *partition, number int32, tx *transaction, end decision) error {
	defer c.recycle(tx)
	for i := range tx.strange {
		c.strangeOutcome(t, number, &tx.strange[i], end.committed)
	}
	intents := 0
	for i := range tx.facts {
		w := &tx.facts[i]
		f := &w.fact
		f.time = end.time
		if p.fresh > 0 && end.offset >= p.fresh {
			f.flags |= flagFresh
		}
		if end.committed {
			f.flags |= flagCommitted
		} else {
			f.flags |= flagAborted
		}
		if f.kind == factIntent {
			c.repeat(number, f, tx.origins[intents], tx.marks[intents])
			intents++
		}
		if !c.keep(t, number, w) {
			continue
		}
		if err := w.group.add(w.key, f); err != nil {
			return err
		}
	}
	return nil
}

// keep counts a fact and tells whether it is evidence: of what was aborted only effects are, which must
// not be called, and what readers may have got.
func (c *Checker) keep(t *topic, number int32, w *waiting) bool {
	f := &w.fact
	committed := f.has(flagCommitted)
	switch f.kind {
	case factInput:
		if committed {
			c.saw.Inputs++
			t.saw.Inputs++
		}
	case factSeen:
		count(t, committed)
		switch {
		case !committed:
			c.saw.Aborted++
		case t.effects:
			c.saw.Effects++
		case t.letters:
			c.saw.DeadLetters++
			c.reasons[f.text]++
		default:
			c.saw.Outputs++
		}
		if committed {
			c.travel(number, w)
		}
	case factEvent:
		count(t, committed)
		if committed {
			c.saw.Results++
			c.fates[statusOf(f)]++
		}
	case factIntent, factLog:
		return true
	default:
	}
	return committed
}

func count(t *topic, committed bool) {
	if committed {
		t.saw.Seen++
	} else {
		t.saw.Aborted++
	}
}

// travel looks whether an outcome stands in the order of its inputs. The engine writes what it made of
// one input partition in the order of that partition, whatever the keys; aborted attempts apart.
func (c *Checker) travel(number int32, w *waiting) {
	f := &w.fact
	topic, partition, source := w.key.place()
	way := road{spotOf{topic, partition}, spotOf{f.topic, number}}
	if c.lastRoad == nil || c.lastWay != way { // most take the same road as the one before
		c.lastRoad, c.lastWay = c.roads[way], way
	}
	last := c.lastRoad
	if last == nil {
		c.lastRoad = &lastOn{source, source, f.offset, f.id}
		c.roads[way] = c.lastRoad
		return
	}
	if source < last.source && f.offset > last.offset && !c.laterGeneration(w, last) {
		f.flags |= flagBehind
		f.number = last.source
	}
	last.source, last.offset, last.id = source, f.offset, f.id
}

// laterGeneration tells whether a road began anew because the replay generation was raised.
func (c *Checker) laterGeneration(w *waiting, last *lastOn) bool {
	if c.plan.Generation == 0 {
		return false
	}
	topic, partition, source := w.key.place()
	t := c.topics[topic]
	now, known := c.generationOf(t, partition, source, w.fact.id)
	before, knownBefore := c.generationOf(t, partition, last.source, last.id)
	return known && knownBefore && now > before
}

// indexesTried bounds the search for the index of an outcome whose number no model tells.
const indexesTried = 64

// generationOf finds the generation that gave an outcome its id.
func (c *Checker) generationOf(t *topic, partition int32, offset int64, id [16]byte) (int, bool) {
	for generation := range slices.Backward(t.spaces) {
		for index := deadLetterIndex; index < indexesTried; index++ {
			if t.spaces[generation].ID(partition, offset, index) == id {
				return generation, true
			}
		}
	}
	return 0, false
}

func (c *Checker) strangeOutcome(t *topic, number int32, s *strangeRecord, committed bool) {
	count(t, committed)
	if !committed {
		c.saw.Aborted++
		return
	}
	if c.plan.Shared {
		c.saw.Foreign++
		return
	}
	at := Place{t.name, number, s.offset}
	switch {
	case s.named && s.effect && c.byName[topicOf(s.source)] != nil:
		c.findings.add(Phantom, at, "this committed effect says that it was made from %s, but of another topic of that name (another topic id)", s.source)
	case s.named:
		c.findings.add(Phantom, at, "this committed record says that it was made from %s, which is no input of %s", s.source, c.plan.Application)
	default:
		c.findings.add(Phantom, at, "this committed record carries no readable pawl-source and pawl-id (%q): whoever wrote it, it was made from no input", s.source)
	}
}

func topicOf(source string) string {
	parts := strings.Split(source, "/")
	return parts[0]
}

// Span takes what a worker says of its transaction.
func (c *Checker) Span(s *Span) error {
	t := c.byName[s.Topic]
	if t == nil || t.input == nil {
		return fmt.Errorf("the plan has no input topic %s", s.Topic)
	}
	c.saw.Spans++
	return c.ends.add(attemptKey(s.Producer, s.Epoch), &fact{
		kind: factClaim, topic: t.number, partition: s.Partition, offset: s.From, number: s.To, index: int32(s.Claim),
	})
}

// judgeAttempt looks at all ends of one transaction. Under transaction.version 2 each transaction has an
// epoch of its own. Where one epoch ends twice in a partition it is version 1, and nothing can be said; nor
// about the transactions of those who write the inputs, whose version we do not know.
func (c *Checker) judgeAttempt(k key, facts []fact) error {
	high, low := k.pair()
	producer, epoch := int64(high), int16(low) //nolint:gosec // as they were put there
	var committed, aborted *fact
	for i := range facts {
		f := &facts[i]
		if f.kind != factEnd || f.has(flagTheirs) {
			continue
		}
		if slices.ContainsFunc(facts[:i], func(g fact) bool { return g.kind == factEnd && g.topic == f.topic && g.partition == f.partition }) {
			return nil
		}
		if f.has(flagCommitted) {
			committed = f
		} else {
			aborted = f
		}
	}
	if aborted != nil {
		c.saw.TransactionsAborted++
	}
	if committed != nil && aborted != nil {
		c.findings.add(Torn, c.at(aborted), "one transaction (producer %d, epoch %d) ended both ways: its %s from %s on are aborted, its %s from %s on are committed",
			producer, epoch, counted(int64(aborted.index), "record"), c.at(aborted), counted(int64(committed.index), "record"), c.at(committed))
	}
	for i := range facts {
		if facts[i].kind == factClaim {
			c.judgeClaim(&facts[i], producer, epoch, committed, aborted)
		}
	}
	return nil
}

// tile is what one committed transaction took from an input partition.
type tile struct {
	from, to int64
	producer int64
	epoch    int16
}

func (c *Checker) judgeClaim(f *fact, producer int64, epoch int16, committed, aborted *fact) {
	at := spotOf{f.topic, f.partition}
	place := Place{c.topics[f.topic].name, f.partition, f.offset}
	claim := Claim(f.index) //nolint:gosec // as it was put there
	switch {
	case claim == ClaimCommitted && committed == nil && aborted != nil:
		c.findings.add(LostCommit, place, "the worker of inputs %d to %d was told that its transaction (producer %d, epoch %d) is committed; the marker after %s says aborted",
			f.offset, f.number-1, producer, epoch, c.at(aborted))
	case claim == ClaimAborted && committed != nil:
		c.findings.add(GhostCommit, place, "the worker of inputs %d to %d was told that its transaction (producer %d, epoch %d) is aborted; the marker after %s says committed",
			f.offset, f.number-1, producer, epoch, c.at(committed))
	}
	if committed != nil || aborted == nil && claim == ClaimCommitted {
		c.tiles[at] = append(c.tiles[at], tile{f.offset, f.number, producer, epoch})
	}
}

// judgeTiles looks whether the committed transactions took each input once.
func (c *Checker) judgeTiles() {
	for at, tiles := range c.tiles {
		slices.SortFunc(tiles, func(a, b tile) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
		name := c.topics[at.topic].name
		for i := 1; i < len(tiles); i++ {
			last, next := tiles[i-1], tiles[i]
			switch {
			case next.from < last.to:
				c.findings.add(DoubleProcess, Place{name, at.partition, next.from}, "inputs %d to %d are in two committed transactions: producer %d epoch %d took %d to %d, producer %d epoch %d took %d to %d",
					next.from, min(last.to, next.to)-1, last.producer, last.epoch, last.from, last.to-1, next.producer, next.epoch, next.from, next.to-1)
				tiles[i].to = max(last.to, next.to)
			case next.from > last.to:
				c.findings.add(Skip, Place{name, at.partition, last.to}, "inputs %d to %d are in no committed transaction: producer %d epoch %d took those before, producer %d epoch %d those after",
					last.to, next.from-1, last.producer, last.epoch, next.producer, next.epoch)
			}
		}
	}
}

// judgeOpen looks at what never ended.
func (c *Checker) judgeOpen() {
	for at, p := range c.parts {
		for producer, tx := range p.open {
			c.saw.Open += int64(tx.records)
			if c.plan.Drained {
				place := Place{c.topics[at.topic].name, at.partition, tx.first}
				c.findings.add(Hanging, place, "producer %d (epoch %d) wrote %s from here on and never ended its transaction: whoever reads committed records is stuck here",
					producer, tx.epoch, counted(int64(tx.records), "record"))
			}
		}
	}
}

// Hanging tells of a transaction that has been open too long for the reading to wait for its end.
func (c *Checker) Hanging(at Place, since time.Duration) {
	c.findings.add(Hanging, at, "the last stable offset has been standing here for %s: an open transaction keeps whoever reads committed records from going on; see `processor txn ls --all`", since.Round(time.Second))
}

// at names the place of a fact.
func (c *Checker) at(f *fact) Place { return Place{c.topics[f.topic].name, f.partition, f.offset} }

func counted(n int64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
