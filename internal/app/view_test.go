package app

import (
	"bufio"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/pause"
	"pawl/internal/telemetry"
	"pawl/internal/txn"
)

// look takes what the status page is told, view by view, until it is as wanted.
func (r *running) look(what string, done func(View) bool) View {
	r.t.Helper()
	var seen struct {
		View View `json:"view"`
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		code, answer := r.ask(http.MethodGet, "/api/v1/view", "")
		if code != http.StatusOK {
			r.t.Fatalf("the view answers %d %s", code, answer)
		}
		seen.View = View{}
		if err := json.Unmarshal([]byte(answer), &seen); err != nil {
			r.t.Fatal(err)
		}
		if done(seen.View) {
			return seen.View
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-r.t.Context().Done():
		}
	}
	r.t.Fatalf("waited %s in vain for %s; last seen: %+v", patience, what, seen.View)
	return View{}
}

// produce writes records to the input.
func (r *running) produce(values ...string) {
	r.t.Helper()
	for _, value := range values {
		record := &kgo.Record{Topic: "raw", Partition: 0, Key: []byte("k"), Value: []byte(value)}
		if err := r.client.ProduceSync(r.t.Context(), record).FirstErr(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// What a running service does is seen in its view: each number from the metric that has it.
func TestViewTellsWhatTheServiceDoes(t *testing.T) {
	t.Parallel()
	r := runMinimal(t, nothing)
	r.line("starting")
	r.awaitProbe("/readyz", http.StatusOK)
	empty := r.look("the partition", func(v View) bool { return len(v.Partitions) == 1 && v.Partitions[0].Records != nil })
	if len(empty.Transactions.Recent) != 0 || len(empty.Transactions.Ended) != 0 || empty.Effects != nil || empty.Draining {
		t.Errorf("before the first record the view is %+v", empty)
	}
	r.produce("a", "b", "c")
	v := r.look("three records", func(v View) bool { return len(v.Inputs) == 1 && v.Inputs[0].Committed == 3 })
	input := v.Inputs[0]
	input.Held = nil // there or not, by when the offsets were last looked at
	if want := (InputView{Topic: "raw", Handler: "copy", Committed: 3}); input != want {
		t.Errorf("the input is %+v, want %+v", input, want)
	}
	if out := v.Outputs[0]; out.Topic != "out" || out.Kind != KindOutput || out.Records != 3 {
		t.Errorf("the output is %+v", out)
	}
	if last := v.Outputs[len(v.Outputs)-1]; last.Topic != "shop.dead-letter" || last.Kind != KindDeadLetter || last.Records != 0 {
		t.Errorf("the last output is %+v, want the dead letters", last)
	}
	records := 0
	for _, one := range v.Transactions.Recent {
		if one.Outcome != txn.Committed || one.At.IsZero() || one.Seconds <= 0 {
			t.Errorf("a transaction is %+v", one)
		}
		records += one.Records
	}
	ended := v.Transactions.Ended
	if records != 3 || len(ended) != 1 || ended[0] != (EndedView{"committed", "none", int64(len(v.Transactions.Recent))}) {
		t.Errorf("transactions are %+v", v.Transactions)
	}
	if p := v.Partitions[0]; p.Topic != "raw" || p.Partition != 0 || p.Lane != 0 || p.Seconds == nil || p.Halted != "" {
		t.Errorf("the partition is %+v", p)
	}
	if v.KafkaUp == nil || !*v.KafkaUp || len(v.Lanes) != 1 || !v.Lanes[0].Joined || v.Lanes[0].Partitions != 1 || v.Lanes[0].LastCommit.IsZero() {
		t.Errorf("brokers %v, lanes %+v", v.KafkaUp, v.Lanes)
	}
	if code, answer := r.ask(http.MethodPost, "/api/v1/drain", `{"reason": "rest"}`); code != http.StatusAccepted {
		t.Fatalf("drain answers %d %s", code, answer)
	}
	r.look("the drain", func(v View) bool { return v.Draining })
	r.end()
}

// gauges makes a registry of gauges and counters as the ledger's telemetry shows them.
func gauges(t *testing.T, all measured) prometheus.Gatherer {
	t.Helper()
	registry := prometheus.NewRegistry()
	for name, list := range all {
		var names []string
		for label := range list[0].labels {
			names = append(names, label)
		}
		slices.Sort(names)
		vector := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: "Test."}, names)
		if err := registry.Register(vector); err != nil {
			t.Fatal(err)
		}
		for _, one := range list {
			vector.With(one.labels).Set(one.value)
		}
	}
	return registry
}

func labels(pairs ...string) map[string]string {
	all := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		all[pairs[i]] = pairs[i+1]
	}
	return all
}

