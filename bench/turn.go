package main

import (
	"fmt"
	"iter"
)

// turn is one run of one peer. Rounds that count begin at 1; those before warm up.
type turn struct {
	round, rounds int
	place         int // among the peers of the round
}

func (t turn) counts() bool { return t.round > 0 }

// name tells this turn's topics, groups and databases from those of others.
func (t turn) name() string {
	if !t.counts() {
		return fmt.Sprintf("warm%d-%d", -t.round, t.place)
	}
	return fmt.Sprintf("%d-%d", t.round, t.place)
}

func (t turn) String() string {
	if !t.counts() {
		return "warm-up"
	}
	return fmt.Sprintf("round %d of %d", t.round, t.rounds)
}

// inTurn gives every peer its turn in every round. The order changes from round to round, so that
// nobody always follows the same one.
func inTurn[P any](warm, rounds int, peers []P) iter.Seq2[turn, P] {
	return func(yield func(turn, P) bool) {
		for n := range warm + rounds {
			for place := range peers {
				if !yield(turn{round: n + 1 - warm, rounds: rounds, place: place}, peers[(place+n)%len(peers)]) {
					return
				}
			}
		}
	}
}
