package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"pawl/internal/admin"
	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger"
)

const (
	listedDefault = 100
	listedMax     = 1000 // on one page
)

// effectStore is what the operations HTTP asks of the ledger.
type effectStore interface {
	List(ctx context.Context, filter ledger.Filter) ([]ledger.Effect, error)
	Show(ctx context.Context, lane int32, offset int64) (ledger.Effect, error)
	Order(ctx context.Context, order outbox.Order, actor string) error
	Audit(ctx context.Context, filter outbox.AuditFilter) ([]outbox.Audit, error)
	AuditOf(ctx context.Context, lane int32, offset int64) ([]outbox.Audit, error)
}

// effectsAPI answers for the ledger as the commands do.
type effectsAPI struct{ store effectStore }

// api is nil where this process has no ledger.
func (e *effects) api() admin.Effects {
	if e == nil {
		return nil
	}
	return effectsAPI{e.ledger}
}

func badRequest(err error) error {
	return &admin.Problem{Status: http.StatusBadRequest, Detail: strings.ReplaceAll(err.Error(), "\n", "; ")}
}

// parameters reads a query: each at most once, and none that is unknown.
func parameters(query url.Values, known ...string) (map[string]string, error) {
	values := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains(known, name) || len(query[name]) != 1 {
			return nil, fmt.Errorf("the query takes %s, each once", strings.Join(known, ", "))
		}
		values[name] = query[name][0]
	}
	return values, nil
}

func parseLimit(text string) (int, error) {
	if text == "" {
		return listedDefault, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > listedMax {
		return 0, fmt.Errorf("limit is %q, want 1 to %d", text, listedMax)
	}
	return limit, nil
}

// parseCursor reads what a page gave as next.
func parseCursor(text string) (*ledger.Place, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // the first page
	}
	state, rest, _ := strings.Cut(text, ":")
	place, err := ParseEffectPlace(rest)
	if err != nil || !slices.Contains(EffectStates(), ledger.State(state)) {
		return nil, fmt.Errorf("cursor is %q, want what the page before gave as next", text)
	}
	return &ledger.Place{State: ledger.State(state), Lane: place.Lane, Offset: place.Offset}, nil
}

// effectsPage is a page of a list.
type effectsPage struct {
	Effects []ListedEffect `json:"effects"`
	Next    string         `json:"next,omitempty"` // cursor of the next page; absent on the last
}

// List implements admin.Effects.
func (a effectsAPI) List(ctx context.Context, query url.Values) (any, error) {
	values, err := parameters(query, "state", "endpoint", "key", "older", "limit", "cursor")
	if err != nil {
		return nil, badRequest(err)
	}
	filter, filterErr := EffectQuery{State: values["state"], Endpoint: values["endpoint"], Key: values["key"], Older: values["older"]}.Filter("")
	limit, limitErr := parseLimit(values["limit"])
	after, cursorErr := parseCursor(values["cursor"])
	if after != nil && filter.State != "" && filter.State != after.State {
		cursorErr = fmt.Errorf("cursor is %q, which belongs to a list of another state", values["cursor"])
	}
	if err := errors.Join(filterErr, limitErr, cursorErr); err != nil {
		return nil, badRequest(err)
	}
	filter.Limit, filter.After = limit+1, after // one more, to see whether there are
	found, err := a.store.List(ctx, filter)
	if err != nil {
		return nil, err
	}
	page := effectsPage{Effects: []ListedEffect{}}
	for i := range found {
		if i == limit {
			last := &found[i-1]
			page.Next = string(last.State) + ":" + placeOf(&last.Intent).String()
			break
		}
		page.Effects = append(page.Effects, ListEffect(&found[i]))
	}
	return page, nil
}

func (a effectsAPI) find(ctx context.Context, text string) (ledger.Effect, error) {
	place, err := ParseEffectPlace(text)
	if err != nil {
		return ledger.Effect{}, badRequest(err)
	}
	effect, err := a.store.Show(ctx, place.Lane, place.Offset)
	if errors.Is(err, ledger.ErrNoEffect) {
		err = &admin.Problem{Status: http.StatusNotFound, Detail: err.Error()}
	}
	return effect, err
}

// Show implements admin.Effects.
func (a effectsAPI) Show(ctx context.Context, text string, contents bool) (any, error) {
	effect, err := a.find(ctx, text)
	if err != nil {
		return nil, err
	}
	audit, err := a.store.AuditOf(ctx, effect.Intent.Lane, effect.Intent.Offset)
	if err != nil {
		return nil, err
	}
	shown := ShowEffect(&effect, audit)
	if !contents {
		shown.hideContents()
	}
	return shown, nil
}

// Order implements admin.Effects.
func (a effectsAPI) Order(ctx context.Context, text, action string, order admin.Order) (any, error) {
	effect, err := a.find(ctx, text)
	if err != nil {
		return nil, err
	}
	orders := PlanOrders(outbox.Action(action), []ledger.Effect{effect}, order.Actor, order.Reason)
	for _, refused := range orders.Refused {
		return nil, &admin.Problem{Status: http.StatusConflict, Detail: fmt.Sprintf(
			"effect %s is %s, and one can %s what is %s", refused.Effect, refused.State, action, StateNames(FitsOrder(outbox.Action(action))))}
	}
	if err := orders.Give(ctx, a.store); err != nil {
		return nil, err
	}
	return orders, nil
}

// Audit implements admin.Effects.
func (a effectsAPI) Audit(ctx context.Context, query url.Values) (any, error) {
	values, err := parameters(query, "since", "actor", "limit")
	if err != nil {
		return nil, badRequest(err)
	}
	filter := outbox.AuditFilter{Actor: values["actor"]}
	var sinceErr, limitErr error
	if values["since"] != "" {
		if filter.Since, sinceErr = ParseMoment(values["since"], time.Now()); sinceErr != nil {
			sinceErr = fmt.Errorf("since %w", sinceErr)
		}
	}
	filter.Limit, limitErr = parseLimit(values["limit"])
	if err := errors.Join(sinceErr, limitErr); err != nil {
		return nil, badRequest(err)
	}
	audit, err := a.store.Audit(ctx, filter)
	if err != nil {
		return nil, err
	}
	return ListAudit(audit), nil
}
