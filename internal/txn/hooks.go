package txn

import (
	"time"

	"pawl/internal/message"
)

// Hooks is the one seam for metrics, logs and tests. Every field is optional. They run on the
// goroutine of a lane (Assigned, Revoked and Lost on the client's group goroutine), so they must
// be brief and safe for concurrent use by several lanes.
type Hooks struct {
	Polled   func(Polled)   // once per batch, before its handlers run
	Handled  func(Handled)  // once per handler and input topic of a batch
	Produced func(Produced) // once per topic written to, after the commit
	Rejected func(Rejected) // once per dead letter, after the commit
	Ended    func(Ended)    // once per transaction

	// Stories makes Ended carry a Story. That costs a look at the headers of every record.
	Stories bool

	Assigned func(lane int, partitions map[string][]int32)
	Revoked  func(lane int, partitions map[string][]int32)
	Lost     func(lane int, partitions map[string][]int32)

	Fenced    func(lane int, err error)  // the transactional id or the member was taken over
	Buried    func(Buried)               // a transaction of a lane that is gone was ended, or could not be looked for
	Rebuilt   func(lane int, why Reason) // the session was discarded and a new one is being made
	Halted    func(Halted)               // a partition was stopped; the others go on
	Suspected func(Suspected)            // a batch is being shrunk to find a record that does harm
	Unlisted  func(Unlisted)             // a broker gave aborted records as committed; none was handled
	Retrying  func(lane int, err error)  // a poll or a session could not be had; it is tried again
}

// Polled tells of one batch.
type Polled struct {
	Lane    int
	Records int
	Bytes   int64 // keys and values
	Behind  bool  // more input was known to wait when the batch was closed
}

// Handled tells of the share of a batch that one handler had from one topic.
type Handled struct {
	Lane     int
	Handler  string
	Topic    string
	Records  int
	Rejects  int
	Duration time.Duration // the batch's handler time, shared out by records
}

// Produced tells of what a committed transaction wrote to one topic.
type Produced struct {
	Lane    int
	Topic   string
	Records int
	Bytes   int64
}

// Rejected tells of one record that now is in the dead-letter topic.
type Rejected struct {
	Lane    int
	Source  message.Source
	Handler string
	Reason  string // a label from a closed set
	Err     error  // never holds the payload
}

// Outcome says how a transaction ended.
type Outcome string

// The outcomes.
const (
	Committed Outcome = "committed"
	Aborted   Outcome = "aborted"
	Unknown   Outcome = "unknown"
)

// Outcomes lists them all, for metrics.
func Outcomes() []Outcome { return []Outcome{Committed, Aborted, Unknown} }

// Reason says why a transaction did not commit or a session was discarded: a closed set.
type Reason string

// The reasons.
const (
	ReasonNone      Reason = ""          // it committed
	ReasonRebalance Reason = "rebalance" // partitions moved while the transaction was open
	ReasonProduce   Reason = "produce"   // a produce failed by network or broker
	ReasonRefused   Reason = "refused"   // the broker refused a record
	ReasonHandler   Reason = "handler"   // a handler failed without a reason of its own
	ReasonSlow      Reason = "slow"      // the handlers of the batch passed their deadline
	ReasonFenced    Reason = "fenced"    // another process used our transactional id or member name
	ReasonUnknown   Reason = "unknown"   // End returned an error
	ReasonOffsets   Reason = "offsets"   // End said aborted, the broker's offsets say otherwise
	ReasonGroup     Reason = "group"     // the group session failed
	ReasonBegin     Reason = "begin"     // a transaction could not be begun
	ReasonOpen      Reason = "open"      // a session could not be made
	ReasonSuspects  Reason = "suspects"  // the control topic could not be read or written
)

// Reasons lists them all, for metrics.
func Reasons() []Reason {
	return []Reason{
		ReasonNone, ReasonRebalance, ReasonProduce, ReasonRefused, ReasonHandler, ReasonSlow, ReasonFenced,
		ReasonUnknown, ReasonOffsets, ReasonGroup, ReasonBegin, ReasonOpen, ReasonSuspects,
	}
}

// Ended tells of one transaction.
type Ended struct {
	Lane     int
	Outcome  Outcome
	Reason   Reason
	Records  int
	Bytes    int64
	Duration time.Duration  // of this attempt: from the complete batch, whose handlers begin, to the answer of End
	Oldest   time.Time      // the oldest record's timestamp; zero for a batch of control records only
	Source   message.Source // where that record stands; its Topic is empty for a batch of control records only
	Err      error          // of an abort or an unknown outcome, where there was one
	Story    *Story         // nil unless Hooks.Stories is set
}

// Buried tells of a lane of another process that left the group without an end: its transaction was ended.
type Buried struct {
	Member string // the lane's name, and transactional id
	Err    error  // where that could not be done, or not be looked at; Member is empty then
}

// Halted tells of a partition that no longer moves, until an operator acts.
type Halted struct {
	Lane      int
	Topic     string
	Partition int32
	Err       error // says what to run
}

// Suspected tells of a batch that is run with fewer records.
type Suspected struct {
	Lane    int
	Records int    // the new limit
	Crashes int    // process deaths with this batch in flight; 0 where aborts are the cause
	Why     Reason // of the last abort
}

// Unlisted tells of aborted records that a broker gave as committed. Those that come again count again.
type Unlisted struct {
	Lane      int
	Topic     string
	Partition int32
	Records   int64
}

func hook[T any](f func(T), value T) {
	if f != nil {
		f(value)
	}
}
