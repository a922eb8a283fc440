package rebuild

import (
	"context"
	"fmt"
	"math"
)

// twin is an effect that was told as a duplicate or conflict of one in another lane.
type twin struct {
	at          int64
	firstLane   int32
	firstOffset int64
}

// fill brings every effect into the ledger, in an order in which the same ones are first with their business keys as
// before. Without that: the first of a key waits in lane 1, its duplicate in lane 0 was told. Lane 0 is read
// first and its effect takes the key; the one in lane 1 becomes a duplicate, and neither is ever called.
//
// So an effect that was told to have a first is read after that one; and what was told of a lane is read before what
// was not, in all lanes: a dispatcher settles duplicates in the order of their lane, so that one that was not told is
// behind all that was.
func (w *work) fill(ctx context.Context) error {
	defer func() {
		for _, s := range w.lanes {
			if s.filler != nil {
				s.filler.Close()
			}
		}
	}()
	for _, s := range w.lanes {
		var err error
		if s.filler, err = w.Fill(ctx, s.Lane.Lane); err != nil {
			return err
		}
	}
	if err := w.fillTo(ctx, func(s *site) int64 { return s.top }); err != nil {
		return err
	}
	return w.fillTo(ctx, func(s *site) int64 { return s.End })
}

// fillTo fills every lane up to an end. Every turn brings a lane on: the order of the ledger before is one in which
// all that was told can be read. What was told by several ledgers in turn may know of no such order; then the
// lanes go on as they are.
func (w *work) fillTo(ctx context.Context, end func(*site) int64) error {
	for done := false; !done; {
		moved := false
		done = true
		for _, s := range w.lanes {
			until := min(end(s), w.blocked(s))
			if until > s.Next {
				if err := w.fillLane(ctx, s, until); err != nil {
					return err
				}
				moved = true
			}
			done = done && s.Next >= end(s)
		}
		if !done && !moved {
			for _, s := range w.lanes {
				s.twins = nil
			}
		}
	}
	return nil
}

// blocked gives the offset of the next effect whose first has not been read yet.
func (w *work) blocked(s *site) int64 {
	for len(s.twins) > 0 {
		next := s.twins[0]
		if first := w.site(next.firstLane); next.at >= s.Next && first != nil && first.Next <= next.firstOffset {
			return next.at
		}
		s.twins = s.twins[1:]
	}
	return math.MaxInt64
}

// fillAtOnce bounds how long nothing is told of the progress.
const fillAtOnce = 50_000

func (w *work) fillLane(ctx context.Context, s *site, until int64) error {
	for s.Next < until {
		goal := min(until, s.Next+fillAtOnce)
		if _, err := s.filler.Fill(ctx, goal); err != nil {
			return fmt.Errorf("fill lane %d: %w", s.Lane.Lane, err)
		}
		s.Next = goal
		w.progress(Fill, s.Lane.Lane, s.Next, s.End)
	}
	return nil
}
