package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pawl/internal/admin"
	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger"
)

// fakeStore has dead effects at the even and done ones at the odd offsets of lane 3.
type fakeStore struct {
	asked  ledger.Filter
	audit  outbox.AuditFilter
	orders []string
}

func (f *fakeStore) List(_ context.Context, filter ledger.Filter) (found []ledger.Effect, _ error) {
	f.asked = filter
	from := int64(0)
	if filter.After != nil {
		from = filter.After.Offset + 2
	}
	for offset := from; offset < 10 && len(found) < filter.Limit; offset += 2 {
		found = append(found, fakeEffect(offset))
	}
	return found, nil
}

func fakeEffect(offset int64) ledger.Effect {
	e := ledger.Effect{
		Intent:  outbox.Intent{Lane: 3, Offset: offset, Endpoint: "payments", Key: []byte("k"), Body: []byte("hunter2")},
		State:   ledger.Dead,
		Outcome: &outbox.Outcome{Response: &outbox.Response{Body: []byte("hunter2 too")}},
	}
	if offset%2 == 1 {
		e.State = ledger.Done
	}
	return e
}

func (f *fakeStore) Show(_ context.Context, lane int32, offset int64) (ledger.Effect, error) {
	if lane != 3 || offset >= 10 {
		return ledger.Effect{}, fmt.Errorf("show effect %d:%d: %w", lane, offset, ledger.ErrNoEffect)
	}
	return fakeEffect(offset), nil
}

func (f *fakeStore) Order(_ context.Context, order outbox.Order, actor string) error {
	f.orders = append(f.orders, fmt.Sprintf("%d:%d %s %s %s", order.Lane, order.Offset, order.Action, order.Reason, actor))
	return nil
}

func (f *fakeStore) Audit(_ context.Context, filter outbox.AuditFilter) ([]outbox.Audit, error) {
	f.audit = filter
	return []outbox.Audit{{Order: outbox.Order{Number: 1, Lane: 3, Offset: 2, Action: outbox.Cancel, Reason: "why"}, Actor: "ann", Result: outbox.Late, Ended: time.Unix(1, 0).UTC(), Owner: "shop.0"}}, nil
}

func (f *fakeStore) AuditOf(ctx context.Context, _ int32, _ int64) ([]outbox.Audit, error) {
	return f.Audit(ctx, outbox.AuditFilter{})
}

