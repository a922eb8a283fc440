package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// place is a partition.
type place struct {
	topic     string
	partition int32
}

// Waits tells a lag in seconds. It remembers its last look at each partition, so that it need not read
// where readers keep up: what has passed everything that was there at the last look has made nothing
// wait longer than since then. Only where it has not is the oldest record read, once. It is not safe for
// concurrent use.
type Waits struct {
	conf Config
	last map[place]look
}

type look struct {
	at     time.Time
	from   int64     // the position
	stable int64     // the last stable offset
	oldest time.Time // of the record at from, zero where it was not read
}

// NewWaits makes one that has not looked yet.
func NewWaits(conf Config) *Waits { return &Waits{conf: conf, last: map[place]look{}} }

// Measure tells for each lag how long its oldest readable record has been waiting. The time is that since
// the record's arrival, to within the time between two looks, where the reader has passed the last look;
// otherwise it is the age by the record's timestamp. 0 stands for nothing waiting, or for a lag of markers
// and aborted records only. A partition that is not among lags is forgotten.
func (w *Waits) Measure(ctx context.Context, now time.Time, lags []PartitionLag) ([]time.Duration, error) {
	waits := make([]time.Duration, len(lags))
	looks := make(map[place]look, len(lags))
	var late []PartitionLag
	var at []int // of late among lags
	for i, lag := range lags {
		here := place{lag.Topic, lag.Partition}
		last, seen := w.last[here]
		this := look{at: now, from: lag.from(), stable: lag.Stable}
		switch {
		case lag.Err != nil:
			if seen {
				looks[here] = last
			}
			continue
		case lag.Readable() == 0:
		case seen && this.from >= last.stable:
			waits[i] = now.Sub(arrival(last, this))
		case seen && this.from == last.from && !last.oldest.IsZero():
			this.oldest = last.oldest
			waits[i] = max(now.Sub(last.oldest), 0)
		default:
			late, at = append(late, lag), append(at, i)
		}
		looks[here] = this
	}
	if err := w.read(ctx, late); err != nil {
		return nil, err
	}
	for n, lag := range late {
		here := place{lag.Topic, lag.Partition}
		last, seen := w.last[here]
		switch {
		case !lag.Oldest.IsZero():
			this := looks[here]
			this.oldest = lag.Oldest
			looks[here] = this
			waits[at[n]] = max(now.Sub(lag.Oldest), 0)
		case seen: // it could not be read in time, and was there at the last look
			waits[at[n]] = now.Sub(last.at)
		}
	}
	w.last = looks
	return waits, nil
}

func (w *Waits) read(ctx context.Context, late []PartitionLag) error {
	if len(late) == 0 {
		return nil
	}
	return addOldest(ctx, w.conf, late, kgo.ReadCommitted(), func(lag *PartitionLag) (from, to int64) { return lag.from(), lag.Stable })
}

// arrival tells when the first record that waits came, as if records had come evenly since the last look.
func arrival(last, this look) time.Time {
	share := float64(this.from-last.stable) / float64(this.stable-last.stable)
	return last.at.Add(time.Duration(share * float64(this.at.Sub(last.at))))
}

// Holds tells how long readers of committed records have been held back: how long the last stable offset
// of a partition has stood still with records behind it. That is, from its first look on, the age of the
// oldest open transaction. It is not safe for concurrent use.
type Holds struct {
	admin *kadm.Client
	since map[place]hold
}

type hold struct {
	stable int64
	since  time.Time
}

// NewHolds makes one that has not looked yet.
func NewHolds(admin *kadm.Client) *Holds { return &Holds{admin: admin, since: map[place]hold{}} }

// Look gives for each topic the longest of its partitions, 0 where no reader is held back. A topic of which
// the brokers do not tell is left out. It makes two requests.
func (h *Holds) Look(ctx context.Context, now time.Time, topics []string) (map[string]time.Duration, error) {
	stables, err := h.admin.ListCommittedOffsets(ctx, topics...)
	if err := fatal(err); err != nil {
		return nil, err
	}
	ends, err := h.admin.ListEndOffsets(ctx, topics...)
	if err := fatal(err); err != nil {
		return nil, err
	}
	since := make(map[place]hold)
	longest := make(map[string]time.Duration)
	ends.Each(func(end kadm.ListedOffset) {
		here := place{end.Topic, end.Partition}
		stable, found := stables.Lookup(end.Topic, end.Partition)
		if !found || end.Err != nil || stable.Err != nil {
			if last, seen := h.since[here]; seen {
				since[here] = last // the clock of what is held runs on while nobody can be asked
			}
			return
		}
		longest[end.Topic] = max(longest[end.Topic], 0)
		if stable.Offset >= end.Offset {
			return
		}
		last, seen := h.since[here]
		if !seen || last.stable != stable.Offset {
			last = hold{stable.Offset, now}
		}
		since[here] = last
		longest[end.Topic] = max(longest[end.Topic], now.Sub(last.since))
	})
	// Stables are asked before ends: what came in between looks held for one look, and has moved by the next.
	h.since = since
	return longest, nil
}
