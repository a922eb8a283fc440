//go:build integration

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"pawl/internal/app"
	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/testkit"
)

// From an empty database to an order that the owner of a lane carries out.
func TestCommandsWorkOnRealLedger(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "shop.effects", "shop.effect-results"), kfake.SeedTopics(1, "shop.control"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	o := newOffice(t, cluster.ListenAddrs()[0])
	env := []string{"USER=anna", "PROCESSOR_POSTGRES_DSN=" + testkit.Postgres(t)}
	want := func(code int, text string, args ...string) string {
		t.Helper()
		got := invoke(t, env, append(args, "-c", o.config)...)
		if got.code != code || !strings.Contains(got.stdout+got.stderr, text) {
			t.Fatalf("%v: exit code %d, want %d\nstdout:\n%s\nstderr:\n%s\nwant in it: %s", args, got.code, code, got.stdout, got.stderr, text)
		}
		return got.stdout
	}
	want(exitFindings, "version  0", "migrate", "status")
	want(exitRuntime, "schema vault is at version 0", "effects", "ls")
	want(exitOK, "applied", "migrate", "up", "--yes")
	want(exitOK, "vault", "migrate", "status")
	want(exitOK, "no effects", "effects", "ls")
	want(exitOK, "begun", "ledger", "rebuild", "--reason", "test", "--yes")
	want(exitOK, "kept", "ledger", "rebuild", "--reason", "test")
	if orders := want(exitOK, "2 lanes of shop.effects from earliest", "audit"); strings.Count(orders, "ledger rebuild") != 1 || !strings.Contains(orders, "anna@") || !strings.Contains(orders, "done") {
		t.Errorf("the audit has\n%s", orders)
	}

	conf, _, err := app.Load(app.LoadOptions{File: o.config, Env: env})
	if err != nil {
		t.Fatal(err)
	}
	pool, opened, err := conf.OpenLedger(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	head, err := opened.Head(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	batch := &outbox.Batch{Lane: 0, TopicID: head.TopicID, Base: 0, Next: 3}
	for offset := range int64(3) {
		source := message.Source{Application: "shop", Topic: "orders", Offset: offset}
		batch.Intents = append(batch.Intents, outbox.Intent{
			Offset: offset, ID: source.ID(0), Source: source, Endpoint: "payments", Class: message.AtLeastOnce,
			ContentType: "application/json", Key: []byte("k"), Body: []byte(`{"amount":1}`), At: time.Now(),
		})
	}
	if err := opened.Append(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	tenure, err := opened.Acquire(t.Context(), 0, "one", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := opened.Recover(t.Context(), tenure); err != nil {
		t.Fatal(err)
	}
	if err := opened.Flush(t.Context(), outbox.Flush{
		Tenure: tenure, Seq: 1, Low: 2, Covered: outbox.Ranges{{From: 0, To: 1}},
		Settled: []outbox.Outcome{{Offset: 0, Status: outbox.Dead, Attempts: 1, HTTPStatus: 422, Error: "422 no such account", Response: &outbox.Response{Body: []byte("no")}}},
		Parked:  []outbox.Parked{{Offset: 1, Role: outbox.Retry, Attempts: 3, In: time.Hour, Status: 503, Error: "503 busy"}},
	}); err != nil {
		t.Fatal(err)
	}

	listed := want(exitOK, "0:0 ", "effects", "ls")
	for _, part := range []string{"0:1     parked", "0:0     dead", "0:2     pending", "503 busy"} {
		if !strings.Contains(listed, part) {
			t.Errorf("ls prints\n%s\nwant in it: %s", listed, part)
		}
	}
	want(exitOK, "payments        1       1     1        0         0", "effects", "ls", "--group")
	want(exitOK, "0:0 ", "effects", "dead", "ls", "--endpoint", "payments", "--key", "k")
	want(exitOK, "no effects", "effects", "dead", "ls", "--older", "1h")
	want(exitOK, `{"amount":1}`, "effects", "show", "0:0")
	want(exitOK, "effect", "effects", "show", batch.Intents[2].ID.String())
	want(exitRuntime, "no such effect", "effects", "show", "1:9")
	want(exitOK, "ordered to retry  1 effect", "effects", "retry", "--state", "dead", "--reason", "bank is back", "--yes")
	want(exitOK, "ordered to cancel  2 effects", "effects", "cancel", "0:1", "0:2", "--reason", "by phone", "--yes")
	_, orders, err := opened.Renew(t.Context(), tenure, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if len(orders) != 3 || orders[0].Action != outbox.RetryNow || orders[0].Offset != 0 || orders[0].Reason != "bank is back" || orders[2].Action != outbox.Cancel {
		t.Errorf("orders are %+v", orders)
	}
	if audit := want(exitOK, "cancel  0:2", "effects", "audit", "--since", "1h"); strings.Count(audit, " open ") != 3 {
		t.Errorf("audit prints\n%s\nwant three open orders", audit)
	}
	want(exitOK, "bank is back; open", "effects", "show", "0:0")
}
