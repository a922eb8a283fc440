package txn

import "time"

// pace decides when a batch is large enough. While everything that can be read has been read, a
// batch is closed at once, but not sooner after the last commit than interval, nor than ending a
// transaction has taken lately: commits cost the broker, and a lane that commits as fast as it can
// slows its own next commit and everybody else's. While more input is known to wait, the batch fills
// up to its limits, for at most fill: then the consumer is behind anyway, and a larger batch costs
// less for each record.
//
// The number of records is also kept so low that the handlers of a batch need no more than a
// quarter of their deadline, by what a record has cost lately, and that brokers which are slow take
// what comes of it in the time there is: a batch that was too large for that is halved, and grows
// again with each commit, slowly, because each try that is too large costs all the time there is. Without that, a lane that is behind on slow brokers makes the largest
// batch there is, runs out of time, and makes it again, for as long as the brokers are slow; and
// what it has written and aborted is part of what keeps them so.
//
// Its limits are for the input of a transaction and for what handlers make of it, whichever is more, since both are in memory until
// its end: where three records come of one, or ten times the bytes, as much less is read at once. What they make is not known
// at first, so that the first batch is small.
type pace struct {
	records  int
	bytes    int64
	interval time.Duration
	budget   time.Duration // for the handlers of one batch

	lastCommit  time.Time
	perRecord   time.Duration // moving average
	recordsGrow growth
	bytesGrow   growth
	ending      time.Duration // moving average
	fits        int           // records that ended in time lately; 0: as many as there may be
}

// fitsMin is the least that a batch shrinks to because brokers are slow. A broker that is away
// answers no batch, however small.
const fitsMin = 100

// fitsShare is by how much a commit lets the next batch grow again, as 1/n of it.
const fitsShare = 8

// endingShare is the weight of the newest end in the moving average, as 1/n.
const endingShare = 4

// fill bounds the wait for more input while behind.
const fill = 50 * time.Millisecond

// perRecordShare is the weight of the newest batch in the moving average, as 1/n.
const perRecordShare = 4

// firstShare is the part of its limits that the first batch may have, as 1/n.
const firstShare = 4

func newPace(c Config) *pace {
	return &pace{records: c.RecordsMax, bytes: c.BytesMax, interval: c.IntervalMin, budget: c.HandlerTimeout / 4}
}

// growth is how many times what was read handlers write lately, at least 1; 0 before the first batch. More counts at once, less as
// a moving average.
type growth float64

// growthShare is the weight of the newest batch in the moving average, as 1/n.
const growthShare = 4

func (g *growth) saw(read, written float64) {
	now := growth(max(1, written/max(1, read)))
	if *g > now {
		now = *g + (now-*g)/growthShare
	}
	*g = now
}

// share is what may be read where limit is for what is written, too.
func (g growth) share(limit float64) float64 {
	if g == 0 {
		g = firstShare
	}
	return max(1, limit/float64(g))
}

// limit is the number of records the next batch may have; suspicion is bisect's limit, 0 for none.
func (p *pace) limit(suspicion int) int {
	limit := int(p.recordsGrow.share(float64(p.records)))
	if p.perRecord > 0 {
		limit = min(limit, max(1, int(p.budget/p.perRecord)))
	}
	if p.fits > 0 {
		limit = min(limit, p.fits)
	}
	if suspicion > 0 {
		limit = min(limit, suspicion)
	}
	return limit
}

// bytesMax is the number of bytes the next batch may have; one record may exceed it alone.
func (p *pace) bytesMax() int64 { return int64(p.bytesGrow.share(float64(p.bytes))) }

// wait says how much longer the batch should stay open; 0 closes it. For the first part of that, rest,
// nothing should be polled: each poll makes the client send a fetch, and at a steady trickle a lane
// that polls all the time sends hundreds a second for a record or two each. A fetch that goes out
// when rest is over, about one round trip before the end (ending a transaction takes three), brings
// all of it at once.
func (p *pace) wait(now, first time.Time, records, limit int, bytes int64, behind bool) (rest, wait time.Duration) {
	if records >= limit || bytes >= p.bytesMax() {
		return 0, 0
	}
	if behind {
		return 0, max(0, fill-now.Sub(first))
	}
	if p.interval == 0 || p.lastCommit.IsZero() {
		return 0, 0
	}
	wait = max(0, max(p.interval, min(fill, p.ending))-now.Sub(p.lastCommit))
	return max(0, wait-p.ending/3), wait
}

// ended takes note of how long flush and end of a transaction took.
func (p *pace) ended(took time.Duration) {
	if p.ending == 0 {
		p.ending = took
		return
	}
	p.ending += (took - p.ending) / endingShare
}

func (p *pace) handled(records int, took time.Duration) {
	if records == 0 {
		return
	}
	each := took / time.Duration(records)
	if p.perRecord == 0 {
		p.perRecord = max(1, each)
		return
	}
	p.perRecord = max(1, p.perRecord+(each-p.perRecord)/perRecordShare)
}

// wrote takes note of what was made of a batch.
func (p *pace) wrote(records int, bytes int64, written int, writtenBytes int64) {
	if records == 0 {
		return
	}
	p.recordsGrow.saw(float64(records), float64(written))
	p.bytesGrow.saw(float64(bytes), float64(writtenBytes))
}

func (p *pace) slow(records int, took time.Duration) {
	p.perRecord = max(p.perRecord, took/time.Duration(max(1, records)))
}

// overran takes note of a transaction of so many records that brokers did not take in time.
func (p *pace) overran(records int) { p.fits = max(fitsMin, records/2) }

// committed takes note of a commit.
func (p *pace) committed(now time.Time) {
	p.lastCommit = now
	if p.fits += p.fits / fitsShare; p.fits >= p.records {
		p.fits = 0
	}
}
