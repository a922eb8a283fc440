package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

// Bounds of the pause before the next attempt.
const (
	backoffBase   = 250 * time.Millisecond
	backoffFloor  = 50 * time.Millisecond
	backoffCap    = 5 * time.Minute
	retryAfterMax = time.Hour
)

// backoff is the pause after attempt number attempt (from 1): full jitter below a bound that doubles,
// so that those who failed together do not come back together. What the endpoint asked for wins where
// it is longer. random is in [0, 1).
func backoff(attempt int, retryAfter time.Duration, random float64) time.Duration {
	bound := backoffCap
	if shift := max(0, attempt-1); shift < 16 {
		bound = min(backoffCap, backoffBase<<shift)
	}
	pause := max(backoffFloor, time.Duration(random*float64(bound)))
	return max(pause, min(retryAfter, retryAfterMax))
}

// tried is what is known of an intent when the answer to a call of it comes.
type tried struct {
	class    message.Class
	attempts int           // transmissions begun, the answered one included
	excused  int           // of them, those that don't count towards the limit
	age      time.Duration // since the first one
}

// verdict is what becomes of an answered intent.
type verdict struct {
	status outbox.Status // "" where it is tried again
	pause  time.Duration // before it is
	reason string        // one line, empty with Done
}

// judge says what an answer means.
func judge(answer outbox.Answer, t tried, attemptsMax int, ageMax time.Duration, random float64) verdict {
	if answer.Err == nil && answer.Status >= 200 && answer.Status < 300 {
		return verdict{status: outbox.Done}
	}
	reason := explain(answer)
	switch {
	case t.class == message.AtMostOnce && answer.Err == nil:
		return verdict{status: outbox.Dead, reason: reason} // it was transmitted once: nobody may do it again
	case t.class == message.AtMostOnce && answer.Sent:
		return verdict{status: outbox.Unknown, reason: reason}
	case answer.Hopeless, answer.Err == nil && !passing(answer.Status):
		return verdict{status: outbox.Dead, reason: reason}
	case t.attempts-t.excused >= attemptsMax:
		return verdict{status: outbox.Dead, reason: line(fmt.Sprintf("gave up after %d attempts: %s", t.attempts, reason))}
	}
	pause := backoff(t.attempts, answer.RetryAfter, random)
	if t.age+pause > ageMax {
		return verdict{status: outbox.Dead, reason: line(fmt.Sprintf("gave up after %s: %s", t.age.Round(time.Second), reason))}
	}
	return verdict{pause: pause, reason: reason}
}

// passing reports whether the same call may be answered otherwise later. 409 is among them: it is how
// a receiver says that the first call with this key is still being worked on.
func passing(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	default:
		return status < 200 || status >= 500
	}
}

// explain says in one line why an answer is not a plain success.
func explain(answer outbox.Answer) string {
	if answer.Err != nil {
		return line(answer.Err.Error())
	}
	return fmt.Sprintf("the endpoint answered %d", answer.Status)
}

// line makes one line of at most outbox.ErrorMax bytes of a text.
func line(text string) string {
	text = strings.ToValidUTF8(strings.Join(strings.Fields(text), " "), "?")
	if len(text) <= outbox.ErrorMax {
		return text
	}
	end := outbox.ErrorMax
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// What a breaker is told of a call, beside nil.
var (
	errUnhealthy = errors.New("the endpoint failed")
	errNeutral   = errors.New("the call says nothing about the endpoint's health")
)

// health is what an answer tells the breaker: an endpoint that refuses an effect is well, one that
// fails or is silent is not, and one that asks us to slow down, or was not called, is neither.
func health(answer outbox.Answer) error {
	switch {
	case answer.Hopeless, errors.Is(answer.Err, context.Canceled), answer.Status == http.StatusTooManyRequests:
		return errNeutral
	case answer.Err != nil, answer.Status >= 500:
		return errUnhealthy
	default:
		return nil
	}
}