// answered asks and gives the answer as a client reads it.
func answered(t *testing.T, value any, err error) string {
	t.Helper()
	text, marshalErr := json.Marshal(value)
	if err := errors.Join(err, marshalErr); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestEffectsAPIListsInPages(t *testing.T) {
	t.Parallel()
	store := &fakeStore{}
	api := effectsAPI{store}
	var pages []string
	query := url.Values{"limit": {"2"}, "state": {"dead"}, "endpoint": {"payments"}, "key": {"k"}, "older": {"2d"}}
	for {
		value, err := api.List(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		page := value.(effectsPage)
		var places []string
		for _, e := range page.Effects {
			places = append(places, e.Effect)
		}
		pages = append(pages, strings.Join(places, " "))
		if page.Next == "" {
			break
		}
		query.Set("cursor", page.Next)
	}
	if diff := cmp.Diff([]string{"3:0 3:2", "3:4 3:6", "3:8"}, pages); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
	if f := store.asked; f.State != ledger.Dead || f.Endpoint != "payments" || string(f.Key) != "k" || f.AgeMin != 48*time.Hour || f.Limit != 3 || f.After.Offset != 6 {
		t.Errorf("the ledger was asked for %+v", f)
	}
}

func TestEffectsAPIHidesContents(t *testing.T) {
	t.Parallel()
	api := effectsAPI{&fakeStore{}}
	value, err := api.Show(t.Context(), "3:2", false)
	text := answered(t, value, err)
	for _, part := range []string{`"effect":"3:2"`, `"body_bytes":7`, `"body_bytes":11`, `"result":"late"`, `"owner":"shop.0"`} {
		if !strings.Contains(text, part) {
			t.Errorf("shown is %s, want %s in it", text, part)
		}
	}
	if strings.Contains(text, `"body":`) {
		t.Errorf("contents are shown: %s", text)
	}
	value, err = api.Show(t.Context(), "3:2", true)
	if text := answered(t, value, err); strings.Count(text, `"body":`) != 2 {
		t.Errorf("shown is %s, want both bodies", text)
	}
	value, err = api.List(t.Context(), nil)
	if text := answered(t, value, err); strings.Contains(text, `"body`) {
		t.Errorf("a list shows contents: %s", text)
	}
}

func TestEffectsAPIOrdersAndAudits(t *testing.T) {
	t.Parallel()
	store := &fakeStore{}
	api := effectsAPI{store}
	value, err := api.Order(t.Context(), "3:2", "retry", admin.Order{Reason: "bank is back", Actor: "ann@10.0.0.7"})
	if text := answered(t, value, err); text != `{"action":"retry","dry_run":false,"reason":"bank is back","actor":"ann@10.0.0.7","effects":["3:2"],"refused":[]}` {
		t.Errorf("answered %s", text)
	}
	if diff := cmp.Diff([]string{"3:2 retry bank is back ann@10.0.0.7"}, store.orders); diff != "" {
		t.Errorf("orders (-want +got):\n%s", diff)
	}
	value, err = api.Audit(t.Context(), url.Values{"since": {"2h"}, "actor": {"ann"}, "limit": {"7"}})
	if text := answered(t, value, err); !strings.Contains(text, `"action":"cancel"`) {
		t.Errorf("answered %s", text)
	}
	if f := store.audit; f.Actor != "ann" || f.Limit != 7 || time.Since(f.Since) < 2*time.Hour {
		t.Errorf("the ledger was asked for %+v", f)
	}
}

func TestEffectsAPITellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	store := &fakeStore{}
	api := effectsAPI{store}
	ctx := t.Context()
	list := func(text string) error {
		query, err := url.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = api.List(ctx, query)
		return err
	}
	show := func(text string) error { _, err := api.Show(ctx, text, false); return err }
	order := func(effect, action string) error { _, err := api.Order(ctx, effect, action, admin.Order{}); return err }
	audit := func(name, value string) error { _, err := api.Audit(ctx, url.Values{name: {value}}); return err }
	for _, test := range []struct {
		err    error
		status int
		part   string
	}{
		{list("state=lost"), 400, `state is "lost", want one of pending, inflight, parked`},
		{list("older=x&limit=0"), 400, `older is "x", want a time such as 10m or 2d; limit is "0", want 1 to 1000`},
		{list("limit=1001"), 400, "want 1 to 1000"},
		{list("stat=dead"), 400, "the query takes state, endpoint"},
		{list("state=dead&state=done"), 400, "each once"},
		{list("cursor=dead:3"), 400, "cursor is"},
		{list("cursor=lost:3:4"), 400, "cursor is"},
		{list("cursor=dead:3:4&state=done"), 400, "another state"},
		{show("3-4"), 400, "want lane:offset"},
		{show("9:9"), 404, "no such effect"},
		{order("9:9", "retry"), 404, "no such effect"},
		{order("3:1", "retry"), 409, "effect 3:1 is done, and one can retry what is dead, unknown, parked"},
		{audit("since", "x"), 400, `since is "x", want a time such as`},
		{audit("who", "x"), 400, "the query takes since"},
	} {
		problem, is := errors.AsType[*admin.Problem](test.err)
		if !is || problem.Status != test.status || !strings.Contains(problem.Detail, test.part) {
			t.Errorf("got %v, want %d with %q", test.err, test.status, test.part)
		}
	}
	if len(store.orders) > 0 {
		t.Errorf("orders are %v", store.orders)
	}
}
