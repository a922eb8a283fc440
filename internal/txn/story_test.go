package txn

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/message"
)

const unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"

// Each transaction tells what it was made of, the aborted attempt as well as the one that does it again.
func TestStoryTellsWhatATransactionWasMadeOf(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const records, sampled = 200, 150
		w := newVirtualWorld(t, 2)
		fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Topic: inTopic, Err: kerr.UnknownMemberID, Count: 1})
		for i := range records {
			r := &kgo.Record{Topic: inTopic, Partition: 1, Value: []byte(strconv.Itoa(i)), Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte(traceparent)}, {Key: "tracestate", Value: []byte("n=" + strconv.Itoa(i))}}}
			if i >= sampled {
				r.Headers[0].Value = []byte(unsampled)
			}
			if err := w.client.ProduceSync(context.Background(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		r := w.run(func(c *Config) { c.RecordsMax, c.Lanes, c.Hooks.Stories = records, 1, true })
		ended := until(t, w.hooks.ended, "200 committed records", committed(records))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		next, seen, aborted := int64(0), 0, 0
		for _, e := range ended {
			s := e.Story
			if s == nil || len(s.Ranges) != 1 || s.Ranges[0].Topic != inTopic || s.Ranges[0].Partition != 1 || s.Ranges[0].From != next {
				t.Fatalf("story %+v of %+v, want one range from %d", s, e, next)
			}
			if s.Polled.IsZero() || s.Handled.Before(s.Polled) || s.At.Before(s.Handled) || s.Outputs != e.Records {
				t.Errorf("story %+v of %d records: times or outputs are wrong", s, e.Records)
			}
			from, to := int(s.Ranges[0].From), int(s.Ranges[0].To)
			want := max(0, min(to, sampled)-from)
			if s.Sampled != want || len(s.Traced) != min(want, TracedMax) {
				t.Errorf("offsets %d to %d: %d sampled, %d of them told, want %d and no more than %d", from, to, s.Sampled, len(s.Traced), want, TracedMax)
			}
			for i, traced := range s.Traced {
				source := message.Source{Application: w.config.Application, Topic: inTopic, Partition: 1, Offset: int64(from + i)}
				if traced != (Traced{Source: source, Parent: traceparent, State: "n=" + strconv.Itoa(from+i)}) {
					t.Errorf("offset %d: %+v", from+i, traced)
				}
			}
			if e.Outcome == Committed {
				next, seen = s.Ranges[0].To, seen+s.Sampled
			} else {
				aborted++
			}
		}
		if fault.Hits() != 1 || aborted == 0 || seen != sampled {
			t.Errorf("%d faults, %d aborts, %d sampled records told, want 1, some and %d", fault.Hits(), aborted, seen, sampled)
		}
	})
}

// A batch that was not handled to its end tells how far it came.
func TestStoryOfAFailedHandlerHasNoTimeOfItsEnd(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.Routes[0].Handler = handlerFunc(func(message.In, *message.Batch) error { return context.Canceled })
		r := &kgo.Record{Topic: inTopic, Value: []byte("x"), Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte(traceparent)}}}
		if err := w.client.ProduceSync(context.Background(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		running := w.run(func(c *Config) { c.Hooks.Stories = true })
		ended := until(t, w.hooks.ended, "the dead letter", committed(1))
		if err := running.drain(); err != nil {
			t.Fatal(err)
		}
		if e := ended[0]; e.Outcome != Aborted || e.Reason != ReasonHandler || !e.Story.Handled.IsZero() || e.Story.Outputs != 0 || e.Story.Sampled != 1 {
			t.Errorf("%+v with story %+v", e, e.Story)
		}
	})
}

// BenchmarkStory runs the engine's own path, from records to records, in turns without a story, with one of records
// that are not sampled, and with one in a hundred sampled. The machine's noise hits all three, so the ratios are what counts:
//
//	go test -run '^$' -bench Story -benchtime 200x ./internal/txn
func BenchmarkStory(b *testing.B) {
	const n = 5000
	variants := []struct {
		name    string
		stories bool
		every   int
	}{{"off", false, 100}, {"unsampled", true, 0}, {"sampled", true, 100}}
	took := make([][]time.Duration, len(variants))
	type path struct {
		records []*kgo.Record
		tr      *transformer
		made    *builder
		story   *story
	}
	var paths []path
	for _, v := range variants {
		p := path{records: manyInputs(n), tr: newTestTransformer(1, copyHandler{})}
		for i, r := range p.records {
			r.Headers[0].Value = []byte(unsampled)
			if v.every > 0 && i%v.every == 0 {
				r.Headers[0].Value = []byte(traceparent)
			}
		}
		p.tr.config.Hooks.Stories = v.stories
		p.made, p.story = newBuilder(p.tr.config, p.tr.sizes), newStory(p.tr.config)
		paths = append(paths, p)
	}
	for turn := 0; b.Loop(); turn++ {
		for k := range paths {
			i := (turn + k) % len(paths) // nobody always comes after the same one
			p := paths[i]
			begun := time.Now()
			p.made.reset()
			p.story.begin()
			source := message.Source{Application: "app"}
			for part, err := range p.tr.run(p.records, testTopicID, nil, 1) {
				if err != nil {
					b.Fatal(err)
				}
				p.story.saw(part.records)
				for k, r := range part.records {
					source.Topic, source.Partition, source.Offset = r.Topic, r.Partition, r.Offset
					if err := p.made.build(r, source, &part.outcomes[k], "copy", func(*kgo.Record) {}); err != nil {
						b.Fatal(err)
					}
				}
			}
			took[i] = append(took[i], time.Since(begun))
		}
	}
	const undisturbed = 4 // the quickest quarter: others take their share of the processor
	quick := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/undisturbed]) / n
	}
	off := quick(took[0])
	b.ReportMetric(off, "ns/record-off")
	for i := 1; i < len(variants); i++ {
		b.ReportMetric(quick(took[i])/off, variants[i].name+"/off")
	}
}
