package txn

import (
	"cmp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// Story is what a trace tells of a transaction, beside what is counted.
type Story struct {
	Polled  time.Time // when its first record was
	Handled time.Time // when everything had been handed to the client; zero where it did not come to that
	At      time.Time // when it had ended
	Outputs int       // records handed to the client: outputs, dead letters and effects
	Ranges  []Range   // of the input, by topic and partition
	Traced  []Traced  // the first TracedMax of the sampled input records, in the order of the input
	Sampled int       // how many there were
}

// Range is what a transaction took from one partition: offsets from From up to, not including, To.
type Range struct {
	Topic     string
	Partition int32
	From, To  int64
}

// Traced is an input record whose trace is being recorded.
type Traced struct {
	Source message.Source // application, topic, partition and offset
	Parent string         // traceparent
	State  string         // tracestate
}

// TracedMax bounds Story.Traced; a span of OpenTelemetry has no more links by default.
const TracedMax = 128

// story gathers what cannot be seen at the end of a transaction any more without reading its records again, when they
// have left the core's cache. A nil story is told nothing.
type story struct {
	application string
	handled     time.Time
	traced      []Traced
	sampled     int
}

func newStory(c Config) *story {
	if !c.Hooks.Stories {
		return nil
	}
	return &story{application: c.Application}
}

func (s *story) begin() {
	if s != nil {
		s.handled, s.sampled, s.traced = time.Time{}, 0, nil
	}
}

// saw looks at the records of a part that was just handled, be it in vain.
func (s *story) saw(records []*kgo.Record) {
	if s == nil {
		return
	}
	for _, r := range records {
		if len(r.Headers) == 0 {
			continue
		}
		trace := message.TraceOf(r.Headers)
		if !trace.Sampled() {
			continue
		}
		if s.sampled++; s.sampled <= TracedMax {
			s.traced = append(s.traced, Traced{
				Source: message.Source{Application: s.application, Topic: r.Topic, Partition: r.Partition, Offset: r.Offset},
				Parent: string(trace.Parent), State: string(trace.State),
			})
		}
	}
}

func (s *story) filled() {
	if s != nil {
		s.handled = time.Now()
	}
}

// tell gives the story of the batch, nil where nobody wants it.
func (s *story) tell(b *batch, made *builder, now time.Time) *Story {
	if s == nil {
		return nil
	}
	outputs, _ := made.made()
	told := &Story{Polled: b.first, Handled: s.handled, At: now, Outputs: outputs, Traced: s.traced, Sampled: s.sampled}
	for at, to := range b.ends {
		told.Ranges = append(told.Ranges, Range{at.topic, at.partition, b.begins[at], to})
	}
	slices.SortFunc(told.Ranges, func(a, b Range) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return told
}
