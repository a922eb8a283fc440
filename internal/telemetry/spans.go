package telemetry

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/dispatch"
	"pawl/internal/outbox/relay"
	"pawl/internal/txn"
)

// carried is a trace context as it came with a record.
type carried struct{ parent, state string }

// Get implements propagation.TextMapCarrier.
func (c carried) Get(key string) string {
	switch key {
	case message.HeaderTrace:
		return c.parent
	case message.HeaderState:
		return c.state
	default:
		return ""
	}
}

// Set implements propagation.TextMapCarrier; nothing is written.
func (carried) Set(string, string) {}

// Keys implements propagation.TextMapCarrier.
func (carried) Keys() []string { return []string{message.HeaderTrace, message.HeaderState} }

// point is invalid where what came is no trace context.
func (c carried) point() trace.SpanContext {
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), c))
}

// link is what a span has for each of the traces that it goes on with.
func (c carried) link(links []trace.Link, attributes ...attribute.KeyValue) []trace.Link {
	if point := c.point(); point.IsValid() {
		links = append(links, trace.Link{SpanContext: point, Attributes: attributes})
	}
	return links
}

// transaction makes the span of one, with a link to each traced input record. It returns an invalid context where the
// span is not recorded. No text of an error becomes part of a span: a handler may have quoted a payload in it.
func (t *Tracing) transaction(e *txn.Ended) trace.SpanContext {
	if t == nil || e.Story == nil {
		return trace.SpanContext{}
	}
	s := e.Story
	links := make([]trace.Link, 0, len(s.Traced))
	for _, traced := range s.Traced {
		links = carried{traced.Parent, traced.State}.link(links, attrSource.String(traced.Source.String()))
	}
	name, topic := operation, oneTopic(s.Ranges)
	if topic != "" {
		name += " " + topic
	}
	_, span := t.tracer.Start(context.Background(), name,
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(s.Polled), trace.WithLinks(links...))
	if !span.IsRecording() {
		return trace.SpanContext{}
	}
	span.SetAttributes(
		semconv.MessagingSystemKafka, semconv.MessagingOperationTypeProcess, semconv.MessagingOperationName(operation),
		semconv.MessagingConsumerGroupName(t.config.Group), semconv.MessagingBatchMessageCount(e.Records),
		attrLane.Int(e.Lane), attrInput.StringSlice(ranged(s.Ranges)), attrBytes.Int64(e.Bytes), attrOutputs.Int(s.Outputs),
		attrSampled.Int(s.Sampled), attrOutcome.String(string(e.Outcome)),
	)
	if topic != "" {
		span.SetAttributes(semconv.MessagingDestinationName(topic))
	}
	if len(s.Ranges) == 1 {
		span.SetAttributes(semconv.MessagingDestinationPartitionID(strconv.Itoa(int(s.Ranges[0].Partition))))
	}
	if e.Outcome != txn.Committed {
		span.SetAttributes(attrReason.String(string(e.Reason)), semconv.ErrorTypeKey.String(string(e.Reason)))
		span.SetStatus(codes.Error, string(e.Outcome)+": "+string(e.Reason))
	}
	if !s.Handled.IsZero() {
		span.AddEvent(eventHandled, trace.WithTimestamp(s.Handled))
	}
	span.End(trace.WithTimestamp(s.At))
	return span.SpanContext()
}

// oneTopic is "" where there are several.
func oneTopic(ranges []txn.Range) string {
	if len(ranges) == 0 || ranges[0].Topic != ranges[len(ranges)-1].Topic { // they are sorted
		return ""
	}
	return ranges[0].Topic
}

func ranged(ranges []txn.Range) []string {
	texts := make([]string, len(ranges))
	for i, r := range ranges {
		texts[i] = fmt.Sprintf("%s/%d/%d-%d", r.Topic, r.Partition, r.From, r.To-1)
	}
	return texts
}

// Target makes a span of each call to an endpoint, within the trace of the input that asked for it, and lets the call
// carry it on. It returns next itself where tracing is off.
func (t *Tracing) Target(endpoint string, next dispatch.Target) dispatch.Target {
	if t == nil {
		return next
	}
	return &tracedTarget{t, endpoint, next}
}

