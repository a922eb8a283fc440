package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger"
)

// EffectStates are the states that effects are selected by.
func EffectStates() []ledger.State {
	return []ledger.State{
		ledger.Pending, ledger.Inflight, ledger.Waiting, ledger.Dead, ledger.Unknown, ledger.Conflict, ledger.Done, ledger.Duplicate,
	}
}

// StateNames joins the names of states.
func StateNames(states []ledger.State) string {
	names := make([]string, len(states))
	for i, state := range states {
		names[i] = string(state)
	}
	return strings.Join(names, ", ")
}

// EffectQuery selects effects by what an operator has written. Empty does not restrict.
type EffectQuery struct {
	State, Endpoint, Key string
	Older                string // since the effect was committed
}

// Filter reads the query. The error names fields by their lower-case names behind the prefix, all that are wrong
// at once.
func (q EffectQuery) Filter(prefix string) (ledger.Filter, error) {
	filter := ledger.Filter{State: ledger.State(q.State), Endpoint: q.Endpoint}
	var errs []error
	if q.State != "" && !slices.Contains(EffectStates(), filter.State) {
		errs = append(errs, fmt.Errorf("%sstate is %q, want one of %s", prefix, q.State, StateNames(EffectStates())))
	}
	if q.Key != "" {
		filter.Key = []byte(q.Key)
	}
	if q.Older != "" {
		var least Duration
		if err := least.UnmarshalText([]byte(q.Older)); err != nil || least < 0 {
			errs = append(errs, fmt.Errorf("%solder is %q, want a time such as 10m or 2d", prefix, q.Older))
		}
		filter.AgeMin = least.Std()
	}
	return filter, errors.Join(errs...)
}

// FitsOrder tells what states an order makes sense for.
func FitsOrder(action outbox.Action) []ledger.State {
	switch action {
	case outbox.RetryNow:
		return []ledger.State{ledger.Dead, ledger.Unknown, ledger.Waiting}
	case outbox.Cancel:
		return []ledger.State{ledger.Pending, ledger.Waiting, ledger.Dead}
	default:
		return nil
	}
}

// Ordered is a change of effects: what it is to be, then what was ordered of it.
type Ordered struct {
	Action  string          `json:"action"` // retry or cancel
	DryRun  bool            `json:"dry_run"`
	Reason  string          `json:"reason"`
	Actor   string          `json:"actor"`
	Effects []string        `json:"effects"` // ordered, or under dry_run: would be
	Refused []RefusedEffect `json:"refused"`

	places []EffectPlace
}

// RefusedEffect is in a state that the order makes no sense for.
type RefusedEffect struct {
	Effect string `json:"effect"`
	State  string `json:"state"`
}

// PlanOrders sorts out which effects an order fits. Nothing is ordered yet.
func PlanOrders(action outbox.Action, effects []ledger.Effect, actor, reason string) Ordered {
	plan := Ordered{Action: string(action), DryRun: true, Reason: reason, Actor: actor, Effects: []string{}, Refused: []RefusedEffect{}}
	for i := range effects {
		e := &effects[i]
		place := placeOf(&e.Intent)
		if !slices.Contains(FitsOrder(action), e.State) {
			plan.Refused = append(plan.Refused, RefusedEffect{place.String(), string(e.State)})
			continue
		}
		plan.places = append(plan.places, place)
		plan.Effects = append(plan.Effects, place.String())
	}
	return plan
}

// Give orders what is planned. With an error, Effects are those that were ordered before it.
func (o *Ordered) Give(ctx context.Context, store interface {
	Order(ctx context.Context, order outbox.Order, actor string) error
},
) error {
	o.DryRun, o.Effects = false, o.Effects[:0]
	for _, place := range o.places {
		order := outbox.Order{Lane: place.Lane, Offset: place.Offset, Action: outbox.Action(o.Action), Reason: o.Reason}
		if err := store.Order(ctx, order, o.Actor); err != nil {
			return err
		}
		o.Effects = append(o.Effects, place.String())
	}
	return nil
}
