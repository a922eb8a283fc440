// Package outbox has the nouns that the parts of the effect ledger share: what an effect is once it
// stands on the effects topic, how far a lane has been ingested, who may dispatch it, and what became
// of each call. How they play together is in DESIGN.md beside this file.
//
// A lane is a partition of the effects topic. An offset is one of the effects topic unless it says
// otherwise.
package outbox

import (
	"errors"
	"time"

	"pawl/internal/message"
)

// Intent is one committed record of the effects topic. It is never changed after that.
type Intent struct {
	Lane   int32
	Offset int64

	ID          message.ID     // the Idempotency-Key; intents with one business key share it
	Source      message.Source // of the input that asked for it, topic id and generation included
	Index       int            // among what that input asked for, from 0
	Endpoint    string
	Class       message.Class
	ContentType string
	BusinessKey string // "" where the handler gave none
	Key         []byte // order key
	Body        []byte // exact bytes of the call
	Trace       string // traceparent of the input, "" where there is none
	TraceState  string // its tracestate, "" where there is none; never without Trace
	At          time.Time

	Twin *Twin // an earlier intent with the same endpoint and business key; found by the ledger
}

// Twin points to the intent that was first with a business key.
type Twin struct {
	Lane   int32
	Offset int64
	Same   bool // body and content type are the same: a duplicate; otherwise a conflict
}

// Origin is a partition of an input topic under one replay generation.
type Origin struct {
	TopicID    [16]byte
	Partition  int32
	Generation int
}

// Mark is the last effect that an origin has given to a lane. Effects of an origin come in the order
// of their marks: what is not above the highest is a repeat (a rewound input) and is suppressed.
type Mark struct {
	Offset int64 // of the input
	Index  int
}

// Above reports whether m comes after n.
func (m Mark) Above(n Mark) bool {
	return m.Offset > n.Offset || m.Offset == n.Offset && m.Index > n.Index
}

// Head is how far a lane has been ingested.
type Head struct {
	Lane    int32
	Known   bool     // false where the lane was never ingested; then nothing below is set
	TopicID [16]byte // of the effects topic
	Next    int64    // offset to read next
	Seen    map[Origin]Mark
}

// Batch is what an ingester read: everything from Base up to, not including, Next.
type Batch struct {
	Lane    int32
	TopicID [16]byte
	Base    int64 // where the ledger must stand
	Next    int64 // > Base; offsets have gaps, so this is no count
	Intents []Intent
	Seen    map[Origin]Mark // the marks that this batch raises

	Suppressed int // repeats that were left out
}

// Tenure is the right to dispatch a lane. The epoch fences: every write of a tenure checks it.
type Tenure struct {
	Lane  int32
	Epoch int64
	After int64     // epoch of the tenure before it, 0 where there was none
	Until time.Time // by the local clock, taken before the lease was asked for: start no call after it
	Seq   int64     // number of the lane's last flush when the lease was renewed; 0 before
}

// Status is a final fate. The names are those of the result event.
type Status string

// The final fates.
const (
	Done      Status = "done"      // the endpoint accepted it
	Dead      Status = "dead"      // refused for good, out of attempts or of age, or cancelled
	Unknown   Status = "unknown"   // it may or may not have been made, and won't be repeated
	Duplicate Status = "duplicate" // see Twin
	Conflict  Status = "conflict"
)

// Outcome is the final fate of an intent.
type Outcome struct {
	Offset     int64
	Status     Status
	Attempts   int       // transmissions begun
	HTTPStatus int       // of the last answer, 0 where there was none
	Error      string    // one line, empty with Done
	Response   *Response // of the last answer, nil where there was none
}

// Response is what is kept of an answer.
type Response struct {
	ContentType string
	Body        []byte // at most ResponseMax
	Truncated   bool
}

// Bounds of what is kept of a call.
const (
	ResponseMax = 16 << 10 // bytes of an answer's body
	ErrorMax    = 300      // bytes of an outcome's error
)

