package telemetry

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"pawl/internal/message"
	"pawl/internal/outbox/dispatch"
	"pawl/internal/txn"
)

// exemplars gives the labels of all exemplars of a histogram.
func (b *bench) exemplars(t *testing.T, name string) (found []map[string]string) {
	t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			for _, bucket := range metric.GetHistogram().GetBucket() {
				if bucket.GetExemplar() == nil {
					continue
				}
				labels := map[string]string{}
				for _, pair := range bucket.GetExemplar().GetLabel() {
					labels[pair.GetName()] = pair.GetValue()
				}
				found = append(found, labels)
			}
		}
	}
	return found
}

// A slow bucket leads to a record and to an effect that were in it; but one a second is enough.
func TestHistogramsNameAnExample(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		l := newLedgerBench(t, b, twoEndpoints)
		calls := l.Dispatch(dispatch.Hooks{})
		for offset := range int64(3) {
			b.hooks.Ended(txn.Ended{
				Outcome: txn.Committed, Records: 1, Duration: 3 * time.Second, Oldest: time.Now().Add(-40 * time.Second),
				Source: message.Source{Topic: "in", Partition: 2, Offset: offset},
			})
			calls.Answered(dispatch.Answered{Lane: 3, Offset: 1040 + offset, Endpoint: "payments", Status: 200, Duration: time.Second})
			time.Sleep(exemplarInterval / 2) //nolint:forbidigo // virtual time
		}
		for name, want := range map[string]map[string]string{
			"processor_transaction_duration_seconds":     {exemplarSource: "in/2/2"},
			"processor_end_to_end_latency_seconds":       {exemplarSource: "in/2/2"},
			"processor_outbox_delivery_duration_seconds": {exemplarEffect: "3:1042"},
		} {
			found := b.exemplars(t, name)
			if len(found) != 1 || len(found[0]) != 1 {
				t.Errorf("%s has the exemplars %v, want one", name, found)
				continue
			}
			for label, text := range want {
				if found[0][label] != text {
					t.Errorf("%s has the exemplar %v, want %s=%q", name, found[0], label, text)
				}
			}
		}
	})
}

// Between two exemplars an observation costs what it cost without them.
func TestObservationWithoutExemplarCostsNoAllocations(t *testing.T) {
	b := newBench(t, nil)
	ended := txn.Ended{Outcome: txn.Committed, Records: 5000, Oldest: time.Now(), Source: message.Source{Topic: "in"}}
	commit := func() { b.hooks.Ended(ended) }
	commit()
	// One in a second makes its labels, and a hundred transactions may take a second where the machine is busy.
	if allocations := testing.AllocsPerRun(100, commit); allocations > 1 {
		t.Errorf("%v allocations a transaction, want at most 1", allocations)
	}
}

// Whoever finds a slow transaction in a histogram finds its trace.
func TestExemplarOfATracedTransactionNamesItsTrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tracing := openTracing(t, tracetest.NewInMemoryExporter(), envSampler, "parentbased_always_off")
		b := newBench(t, func(c *Config) { c.Tracing = tracing })
		b.hooks.Ended(ended())
		b.hooks.Ended(ended(from(20, sampled, "")))
		span := (<-tracing.queue.spans).SpanContext().TraceID().String()
		found := b.exemplars(t, "processor_transaction_duration_seconds")
		if len(found) != 1 || found[0][exemplarTrace] != span || found[0][exemplarSource] != "in/1/20" {
			t.Errorf("exemplars %v, want trace %s of in/1/20", found, span)
		}
	})
}

// A topic may have a name of 249 bytes, an exemplar takes 128 characters in all, and the client panics at more.
func TestExemplarOfALongTopicIsLeftOut(t *testing.T) {
	t.Parallel()
	tracing := openTracing(t, tracetest.NewInMemoryExporter(), envSampler, "parentbased_always_off")
	b := newBench(t, func(c *Config) { c.Tracing = tracing })
	e := ended()
	e.Source.Topic = strings.Repeat("t", 249)
	b.hooks.Ended(e)
	if found := b.exemplars(t, "processor_transaction_duration_seconds"); len(found) != 0 {
		t.Errorf("exemplars %v of a topic that no exemplar can name", found)
	}
	e.Story.Traced = []txn.Traced{from(20, sampled, "")}
	b.hooks.Ended(e)
	if found := b.exemplars(t, "processor_transaction_duration_seconds"); len(found) != 1 || found[0][exemplarTrace] == "" || found[0][exemplarSource] != "" {
		t.Errorf("exemplars %v, want the trace alone", found)
	}
}
