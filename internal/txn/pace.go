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
type pace struct {
	records  int
	bytes    int64
	interval time.Duration
	budget   time.Duration // for the handlers of one batch

	lastCommit time.Time
	perRecord  time.Duration // moving average
	ending     time.Duration // moving average
	fits       int           // records that ended in time lately; 0: as many as there may be
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

func newPace(c Config) *pace {
	return &pace{records: c.RecordsMax, bytes: c.BytesMax, interval: c.IntervalMin, budget: c.HandlerTimeout / 4}
}

// limit is the number of records the next batch may have; suspicion is bisect's limit, 0 for none.
func (p *pace) limit(suspicion int) int {
	limit := p.records
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

// wait says how much longer the batch should stay open; 0 closes it. For the first part of that, rest,
// nothing should be polled: each poll makes the client send a fetch, and at a steady trickle a lane
// that polls all the time sends hundreds a second for a record or two each. A fetch that goes out
// when rest is over, about one round trip before the end (ending a transaction takes three), brings
// all of it at once.
func (p *pace) wait(now, first time.Time, records, limit int, bytes int64, behind bool) (rest, wait time.Duration) {
	if records >= limit || bytes >= p.bytes {
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
