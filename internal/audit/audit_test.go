package audit

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const controlTopic = "shop.control"

func open(t *testing.T) (*Trail, *kgo.Client, *kfake.Cluster) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, controlTopic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	options := []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}
	trail, err := Open(options, controlTopic)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(trail.Close)
	client, err := kgo.NewClient(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return trail, client, cluster
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// Who ordered what, why, and what became of it; an order that was cut off stands as begun.
func TestOrdersAreRemembered(t *testing.T) {
	t.Parallel()
	trail, client, _ := open(t)
	ctx := bounded(t)
	if got, err := trail.Read(ctx, time.Time{}, 0); err != nil || len(got) != 0 {
		t.Fatalf("of no orders: %v, %v", got, err)
	}
	begin := func(action string) Entry {
		entry, err := trail.Begin(ctx, Order{Action: action, Target: "orders/3", Reason: "why " + action, Actor: "ann@ops-1"})
		if err != nil {
			t.Fatal(err)
		}
		return entry
	}
	first := begin("offsets set")
	gone, cancel := context.WithCancel(ctx)
	cancel() // who is told to stop still says what became of it
	if err := trail.End(gone, first, "3 offsets moved", nil); err != nil {
		t.Fatal(err)
	}
	if err := trail.End(ctx, begin("txn abort"), "", errors.New("no such id")); err != nil {
		t.Fatal(err)
	}
	// What others write there is theirs.
	for _, r := range []*kgo.Record{{Key: []byte("pause/input"), Value: []byte("{}")}, {Key: []byte("suspect/x"), Value: []byte("no JSON")}} {
		r.Topic = controlTopic
		if err := client.ProduceSync(ctx, r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	begin("ledger rebuild")
	got, err := trail.Read(ctx, time.Time{}, 0)
	if err != nil || len(got) != 3 {
		t.Fatalf("%+v, %v, want three orders", got, err)
	}
	for i, want := range []struct {
		action, detail string
		result         Result
	}{{"ledger rebuild", "", Begun}, {"txn abort", "no such id", Failed}, {"offsets set", "3 offsets moved", Done}} {
		e := got[i]
		if e.Order != (Order{want.action, "orders/3", "why " + want.action, "ann@ops-1"}) || e.Result != want.result || e.Detail != want.detail || e.At.IsZero() || e.Ended.IsZero() != (want.result == Begun) {
			t.Errorf("%d is %+v, want %+v", i, e, want)
		}
	}
	if got, err := trail.Read(ctx, got[1].At, 0); err != nil || len(got) != 2 {
		t.Errorf("since the second: %+v, %v", got, err)
	}
	if got, err := trail.Read(ctx, time.Time{}, 1); err != nil || len(got) != 1 || got[0].Action != "ledger rebuild" {
		t.Errorf("the last one: %+v, %v", got, err)
	}
	// Whoever must be rid of one writes a record without a value under its key.
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: controlTopic, Key: []byte(first.key)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if got, err := trail.Read(ctx, time.Time{}, 0); err != nil || len(got) != 2 || got[1].Action != "txn abort" {
		t.Errorf("without the first: %+v, %v", got, err)
	}
}

// A later release may write more; what can't be read is told and hides nothing else.
func TestOrderOfALaterReleaseIsTold(t *testing.T) {
	t.Parallel()
	trail, client, _ := open(t)
	ctx := bounded(t)
	if _, err := trail.Begin(ctx, Order{Action: "drain"}); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: controlTopic, Key: []byte(Prefix + "later"), Value: []byte(`{"format":2}`)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	got, err := trail.Read(ctx, time.Time{}, 0)
	if len(got) != 1 || err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestOrdersOfOneMomentAreTwoAndAMissingRightIsNamed(t *testing.T) {
	t.Parallel()
	trail, _, cluster := open(t)
	ctx := bounded(t)
	for range 20 {
		if _, err := trail.Begin(ctx, Order{Action: "drain"}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := trail.Read(ctx, time.Time{}, 0); err != nil || len(got) != 20 {
		t.Errorf("%d orders, %v, want 20", len(got), err)
	}
	fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: controlTopic, Err: kerr.TopicAuthorizationFailed, Count: -1})
	if _, err := trail.Begin(ctx, Order{Action: "drain"}); err == nil || !strings.Contains(err.Error(), "right Write") || fault.Hits() == 0 {
		t.Errorf("without the right: %v after %d faults", err, fault.Hits())
	}
}
