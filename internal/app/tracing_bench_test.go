package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/kafka"
	"pawl/internal/message"
	"pawl/internal/telemetry"
	"pawl/internal/txn"
)

// BenchmarkTracing copies the same records, of which one in a hundred is sampled, in turns without tracing and with it:
// engine, client, a fake broker and a collector that takes everything, in one process. Noise hits both alike, so that the
// ratio of the processor time is what counts; that of the broker is in it, which a real one would not be.
//
//	go test -run '^$' -bench Tracing -benchtime 10x ./internal/app
func BenchmarkTracing(b *testing.B) {
	const n = 100_000
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	b.Cleanup(collector.Close)
	b.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	b.Setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
	b.Setenv("OTEL_TRACES_SAMPLER_ARG", "0.01")
	b.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
	modes := []string{"off", "on"}
	spent := map[string][]float64{}
	for turn := 0; b.Loop(); turn++ {
		for k := range modes {
			mode := modes[(turn+k)%len(modes)]
			cluster, conf := benchCluster(b, n) // a new one: what the last copy left would be in its memory
			runtime.GC()
			spent[mode] = append(spent[mode], copyAll(b, conf, cluster, mode == "on", n))
			cluster.Close()
		}
	}
	const undisturbed = 4 // the quickest quarter
	for _, mode := range modes {
		slices.Sort(spent[mode])
		b.ReportMetric(spent[mode][len(spent[mode])/undisturbed]*1e9/n, "cpu-ns/record-"+mode)
	}
	b.ReportMetric(spent["on"][len(spent["on"])/undisturbed]/spent["off"][len(spent["off"])/undisturbed], "on/off")
}

// benchCluster has n records of 500 bytes on the topic raw.
func benchCluster(b *testing.B, n int) (*kfake.Cluster, Config) {
	b.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "raw", "out"))
	if err != nil {
		b.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("raw"))
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	for i := range n {
		flags := "00"
		if i%100 == 0 {
			flags = "01"
		}
		client.Produce(b.Context(), &kgo.Record{
			Partition: int32(i % 4), Key: fmt.Append(nil, "key-", i%100), Value: make([]byte, 500),
			Headers: []kgo.RecordHeader{{Key: message.HeaderTrace, Value: fmt.Appendf(nil, "00-%032x-%016x-%s", i+1, i+1, flags)}},
		}, func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
		})
	}
	if err := client.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	conf, _, err := Load(LoadOptions{Set: []string{
		"application=bench", "instance=one", "effects.enabled=false", "txn.lanes=1",
		"routes=[{topics: [raw], handler: copy, config: {output: out}}]", "outputs={out: {topic: out}}",
	}})
	if err != nil {
		b.Fatal(err)
	}
	conf.Kafka.Brokers = cluster.ListenAddrs()
	return cluster, conf
}

// copyAll runs an engine until it has committed n records, and gives the seconds of processor time from the first commit
// to the last, for as many records.
func copyAll(b *testing.B, conf Config, cluster *kfake.Cluster, on bool, n int) float64 {
	b.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	plans, err := kafka.Plan(b.Context(), client, conf.Topics(), kafka.PlanOptions{})
	if err == nil {
		err = kafka.Apply(b.Context(), client, plans, false)
	}
	if err != nil {
		b.Fatal(err)
	}
	config := telemetry.Config{Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)}
	if on {
		if config.Tracing, err = conf.tracing(b.Context(), Build{}); err != nil || config.Tracing == nil {
			b.Fatal("tracing is off", err)
		}
	}
	watch, err := telemetry.New(config)
	if err != nil {
		b.Fatal(err)
	}
	hooks, told := watch.Hooks(), make(chan txn.Ended, n)
	ended := hooks.Ended
	hooks.Ended = func(e txn.Ended) { ended(e); told <- e }
	settings, err := conf.engine([]kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}, hooks)
	if err != nil {
		b.Fatal(err)
	}
	engine, err := txn.New(settings)
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	done := make(chan error, 2)
	go func() { done <- watch.Run(ctx) }()
	go func() { done <- engine.Run(ctx) }()
	first, committed := 0, 0
	var begun float64
	for committed < n {
		select {
		case e := <-told:
			if e.Outcome == txn.Committed {
				committed += e.Records
			}
			if first == 0 {
				first, begun = committed, processorTime(b)
			}
		case <-time.After(patience):
			b.Fatalf("%d of %d records", committed, n)
		}
	}
	each := (processorTime(b) - begun) / float64(n-first)
	stop()
	for range 2 {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	return each * float64(n)
}

func processorTime(b *testing.B) float64 {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}