// What the ledger does not tell is absent, and not zero: nobody may take a database that is away for one that
// holds nothing.
func TestViewTellsTheLedgerThatIsAwayFromTheEmptyOne(t *testing.T) {
	t.Parallel()
	conf, _ := load(t, LoadOptions{File: writeConfig(t, minimal+"endpoints: {payments: {url: \"https://pay.example\"}, mail: {url: \"https://mail.example\"}}\n")})
	viewOf := func(all measured) *EffectsView {
		v := &viewer{
			conf: conf, metrics: gauges(t, all), status: func() txn.Status { return txn.Status{} }, draining: func() bool { return false }, pauses: func() pause.Set { return nil },
			away:   func() *LedgerAway { return nil },
			recent: func() (all, failed []telemetry.Transaction) { return nil, nil },
		}
		made, err := v.view(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		view, is := made.(View)
		if !is {
			t.Fatalf("the view is a %T", made)
		}
		return view.Effects
	}
	if none := viewOf(measured{"processor_kafka_up": {{nil, 1}}}); none != nil {
		t.Errorf("without a ledger: %+v", none)
	}
	away := viewOf(measured{"processor_outbox_ledger_up": {{nil, 0}}})
	if away.LedgerUp || len(away.Endpoints) != 2 || away.Endpoints[0].Pending != nil || away.Endpoints[0].Dead != nil || away.Endpoints[0].Oldest != nil {
		t.Errorf("of a ledger that is away: %+v", away)
	}
	up := viewOf(measured{
		"processor_outbox_ledger_up": {{nil, 1}},
		"processor_outbox_effects": {
			{labels("state", "pending", "sink", "payments"), 12}, {labels("state", "dead", "sink", "payments"), 2}, {labels("state", "dead", "sink", "gone"), 1},
		},
		"processor_outbox_oldest_pending_age_seconds": {{labels("sink", "payments"), 7.5}},
		"processor_outbox_breaker_state":              {{labels("sink", "payments", "state", "closed"), 0}, {labels("sink", "payments", "state", "open"), 1}},
		"processor_outbox_calls_in_flight":            {{labels("sink", "payments"), 3}},
		"processor_outbox_calls_limit":                {{labels("sink", "payments"), 64}},
		"processor_outbox_attempts_total":             {{labels("sink", "payments", "outcome", "accepted"), 90}, {labels("sink", "payments", "outcome", "later"), 10}},
		"processor_outbox_ingest_lag_seconds":         {{labels("lane", "0"), 2}, {labels("lane", "1"), 9}},
		"processor_outbox_halted_lanes":               {{labels("part", "ingest"), 1}, {labels("part", "relay"), 2}},
	})
	names := []string{}
	for _, one := range up.Endpoints {
		names = append(names, one.Endpoint)
	}
	if !slices.Equal(names, []string{"mail", "payments", "gone"}) {
		t.Fatalf("endpoints are %v, want the configured ones and then those that only the ledger knows", names)
	}
	if mail := up.Endpoints[0]; mail.Pending == nil || *mail.Pending != 0 || mail.Breaker != "" {
		t.Errorf("of an endpoint without effects: %+v", mail)
	}
	pay := up.Endpoints[1]
	if *pay.Pending != 12 || *pay.Dead != 2 || *pay.Parked != 0 || *pay.Oldest != 7.5 || pay.Breaker != "open" || pay.InFlight != 3 || pay.Limit != 64 || pay.Calls["accepted"] != 90 || pay.Calls["later"] != 10 {
		t.Errorf("of payments: %+v", pay)
	}
	if up.Halted != 3 || up.Waiting == nil || *up.Waiting != 9 {
		t.Errorf("halted %d, waiting %v", up.Halted, up.Waiting)
	}
}

// A secret in any place of the configuration, and whatever a record holds, appears nowhere in what is shown
// without the token, stream included.
func TestStatusPageShowsNoSecret(t *testing.T) {
	t.Parallel()
	const planted = "hunter2"
	text := minimal + `endpoints:
  payments:
    url: "https://pay.example/charge?key=` + planted + `"
    headers: {X-Api-Key: ` + planted + `}
postgres: {dsn: "postgres://me:` + planted + `@127.0.0.1:1/pawl"}
`
	conf, origins := load(t, LoadOptions{File: writeConfig(t, text), Set: []string{"endpoints.payments.headers.X-Other=" + planted}})
	r := runWith(t, func(c *Config) {
		c.Endpoints, c.Postgres.DSN = conf.Endpoints, conf.Postgres.DSN
		c.Effects.Enabled, c.Effects.Lanes = true, 1
	}, Options{Settings: origins.Settings(conf)}, nothing)
	r.line("starting")
	r.awaitProbe("/readyz", http.StatusOK)
	r.produce(planted + " in a record")
	r.look("the record", func(v View) bool { return v.Inputs[0].Committed == 1 })
	shown := map[string]string{"stream": r.firstEvent()}
	for _, path := range []string{"/", "/api/v1/view", "/api/v1/config", "/api/v1/status", "/metrics", "/version"} {
		code, answer := r.ask(http.MethodGet, path, "")
		if code != http.StatusOK {
			t.Errorf("%s answers %d", path, code)
		}
		shown[path] = answer
	}
	for where, text := range shown {
		if strings.Contains(text, planted) || strings.Contains(text, testToken) {
			t.Errorf("%s gives a secret away: %s", where, text)
		}
	}
	for _, want := range []string{`"https://pay.example/charge?***"`, `"endpoints.payments.headers.X-Api-Key"`, `"postgres.dsn"`, `"path": "application"`} {
		if !strings.Contains(shown["/api/v1/config"], want) {
			t.Errorf("the configuration has no %s: %s", want, shown["/api/v1/config"])
		}
	}
	r.end()
}

func (r *running) firstEvent() string {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url+"/api/v1/events", http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	answer, err := (&http.Client{Timeout: patience}).Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	var event strings.Builder
	for lines := bufio.NewReader(answer.Body); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			r.t.Fatal(err)
		}
		if line == "\n" {
			return event.String()
		}
		event.WriteString(line)
	}
}
