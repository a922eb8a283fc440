// Package ledgertest has the contract of the effect ledger as tests, and a ledger in memory that
// passes them: what stands on it in a unit test stands on Postgres too.
package ledgertest

import (
	"context"
	"time"

	"pawl/internal/outbox"
)

// Store is what ingest, dispatch, relay and the operator's commands ask of a ledger. An error other
// than those of package outbox leaves the outcome of a change unknown: whoever gets one reads again
// before going on.
type Store interface {
	// Head tells how far a lane has been ingested.
	Head(ctx context.Context, lane int32) (outbox.Head, error)
	// Seed begins the chain of a lane. A lane that has one is left alone: outbox.ErrOvertaken.
	Seed(ctx context.Context, lane int32, topicID [16]byte, next int64) error
	// Append adds a batch if the lane stands at its Base under its TopicID, else it changes nothing
	// and gives outbox.ErrOvertaken. It sets Twin of the intents, which is only right when it
	// succeeds.
	Append(ctx context.Context, batch *outbox.Batch) error

	// Acquire begins a tenure with a higher epoch than all before it. outbox.ErrHeld while another
	// owner's lease lasts; one's own may be taken again at any time.
	Acquire(ctx context.Context, lane int32, owner string, ttl time.Duration) (outbox.Tenure, error)
	// Renew lengthens a lease and brings the lane's open orders by number. Orders to retry what is settled
	// and not dead came too late: they are obeyed by being dropped. outbox.ErrFenced.
	Renew(ctx context.Context, tenure outbox.Tenure, ttl time.Duration) (outbox.Tenure, []outbox.Order, error)
	// Owner tells whose the lease of a lane is, "" where it is nobody's.
	Owner(ctx context.Context, lane int32) (string, error)
	// Release gives a lease up, so that another owner may have the lane at once.
	Release(ctx context.Context, tenure outbox.Tenure) error

	// Recover tells the owner what its predecessors left. outbox.ErrFenced.
	Recover(ctx context.Context, tenure outbox.Tenure) (outbox.Recovery, error)
	// Waiting gives up to limit parked ones of a lane from an offset on, by offset, as they are now.
	Waiting(ctx context.Context, lane int32, from int64, limit int) ([]outbox.Parked, error)
	// Page gives up to limit intents from an offset on, whatever became of them. All that there are
	// in [from, next) are among them; next is at most that of Head.
	Page(ctx context.Context, lane int32, from int64, limit int) (intents []outbox.Intent, next int64, err error)
	// Get gives the intents at offsets, ascending.
	Get(ctx context.Context, lane int32, offsets []int64) ([]outbox.Intent, error)
	// Begin notes that at-most-once calls are about to be sent. outbox.ErrFenced.
	Begin(ctx context.Context, tenure outbox.Tenure, sending []outbox.Sending) error
	// Flush writes outcomes down, all or nothing, and what became of orders: one to cancel is obeyed if its
	// intent is dead now, one to retry if its intent is parked or settled by this flush; otherwise it
	// was late. outbox.ErrFenced.
	Flush(ctx context.Context, flush outbox.Flush) error

	// Results gives the outcomes of the flushes numbered above after, in the order of the flushes and,
	// within one, of the offsets. A flush is never split. limit is a number of flushes; those without
	// outcomes do not count, so that no results means that there are none.
	Results(ctx context.Context, lane int32, after int64, limit int) ([]outbox.Result, error)
	// FlushAt identifies a flush by its epoch and the offset of its last outcome.
	FlushAt(ctx context.Context, lane int32, seq int64) (epoch, lastOffset int64, found bool, err error)
	// Told notes that the flushes up to seq have been relayed. It is a hint for retention.
	Told(ctx context.Context, tenure outbox.Tenure, seq int64) error

	// Order adds an operator's order, whose number the ledger chooses.
	Order(ctx context.Context, order outbox.Order, actor string) error
	// Audit gives the orders that were given, newest first, with what became of them. It outlives the orders.
	Audit(ctx context.Context, filter outbox.AuditFilter) ([]outbox.Audit, error)
	// AuditOf gives the orders about one intent, oldest first.
	AuditOf(ctx context.Context, lane int32, offset int64) ([]outbox.Audit, error)
}
