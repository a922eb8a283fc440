package httptarget

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"pawl/internal/outbox"
)

// keep reads what is kept of an answer, and drops a little more so that the connection can be used
// again: whole says that the answer has been read to its end. A body that breaks off is told as
// truncated: the status has decided already.
func (t *Target) keep(s *said) (kept *outbox.Response, whole bool) {
	kept = &outbox.Response{ContentType: oneLine(s.contentType, contentMax)}
	size := s.length
	if size == 0 {
		return kept, true
	}
	// One byte more than is kept, so that the end is seen: of the body, or of our patience.
	if 0 < size && size <= outbox.ResponseMax {
		body := make([]byte, size+1)
		n, err := fill(s.body, body)
		whole = errors.Is(err, io.EOF)
		kept.Body, kept.Truncated = body[:n:n], !whole
		return kept, whole
	}
	space := t.spaces.Get().(*space)
	defer t.spaces.Put(space)
	n, err := fill(s.body, space[:])
	kept.Truncated = n > outbox.ResponseMax || !errors.Is(err, io.EOF)
	kept.Body = bytes.Clone(space[:min(n, outbox.ResponseMax)])
	if err == nil {
		_, err = io.CopyN(io.Discard, s.body, drainMax) // what fails here only costs the connection
	}
	return kept, errors.Is(err, io.EOF)
}

// fill reads until there's no more room, with a nil error, or no more to read. Other than io.ReadFull
// it tells a body's end from a body cut short.
func fill(body io.Reader, room []byte) (n int, err error) {
	for n < len(room) && err == nil {
		var m int
		m, err = body.Read(room[n:])
		n += m
	}
	return n, err
}

// space is room for an answer whose size is not known beforehand.
type space [outbox.ResponseMax + 1]byte

// wait reads Retry-After (RFC 9110 section 10.2.3): seconds, or a date, which is
// compared with the answer's own Date where there is one, because clocks differ. What is in the past
// or cannot be read is 0.
func (s *said) wait(now time.Time) time.Duration {
	text := strings.TrimSpace(s.retryAfter)
	if text == "" {
		return 0
	}
	if strings.Trim(text, "0123456789") == "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil || seconds > int64(retryAfterMax/time.Second) {
			return retryAfterMax // out of any range: it wants us to stay away for long
		}
		return time.Duration(seconds) * time.Second
	}
	when, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(s.date); err == nil {
		now = date
	}
	return min(max(0, when.Sub(now)), retryAfterMax)
}
