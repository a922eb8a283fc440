package telemetry

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"

	"pawl/internal/txn"
)

// The hooks about batches. Each counts and, where a person may want to know, writes a line.

func (t *Telemetry) polled(polled txn.Polled) {
	// What was handled and never ended belonged to a session that is gone.
	t.shares.drop(polled.Lane)
}

func (t *Telemetry) handled(handled txn.Handled) {
	t.metrics.handler.of(handled.Handler).Observe(handled.Duration.Seconds())
	t.shares.add(handled)
}

func (t *Telemetry) produced(produced txn.Produced) {
	t.metrics.outputs.of(produced.Topic).Add(float64(produced.Records))
}

func (t *Telemetry) rejected(rejected txn.Rejected) {
	topic := rejected.Source.Topic
	t.metrics.records.of(recordKey{topic, rejected.Handler, recordRejected}).Inc()
	reason := t.metrics.deadLetter(topic, rejected.Reason)
	if suppressed, pass := t.pass(context.Background(), slog.LevelInfo, kind{"record dead-lettered", reason}); pass {
		// Without the error: a handler may have quoted the payload in it. It stands in a header of
		// the dead letter, where the payload is anyway.
		t.log.LogAttrs(context.Background(), slog.LevelInfo, "record dead-lettered",
			slog.Int("lane", rejected.Lane), slog.String("source", rejected.Source.String()),
			slog.String("handler", rejected.Handler), slog.String("reason", reason), suppressed)
	}
}

func (t *Telemetry) ended(ended txn.Ended) {
	now := time.Now()
	t.metrics.transactions.of(transactionKey{ended.Outcome, ended.Reason}).Inc()
	span := t.tracing.transaction(&ended)
	t.metrics.observe(ended, span, now)
	t.recent.add(ended, now)
	t.countRecords(ended)
	switch ended.Outcome {
	case txn.Committed:
		t.facts.setCommitted(now)
		if t.log.Enabled(context.Background(), slog.LevelDebug) {
			t.log.LogAttrs(context.Background(), slog.LevelDebug, "transaction committed", endedAttrs(ended, span)...)
		}
	case txn.Aborted:
		level := slog.LevelWarn
		if ended.Reason == txn.ReasonRebalance {
			level = slog.LevelInfo // every deployment brings some
		}
		if suppressed, pass := t.pass(context.Background(), level, kind{"transaction aborted", string(ended.Reason)}); pass {
			t.log.LogAttrs(context.Background(), level, "transaction aborted", append(endedAttrs(ended, span), suppressed)...)
		}
	case txn.Unknown:
		if suppressed, pass := t.pass(context.Background(), slog.LevelWarn, kind{"transaction outcome unknown", string(ended.Reason)}); pass {
			t.log.LogAttrs(context.Background(), slog.LevelWarn, "transaction outcome unknown", append(endedAttrs(ended, span), suppressed)...)
		}
	}
}

// countRecords books the shares of the batch. Rejects are not among them: the engine tells of each
// dead letter by itself once it is committed.
func (t *Telemetry) countRecords(ended txn.Ended) {
	t.shares.take(ended.Lane, func(handled txn.Handled) {
		outcome, records := recordCommitted, handled.Records-handled.Rejects
		switch ended.Outcome {
		case txn.Committed:
		case txn.Aborted:
			outcome, records = recordAborted, handled.Records
		case txn.Unknown:
			outcome, records = recordUnknown, handled.Records
		}
		t.metrics.records.of(recordKey{handled.Topic, handled.Handler, outcome}).Add(float64(records))
	})
}

func endedAttrs(ended txn.Ended, span trace.SpanContext) []slog.Attr {
	attrs := []slog.Attr{
		slog.Int("lane", ended.Lane), slog.Int("records", ended.Records), slog.Int64("bytes", ended.Bytes),
		slog.Float64("seconds", ended.Duration.Seconds()),
	}
	if ended.Reason != txn.ReasonNone {
		attrs = append(attrs, slog.String("reason", string(ended.Reason)))
	}
	if span.IsValid() {
		attrs = append(attrs, slog.String("trace_id", span.TraceID().String()))
	}
	if ended.Err != nil {
		attrs = append(attrs, slog.Any("err", ended.Err))
	}
	return attrs
}

func (t *Telemetry) suspected(suspected txn.Suspected) {
	t.metrics.suspectsVec.WithLabelValues(reasonLabel(suspected.Why)).Inc()
	if suppressed, pass := t.pass(context.Background(), slog.LevelWarn, kind{"batch suspected", string(suspected.Why)}); pass {
		t.log.LogAttrs(context.Background(), slog.LevelWarn, "batch suspected",
			slog.Int("lane", suspected.Lane), slog.Int("records_max", suspected.Records),
			slog.Int("crashes", suspected.Crashes), slog.String("reason", reasonLabel(suspected.Why)), suppressed)
	}
}

func (t *Telemetry) retrying(lane int, err error) {
	t.metrics.retries.Inc()
	if suppressed, pass := t.pass(context.Background(), slog.LevelWarn, kind{"retrying", ""}); pass {
		t.log.LogAttrs(context.Background(), slog.LevelWarn, "retrying", slog.Int("lane", lane), slog.Any("err", err), suppressed)
	}
}

// pass reports whether a line is to be written. The attribute tells how many lines of its kind were
// suppressed before it; it is empty where none were.
func (t *Telemetry) pass(ctx context.Context, level slog.Level, k kind) (slog.Attr, bool) {
	if !t.log.Enabled(ctx, level) {
		return slog.Attr{}, false
	}
	suppressed, ok := t.limiter.allow(k)
	if suppressed == 0 {
		return slog.Attr{}, ok
	}
	return slog.Int("suppressed", suppressed), ok
}

// reportSuppressed accounts for suppressed lines that no later line has told of.
func (t *Telemetry) reportSuppressed(ctx context.Context, all bool) {
	for k, count := range t.limiter.flush(all) {
		t.log.LogAttrs(ctx, slog.LevelInfo, "log lines suppressed",
			slog.String("line", k.message), slog.String("reason", k.label), slog.Int("suppressed", count))
	}
}
