package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"pawl/internal/outbox"
)

// The binary columns begin with their format. A release that meets another one must not guess.
const (
	marksFormat   = 1
	resultsFormat = 1
)

var errCut = errors.New("it is cut short or not whole")

// writeMarks writes format, count, and for each origin: topic id (16 bytes), partition, generation,
// offset, index as varints.
func writeMarks(marks map[outbox.Origin]outbox.Mark) []byte {
	b := []byte{marksFormat}
	b = binary.AppendUvarint(b, uint64(len(marks)))
	for origin, mark := range marks {
		b = append(b, origin.TopicID[:]...)
		b = binary.AppendVarint(b, int64(origin.Partition))
		b = binary.AppendVarint(b, int64(origin.Generation))
		b = binary.AppendVarint(b, mark.Offset)
		b = binary.AppendVarint(b, int64(mark.Index))
	}
	return b
}

// readMarks calls visit for each mark of what writeMarks wrote.
func readMarks(b []byte, visit func(outbox.Origin, outbox.Mark)) error {
	r := reader{rest: b}
	if format := r.byte(); r.err == nil && format != marksFormat {
		return fmt.Errorf("marks have format %d, this release knows %d: run a newer one", format, marksFormat)
	}
	for range r.count() {
		var origin outbox.Origin
		copy(origin.TopicID[:], r.bytes(len(origin.TopicID)))
		origin.Partition, origin.Generation = int32(r.varint()), int(r.varint()) //nolint:gosec // as they were written
		mark := outbox.Mark{Offset: r.varint(), Index: int(r.varint())}
		if r.err != nil {
			break
		}
		visit(origin, mark)
	}
	if err := r.end(); err != nil {
		return fmt.Errorf("read marks: %w", err)
	}
	return nil
}

// The byte before each outcome: a status in the low bits, and which fields follow. The commonest
// outcome, done by 200 at the first attempt with nothing kept of the answer, is two bytes.
const (
	statusBits  = 0x07
	hasAttempts = 1 << 3 // otherwise 1
	hasHTTP     = 1 << 4 // otherwise 200
	hasError    = 1 << 5
	hasResponse = 1 << 6
	truncated   = 1 << 7
)

// statuses by their number in the format.
var statuses = [...]outbox.Status{1: outbox.Done, 2: outbox.Dead, 3: outbox.Unknown, 4: outbox.Duplicate, 5: outbox.Conflict}

const (
	plainAttempts = 1
	plainHTTP     = 200
)

// writeResults writes the outcomes of a flush, by ascending offset: format, count, and for each the
// step from the offset before it, the byte above, and its fields.
func writeResults(outcomes []outbox.Outcome) ([]byte, error) {
	b := []byte{resultsFormat}
	b = binary.AppendUvarint(b, uint64(len(outcomes)))
	last := int64(-1)
	for i := range outcomes {
		o := &outcomes[i]
		status := slices.Index(statuses[:], o.Status)
		if status <= 0 || o.Status == "" {
			return nil, fmt.Errorf("outcome of %d has the status %q", o.Offset, o.Status)
		}
		if o.Offset <= last {
			return nil, fmt.Errorf("outcome of %d follows that of %d", o.Offset, last)
		}
		head := byte(status) //nolint:gosec // an index of statuses
		set := func(bit byte, is bool) {
			if is {
				head |= bit
			}
		}
		set(hasAttempts, o.Attempts != plainAttempts)
		set(hasHTTP, o.HTTPStatus != plainHTTP)
		set(hasError, o.Error != "")
		set(hasResponse, o.Response != nil)
		set(truncated, o.Response != nil && o.Response.Truncated)
		b = binary.AppendUvarint(b, uint64(o.Offset-last)) //nolint:gosec // positive, see above
		last = o.Offset
		b = append(b, head)
		if head&hasAttempts != 0 {
			b = binary.AppendVarint(b, int64(o.Attempts))
		}
		if head&hasHTTP != 0 {
			b = binary.AppendVarint(b, int64(o.HTTPStatus))
		}
		if head&hasError != 0 {
			b = appendText(b, o.Error)
		}
		if head&hasResponse != 0 {
			b = appendText(appendText(b, o.Response.ContentType), o.Response.Body)
		}
	}
	return b, nil
}

func appendText[T string | []byte](b []byte, text T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// readResults reads what writeResults wrote.
func readResults(b []byte) ([]outbox.Outcome, error) {
	r := reader{rest: b}
	if format := r.byte(); r.err == nil && format != resultsFormat {
		return nil, fmt.Errorf("results have format %d, this release knows %d: run a newer one", format, resultsFormat)
	}
	var outcomes []outbox.Outcome
	last := int64(-1)
	for range r.count() {
		last += int64(r.uvarint()) //nolint:gosec // as it was written
		head := r.byte()
		o := outbox.Outcome{Offset: last, Attempts: plainAttempts, HTTPStatus: plainHTTP}
		if status := int(head & statusBits); status > 0 && status < len(statuses) {
			o.Status = statuses[status]
		} else if r.err == nil {
			return nil, fmt.Errorf("read results: outcome of %d has status %d", last, status)
		}
		if head&hasAttempts != 0 {
			o.Attempts = int(r.varint())
		}
		if head&hasHTTP != 0 {
			o.HTTPStatus = int(r.varint())
		}
		if head&hasError != 0 {
			o.Error = string(r.text())
		}
		if head&hasResponse != 0 {
			o.Response = &outbox.Response{ContentType: string(r.text()), Truncated: head&truncated != 0}
			o.Response.Body = append([]byte{}, r.text()...)
		}
		if r.err != nil {
			break
		}
		outcomes = append(outcomes, o)
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	return outcomes, nil
}

// reader reads from a slice; after the first error it gives zeros.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) bytes(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.rest) {
		r.err = errCut
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	value, n := binary.Uvarint(r.rest)
	if r.bytes(max(n, 0)); n <= 0 {
		r.err = errCut
		return 0
	}
	return value
}

func (r *reader) varint() int64 {
	value, n := binary.Varint(r.rest)
	if r.bytes(max(n, 0)); n <= 0 {
		r.err = errCut
		return 0
	}
	return value
}

// count is a number of things that take at least a byte each.
func (r *reader) count() uint64 {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.err = errCut
		return 0
	}
	return n
}

func (r *reader) text() []byte { return r.bytes(int(r.count())) } //nolint:gosec // count is bounded by what is left

func (r *reader) end() error {
	if r.err == nil && len(r.rest) > 0 {
		return errCut
	}
	return r.err
}

// hexPrefix begins a text that Postgres could not hold as it is.
const hexPrefix = `\x`

// storable gives a text that Postgres takes, whatever a handler has put into a name: text columns hold
// no NUL and nothing but UTF-8. original gives it back.
func storable(text string) string {
	if utf8.ValidString(text) && !strings.Contains(text, "\x00") && !strings.HasPrefix(text, hexPrefix) {
		return text
	}
	return fmt.Sprintf(hexPrefix+"%x", text)
}

func original(stored string) string {
	hex, is := strings.CutPrefix(stored, hexPrefix)
	if !is {
		return stored
	}
	var text []byte
	if _, err := fmt.Sscanf(hex, "%x", &text); err != nil {
		return stored // not ours: storable never leaves the prefix alone
	}
	return string(text)
}
