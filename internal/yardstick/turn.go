package yardstick

import (
	"fmt"
	"iter"
)

// Turn is one run of one peer. Rounds that count begin at 1; those before warm up.
type Turn struct {
	Round, Rounds int
	Place         int // among the peers of the round
}

// Counts tells a turn that is measured from one that warms up.
func (t Turn) Counts() bool { return t.Round > 0 }

// Name tells this turn's topics, groups and databases from those of others.
func (t Turn) Name() string {
	if !t.Counts() {
		return fmt.Sprintf("warm%d-%d", -t.Round, t.Place)
	}
	return fmt.Sprintf("%d-%d", t.Round, t.Place)
}

func (t Turn) String() string {
	if !t.Counts() {
		return "warm-up"
	}
	return fmt.Sprintf("round %d of %d", t.Round, t.Rounds)
}

// Turns gives every peer its turn in every round. The order changes from round to round, so that
// nobody always follows the same one.
func Turns[P any](warm, rounds int, peers []P) iter.Seq2[Turn, P] {
	return func(yield func(Turn, P) bool) {
		for n := range warm + rounds {
			for place := range peers {
				if !yield(Turn{Round: n + 1 - warm, Rounds: rounds, Place: place}, peers[(place+n)%len(peers)]) {
					return
				}
			}
		}
	}
}
