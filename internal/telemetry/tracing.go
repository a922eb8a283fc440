package telemetry

import (
	"context"
	"fmt"
	"log/slog"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// TracingConfig says what spans tell of the process.
type TracingConfig struct {
	Settings TracingSettings

	Application string
	Instance    string
	Group       string // consumer group of the input
	Version     string
	Results     string // topic of the results
}

// Tracing makes spans of what the hooks tell. A nil one makes none and costs nothing.
type Tracing struct {
	config TracingConfig
	tracer trace.Tracer
	queue  *spanQueue
}

// OpenTracing connects nowhere yet: spans go out once Telemetry.Run runs. It returns nil where tracing is off.
func OpenTracing(ctx context.Context, config TracingConfig) (*Tracing, error) {
	if !config.Settings.On {
		return nil, nil //nolint:nilnil // said above
	}
	var exporter *otlptrace.Exporter
	var err error
	if config.Settings.grpc {
		exporter, err = otlptracegrpc.New(ctx)
	} else {
		exporter, err = otlptracehttp.New(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("open tracing: %w", err)
	}
	return newTracing(ctx, config, exporter)
}

// newTracing lets OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have the last word on who we are.
func newTracing(ctx context.Context, config TracingConfig, exporter sdktrace.SpanExporter) (*Tracing, error) {
	who, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		semconv.ServiceName(config.Application), semconv.ServiceInstanceID(config.Instance), semconv.ServiceVersion(config.Version),
	), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("open tracing: OTEL_RESOURCE_ATTRIBUTES: want key=value, separated by commas: %w", err)
	}
	queue := newSpanQueue(exporter, config.Settings)
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSampler(config.Settings.sampler), sdktrace.WithResource(who), sdktrace.WithSpanProcessor(queue))
	tracer := provider.Tracer("pawl", trace.WithInstrumentationVersion(config.Version), trace.WithSchemaURL(semconv.SchemaURL))
	return &Tracing{config: config, tracer: tracer, queue: queue}, nil
}

// attach makes the queue count and log with the rest of the process.
func (t *Tracing) attach(to *Telemetry) {
	t.queue.count = func(outcome string, spans int) { to.metrics.spansVec.WithLabelValues(outcome).Add(float64(spans)) }
	t.queue.warn = func(outcome string, spans int, attrs ...slog.Attr) {
		ctx := context.Background()
		if suppressed, pass := to.pass(ctx, slog.LevelWarn, kind{"spans dropped", outcome}); pass {
			attrs = append([]slog.Attr{slog.String("reason", outcome), slog.Int("spans", spans)}, attrs...)
			to.log.LogAttrs(ctx, slog.LevelWarn, "spans dropped", append(attrs, suppressed)...)
		}
	}
}

// Attributes of our own. Everything else is of the semantic conventions.
const (
	attrSource    = attribute.Key("pawl.source") // topic/partition/offset of an input record
	attrLane      = attribute.Key("pawl.lane")
	attrInput     = attribute.Key("pawl.transaction.input") // topic/partition/from-to for each partition
	attrBytes     = attribute.Key("pawl.transaction.bytes")
	attrOutputs   = attribute.Key("pawl.transaction.outputs")
	attrSampled   = attribute.Key("pawl.transaction.sampled") // input records with a trace that is recorded
	attrOutcome   = attribute.Key("pawl.outcome")
	attrReason    = attribute.Key("pawl.reason")
	attrEffect    = attribute.Key("pawl.effect")             // lane:offset, as `processor effects show` takes it
	attrAge       = attribute.Key("pawl.effect.age_seconds") // since it was put on its topic
	attrEndpoint  = attribute.Key("pawl.endpoint")
	attrAttempt   = attribute.Key("pawl.attempt")
	attrReplays   = attribute.Key("pawl.replays")
	attrStatus    = attribute.Key("pawl.status")
	attrSkipped   = attribute.Key("pawl.results.skipped")
	attrFlush     = attribute.Key("pawl.results.flush")
	eventHandled  = "handled"
	operation     = "process"
	operationSend = "send"
)
