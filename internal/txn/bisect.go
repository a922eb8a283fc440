package txn

import (
	"maps"

	"pawl/internal/message"
)

// place is one partition of one topic.
type place struct {
	topic     string
	partition int32
}

// spot is one record.
type spot struct {
	place
	offset int64
}

func spotOf(source message.Source) spot {
	return spot{place{source.Topic, source.Partition}, source.Offset}
}

// countedMax is the number of aborts, or of process deaths, after which a batch is no longer
// believed to be innocent (rule 7).
const countedMax = 3

// bisect finds the record that does harm. Aborts that a record may have caused are counted; from the
// third on the batch is halved with each further abort, until one record is alone. That one is
// poison. Once the batch that was aborted last is behind us, commits double the limit again, and when
// everything that was under suspicion has been committed the suspicion ends. Aborts by network,
// broker, rebalance or fencing are never told to it: an outage finds nobody guilty.
//
// It is a plain value without I/O; one lane's goroutine owns it.
type bisect struct {
	counted int
	limit   int // records per batch; 0 is no limit
	most    int // records of the largest batch that was aborted
	crashed bool
	until   map[place]int64 // the suspects lie below these offsets
	harmed  map[place]int64 // what is left of the batch that was aborted last: it holds a guilty one
	poison  map[spot]error  // found guilty, with the cause
}

// aborted takes note of a counted abort of a batch of n records; only is its record if n is 1.
// It returns true when that record was already known to be poison, so that not even its dead
// letter could be written.
func (b *bisect) aborted(n int, only spot, ends map[place]int64, cause error) (hopeless bool) {
	b.counted++
	b.most = max(b.most, n)
	b.suspect(ends)
	b.harmed = maps.Clone(ends)
	if b.counted < countedMax {
		return false
	}
	if n > 1 {
		b.limit = n / 2
		return false
	}
	b.limit = 1
	if _, again := b.poison[only]; again {
		return true
	}
	b.convict(only, cause)
	return false
}

// died takes note that the process ended often with the records below until in flight. Their batch
// shrinks to one at once: each further try costs a process.
func (b *bisect) died(at place, until int64) {
	b.counted, b.limit, b.crashed = countedMax, 1, true
	b.suspect(map[place]int64{at: until})
}

func (b *bisect) convict(record spot, cause error) {
	if b.poison == nil {
		b.poison = map[spot]error{}
	}
	b.poison[record] = cause
}

func (b *bisect) suspect(ends map[place]int64) {
	if b.until == nil {
		b.until = map[place]int64{}
	}
	for at, end := range ends {
		b.until[at] = max(b.until[at], end)
	}
}

// committed takes note of progress.
func (b *bisect) committed(ends map[place]int64) {
	if b.counted == 0 {
		return
	}
	for at, end := range ends {
		if end >= b.until[at] {
			delete(b.until, at)
		}
		if end >= b.harmed[at] {
			delete(b.harmed, at)
		}
	}
	if len(b.until) == 0 {
		*b = bisect{}
		return
	}
	// A commit of other partitions' records exonerates nobody in the batch that was aborted. Were the
	// limit doubled by it, the guilty record would be in the next batch with company again, and be
	// alone only if the polls happened to come in the right order.
	if b.limit > 0 && !b.crashed && len(b.harmed) == 0 {
		b.limit = min(2*b.limit, b.most)
	}
}

// drop forgets partitions that went to another member, who will count for itself.
func (b *bisect) drop(gone map[string][]int32) {
	for topic, partitions := range gone {
		for _, partition := range partitions {
			delete(b.until, place{topic, partition})
			delete(b.harmed, place{topic, partition})
		}
	}
	if b.counted > 0 && len(b.until) == 0 {
		*b = bisect{}
	}
}
