package telemetry

import (
	"sync"

	"pawl/internal/txn"
)

// shares keeps per lane what handlers did with the batch in hand: only the end of its transaction
// tells what became of the records.
type shares struct {
	mu    sync.Mutex
	lanes map[int][]txn.Handled
}

func (s *shares) add(handled txn.Handled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lanes[handled.Lane] = append(s.lanes[handled.Lane], handled)
}

// take calls each for every share of the lane and forgets them. The memory stays with the lane.
func (s *shares) take(lane int, each func(txn.Handled)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, handled := range s.lanes[lane] {
		each(handled)
	}
	s.lanes[lane] = s.lanes[lane][:0]
}

func (s *shares) drop(lane int) { s.take(lane, func(txn.Handled) {}) }
