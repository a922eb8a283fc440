package telemetry

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// TracingSettings is what the standard OTEL_* variables say of traces. What they say of the way to a collector (address,
// headers, certificates, compression) the exporter reads by itself.
type TracingSettings struct {
	On bool // a collector, or the exporter, is named, and tracing is not switched off

	grpc        bool // otherwise HTTP with Protocol Buffers
	sampler     sdktrace.Sampler
	parentBased bool          // who began the trace decides
	queueMax    int           // spans that wait for the collector
	batchMax    int           // spans in one request
	delay       time.Duration // after which a batch goes out that is not full
	timeout     time.Duration // of one request with its repetitions
	secrets     []string      // that go to the collector, and may come back in what it says
}

// Names of the variables.
const (
	envDisabled       = "OTEL_SDK_DISABLED"
	envExporter       = "OTEL_TRACES_EXPORTER"
	envEndpoint       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	envTracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	envHeaders        = "OTEL_EXPORTER_OTLP_HEADERS"
	envTracesHeaders  = "OTEL_EXPORTER_OTLP_TRACES_HEADERS"
	envProtocol       = "OTEL_EXPORTER_OTLP_PROTOCOL"
	envTracesProtocol = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	envSampler        = "OTEL_TRACES_SAMPLER"
	envSamplerArg     = "OTEL_TRACES_SAMPLER_ARG"
	envQueueMax       = "OTEL_BSP_MAX_QUEUE_SIZE"
	envBatchMax       = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
	envDelay          = "OTEL_BSP_SCHEDULE_DELAY"
	envTimeout        = "OTEL_BSP_EXPORT_TIMEOUT"
)

// The defaults of the specification, and bounds that keep a typing error from taking all memory.
const (
	queueDefault   = 2048
	batchDefault   = 512
	delayDefault   = 5 * time.Second
	timeoutDefault = 30 * time.Second
	queueLimit     = 1 << 20
	waitLimit      = time.Hour
)

// ReadTracing reads the variables. Everything that is wrong with them is reported at once.
func ReadTracing(getenv func(string) string) (TracingSettings, error) {
	r := envReader{getenv: getenv}
	s := TracingSettings{
		queueMax: r.number(envQueueMax, queueDefault, queueLimit),
		delay:    time.Duration(r.number(envDelay, int(delayDefault.Milliseconds()), int(waitLimit.Milliseconds()))) * time.Millisecond,
		timeout:  time.Duration(r.number(envTimeout, int(timeoutDefault.Milliseconds()), int(waitLimit.Milliseconds()))) * time.Millisecond,
		secrets:  TracingSecrets(getenv),
	}
	s.batchMax = min(s.queueMax, r.number(envBatchMax, batchDefault, queueLimit))
	s.sampler, s.parentBased = r.sampler()
	switch protocol := r.first(envTracesProtocol, envProtocol); protocol {
	case "", "http/protobuf":
	case "grpc":
		s.grpc = true
	default:
		r.fail("%s is %q, want http/protobuf or grpc", envProtocol, protocol)
	}
	named := r.endpoint(envTracesEndpoint)
	named = r.endpoint(envEndpoint) || named
	switch exporter := r.first(envExporter); exporter {
	case "":
		s.On = named
	case "otlp":
		s.On = true
	case "none":
	default:
		r.fail("%s is %q, want otlp or none", envExporter, exporter)
	}
	if strings.EqualFold(r.first(envDisabled), "true") {
		return TracingSettings{}, nil // whatever the rest says, as the specification wants it
	}
	if err := errors.Join(r.errs...); err != nil {
		return TracingSettings{}, fmt.Errorf("tracing: %w", err)
	}
	return s, nil
}

// TracingSecrets gives every text in the variables that is to be hidden, in the clear: values of headers for the collector,
// whole and without a scheme such as Bearer, and passwords in its address.
func TracingSecrets(getenv func(string) string) (found []string) {
	for _, name := range []string{envHeaders, envTracesHeaders} {
		for pair := range strings.SplitSeq(getenv(name), ",") {
			_, value, _ := strings.Cut(pair, "=")
			value = strings.TrimSpace(value)
			found = append(found, value)
			if decoded, err := url.PathUnescape(value); err == nil {
				found = append(found, decoded)
				found = append(found, strings.Fields(decoded)...)
			}
		}
	}
	for _, name := range []string{envEndpoint, envTracesEndpoint} {
		if address, err := url.Parse(strings.TrimSpace(getenv(name))); err == nil {
			password, _ := address.User.Password()
			found = append(found, password)
		}
	}
	slices.Sort(found)
	return slices.DeleteFunc(slices.Compact(found), func(text string) bool {
		return text == "" || strings.EqualFold(text, "bearer") || strings.EqualFold(text, "basic")
	})
}

// envReader collects what is wrong. Errors never quote an endpoint: it may hold credentials.
type envReader struct {
	getenv func(string) string
	errs   []error
}

func (r *envReader) fail(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf(format, args...))
}

// first gives the first that is set.
func (r *envReader) first(names ...string) string {
	for _, name := range names {
		if value := strings.TrimSpace(r.getenv(name)); value != "" {
			return value
		}
	}
	return ""
}

func (r *envReader) number(name string, standard, limit int) int {
	text := r.first(name)
	if text == "" {
		return standard
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > limit {
		r.fail("%s is %q, want a number from 1 to %d", name, text, limit)
		return standard
	}
	return n
}

// endpoint reports whether one is named.
func (r *envReader) endpoint(name string) bool {
	text := r.first(name)
	if text == "" {
		return false
	}
	where, err := url.Parse(text)
	if err != nil || where.Host == "" || where.Scheme != "http" && where.Scheme != "https" {
		r.fail("%s is not of the form http://host:port or https://host:port", name)
	}
	return true
}

func (r *envReader) sampler() (sampler sdktrace.Sampler, parentBased bool) {
	name := strings.ToLower(r.first(envSampler))
	root, parentBased := strings.CutPrefix(name, "parentbased_")
	ratio := 1.0
	if text := r.first(envSamplerArg); text != "" && root == "traceidratio" {
		var err error
		if ratio, err = strconv.ParseFloat(text, 64); err != nil || !(ratio >= 0 && ratio <= 1) {
			r.fail("%s is %q, want a share from 0 to 1", envSamplerArg, text)
		}
	}
	switch root {
	case "":
		sampler, parentBased = sdktrace.AlwaysSample(), true
	case "always_on":
		sampler = sdktrace.AlwaysSample()
	case "always_off":
		sampler = sdktrace.NeverSample()
	case "traceidratio":
		sampler = sdktrace.TraceIDRatioBased(ratio)
	default:
		r.fail("%s is %q, want always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or parentbased_traceidratio", envSampler, name)
	}
	if parentBased && sampler != nil {
		sampler = linked{sdktrace.ParentBased(sampler)}
	}
	return sampler, parentBased
}

// linked takes whoever began a trace that a span links to for a parent too. A batch has as many parents as records and so
// none; without this a sampled record would be told of by one transaction in a hundred at 1 %.
type linked struct{ sdktrace.Sampler }

// ShouldSample implements sdktrace.Sampler.
func (l linked) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	for i := range p.Links {
		if p.Links[i].SpanContext.IsSampled() {
			return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample}
		}
	}
	return l.Sampler.ShouldSample(p)
}
