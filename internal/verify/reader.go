package verify

import "fmt"

// readerOf is what one reader got of one partition.
type readerOf struct {
	reader string
	at     spotOf
}

type readerSpan struct{ first, last, count int64 }

// Read takes what a read_committed reader got next.
func (c *Checker) Read(r *Read) error {
	record := r.Record
	t := c.byName[record.Topic]
	if t == nil {
		return fmt.Errorf("the plan has no topic %s", record.Topic)
	}
	if !c.plan.Readers {
		return fmt.Errorf("reader %s got records, but the plan says that no readers were recorded", r.Reader)
	}
	c.saw.Reads++
	way := readerOf{r.Reader, spotOf{t.number, record.Partition}}
	span := c.readers[way]
	if span == nil {
		span = &readerSpan{first: record.Offset, last: record.Offset - 1}
		c.readers[way] = span
	}
	span.count++
	if record.Offset <= span.last {
		c.findings.add(Nonmonotonic, Place{t.name, record.Partition, record.Offset}, "reader %s got this record after offset %d", r.Reader, span.last)
	}
	span.first, span.last = min(span.first, record.Offset), max(span.last, record.Offset)
	return c.places.add(placeKey(t.number, record.Partition, record.Offset), &fact{
		kind: factRead, text: r.Reader, digest: c.digest.record(record.Timestamp, record.Key, record.Value, record.Headers, true),
	})
}

// judgePlace holds what readers got at one place against the log.
func (c *Checker) judgePlace(k key, facts []fact) error {
	number, partition, offset := k.place()
	at := Place{c.topics[number].name, partition, offset}
	var log *fact
	got := map[string]bool{}
	for i := range facts {
		f := &facts[i]
		if f.kind == factLog {
			log = f
			continue
		}
		got[f.text] = true
		switch {
		case log == nil:
			c.judgeUnlogged(at, number, f)
		case !log.has(flagCommitted):
			c.findings.add(AbortedRead, at, "reader %s got this record, whose transaction was aborted", f.text)
		case log.digest != f.digest:
			c.findings.add(Inconsistent, at, "reader %s got another record here than the log has", f.text)
		}
	}
	if log == nil || !log.has(flagCommitted) {
		return nil
	}
	for way, span := range c.readers {
		if way.at == (spotOf{number, partition}) && offset > span.first && offset < span.last && !got[way.reader] {
			c.findings.add(Skipped, at, "reader %s did not get this committed record, but those before and behind it", way.reader)
		}
	}
	return nil
}

// judgeUnlogged looks at a record that only a reader saw: of a transaction that never ended, or of none.
func (c *Checker) judgeUnlogged(at Place, topic uint16, f *fact) {
	p := c.parts[spotOf{topic, at.Partition}]
	if p == nil || at.Offset < p.begin || at.Offset < p.first || at.Offset >= p.next {
		return // the log was not read there
	}
	for _, tx := range p.open {
		for i := range tx.facts {
			w := &tx.facts[i]
			if w.fact.kind == factLog && w.fact.offset == at.Offset {
				c.findings.add(AbortedRead, at, "reader %s got this record, whose transaction (producer %d) never ended", f.text, tx.producer)
				return
			}
		}
	}
	c.findings.add(Inconsistent, at, "reader %s got a record here, and the log has none", f.text)
}
