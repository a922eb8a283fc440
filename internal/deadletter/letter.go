package deadletter

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// State says what became of a dead letter.
type State string

// The states of a dead letter.
const (
	StateOpen      State = "open"
	StateRedriven  State = "redriven"
	StateDiscarded State = "discarded"
	StateUnknown   State = "unknown" // a look does not read without end, see Queue.Newest; nobody settles by it
)

// Letter is one dead letter: the refused record as it was, and the story of its refusal.
type Letter struct {
	Partition int32 // where it stands in the dead-letter topic
	Offset    int64
	State     State

	Source   message.Source // topic, partition and offset of origin
	ID       string         // derived from the origin, the topic id included
	Handler  string
	Reason   string
	Error    string
	Redrives int // how often this record had been redriven before it was refused

	Key       []byte
	Value     []byte
	Headers   []message.Header // of the refused record
	Timestamp time.Time        // of the refused record

	// Unreadable is set on a record of the dead-letter topic that no engine wrote. It has no story.
	Unreadable error
}

// parse splits a record of the dead-letter topic into the refused record and the story.
func parse(r *kgo.Record) Letter {
	l := Letter{
		Partition: r.Partition, Offset: r.Offset, State: StateOpen,
		Key: r.Key, Value: r.Value, Timestamp: r.Timestamp,
	}
	story := len(r.Headers)
	for i, h := range slices.Backward(r.Headers) {
		if h.Key == message.HeaderSource {
			story = i
			break
		}
	}
	for _, h := range r.Headers[:story] {
		l.Headers = append(l.Headers, message.Header(h))
		if h.Key == message.HeaderRedrive {
			// Anybody may have written it. What is no count is none; at worst a letter is refused
			// one redrive early or late.
			count, err := strconv.ParseUint(string(h.Value), 10, 31)
			if err == nil {
				l.Redrives = int(count)
			}
		}
	}
	for _, h := range r.Headers[story:] {
		text := string(h.Value)
		switch h.Key {
		case message.HeaderSource:
			l.Source, l.Unreadable = message.ParseSource(text)
		case message.HeaderID:
			l.ID = text
		case message.HeaderHandler:
			l.Handler = text
		case message.HeaderReason:
			l.Reason = text
		case message.HeaderError:
			l.Error = text
		}
	}
	if l.Unreadable == nil && (story == len(r.Headers) || l.Reason == "" || l.ID == "") {
		l.Unreadable = fmt.Errorf("it lacks %s, %s or %s: not written by a processor", message.HeaderSource, message.HeaderID, message.HeaderReason)
	}
	return l
}

// restore gives the refused record as it goes back to its topic and partition: byte for byte, with
// the count of redrives raised. restamp gives it the time of the redrive instead of its own.
func (l *Letter) restore(restamp bool) *kgo.Record {
	headers := make([]kgo.RecordHeader, 0, len(l.Headers)+1)
	for _, h := range l.Headers {
		if h.Key != message.HeaderRedrive {
			headers = append(headers, kgo.RecordHeader(h))
		}
	}
	headers = append(headers, kgo.RecordHeader{Key: message.HeaderRedrive, Value: strconv.AppendInt(nil, int64(l.Redrives+1), 10)})
	record := &kgo.Record{
		Topic: l.Source.Topic, Partition: l.Source.Partition,
		Key: l.Key, Value: l.Value, Headers: headers, Timestamp: l.Timestamp,
	}
	if restamp {
		record.Timestamp = time.Time{} // the client fills in its own
	}
	return record
}

// The most that a record and a header take beside their bytes: varints, batch header included.
const (
	recordOverhead = 128
	headerOverhead = 10
)

func size(r *kgo.Record) int {
	n := recordOverhead + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += headerOverhead + len(h.Key) + len(h.Value)
	}
	return n
}

// Filter selects dead letters. The zero Filter selects all that are open.
type Filter struct {
	Reasons  []string // none: any
	Handlers []string
	Topics   []string // of origin
	Since    time.Time
	Until    time.Time  // exclusive; both are about the refused record's timestamp
	Settled  bool       // those that are redriven or discarded, too
	At       []Position // these only; none: any
}

// Position is the place of one dead letter in the dead-letter topic.
type Position struct {
	Partition int32
	Offset    int64
}

// ParsePosition reads a position as partition/offset.
func ParsePosition(text string) (Position, error) {
	first, second, _ := strings.Cut(text, "/")
	partition, err := strconv.ParseInt(first, 10, 32)
	if err == nil && partition >= 0 {
		var offset int64
		if offset, err = strconv.ParseInt(second, 10, 64); err == nil && offset >= 0 {
			return Position{Partition: int32(partition), Offset: offset}, nil
		}
	}
	return Position{}, fmt.Errorf("%q is no position: want partition/offset, as `processor dlq ls` shows it", text)
}

// String gives partition/offset.
func (p Position) String() string { return fmt.Sprintf("%d/%d", p.Partition, p.Offset) }

// Position gives the letter's place.
func (l *Letter) Position() Position { return Position{Partition: l.Partition, Offset: l.Offset} }

func (f *Filter) match(l *Letter) bool {
	return (f.Settled || l.State == StateOpen) &&
		oneOf(f.Reasons, l.Reason) && oneOf(f.Handlers, l.Handler) && oneOf(f.Topics, l.Source.Topic) &&
		(f.Since.IsZero() || !l.Timestamp.Before(f.Since)) &&
		(f.Until.IsZero() || l.Timestamp.Before(f.Until)) &&
		(len(f.At) == 0 || slices.Contains(f.At, l.Position()))
}

func oneOf(wanted []string, text string) bool {
	return len(wanted) == 0 || slices.Contains(wanted, text)
}

// narrow spares reading what At excludes.
func (f *Filter) narrow(b bounds) (from, to int64) {
	if len(f.At) == 0 {
		return b.start, b.end
	}
	from, to = b.end, b.start
	for _, p := range f.At {
		if p.Partition == b.partition {
			from, to = min(from, p.Offset), max(to, p.Offset+1)
		}
	}
	return max(from, b.start), min(to, b.end)
}
