package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/relay"
	"pawl/internal/txn"
)

const (
	traceID   = "0af7651916cd43dd8448eb211c80319c"
	sampled   = "00-" + traceID + "-b7ad6b7169203331-01"
	unsampled = "00-" + traceID + "-b7ad6b7169203331-00"
)

// env is an environment that names a collector.
func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		if name == envEndpoint {
			return "http://collector:4318"
		}
		return ""
	}
}

func settings(t testing.TB, pairs ...string) TracingSettings {
	t.Helper()
	s, err := ReadTracing(env(pairs...))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openTracing(t testing.TB, exporter sdktrace.SpanExporter, pairs ...string) *Tracing {
	t.Helper()
	made, err := newTracing(context.Background(), TracingConfig{
		Settings: settings(t, pairs...), Application: "orders", Instance: "orders-0", Group: "orders", Version: "1.2.3", Results: "orders.effect-results",
	}, exporter)
	if err != nil {
		t.Fatal(err)
	}
	made.queue.count = func(string, int) {}
	made.queue.warn = func(string, int, ...slog.Attr) {}
	return made
}

// traced makes spans and gives those that were made, in the order of their ends.
func traced(t testing.TB, work func(*Tracing), pairs ...string) tracetest.SpanStubs {
	t.Helper()
	exporter := tracetest.NewInMemoryExporter()
	tracing := openTracing(t, &keeping{exporter}, pairs...)
	work(tracing)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	tracing.queue.run(ended)
	return exporter.GetSpans()
}

// keeping does not forget its spans at the end.
type keeping struct{ *tracetest.InMemoryExporter }

func (*keeping) Shutdown(context.Context) error { return nil }

// attributes shows them so that they can be compared.
func attributes(span tracetest.SpanStub) (lines []string) {
	for _, a := range span.Attributes {
		lines = append(lines, string(a.Key)+"="+a.Value.String())
	}
	slices.Sort(lines)
	return lines
}

func ended(traces ...txn.Traced) txn.Ended {
	begun := time.UnixMilli(1_700_000_000_000)
	return txn.Ended{
		Lane: 3, Outcome: txn.Committed, Records: 7, Bytes: 700, Duration: time.Second, Oldest: begun, Source: message.Source{Topic: "in", Partition: 1, Offset: 20},
		Story: &txn.Story{
			Polled: begun, Handled: begun.Add(time.Second), At: begun.Add(2 * time.Second), Outputs: 9,
			Ranges: []txn.Range{{Topic: "in", Partition: 1, From: 20, To: 27}}, Traced: traces, Sampled: len(traces),
		},
	}
}

func from(offset int64, parent, state string) txn.Traced {
	return txn.Traced{Source: message.Source{Topic: "in", Partition: 1, Offset: offset}, Parent: parent, State: state}
}

func TestTransactionIsOneSpanWithLinksToItsRecords(t *testing.T) {
	t.Parallel()
	e := ended(from(20, sampled, "a=1"), from(22, "00-nonsense", ""), from(23, sampled, "="))
	spans := traced(t, func(tracing *Tracing) {
		if span := tracing.transaction(&e); !span.IsSampled() || span.TraceID().String() == traceID {
			t.Errorf("span %v, want one in a trace of its own", span)
		}
	})
	if len(spans) != 1 {
		t.Fatalf("%d spans, want 1", len(spans))
	}
	span := spans[0]
	want := []string{
		"messaging.batch.message_count=7", "messaging.consumer.group.name=orders", "messaging.destination.name=in",
		"messaging.destination.partition.id=1", "messaging.operation.name=process", "messaging.operation.type=process", "messaging.system=kafka",
		"pawl.lane=3", "pawl.outcome=committed", "pawl.transaction.bytes=700", `pawl.transaction.input=["in/1/20-26"]`, "pawl.transaction.outputs=9", "pawl.transaction.sampled=3",
	}
	if got := attributes(span); !slices.Equal(got, want) {
		t.Errorf("attributes\n%q, want\n%q", got, want)
	}
	if span.Name != "process in" || span.SpanKind != trace.SpanKindConsumer || span.Parent.IsValid() || span.Status.Description != "" {
		t.Errorf("span %+v", span)
	}
	if !span.StartTime.Equal(e.Story.Polled) || !span.EndTime.Equal(e.Story.At) || len(span.Events) != 1 || !span.Events[0].Time.Equal(e.Story.Handled) {
		t.Errorf("from %v to %v with events %v", span.StartTime, span.EndTime, span.Events)
	}
	var links []string
	for _, link := range span.Links {
		links = append(links, link.SpanContext.TraceID().String()+" "+link.Attributes[0].Value.AsString()+" "+link.SpanContext.TraceState().String())
	}
	if want := []string{traceID + " in/1/20 a=1", traceID + " in/1/23 "}; !slices.Equal(links, want) {
		t.Errorf("links %q, want %q", links, want)
	}
	for _, a := range span.Resource.Attributes() {
		if a.Key == "service.name" && a.Value.AsString() != "orders" || a.Key == "service.instance.id" && a.Value.AsString() != "orders-0" {
			t.Errorf("the process is %s=%s", a.Key, a.Value.AsString())
		}
	}
}

// An abort is an error by its reason; what its error quotes stays out of the span.
func TestSpanOfAnAbortTellsItsReasonAndNoPayload(t *testing.T) {
	t.Parallel()
	const payload = "4111-1111-1111-1111"
	e := ended()
	e.Outcome, e.Reason, e.Err = txn.Aborted, txn.ReasonHandler, errors.New("bad card "+payload)
	e.Story.Handled = time.Time{}
	e.Story.Ranges = append(e.Story.Ranges, txn.Range{Topic: "more", From: 1, To: 2})
	span := traced(t, func(tracing *Tracing) { tracing.transaction(&e) })[0]
	if span.Name != "process" || span.Status.Description != "aborted: handler" || len(span.Events) != 0 {
		t.Errorf("span %+v", span)
	}
	if text := fmt.Sprintf("%+v", span); strings.Contains(text, payload) || !slices.Contains(attributes(span), "error.type=handler") {
		t.Errorf("span %s", text)
	}
}

// At 1 % a sampled record would have its transaction recorded one time in a hundred if its link did not count.
func TestSampledRecordHasItsTransactionRecorded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sampler      string
		linked, root int
	}{
		"by default":         {"", 1, 1},
		"parent, ratio of 0": {"parentbased_traceidratio", 1, 0},
		"parent, off":        {"parentbased_always_off", 1, 0},
		"ratio of 0 alone":   {"traceidratio", 0, 0},
		"off":                {"always_off", 0, 0},
		"on":                 {"always_on", 1, 1},
	} {
		withLink, without := ended(from(1, sampled, "")), ended()
		if got := len(traced(t, func(tracing *Tracing) { tracing.transaction(&withLink) }, envSampler, c.sampler, envSamplerArg, "0")); got != c.linked {
			t.Errorf("%s: %d spans of a sampled record's transaction, want %d", name, got, c.linked)
		}
		if got := len(traced(t, func(tracing *Tracing) { tracing.transaction(&without) }, envSampler, c.sampler, envSamplerArg, "0")); got != c.root {
			t.Errorf("%s: %d spans of another, want %d", name, got, c.root)
		}
	}
}