// Parked is an intent that waits outside the window: a failed one for its next attempt, one that
// follows it, or one that an operator must release.
type Parked struct {
	Offset   int64
	Role     Role
	Attempts int           // transmissions begun so far
	In       time.Duration // until the next attempt may begin, as of when it was written or read
	Since    time.Duration // since the first attempt, likewise
	Status   int           // HTTP status of the last answer, 0 where there was none
	Error    string
	Endpoint string // of the intent, for a flush; the ledger looks it up where it is empty, and does not give it back
}

// Role says what a parked intent waits for.
type Role int16

// The roles.
const (
	Retry    Role = 1 // its time
	Follower Role = 2 // the intent before it with the same key
	Held     Role = 3 // an operator, because the one before it with the same key is dead
)

// Sending is the durable note that an at-most-once call is about to be sent.
type Sending struct {
	Offset  int64
	Attempt int
}

// Recovery is what the new owner of a lane needs to know.
type Recovery struct {
	Low     int64     // every intent below is settled or parked
	Seq     int64     // number of the last flush, 0 where there was none
	Settled Ranges    // offsets at and above Low that are settled
	Parked  []Parked  // by offset: the first RecoveredMax below Low, and all from there on
	Rest    int64     // from there on up to Low there may be more parked ones; Low where there are none
	Sending []Sending // begun and not settled: their outcome is unknown
	Holds   []Hold    // by offset
}

// RecoveredMax is how many parked intents below the low mark a recovery brings. Any number may be parked.
const RecoveredMax = 32 << 10

// Hold is a dead intent that the later ones of its key wait for, until an operator decides.
type Hold struct {
	Offset   int64
	Endpoint string
	Key      []byte
}

// Flush is what the owner of a lane writes down at once: one transaction.
type Flush struct {
	Tenure  Tenure
	Seq     int64     // one more than the flush before it
	Low     int64     // see Recovery
	Settled []Outcome // ascending offsets
	Covered Ranges    // the offsets of Settled; gaps between neighbours that hold no intent may be filled in
	Parked  []Parked  // new or changed; whatever is settled is parked no more
	Holds   []Hold    // of dead ones in Settled
	Freed   []int64   // offsets of earlier holds that have ended
	Obeyed  []int64   // numbers of the orders that are done with, be it because they came too late
}

// Action is what an operator orders.
type Action string

// The actions.
const (
	RetryNow Action = "retry"  // a parked or dead intent is sent again, with its id
	Cancel   Action = "cancel" // an intent that is not settled is dead
)

// Order is an operator's wish, carried out by the owner of the lane.
type Order struct {
	Number int64
	Lane   int32
	Offset int64
	Action Action
	Reason string
}

// Audit is what is remembered of an order.
type Audit struct {
	Order  Order
	Actor  string // who gave it, as far as a program can know
	At     time.Time
	Ended  time.Time // when the owner of the lane was done with it; zero while it is open
	Result OrderResult
	Owner  string // who that was
}

// OrderResult is what became of an order.
type OrderResult string

// The results.
const (
	Open   OrderResult = "open"
	Obeyed OrderResult = "obeyed"
	Late   OrderResult = "late" // there was nothing left to do: the intent had ended, or another order was faster
)

// AuditFilter selects orders. A zero value does not restrict.
type AuditFilter struct {
	Since time.Time // given at or after
	Actor string
	Limit int // at most, 100 where it is 0
}

// Result is an outcome together with its intent, in the order of the lane's flushes.
type Result struct {
	Seq     int64 // of the flush
	Epoch   int64 // of its tenure
	Outcome Outcome
	Intent  Intent
}

// The errors that the parts act on.
var (
	// ErrOvertaken says that a lane does not stand where a batch begins: read the head again.
	ErrOvertaken = errors.New("the ledger does not stand where this batch begins")
	// ErrFenced says that another owner has the lane, or that the lease ran out and may be taken.
	ErrFenced = errors.New("this tenure of the lane has ended")
	// ErrHeld says that another owner's lease of the lane has not run out yet.
	ErrHeld = errors.New("the lane is leased to another owner")
)
