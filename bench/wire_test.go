package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/load"
	"pawl/internal/message"
	"pawl/internal/outbox/ingest"
)

// What the bench commits in the place of a processor is what a processor's ledger takes.
func TestCommittedEffectsAreThoseOfAProcessor(t *testing.T) {
	t.Parallel()
	source := message.Source{Application: "bench", Topic: "bench.input", TopicID: [16]byte{1, 15: 2}}
	records := effectRecords(source, 40, 60, 200)
	if len(records) != 20 {
		t.Fatalf("%d records, want 20", len(records))
	}
	seen := newArrivals(60)
	for i, record := range records {
		intent, err := ingest.Decode(&kgo.Record{Key: record.Key, Value: record.Value, Headers: record.Headers, Timestamp: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		source.Offset = int64(40 + i)
		from := intent.Source
		from.Application = source.Application // which no record names
		if from != source || intent.ID != source.ID(0) || intent.Endpoint != wireEndpoint || len(intent.Body) != 200 {
			t.Errorf("record %d is %+v", i, intent)
		}
		if err := seen.add(intent.Body); err != nil {
			t.Error(err)
		}
	}
	if seen.missing.Load() != 40 {
		t.Errorf("%d of 60 effects are missing, want 40", seen.missing.Load())
	}
}

func TestArrivalsTellLatencyRepeatsAndOrder(t *testing.T) {
	t.Parallel()
	const count = 3 * wireKeys // so that keys repeat
	seen := newArrivals(count)
	seen.began = seen.began.Add(-time.Hour)
	call := func(n int64) {
		t.Helper()
		if err := seen.add(bodyOf(wireKey(n), n, 100)); err != nil {
			t.Fatal(err)
		}
	}
	// The first two of one key change places.
	second := int64(1)
	for wireKey(second) != wireKey(0) {
		second++
	}
	call(second)
	for n := range int64(count) {
		if n != second {
			call(n)
		}
	}
	call(7)
	if seen.missing.Load() != 0 || seen.repeated.Load() != 1 || seen.disordered.Load() != 1 {
		t.Errorf("%d missing, %d repeated, %d out of order; want 0, 1 and 1", seen.missing.Load(), seen.repeated.Load(), seen.disordered.Load())
	}
	c := commits{each: count / 2, at: []time.Duration{0, time.Hour - time.Minute}, late: []time.Duration{time.Second, time.Millisecond}}
	all, later := seen.since(c, 0), seen.since(c, count/2)
	if all.Count != count || all.Max < time.Hour || later.Count != count/2 || later.P50 < time.Minute || later.Max > time.Hour {
		t.Errorf("latencies %s, and %s of the second transaction; want an hour and a minute", all, later)
	}
	if c.latest(0) != time.Second || c.latest(count/2) != time.Millisecond {
		t.Errorf("late by %s, and %s from the second transaction on", c.latest(0), c.latest(count/2))
	}
	for _, body := range []string{"short", string(bodyOf(wireKey(5), count, 50)), string(bodyOf(wireKey(5)+1, 5, 50))} {
		if err := seen.add([]byte(body)); err == nil {
			t.Errorf("%q was taken", body)
		}
	}
}

func TestWireIsJudgedByMediansOfP99(t *testing.T) {
	t.Parallel()
	for last, want := range map[time.Duration]string{30 * time.Millisecond: "met", 31 * time.Millisecond: "missed"} {
		r := newReport(settings{only: partWire, wireRate: 1000, effectBytes: 200}, []peer{&wireProcessor{}, &wireLoop{}})
		for round, mine := range []time.Duration{time.Millisecond, time.Second, last} {
			r.addWire(wireRun{Peer: processorName, Round: round + 1, Latency: load.Summary{P99: mine}})
			r.addWire(wireRun{Peer: loopName, Round: round + 1, Latency: load.Summary{P99: 10 * time.Millisecond}})
		}
		var table bytes.Buffer
		r.print(&table)
		if len(r.measured()) != 1 || r.met() != (want == "met") || !strings.Contains(table.String(), want) {
			t.Errorf("p99 of %s beside 10ms: want it %s\n%s", last, want, &table)
		}
	}
}