// answering is a target that keeps the last call.
type answering struct {
	answer outbox.Answer
	call   outbox.Call
}

func (a *answering) Send(_ context.Context, call outbox.Call) outbox.Answer {
	a.call = call
	return a.answer
}

func callOf(parent, state string) outbox.Call {
	return outbox.Call{Attempt: 2, Fence: 9, Intent: outbox.Intent{
		Lane: 3, Offset: 1042, Source: message.Source{Topic: "in", Partition: 1, Offset: 20}, Endpoint: "payments",
		Body: []byte("4111"), BusinessKey: "charge:4111", Key: []byte("4111"), At: time.Now().Add(-time.Minute), Trace: parent, TraceState: state,
	}}
}

// The call is a child of the record that asked for it, and what the receiver gets is the call.
func TestDeliveryIsASpanInTheTraceOfItsInput(t *testing.T) {
	t.Parallel()
	next := &answering{answer: outbox.Answer{Status: 503, Sent: true, Replays: 1}}
	spans := traced(t, func(tracing *Tracing) {
		if answer := tracing.Target("payments", next).Send(t.Context(), callOf(sampled, "a=1")); answer.Status != 503 {
			t.Errorf("answer %+v", answer)
		}
	})
	span := spans[0]
	if want := "00-" + traceID + "-" + span.SpanContext.SpanID().String() + "-01"; next.call.Intent.Trace != want || next.call.Intent.TraceState != "a=1" {
		t.Errorf("the call carries %s and %s, want %s and a=1", next.call.Intent.Trace, next.call.Intent.TraceState, want)
	}
	if span.Name != "deliver payments" || span.SpanKind != trace.SpanKindClient || span.SpanContext.TraceID().String() != traceID ||
		span.Parent.SpanID().String() != "b7ad6b7169203331" || !span.Parent.IsRemote() || span.Status.Description != "later" {
		t.Errorf("span %+v", span)
	}
	want := []string{
		"error.type=503", "http.request.method=POST", "http.request.resend_count=1", "http.response.status_code=503",
		"pawl.attempt=2", "pawl.effect=3:1042", "pawl.endpoint=payments", "pawl.outcome=later", "pawl.replays=1", "pawl.source=in/1/20",
	}
	got := slices.DeleteFunc(attributes(span), func(line string) bool { return strings.HasPrefix(line, "pawl.effect.age_seconds=") })
	if !slices.Equal(got, want) {
		t.Errorf("attributes\n%q, want\n%q", got, want)
	}
	if text := fmt.Sprintf("%+v", span); strings.Contains(text, "4111") {
		t.Errorf("the payload or a key is in the span: %s", text)
	}
}

func TestCallWithoutASpanIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	for name, pairs := range map[string][]string{"parent": nil, "ratio": {envSampler, "traceidratio", envSamplerArg, "0"}} {
		next := &answering{answer: outbox.Answer{Status: 200, Sent: true}}
		spans := traced(t, func(tracing *Tracing) { tracing.Target("payments", next).Send(t.Context(), callOf(unsampled, "a=1")) }, pairs...)
		if len(spans) != 0 || next.call.Intent.Trace != unsampled || next.call.Intent.TraceState != "a=1" {
			t.Errorf("%s: %d spans, the call carries %s and %s", name, len(spans), next.call.Intent.Trace, next.call.Intent.TraceState)
		}
	}
	next := &answering{answer: outbox.Answer{Err: errors.New("connect: refused")}}
	spans := traced(t, func(tracing *Tracing) { tracing.Target("payments", next).Send(t.Context(), callOf("", "")) })
	if len(spans) != 1 || spans[0].Parent.IsValid() || spans[0].Status.Description != "no_answer: connect: refused" || !message.IsSampled(next.call.Intent.Trace) {
		t.Errorf("spans %+v of a call without a trace, which carries %q", spans, next.call.Intent.Trace)
	}
}

func TestResultsAreOneSpanWithLinksToTheInputs(t *testing.T) {
	t.Parallel()
	results := []outbox.Result{
		{Intent: callOf(sampled, "a=1").Intent, Outcome: outbox.Outcome{Offset: 1042, Status: outbox.Done}},
		{Intent: callOf(unsampled, "").Intent, Outcome: outbox.Outcome{Offset: 1043, Status: outbox.Dead}},
		{Intent: callOf("", "").Intent, Outcome: outbox.Outcome{Offset: 1044, Status: outbox.Done}},
	}
	spans := traced(t, func(tracing *Tracing) {
		b := newBench(t, func(c *Config) { c.Tracing = tracing })
		l := newLedgerBench(t, b, twoEndpoints)
		l.Relay().Relayed(relay.Relayed{Lane: 3, Seq: 17, Events: 3, Took: time.Second, Results: results})
	})
	if len(spans) != 1 || len(spans[0].Links) != 1 || spans[0].Links[0].SpanContext.TraceID().String() != traceID {
		t.Fatalf("spans %+v, want one with one link", spans)
	}
	want := []string{
		"messaging.batch.message_count=3", "messaging.destination.name=orders.effect-results", "messaging.destination.partition.id=3",
		"messaging.operation.name=send", "messaging.operation.type=send", "messaging.system=kafka", "pawl.results.flush=17", "pawl.results.skipped=0",
	}
	if got := attributes(spans[0]); !slices.Equal(got, want) || spans[0].SpanKind != trace.SpanKindProducer {
		t.Errorf("attributes\n%q, want\n%q", got, want)
	}
}

// stuck is a collector that takes nothing until it is told to, or until its time is up.
type stuck struct {
	entered, open chan struct{}
	mu            sync.Mutex
	took          int
}

func (s *stuck) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	select {
	case s.entered <- struct{}{}:
	default:
	}
	select {
	case <-s.open:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took += len(spans)
	return nil
}

func (*stuck) Shutdown(context.Context) error { return nil }

