package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

func TestBackoffDoublesJittersAndObeys(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		attempt    int
		retryAfter time.Duration
		random     float64
		want       time.Duration
	}{
		{attempt: 1, random: 0, want: backoffFloor},
		{attempt: 1, random: 0.5, want: 125 * time.Millisecond},
		{attempt: 2, random: 0.5, want: 250 * time.Millisecond},
		{attempt: 3, random: 0.5, want: 500 * time.Millisecond},
		{attempt: 11, random: 0.5, want: 128 * time.Second},
		{attempt: 12, random: 0.5, want: 150 * time.Second},
		{attempt: 1000, random: 0.5, want: 150 * time.Second},
		{attempt: 1, random: 0.5, retryAfter: 100 * time.Millisecond, want: 125 * time.Millisecond},
		{attempt: 1, random: 0.5, retryAfter: time.Minute, want: time.Minute},
		{attempt: 1, random: 0.5, retryAfter: 48 * time.Hour, want: time.Hour},
		{attempt: 1, random: 0, retryAfter: -time.Hour, want: backoffFloor},
	} {
		if got := backoff(test.attempt, test.retryAfter, test.random); got != test.want {
			t.Errorf("backoff(%d, %s, %g) is %s, want %s", test.attempt, test.retryAfter, test.random, got, test.want)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	status := func(code int) outbox.Answer { return outbox.Answer{Status: code, Sent: true} }
	reset := outbox.Answer{Err: errors.New("connection\nreset"), Sent: true}
	refused := outbox.Answer{Err: errors.New("connection refused")}
	const attemptsMax, ageMax, again = 3, time.Hour, outbox.Status("")
	for name, test := range map[string]struct {
		answer outbox.Answer
		tried  tried
		want   outbox.Status
		reason string
	}{
		"200":                    {answer: status(200), want: outbox.Done},
		"204":                    {answer: status(204), want: outbox.Done},
		"redirect":               {answer: status(302), want: outbox.Dead, reason: "the endpoint answered 302"},
		"400":                    {answer: status(400), want: outbox.Dead},
		"401":                    {answer: status(401), want: outbox.Dead},
		"404":                    {answer: status(404), want: outbox.Dead},
		"408":                    {answer: status(408), want: again},
		"409":                    {answer: status(409), want: again},
		"410":                    {answer: status(410), want: outbox.Dead},
		"422":                    {answer: status(422), want: outbox.Dead},
		"425":                    {answer: status(425), want: again},
		"429":                    {answer: status(429), want: again},
		"500":                    {answer: status(500), want: again, reason: "the endpoint answered 500"},
		"503":                    {answer: status(503), want: again},
		"no sensible status":     {answer: status(101), want: again},
		"reset":                  {answer: reset, want: again, reason: "connection reset"},
		"refused":                {answer: refused, want: again},
		"hopeless":               {answer: outbox.Answer{Err: errors.New("no such header"), Hopeless: true}, want: outbox.Dead, reason: "no such header"},
		"once: hopeless":         {answer: outbox.Answer{Err: errors.New("no such header"), Hopeless: true}, tried: tried{class: message.AtMostOnce}, want: outbox.Dead},
		"last attempt":           {answer: status(503), tried: tried{attempts: 3}, want: outbox.Dead, reason: "gave up after 3 attempts: the endpoint answered 503"},
		"beyond the last":        {answer: reset, tried: tried{attempts: 9}, want: outbox.Dead},
		"some do not count":      {answer: reset, tried: tried{attempts: 5, excused: 3}, want: again},
		"the others do":          {answer: reset, tried: tried{attempts: 6, excused: 3}, want: outbox.Dead},
		"last attempt succeeds":  {answer: status(200), tried: tried{attempts: 3}, want: outbox.Done},
		"too old":                {answer: status(503), tried: tried{attempts: 1, age: ageMax}, want: outbox.Dead, reason: "gave up after 1h0m0s: the endpoint answered 503"},
		"too old for the pause":  {answer: outbox.Answer{Status: 429, RetryAfter: time.Minute}, tried: tried{attempts: 1, age: ageMax - time.Second}, want: outbox.Dead},
		"once: 200":              {answer: status(200), tried: tried{class: message.AtMostOnce}, want: outbox.Done},
		"once: 503":              {answer: status(503), tried: tried{class: message.AtMostOnce}, want: outbox.Dead},
		"once: 429":              {answer: status(429), tried: tried{class: message.AtMostOnce}, want: outbox.Dead},
		"once: 422":              {answer: status(422), tried: tried{class: message.AtMostOnce}, want: outbox.Dead},
		"once: reset":            {answer: reset, tried: tried{class: message.AtMostOnce}, want: outbox.Unknown, reason: "connection reset"},
		"once: reset at the end": {answer: reset, tried: tried{class: message.AtMostOnce, attempts: 9}, want: outbox.Unknown},
		"once: never sent":       {answer: refused, tried: tried{class: message.AtMostOnce}, want: again},
		"once: never sent, last": {answer: refused, tried: tried{class: message.AtMostOnce, attempts: 3}, want: outbox.Dead},
	} {
		test.tried.attempts = max(1, test.tried.attempts)
		got := judge(test.answer, test.tried, attemptsMax, ageMax, 0.5)
		if got.status != test.want {
			t.Errorf("%s: %+v, want %q", name, got, test.want)
		}
		if test.reason != "" && got.reason != test.reason {
			t.Errorf("%s: the reason is %q, want %q", name, got.reason, test.reason)
		}
		if (got.reason == "") != (test.want == outbox.Done) {
			t.Errorf("%s: the reason is %q", name, got.reason)
		}
		if (got.pause > 0) != (test.want == again) {
			t.Errorf("%s: the pause is %s", name, got.pause)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer outbox.Answer
		want   error
	}{
		"200":       {outbox.Answer{Status: 200}, nil},
		"422":       {outbox.Answer{Status: 422}, nil},
		"409":       {outbox.Answer{Status: 409}, nil},
		"429":       {outbox.Answer{Status: 429}, errNeutral},
		"500":       {outbox.Answer{Status: 500}, errUnhealthy},
		"hopeless":  {outbox.Answer{Err: errors.New("no such header"), Hopeless: true}, errNeutral},
		"timeout":   {outbox.Answer{Err: fmt.Errorf("post: %w", context.DeadlineExceeded)}, errUnhealthy},
		"cancelled": {outbox.Answer{Err: fmt.Errorf("post: %w", context.Canceled)}, errNeutral},
	} {
		if got := health(test.answer); !errors.Is(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestReasonsAreOneShortLine(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		got := line(rapid.OneOf(rapid.String(), rapid.StringN(0, 400, 2000), rapid.Just("\xff"+strings.Repeat("ü", 300))).Draw(t, "text"))
		if len(got) > outbox.ErrorMax || strings.ContainsAny(got, "\r\n") || !utf8.ValidString(got) {
			t.Fatalf("%d bytes: %q", len(got), got)
		}
	})
}
