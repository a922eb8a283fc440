//go:build integration

package ledger

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/postgres"
	"pawl/internal/testkit"
)

// The view is for people and reports, who must see what the service sees. It is written in another language than the service,
// so the two are held against each other.
func TestTheViewShowsWhatTheServiceReads(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	_, pool := planPool(t, testkit.Postgres(t))
	if _, err := postgres.Migrate(ctx, pool, Migrations("")); err != nil {
		t.Fatal(err)
	}
	l := Open(pool, Config{})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	intents := someIntents(rand.New(rand.NewPCG(seed, 0)), 3, 500)
	for i := range intents { // twins are the ledger's to find
		intents[i].BusinessKey, intents[i].Twin = "", nil
	}
	intents[4].BusinessKey, intents[7].BusinessKey = "charge:1", "charge:1"
	intents[4].Endpoint, intents[7].Endpoint = "payments", "payments"
	base, next := intents[0].Offset, intents[len(intents)-1].Offset+1
	if err := l.Seed(ctx, 3, [16]byte{}, base); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(ctx, &outbox.Batch{Lane: 3, Base: base, Next: next, Intents: intents}); err != nil {
		t.Fatal(err)
	}
	read, _, err := l.Page(ctx, 3, base, len(intents))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(intents, read); diff != "" {
		t.Fatalf("the service reads: %s", diff)
	}
	began := time.Now()
	rows, err := pool.Query(ctx, `SELECT lane, off, id, source_off, topic_id, topic, source_part, replay, index, endpoint, content_type,
  business_key, trace, key, body, at, class, twin_lane, twin_off, twin_same FROM pawl.effect ORDER BY lane, off`)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := pgx.CollectRows(rows, scanShown)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the view took %v for %d effects", time.Since(began), len(shown))
	if diff := cmp.Diff(intents, shown); diff != "" {
		t.Errorf("the view shows: %s", diff)
	}
	if intents[7].Twin == nil || shown[7].Twin == nil {
		t.Error("no twin was seen")
	}
	found, err := l.ShowID(ctx, intents[9].ID)
	if err != nil || len(found) != 1 || found[0].Intent.Offset != intents[9].Offset {
		t.Errorf("by its id was found %+v, %v", found, err)
	}
}

func scanShown(row pgx.CollectableRow) (i outbox.Intent, err error) {
	var class int16
	var twinLane *int32
	var twinOffset *int64
	var same *bool
	var at time.Time
	err = row.Scan(&i.Lane, &i.Offset, (*[16]byte)(&i.ID), &i.Source.Offset, &i.Source.TopicID, &i.Source.Topic, &i.Source.Partition,
		&i.Source.ReplayGeneration, &i.Index, &i.Endpoint, &i.ContentType, &i.BusinessKey, &i.Trace, &i.Key, &i.Body, &at, &class, &twinLane, &twinOffset, &same)
	if err != nil {
		return i, err
	}
	for _, text := range []*string{&i.Source.Topic, &i.Endpoint, &i.ContentType, &i.BusinessKey, &i.Trace} {
		*text = original(*text)
	}
	i.Trace, i.TraceState, _ = strings.Cut(i.Trace, traceBreak)
	i.At, i.Class = at.UTC(), map[int16]message.Class{1: message.AtLeastOnce, 2: message.AtMostOnce}[class]
	if twinLane != nil {
		i.Twin = &outbox.Twin{Lane: *twinLane, Offset: *twinOffset, Same: *same}
	}
	return i, nil
}
