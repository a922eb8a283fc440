//go:build synctests

package sim

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger/ledgertest"
)

var errLedger = errors.New("the database is not there")

// storm is what is wrong with the ledger for a while.
type storm struct {
	kind    string // ledger-down, ledger-lost-commit, ledger-slow
	process string // whose, "" for all
	until   time.Time
	share   int // of calls, in percent
}

// skies are the storms of all processes.
type skies struct {
	seed  uint64
	bit   func(kind string)
	calls atomic.Int64

	mu     sync.Mutex
	storms []storm
}

func (s *skies) add(one storm) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.storms = append(s.storms, one)
}

func (s *skies) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.storms = nil
}

// strikes reports whether a storm of a kind hits a call.
func (s *skies) strikes(kind, process, method string) bool {
	n := s.calls.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, one := range s.storms {
		if one.kind != kind || now.After(one.until) || one.process != "" && one.process != process {
			continue
		}
		h := fnv.New32a()
		fmt.Fprintf(h, "%d/%d/%s", s.seed, n, method)
		if int(h.Sum32()>>3)%100 < one.share {
			s.bit(kind)
			return true
		}
	}
	return false
}

// store is the ledger as one process reaches it.
type store struct {
	memory  *ledgertest.Memory
	process *process
	skies   *skies
	journal *journal
}

// do makes one question to the ledger. What a process that stands still has asked arrives when it runs
// again, though it has given up waiting: late is that question with nobody to hear the answer.
func (s *store) do(ctx context.Context, method string, ask, late func(context.Context) error) error {
	power := s.process.power
	if err := power.wait(ctx); err != nil {
		if late != nil && !power.over() {
			go func() { //nolint:contextcheck // its caller has given up
				if power.wait(context.Background()) == nil {
					s.skies.bit("late-write")
					_ = late(context.Background())
				}
			}()
		}
		return fmt.Errorf("%s: %w", method, err)
	}
	if s.skies.strikes("ledger-slow", s.process.slot.name, method) {
		timer := time.NewTimer(time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if s.skies.strikes("ledger-down", s.process.slot.name, method) {
		return fmt.Errorf("%s: %w", method, errLedger)
	}
	err := ask(ctx)
	s.process.world.refused(s.process, method, err)
	if err := power.wait(ctx); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	if err == nil && s.skies.strikes("ledger-lost-commit", s.process.slot.name, method) {
		return fmt.Errorf("%s: %w", method, errLedger)
	}
	return err
}

func (s *store) Head(ctx context.Context, lane int32) (head outbox.Head, err error) {
	err = s.do(ctx, "Head", func(ctx context.Context) (err error) {
		head, err = s.memory.Head(ctx, lane)
		return err
	}, nil)
	return head, err
}

func (s *store) Seed(ctx context.Context, lane int32, topicID [16]byte, next int64) error {
	ask := func(ctx context.Context) error { return s.memory.Seed(ctx, lane, topicID, next) }
	return s.do(ctx, "Seed", ask, ask)
}

func (s *store) Append(ctx context.Context, batch *outbox.Batch) error {
	late := *batch
	late.Intents = slices.Clone(batch.Intents)
	return s.do(ctx, "Append", func(ctx context.Context) error { return s.memory.Append(ctx, batch) },
		func(ctx context.Context) error { return s.memory.Append(ctx, &late) })
}

func (s *store) Acquire(ctx context.Context, lane int32, owner string, ttl time.Duration) (tenure outbox.Tenure, err error) {
	err = s.do(ctx, "Acquire", func(ctx context.Context) (err error) {
		tenure, err = s.memory.Acquire(ctx, lane, owner, ttl)
		if err == nil {
			s.journal.acquired(tenure)
		}
		return err
	}, nil)
	return tenure, err
}

func (s *store) Renew(ctx context.Context, tenure outbox.Tenure, ttl time.Duration) (renewed outbox.Tenure, orders []outbox.Order, err error) {
	err = s.do(ctx, "Renew", func(ctx context.Context) (err error) {
		renewed, orders, err = s.memory.Renew(ctx, tenure, ttl)
		return err
	}, func(ctx context.Context) error {
		_, _, err := s.memory.Renew(ctx, tenure, ttl)
		return err
	})
	return renewed, orders, err
}

func (s *store) Release(ctx context.Context, tenure outbox.Tenure) error {
	ask := func(ctx context.Context) error { return s.memory.Release(ctx, tenure) }
	return s.do(ctx, "Release", ask, ask)
}

func (s *store) Recover(ctx context.Context, tenure outbox.Tenure) (recovery outbox.Recovery, err error) {
	err = s.do(ctx, "Recover", func(ctx context.Context) (err error) {
		recovery, err = s.memory.Recover(ctx, tenure)
		return err
	}, nil)
	return recovery, err
}

func (s *store) Waiting(ctx context.Context, lane int32, from int64, limit int) (parked []outbox.Parked, err error) {
	err = s.do(ctx, "Waiting", func(ctx context.Context) (err error) {
		parked, err = s.memory.Waiting(ctx, lane, from, limit)
		return err
	}, nil)
	return parked, err
}

func (s *store) Page(ctx context.Context, lane int32, from int64, limit int) (intents []outbox.Intent, next int64, err error) {
	err = s.do(ctx, "Page", func(ctx context.Context) (err error) {
		intents, next, err = s.memory.Page(ctx, lane, from, limit)
		return err
	}, nil)
	return intents, next, err
}

func (s *store) Get(ctx context.Context, lane int32, offsets []int64) (intents []outbox.Intent, err error) {
	err = s.do(ctx, "Get", func(ctx context.Context) (err error) {
		intents, err = s.memory.Get(ctx, lane, offsets)
		return err
	}, nil)
	return intents, err
}

func (s *store) Begin(ctx context.Context, tenure outbox.Tenure, sending []outbox.Sending) error {
	ask := func(ctx context.Context) error { return s.memory.Begin(ctx, tenure, sending) }
	return s.do(ctx, "Begin", ask, ask)
}

func (s *store) Flush(ctx context.Context, flush outbox.Flush) error {
	ask := func(ctx context.Context) error { return s.memory.Flush(ctx, flush) }
	return s.do(ctx, "Flush", ask, ask)
}

func (s *store) Results(ctx context.Context, lane int32, after int64, limit int) (results []outbox.Result, err error) {
	err = s.do(ctx, "Results", func(ctx context.Context) (err error) {
		results, err = s.memory.Results(ctx, lane, after, limit)
		return err
	}, nil)
	return results, err
}

func (s *store) FlushAt(ctx context.Context, lane int32, seq int64) (epoch, lastOffset int64, found bool, err error) {
	err = s.do(ctx, "FlushAt", func(ctx context.Context) (err error) {
		epoch, lastOffset, found, err = s.memory.FlushAt(ctx, lane, seq)
		return err
	}, nil)
	return epoch, lastOffset, found, err
}

func (s *store) Told(ctx context.Context, tenure outbox.Tenure, seq int64) error {
	ask := func(ctx context.Context) error { return s.memory.Told(ctx, tenure, seq) }
	return s.do(ctx, "Told", ask, ask)
}
