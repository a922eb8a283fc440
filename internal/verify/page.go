package verify

import "pawl/internal/message"

// page is some entries of one partition, decoded while the checker is busy with the page before: unpacking and
// comparing are each about half of the work, on two cores. Its memory is used again.
type page struct {
	records []Record
	markers []placedMarker // in their order
	headers []message.Header
	err     error // what came behind the records
}

// placedMarker stands before a record of its page.
type placedMarker struct {
	Marker

	before int
}

const (
	// pageRecords is how many records make a page full; one batch is never cut.
	pageRecords = 2048
	// pagesMax is how many pages there are: one is filled, one is read, and one waits.
	pagesMax = 3
)

// add keeps an entry, whose own memory is the decoder's.
func (p *page) add(e *Entry) error {
	if e.Marker != nil {
		p.markers = append(p.markers, placedMarker{*e.Marker, len(p.records)})
		return nil
	}
	record := *e.Record
	from := len(p.headers)
	p.headers = append(p.headers, record.Headers...)
	record.Headers = p.headers[from:len(p.headers):len(p.headers)]
	p.records = append(p.records, record)
	return nil
}

func (p *page) visit(visit func(*Entry) error) error {
	var entry Entry
	markers := p.markers
	for i := range len(p.records) + 1 {
		for ; len(markers) > 0 && markers[0].before == i; markers = markers[1:] {
			entry = Entry{Marker: &markers[0].Marker}
			if err := visit(&entry); err != nil {
				return err
			}
		}
		if i == len(p.records) {
			break
		}
		entry = Entry{Record: &p.records[i]}
		if err := visit(&entry); err != nil {
			return err
		}
	}
	return p.err
}

func (p *page) reset() {
	p.records, p.markers, p.headers, p.err = p.records[:0], p.markers[:0], p.headers[:0], nil
}

// unpack decodes pieces on a goroutine of its own and visits their entries on the caller's. After an error it
// calls stop and takes what still comes, so that whoever sends pieces can end.
func unpack(pieces <-chan piece, view View, stop func(), visit func(*Entry) error) (broken error) {
	full, free := make(chan *page, pagesMax), make(chan *page, pagesMax)
	for range pagesMax {
		free <- new(page)
	}
	go func() {
		defer close(full)
		d := newDecoder()
		for p := range pieces {
			p.pages(d, view, full, free)
		}
	}()
	for p := range full {
		if broken == nil {
			if broken = p.visit(visit); broken != nil {
				stop()
			}
		}
		p.reset()
		free <- p // has room for all
	}
	return broken
}

// pages decodes a piece. In the committed view it leaves out what the broker's list says is aborted, as readers
// do: a producer's transaction is, from its first offset in the list up to its marker.
func (p *piece) pages(d *decoder, view View, full chan<- *page, free <-chan *page) {
	filled := <-free
	defer func() { full <- filled }()
	for _, batch := range p.batches {
		if view == Committed && p.leftOut(batch) {
			continue
		}
		if len(filled.records) >= pageRecords {
			full <- filled
			filled = <-free
		}
		if filled.err = d.decode(p.Topic, p.Partition, batch, max(p.from, p.From), p.To, filled.add); filled.err != nil {
			return
		}
	}
}

// leftOut tells whether a read_committed reader is not given a batch.
func (p *piece) leftOut(batch rawBatch) bool {
	for len(p.aborted) > 0 && p.aborted[0].first < batch.next() {
		p.open[p.aborted[0].producer] = true
		p.aborted = p.aborted[1:]
	}
	if batch.control() {
		delete(p.open, batch.producer())
		return true
	}
	return batch.transactional() && p.open[batch.producer()]
}
