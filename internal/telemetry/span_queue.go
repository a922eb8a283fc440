package telemetry

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"pawl/internal/redact"
)

// flushTimeout is how long the end of a process waits for the collector to take the last spans.
const flushTimeout = 3 * time.Second

// Values of the label outcome of processor_spans_total.
const (
	spanExported  = "exported"
	spanQueueFull = "queue_full"
	spanFailed    = "failed"
)

func spanOutcomes() []string { return []string{spanExported, spanQueueFull, spanFailed} }

// spanQueue stands between whoever ends a span and the collector: it never makes the one wait for the other. What does
// not fit is dropped and counted. (The SDK's own processor counts for itself alone, and its exports go on after its end.)
type spanQueue struct {
	exporter sdktrace.SpanExporter
	settings TracingSettings
	redactor *redact.Redactor
	spans    chan sdktrace.ReadOnlySpan
	full     atomic.Int64 // dropped since the last line of the log

	count func(outcome string, spans int)
	warn  func(outcome string, spans int, attrs ...slog.Attr)
}

func newSpanQueue(exporter sdktrace.SpanExporter, settings TracingSettings) *spanQueue {
	return &spanQueue{exporter: exporter, settings: settings, redactor: redact.New(settings.secrets), spans: make(chan sdktrace.ReadOnlySpan, settings.queueMax)}
}

// OnStart implements sdktrace.SpanProcessor.
func (q *spanQueue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd implements sdktrace.SpanProcessor.
func (q *spanQueue) OnEnd(span sdktrace.ReadOnlySpan) {
	if !span.SpanContext().IsSampled() {
		return
	}
	select {
	case q.spans <- span:
	default:
		q.full.Add(1)
		q.count(spanQueueFull, 1)
	}
}

// Shutdown implements sdktrace.SpanProcessor; the end of run does the work.
func (q *spanQueue) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdktrace.SpanProcessor.
func (q *spanQueue) ForceFlush(context.Context) error { return nil }

// run exports until ctx ends, and then what is left, for as long as flushTimeout allows.
func (q *spanQueue) run(ctx context.Context) {
	exporting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(flushTimeout, cancel) })
	defer stop()
	ticker := time.NewTicker(q.settings.delay)
	defer ticker.Stop()
	batch := make([]sdktrace.ReadOnlySpan, 0, q.settings.batchMax)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			batch = q.export(exporting, batch)
		case span := <-q.spans:
			if batch = append(batch, span); len(batch) == cap(batch) {
				batch = q.export(exporting, batch)
			}
		}
	}
	for len(q.spans) > 0 { // nobody else takes from it
		if batch = append(batch, <-q.spans); len(batch) == cap(batch) {
			batch = q.export(exporting, batch)
		}
	}
	q.export(exporting, batch)
	if err := q.exporter.Shutdown(exporting); err != nil && exporting.Err() == nil {
		q.warn(spanFailed, 0, slog.String("err", q.short(err)))
	}
}

// export sends a batch and returns its memory.
func (q *spanQueue) export(ctx context.Context, batch []sdktrace.ReadOnlySpan) []sdktrace.ReadOnlySpan {
	if dropped := int(q.full.Swap(0)); dropped > 0 {
		q.warn(spanQueueFull, dropped, slog.Int("queue", q.settings.queueMax))
	}
	if len(batch) == 0 {
		return batch
	}
	sending, cancel := context.WithTimeout(ctx, q.settings.timeout)
	defer cancel()
	if err := q.exporter.ExportSpans(sending, batch); err != nil {
		q.count(spanFailed, len(batch))
		q.warn(spanFailed, len(batch), slog.String("err", q.short(err)))
	} else {
		q.count(spanExported, len(batch))
	}
	clear(batch)
	return batch[:0]
}

// short makes one line of what may quote a collector's answer, and in that what it was sent. Secrets go before the text is
// cut: nobody would know one half of one.
func (q *spanQueue) short(err error) string {
	const most = 300 // bytes
	text := strings.Join(strings.Fields(strings.ToValidUTF8(q.redactor.String(err.Error()), "?")), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "")
	}
	return text
}