// A collector that hangs costs spans, which are counted, and never the engine's time; nor does it hold up the end of the
// process beyond its bound. One that comes back gets what waited.
func TestCollectorThatIsAwayBlocksNobody(t *testing.T) {
	t.Parallel()
	for _, back := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const queue, batch, sent = 8, 4, 20
			collector := &stuck{entered: make(chan struct{}, 1), open: make(chan struct{})}
			tracing := openTracing(t, collector, envQueueMax, "8", envBatchMax, "4", envDelay, "1000", envTimeout, "600000")
			b := newBench(t, func(c *Config) { c.Tracing = tracing })
			ctx, cancel := context.WithCancel(t.Context())
			var wait sync.WaitGroup
			wait.Go(func() { _ = b.Run(ctx) })
			e := ended()
			for range batch {
				b.hooks.Ended(e)
			}
			<-collector.entered
			before := time.Now()
			for range sent - batch {
				b.hooks.Ended(e)
			}
			if took := time.Since(before); took != 0 { // by the clock of the bubble: nobody waited
				t.Errorf("the hook waited for %s", took)
			}
			if got := b.value(t, "processor_spans_total", "outcome", spanQueueFull); got != sent-batch-queue {
				t.Errorf("%g spans dropped, want %d", got, sent-batch-queue)
			}
			exported := 0.0
			if back {
				close(collector.open)
				exported = batch + queue
			}
			begun := time.Now()
			cancel()
			wait.Wait()
			if took := time.Since(begun); took > flushTimeout {
				t.Errorf("the end took %s, at most %s is allowed", took, flushTimeout)
			}
			if got := b.value(t, "processor_spans_total", "outcome", spanExported); got != exported || float64(collector.took) != exported {
				t.Errorf("%g spans exported, %d taken, want %g", got, collector.took, exported)
			}
			if got := b.value(t, "processor_spans_total", "outcome", spanFailed); got != batch+queue-exported {
				t.Errorf("%g spans failed, want %g", got, batch+queue-exported)
			}
			if lines := b.log.lines(t, "spans dropped"); len(lines) == 0 || !strings.Contains(b.log.String(), `"reason":"queue_full"`) {
				t.Errorf("the log does not tell of it:\n%s", b.log)
			}
		})
	}
}

// What is off costs nothing at all.
func TestTracingThatIsOffCostsNothing(t *testing.T) {
	off, err := OpenTracing(t.Context(), TracingConfig{Settings: settings(t, envExporter, "none")})
	if off != nil || err != nil {
		t.Fatalf("opened %v, %v", off, err)
	}
	next := &answering{}
	if off.Target("payments", next) != next {
		t.Error("the target is wrapped")
	}
	if b := newBench(t, nil); b.hooks.Stories {
		t.Error("the engine is asked for stories")
	}
	e, relayed := ended(from(1, sampled, "")), relay.Relayed{Results: make([]outbox.Result, 3)}
	if allocs := testing.AllocsPerRun(100, func() {
		off.transaction(&e)
		off.relayed(&relayed)
	}); allocs != 0 {
		t.Errorf("%g allocations, want none", allocs)
	}
}

func TestTracingFollowsTheStandardVariables(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		pairs []string
		on    bool
		wrong []string
	}{
		"a collector":     {nil, true, nil},
		"none":            {[]string{envEndpoint, ""}, false, nil},
		"only of traces":  {[]string{envEndpoint, "", envTracesEndpoint, "https://c:4318/v1/traces"}, true, nil},
		"the exporter":    {[]string{envEndpoint, "", envExporter, "otlp"}, true, nil},
		"no exporter":     {[]string{envExporter, "none"}, false, nil},
		"switched off":    {[]string{envDisabled, "TRUE", envSampler, "often"}, false, nil},
		"grpc":            {[]string{envProtocol, "grpc"}, true, nil},
		"traces go first": {[]string{envProtocol, "http/json", envTracesProtocol, "grpc"}, true, nil},
		"all wrong": {[]string{
			envEndpoint, "collector:4318/?token=hush", envExporter, "zipkin", envProtocol, "http/json", envSampler, "often", envQueueMax, "0", envBatchMax, "x", envDelay, "-1", envTimeout, "1e9",
		}, false, []string{envEndpoint, envExporter, envProtocol, envSampler, envQueueMax, envBatchMax, envDelay, envTimeout}},
		"a wrong share": {[]string{envSampler, "parentbased_traceidratio", envSamplerArg, "1%"}, false, []string{envSamplerArg}},
		"too large":     {[]string{envSampler, "traceidratio", envSamplerArg, "NaN"}, false, []string{envSamplerArg}},
	} {
		s, err := ReadTracing(env(c.pairs...))
		if s.On != c.on || (err != nil) != (c.wrong != nil) {
			t.Errorf("%s: on is %t, error %v", name, s.On, err)
		}
		for _, variable := range c.wrong {
			if !strings.Contains(err.Error(), variable+" is ") || strings.Contains(err.Error(), "hush") {
				t.Errorf("%s: %v does not name %s, or quotes a secret", name, err, variable)
			}
		}
	}
	if s := settings(t, envProtocol, "grpc", envQueueMax, "100", envDelay, "50"); !s.grpc || s.queueMax != 100 || s.batchMax != 100 || s.delay != 50*time.Millisecond || s.timeout != timeoutDefault {
		t.Errorf("settings %+v", s)
	}
}
