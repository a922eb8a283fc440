package telemetry

import (
	"sync"
	"time"

	"pawl/internal/txn"
)

const (
	recentMax = 100 // transactions that are remembered, whatever became of them
	failedMax = 40  // and of those that did not commit
)

// Transaction is one that has ended. It has no error text: a handler may have quoted the payload in it.
type Transaction struct {
	Number  int64       `json:"number"` // of all that have ended since the process began, from 1
	At      time.Time   `json:"at"`     // of the end
	Lane    int         `json:"lane"`
	Outcome txn.Outcome `json:"outcome"`
	Reason  txn.Reason  `json:"reason,omitempty"` // absent where it committed
	Records int         `json:"records"`
	Bytes   int64       `json:"bytes"`
	Seconds float64     `json:"seconds"`
}

// recent remembers the last transactions, in memory that is there from the start.
type recent struct {
	mu     sync.Mutex
	count  int64
	all    [recentMax]Transaction // the one with number n stands at n modulo the length
	failed [failedMax]Transaction
	fails  int64
}

func (r *recent) add(ended txn.Ended, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	one := Transaction{
		Number: r.count, At: at, Lane: ended.Lane, Outcome: ended.Outcome, Reason: ended.Reason,
		Records: ended.Records, Bytes: ended.Bytes, Seconds: ended.Duration.Seconds(),
	}
	r.all[r.count%recentMax] = one
	if ended.Outcome != txn.Committed {
		r.fails++
		r.failed[r.fails%failedMax] = one
	}
}

// list gives copies, oldest first.
func (r *recent) list() (all, failed []Transaction) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return unroll(r.all[:], r.count), unroll(r.failed[:], r.fails)
}

func unroll(ring []Transaction, count int64) []Transaction {
	size := int64(len(ring))
	list := make([]Transaction, 0, min(count, size))
	for n := max(1, count-size+1); n <= count; n++ {
		list = append(list, ring[n%size])
	}
	return list
}

// Recent gives the last transactions that ended, and the last of those that did not commit, oldest first.
func (t *Telemetry) Recent() (all, failed []Transaction) { return t.recent.list() }