type tracedTarget struct {
	t        *Tracing
	endpoint string
	next     dispatch.Target
}

// Send implements dispatch.Target.
func (d *tracedTarget) Send(ctx context.Context, call outbox.Call) outbox.Answer {
	intent := &call.Intent
	if d.t.config.Settings.parentBased && intent.Trace != "" && !message.IsSampled(intent.Trace) {
		return d.next.Send(ctx, call) // what the SDK would find out too, for more than the call costs us
	}
	parent := propagation.TraceContext{}.Extract(ctx, carried{intent.Trace, intent.TraceState})
	_, span := d.t.tracer.Start(parent, "deliver "+d.endpoint, trace.WithSpanKind(trace.SpanKindClient))
	if !span.IsRecording() {
		return d.next.Send(ctx, call)
	}
	at := span.SpanContext()
	intent.Trace = "00-" + at.TraceID().String() + "-" + at.SpanID().String() + "-" + at.TraceFlags().String()
	intent.TraceState = at.TraceState().String()
	begun := time.Now()
	answer := d.next.Send(ctx, call)
	span.SetAttributes(
		semconv.HTTPRequestMethodPost, attrEndpoint.String(d.endpoint), attrEffect.String(effectName(intent.Lane, intent.Offset)),
		attrSource.String(intent.Source.String()), attrAttempt.Int(call.Attempt), attrOutcome.String(answerOf(answer.Status)),
		attrAge.Float64(begun.Sub(intent.At).Seconds()),
	)
	if call.Attempt > 1 {
		span.SetAttributes(semconv.HTTPRequestResendCount(call.Attempt - 1))
	}
	if answer.Replays > 0 {
		span.SetAttributes(attrReplays.Int(answer.Replays))
	}
	if answer.Status != 0 {
		span.SetAttributes(semconv.HTTPResponseStatusCode(answer.Status))
	}
	if outcome := answerOf(answer.Status); outcome != answerAccepted {
		why := outcome
		if answer.Err != nil {
			why += ": " + answer.Err.Error() // without secrets and payload, see outbox.Answer
		}
		span.SetAttributes(semconv.ErrorTypeKey.String(errorType(answer.Status)))
		span.SetStatus(codes.Error, why)
	}
	span.End()
	return answer
}

// errorType is the status code, as the conventions want it, or that there was none.
func errorType(status int) string {
	if status == 0 {
		return answerNone
	}
	return strconv.Itoa(status)
}

func effectName(lane int32, offset int64) string { return fmt.Sprintf("%d:%d", lane, offset) }

// relayed makes the span of a transaction that told results, with a link to the trace of each input whose effect it was.
func (t *Tracing) relayed(relayed *relay.Relayed) {
	if t == nil {
		return
	}
	var links []trace.Link
	for i := range relayed.Results {
		r := &relayed.Results[i]
		if len(links) == txn.TracedMax {
			break
		}
		if message.IsSampled(r.Intent.Trace) {
			links = carried{r.Intent.Trace, r.Intent.TraceState}.link(links,
				attrEffect.String(effectName(r.Intent.Lane, r.Intent.Offset)), attrSource.String(r.Intent.Source.String()), attrStatus.String(string(r.Outcome.Status)))
		}
	}
	now := time.Now()
	_, span := t.tracer.Start(context.Background(), operationSend+" "+t.config.Results,
		trace.WithSpanKind(trace.SpanKindProducer), trace.WithTimestamp(now.Add(-relayed.Took)), trace.WithLinks(links...))
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(
		semconv.MessagingSystemKafka, semconv.MessagingOperationTypeSend, semconv.MessagingOperationName(operationSend),
		semconv.MessagingDestinationName(t.config.Results), semconv.MessagingDestinationPartitionID(strconv.Itoa(int(relayed.Lane))),
		semconv.MessagingBatchMessageCount(relayed.Events), attrSkipped.Int(relayed.Skipped), attrFlush.Int64(relayed.Seq),
	)
	span.End(trace.WithTimestamp(now))
}
