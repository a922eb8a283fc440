package outbox

import "time"

// Call is one transmission of an intent that a dispatcher asks a target for.
type Call struct {
	Intent  Intent // never changed, not even after the call: a transport may still read the body
	Attempt int    // from 1: transmissions of this intent begun before this one, plus 1
	Fence   int64  // epoch of the tenure under which the call is made; a receiver may refuse lower ones
}

// Answer is what a target can say of a call. It says what happened, not what is to be done about it:
// judging is the dispatcher's.
//
// Err is nil where the target gave a definite answer, whatever its Status, and then Sent is true. With
// an Err there is no answer to go by: Status is 0, and whether the endpoint has seen the call is
// unknown where Sent is true.
type Answer struct {
	Status     int           // HTTP status, or what a target of another kind gives its nearest meaning
	RetryAfter time.Duration // what the endpoint asked to wait, as it asked it; 0 where it didn't
	Response   *Response     // what is kept of the answer's body, nil where there was no answer
	Err        error         // one line of at most ErrorMax bytes, without secrets and payload

	// Sent is false only where surely no byte of the call was transmitted: no address, no connection,
	// refused by a guard. A call of the class at-most-once may then be made again.
	Sent bool

	// Hopeless is set where the call can't be made at all, whatever the endpoint does: what the intent asks
	// for cannot be written down as a call. It was not sent, and is not tried again.
	Hopeless bool

	// Replays counts the transmissions beyond the first that the transport made by itself, because a
	// connection broke under the call. It is always 0 for a call of the class at-most-once.
	Replays int
}
