//go:build integration

package app

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"pawl/internal/message"
	"pawl/internal/testkit"
)

// collector is an OTLP receiver over HTTP.
type collector struct {
	*httptest.Server

	mu    sync.Mutex
	raw   bytes.Buffer
	spans []*tracepb.Span
	who   map[string]string
	wrong []string
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{who: map[string]string{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		var request coltracepb.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(text, &request)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" || r.Header.Get("Api-Key") != "collectors-key" {
			c.wrong = append(c.wrong, fmt.Sprintf("%s with %v: %v", r.URL, r.Header, err))
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.raw.Write(text)
		for _, resource := range request.GetResourceSpans() {
			for _, a := range resource.GetResource().GetAttributes() {
				c.who[a.GetKey()] = a.GetValue().GetStringValue()
			}
			for _, scope := range resource.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// named gives the spans of a name.
func (c *collector) named(name string) (found []*tracepb.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, span := range c.spans {
		if span.GetName() == name {
			found = append(found, span)
		}
	}
	return found
}

func attribute(span *tracepb.Span, key string) string {
	for _, a := range span.GetAttributes() {
		if a.GetKey() == key {
			return fmt.Sprint(a.GetValue().GetValue())
		}
	}
	return ""
}

const (
	tracedOrder = `{"schema_version":1,"order_id":"o-1001","customer":{"id":"c-4111","tier":"gold"},"currency":"EUR","placed_at":"2026-11-23T10:00:00Z","lines":[{"sku":"pen-7","quantity":3,"unit_price":"0.85","tax":"standard"}]}`
	ofOrder     = "0af7651916cd43dd8448eb211c80319c"
	byProducer  = "b7ad6b7169203331"
)

// From a produced record over its transaction and the delivered effect to its result, the trace of who produced it goes on:
// in the headers of what is written, in the call, and in the spans at the collector.
func TestOneTraceFromRecordToResult(t *testing.T) {
	collector := newCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=collectors-key")
	t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off") // what is recorded, the record brings about
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")

	calls := make(chan http.Header, 10)
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls <- r.Header.Clone()
		if r.Header.Get("Pawl-Attempt") == "1" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(endpoint.Close)
	dsn := testkit.Postgres(t)
	r := runWith(t, func(c *Config) {
		withLedger(dsn)(c)
		c.Routes = []Route{{Topics: []string{"raw"}, Handler: "orders", Config: map[string]any{"priced": "out", "ledger": "out"}}}
		to := DefaultEndpoint()
		to.URL, to.AllowPrivate = endpoint.URL+"/charges?token=urls-secret", true
		to.Headers = map[string]Secret{"Authorization": NewSecret("Bearer headers-secret")}
		c.Endpoints = map[string]Endpoint{"payments": to}
	}, Options{Migrate: true}, nothing)
	r.line("starting")
	r.awaitProbe("/readyz?verbose", http.StatusOK)

	parent := "00-" + ofOrder + "-" + byProducer + "-01"
	record := &kgo.Record{Topic: "raw", Key: []byte("c-4111"), Value: []byte(tracedOrder), Headers: []kgo.RecordHeader{
		{Key: message.HeaderTrace, Value: []byte(parent)}, {Key: message.HeaderState, Value: []byte("vendor=1")},
	}}
	if err := r.client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
		t.Fatal(err)
	}
	first, second := <-calls, <-calls
	for _, topic := range []string{"out", r.conf.ResultsTopic()} {
		if got := r.traceOf(t, topic); got != parent+" vendor=1" {
			t.Errorf("the record on %s carries %q, want %s vendor=1", topic, got, parent)
		}
	}
	testkit.WaitFor(t, patience, "the span of the result", func() bool { return len(collector.named("send "+r.conf.ResultsTopic())) == 1 })
	r.end()

	inTrace := func(span *tracepb.Span) bool { return hex.EncodeToString(span.GetTraceId()) == ofOrder }
	deliveries := collector.named("deliver payments")
	if len(deliveries) != 2 || attribute(deliveries[0], "http.response.status_code") != "&{503}" || attribute(deliveries[1], "pawl.outcome") != "&{accepted}" {
		t.Fatalf("deliveries: %v", deliveries)
	}
	for i, call := range []http.Header{first, second} {
		span := deliveries[i]
		want := "00-" + ofOrder + "-" + hex.EncodeToString(span.GetSpanId()) + "-01"
		if !inTrace(span) || hex.EncodeToString(span.GetParentSpanId()) != byProducer || call.Get("Traceparent") != want || call.Get("Tracestate") != "vendor=1" {
			t.Errorf("call %d carries %q and %q, want %s and vendor=1; its span is %v", i+1, call["Traceparent"], call["Tracestate"], want, span)
		}
	}
	for _, name := range []string{"process raw", "send " + r.conf.ResultsTopic()} {
		spans := collector.named(name)
		if len(spans) != 1 || inTrace(spans[0]) || len(spans[0].GetLinks()) != 1 {
			t.Errorf("%s: spans %v, want one with a link", name, spans)
			continue
		}
		if link := spans[0].GetLinks()[0]; fmt.Sprintf("%x %x", link.GetTraceId(), link.GetSpanId()) != ofOrder+" "+byProducer {
			t.Errorf("%s links to %x", name, link.GetTraceId())
		}
	}
	collector.mu.Lock()
	defer collector.mu.Unlock()
	if len(collector.wrong) > 0 || collector.who["service.name"] != "shop" || collector.who["deployment.environment.name"] != "test" {
		t.Errorf("the collector got wrong requests %q, and spans of %v", collector.wrong, collector.who)
	}
	for _, secret := range []string{"urls-secret", "headers-secret", "collectors-key", "4111", "o-1001", "pen-7"} {
		if bytes.Contains(collector.raw.Bytes(), []byte(secret)) {
			t.Errorf("%q was sent to the collector", secret)
		}
	}
}

// traceOf gives the trace context of the first record of a topic.
func (r *running) traceOf(t *testing.T, topic string) string {
	t.Helper()
	reader, err := kgo.NewClient(kgo.SeedBrokers(r.cluster.ListenAddrs()...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("no record on %s within %s", topic, patience)
		}
		for _, record := range fetches.Records() {
			trace := message.TraceOf(record.Headers)
			return strings.Join(slices.DeleteFunc([]string{string(trace.Parent), string(trace.State)}, func(s string) bool { return s == "" }), " ")
		}
	}
}
