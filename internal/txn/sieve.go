package txn

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	markers "pawl/internal/committed"
)

// sieve stands between the client and the lane: of what was polled it hands out what the markers in the log say is
// committed, no more of it than was asked for, and it knows how far the group may commit (rule 14). What is in no
// transaction passes through it as it is.
type sieve struct {
	places map[place]*sifted
	paused map[place]bool
	share  int  // bytes that may wait, of each place
	handed bool // something was handed out since the last end
}

// sifted is what the sieve has of one partition.
type sifted struct {
	filter markers.Filter
	begun  bool
	ready  []*kgo.Record // committed, and more than the last poll had asked for
	read   int64         // behind the last record that was polled
	next   int64         // behind the last record that was handed out
	stable int64         // last stable offset, as of the newest fetch
	again  bool          // the filter has the markers, and its records are to be read again
}

// What waits for markers in a lane is bounded: each of its partitions has a share.
const (
	heldBytesMax   = 16 << 20
	heldBytesLeast = 1 << 20
)

func heldShare(partitions int) int { return max(heldBytesLeast, heldBytesMax/max(1, partitions)) }

// forget is for a partition that is assigned or given away.
func (s *sieve) forget(at place) { delete(s.places, at) }

// pass leaves in the fetches what may be handed out. begins tells where reading of a partition began.
func (s *sieve) pass(fetches kgo.Fetches, limit int, begins map[place]kgo.EpochOffset, unlisted func(at place, records int64)) {
	for _, fetch := range fetches {
		for _, topic := range fetch.Topics {
			for i := range topic.Partitions {
				p := &topic.Partitions[i]
				if len(p.Records) == 0 {
					continue
				}
				at := place{topic.Topic, p.Partition}
				one := s.of(at, p.Records[0].Offset, begins)
				before := one.filter.Unlisted()
				one.add(p)
				if n := one.filter.Unlisted() - before; n > 0 {
					unlisted(at, n)
				}
				limit -= len(p.Records)
				if excess := -limit; excess > 0 {
					kept := len(p.Records) - excess
					one.ready = slices.Clone(p.Records[kept:])
					p.Records, limit = p.Records[:kept], 0
				}
				s.hand(one, p.Records)
			}
		}
	}
}

func (s *sieve) of(at place, first int64, begins map[place]kgo.EpochOffset) *sifted {
	one := s.places[at]
	if one == nil {
		one = &sifted{filter: markers.Bounded(s.share)}
		if s.places == nil {
			s.places = map[place]*sifted{}
		}
		s.places[at] = one
	}
	if !one.begun {
		one.begun, one.next = true, first
		if begin, owned := begins[at]; owned {
			one.next = begin.Offset
		}
	}
	return one
}

// add leaves of a partition's records what is committed.
func (o *sifted) add(p *kgo.FetchPartition) {
	o.read, o.stable = p.Records[len(p.Records)-1].Offset+1, p.LastStableOffset
	p.Records = o.filter.Add(p.Records)
	if len(o.ready) > 0 {
		p.Records = append(o.ready, p.Records...)
		o.ready = nil
	}
}

func (s *sieve) hand(one *sifted, records []*kgo.Record) {
	if len(records) > 0 {
		one.next, s.handed = records[len(records)-1].Offset+1, true
	}
}

// left hands out what is ready since an earlier poll, but not of what is paused.
func (s *sieve) left(limit int) kgo.Fetches {
	var topics []kgo.FetchTopic
	for at, one := range s.places {
		n := min(limit, len(one.ready))
		if n == 0 || s.paused[at] {
			continue
		}
		records := one.ready[:n:n]
		if one.ready = one.ready[n:]; len(one.ready) == 0 {
			one.ready = nil
		}
		limit -= n
		s.hand(one, records)
		topics = append(topics, kgo.FetchTopic{Topic: at.topic, Partitions: []kgo.FetchPartition{
			{Partition: at.partition, LastStableOffset: one.stable, Records: records},
		}})
	}
	if topics == nil {
		return nil
	}
	return kgo.Fetches{{Topics: topics}}
}

// position is what may be committed of a partition that was polled up to an offset.
func (s *sieve) position(at place, polled int64) int64 {
	one := s.places[at]
	if one == nil || len(one.ready) == 0 && !one.filter.WaitsBelow(one.read) {
		return polled
	}
	return min(polled, one.next)
}

// rewinds reports that the client must go back to what is committed, and may: nothing is in hand.
func (s *sieve) rewinds() bool {
	if s.handed {
		return false
	}
	again := false
	for _, one := range s.places {
		if !one.again {
			_, one.again = one.filter.Again()
		}
		again = again || one.again
	}
	return again
}

// ended takes note of the end of a transaction. After an abort everything is read again from what is committed; the
// markers that were read for what was too much to hold are kept, or it would be too much again.
func (s *sieve) ended(committed bool) {
	s.handed = false
	if committed {
		return
	}
	for at, one := range s.places {
		if !one.again {
			_, one.again = one.filter.Again()
		}
		if one.again {
			s.places[at] = &sifted{filter: one.filter}
		} else {
			s.forget(at)
		}
	}
}
