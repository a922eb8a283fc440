package dispatch

import (
	"time"

	"pawl/internal/outbox"
)

// Hooks is the one seam for metrics, logs and tests. Every field is optional. They run on the
// goroutines of lanes and workers, many at once, so they must be brief and safe for concurrent use.
//
// Endpoint is the name of a configured endpoint, or "" for an intent whose endpoint this process does
// not know: names that come with records are no closed set.
type Hooks struct {
	Sent     func(Sent)     // before each transmission
	Answered func(Answered) // after each
	Settled  func(Settled)  // a final fate was written down
	Parked   func(Parked)   // an intent is put aside
	Flushed  func(Flushed)  // a flush was written
	Breaker  func(Breaker)  // the breaker of an endpoint changed

	Owned    func(lane int32, epoch int64)
	Lost     func(lane int32, epoch int64) // after Owned, for whatever reason; released, fenced or given up
	Fenced   func(lane int32, epoch int64) // before Lost: another owner has the lane, or the lease ran out
	Retrying func(lane int32, err error)   // the store failed; what was asked of it is tried again
}

// Sent tells of a transmission that begins.
type Sent struct {
	Lane     int32
	Offset   int64
	Endpoint string
	Attempt  int       // from 1
	At       time.Time // the intent's
}

// Answered tells how it ended.
type Answered struct {
	Lane     int32
	Offset   int64
	Endpoint string
	Attempt  int
	Status   int           // 0 where there was no answer
	Duration time.Duration // of the call
	Replays  int           // transmissions that the transport added by itself
	Err      error         // without secrets and payload
}

// Settled tells of a final fate.
type Settled struct {
	Lane     int32
	Offset   int64
	Endpoint string
	Status   outbox.Status
	Attempts int
	Age      time.Duration // from the intent's time to the fate; 0 where only its offset was at hand
}

// Parked tells of an intent that waits outside the window.
type Parked struct {
	Lane     int32
	Offset   int64
	Endpoint string
	Role     outbox.Role
	Attempts int
	In       time.Duration // until the next attempt, 0 where it is not time that it waits for
	Reason   string
}

// Flushed tells of one flush.
type Flushed struct {
	Lane     int32
	Results  int
	Duration time.Duration
}

// Breaker tells of a change.
type Breaker struct {
	Endpoint string
	State    State
}

func hook[T any](f func(T), value T) {
	if f != nil {
		f(value)
	}
}

func hook2[T, U any](f func(T, U), one T, two U) {
	if f != nil {
		f(one, two)
	}
}
