package main

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"pawl/internal/yardstick"
)

// traced is a round of all settings, of which those that trace have a rate; that of the one without is 100.
func traced(rate float64) []tracingRun {
	round := make([]tracingRun, len(tracingNames))
	for i, name := range tracingNames {
		copied := yardstick.CopyRun{Peer: name, Copied: yardstick.Copied{Rate: rate, Took: 5 * time.Second}, CPU: 3}
		round[i] = tracingRun{CopyRun: copied, Sink: sinkTally{Requests: 1, Spans: 20, Links: 1000}}
		if name == tracingOff {
			round[i].Rate, round[i].CPU, round[i].Sink = 100, 2, sinkTally{}
		}
	}
	return besideOff(round)
}

// A run is compared with the one without tracing of its own round, wherever in the round that was.
func TestTracingIsComparedWithinItsRound(t *testing.T) {
	t.Parallel()
	round := traced(90)
	slices.Reverse(round)
	for _, run := range besideOff(round) {
		rate, cpu := 0.9, 1.5
		if run.Peer == tracingOff {
			rate, cpu = 1, 1
		}
		if run.RateByOff != rate || run.CPUByOff != cpu {
			t.Errorf("%s: rate %g and CPU %g by those of off, want %g and %g", run.Peer, run.RateByOff, run.CPUByOff, rate, cpu)
		}
	}
}

// What is not traced, or traced though it was not to be, is no figure of its setting.
func TestRunWithoutTheSpansOfItsSettingIsAnError(t *testing.T) {
	t.Parallel()
	for _, how := range tracingSettings(1000) {
		none, some := how.check(sinkTally{}), how.check(sinkTally{Requests: 1, Spans: 1})
		if off := how.name == tracingOff; (none == nil) != off || (some != nil) != off {
			t.Errorf("%s: %v without spans, %v with one", how.name, none, some)
		}
		if empty := how.check(sinkTally{Requests: 1}); empty == nil {
			t.Errorf("%s: a request without a span is taken for tracing", how.name)
		}
	}
}

// The settings are those of the bench, whatever the shell says of tracing; nothing else of it is lost.
func TestEnvironmentOfASettingIsItsOwn(t *testing.T) {
	t.Parallel()
	base := []string{"OTEL_SDK_DISABLED=true", "PATH=/bin", "OTEL_EXPORTER_OTLP_ENDPOINT=http://other:4318"}
	settings := tracingSettings(1000)
	if got := settings[0].environment(base, "http://sink"); settings[0].name != tracingOff || !slices.Equal(got, []string{"PATH=/bin"}) {
		t.Errorf("%s: %q, want nothing of tracing", settings[0].name, got)
	}
	for _, how := range settings[1:] {
		want := []string{"PATH=/bin", "OTEL_EXPORTER_OTLP_ENDPOINT=http://sink", "OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=" + how.ratio, "OTEL_BSP_SCHEDULE_DELAY=200"}
		if got := how.environment(base, "http://sink"); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", how.name, got, want)
		}
	}
	if len(base) != 3 || base[0] != "OTEL_SDK_DISABLED=true" {
		t.Errorf("the environment of others is %q", base)
	}
}

// post sends a sink what a process would, and gives the status of the answer.
func post(t *testing.T, url string, body []byte) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := answer.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode
}

// A sink counts requests, spans and links of all resources and scopes, once each.
func TestSinkCountsWhatItIsSent(t *testing.T) {
	t.Parallel()
	sink, err := openTraceSink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	scope := &tracepb.ScopeSpans{Spans: []*tracepb.Span{{Links: []*tracepb.Span_Link{{}, {}}}, {}}}
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{scope, scope}}, {ScopeSpans: []*tracepb.ScopeSpans{scope}}}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if status := post(t, sink.url+"/v1/traces", body); status != http.StatusOK {
			t.Errorf("status %d, want 200", status)
		}
	}
	for _, want := range []sinkTally{{Requests: 2, Spans: 12, Links: 12}, {}} {
		if got, err := sink.taken(); err != nil || got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
	if status := post(t, sink.url+"/v1/metrics", body); status != http.StatusNotFound {
		t.Errorf("status %d of what is no span, want 404", status)
	}
	if err := sink.close(); err != nil {
		t.Error(err)
	}
}

// A request that is not what it ought to be spoils the count, and the run with it.
func TestSinkTellsOfARequestThatItCannotRead(t *testing.T) {
	t.Parallel()
	sink, err := openTraceSink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	post(t, sink.url+"/v1/traces", []byte("no message"))
	if _, err := sink.taken(); err == nil || !strings.Contains(err.Error(), "sink of spans") {
		t.Errorf("error %v, want one", err)
	}
	if err := sink.close(); err != nil {
		t.Error(err)
	}
}
