package relay

import (
	"time"

	"pawl/internal/outbox"
)

// Hooks is the one seam for metrics, logs and tests. Every field is optional. They run on the goroutine of
// a lane, so they must be brief and safe for concurrent use by several lanes. No error holds a payload.
type Hooks struct {
	Opened   func(Opened)                // the producer is there and the progress is read
	Relayed  func(Relayed)               // after each commit
	Diverged func(Diverged)              // the ledger is not the one that was relayed so far
	Trimmed  func(Trimmed)               // an event was too large and lost a part; before its commit
	Halted   func(lane int32, err error) // the lane waits for an operator; err says for what
	Fenced   func(lane int32, err error) // another relay has opened the lane, or a transaction took too long
	GaveUp   func(lane int32)            // fenced again and again: another owner seems to have it; until it is assigned again or some minutes have passed
	Retrying func(lane int32, err error) // the brokers or the ledger failed; it is tried again
}

// Opened tells where a lane goes on.
type Opened struct {
	Lane int32
	Seq  int64 // of the last flush that was told, 0 where there is none
}

// Relayed tells of one committed transaction.
type Relayed struct {
	Lane    int32
	Seq     int64 // of the last flush in it
	Events  int
	Skipped int   // outcomes that had been told before the ledger was restored
	Bytes   int64 // keys and values of the events
	Took    time.Duration
	Results []outbox.Result // what was told or skipped; for the time of the call, and not to be changed
}

// Diverged tells of a ledger that was restored from a backup or made anew, or of a lost progress record.
type Diverged struct {
	Lane   int32
	Seq    int64  // of the progress record, 0 where there is none
	Common int64  // the last flush that is known to be the same as before, 0 where there is none
	Why    string // what the record has and what the ledger has
	Told   int    // events since then that were read back
	Until  int64  // offset of the results topic below which they are
}

// Trimmed tells of an event that lost a part, because the results topic would not have taken it.
type Trimmed struct {
	Lane   int32
	Offset int64
	Error  bool // the error text was dropped too, not only the body of the response
}

// Phase says what a lane is doing.
type Phase string

// The phases of a lane.
const (
	PhaseOpening Phase = "opening" // opening the producer, reading the progress
	PhaseWaiting Phase = "waiting" // for outcomes: idle on purpose
	PhaseTelling Phase = "telling" // reading outcomes or in a transaction
	PhaseBackoff Phase = "backoff" // waiting to try again
	PhaseHalted  Phase = "halted"  // waiting for an operator; looked at again from time to time
	PhaseLost    Phase = "lost"    // given up, another owner has it
)

// Status is a snapshot of all lanes. The operations HTTP shows it as JSON.
type Status struct {
	Lanes []LaneStatus `json:"lanes"`
}

// LaneStatus is a snapshot of one lane.
type LaneStatus struct {
	Lane       int32     `json:"lane"`
	Phase      Phase     `json:"phase"`
	Since      time.Time `json:"since,omitzero"` // of the phase
	Seq        int64     `json:"seq"`            // of the last flush that was told
	Events     int64     `json:"events"`         // told since the lane was assigned
	Skipped    int64     `json:"skipped"`
	Diverged   bool      `json:"diverged"`             // events of an earlier ledger are left out
	LastCommit time.Time `json:"last_commit,omitzero"` // zero before the first
	Error      string    `json:"error,omitempty"`      // of the last failure, until a transaction commits
}
