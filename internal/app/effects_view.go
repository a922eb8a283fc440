package app

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"pawl/internal/outbox"
	"pawl/internal/outbox/ledger"
)

// What follows is how effects look from outside: to the commands with -o json, and to the operations HTTP.
// Both show the same.

// EffectPlace names an effect: lane and offset, as result events and the header Pawl-Order have them.
type EffectPlace struct {
	Lane   int32
	Offset int64
}

// String gives 3:42.
func (p EffectPlace) String() string { return fmt.Sprintf("%d:%d", p.Lane, p.Offset) }

// ParseEffectPlace reads 3:42, and 3/42 as other positions are written.
func ParseEffectPlace(text string) (EffectPlace, error) {
	left, right, ok := strings.Cut(strings.Replace(text, "/", ":", 1), ":")
	lane, laneErr := strconv.ParseInt(left, 10, 32)
	offset, offsetErr := strconv.ParseInt(right, 10, 64)
	if !ok || laneErr != nil || offsetErr != nil || lane < 0 || offset < 0 {
		return EffectPlace{}, fmt.Errorf("effect %q: want lane:offset such as 3:42, as ls shows it", text)
	}
	return EffectPlace{int32(lane), offset}, nil
}

func placeOf(intent *outbox.Intent) EffectPlace { return EffectPlace{intent.Lane, intent.Offset} }

// What a parked effect waits for.
const (
	WaitsTime     = "time"
	WaitsKey      = "key"      // the one before it with the same key
	WaitsOperator = "operator" // the one before it with the same key is dead
)

// ListedEffect is an effect without its contents.
type ListedEffect struct {
	Effect      string    `json:"effect"` // lane:offset in the effects topic
	ID          string    `json:"id"`     // the Idempotency-Key
	State       string    `json:"state"`
	Endpoint    string    `json:"endpoint"`
	Key         []byte    `json:"key"` // order key
	BusinessKey string    `json:"business_key,omitempty"`
	Source      string    `json:"source"`
	Committed   time.Time `json:"committed"`
	Attempts    int       `json:"attempts"`
	HTTPStatus  int       `json:"http_status,omitempty"`
	Waits       string    `json:"waits,omitempty"`        // of a parked one: for time, key or operator
	NextSeconds float64   `json:"next_seconds,omitempty"` // of one that waits for its time
	Error       string    `json:"error,omitempty"`
}

// ListEffect shows an effect as one of many.
func ListEffect(e *ledger.Effect) ListedEffect {
	listed := ListedEffect{
		Effect: placeOf(&e.Intent).String(), ID: e.Intent.ID.String(), State: string(e.State),
		Endpoint: e.Intent.Endpoint, Key: e.Intent.Key, BusinessKey: e.Intent.BusinessKey, Source: e.Intent.Source.String(),
		Committed: e.Intent.At.UTC(), Attempts: e.Attempts, HTTPStatus: e.Status, Error: e.Error,
	}
	if e.State == ledger.Waiting {
		listed.NextSeconds = e.Next.Seconds()
		switch e.Role {
		case outbox.Retry:
			listed.Waits = WaitsTime
		case outbox.Follower:
			listed.Waits = WaitsKey
		case outbox.Held:
			listed.Waits = WaitsOperator
		}
	}
	return listed
}

// ShownEffect is an effect with its contents, exact: bytes are base64 in JSON.
type ShownEffect struct {
	ListedEffect
	Class       string         `json:"class"`
	Trace       string         `json:"traceparent,omitempty"`
	TraceState  string         `json:"tracestate,omitempty"`
	First       string         `json:"first,omitempty"` // the first effect with this business key
	ContentType string         `json:"content_type"`
	BodyBytes   int            `json:"body_bytes"`
	Body        []byte         `json:"body,omitempty"`
	Response    *ShownResponse `json:"response,omitempty"`
	History     []ShownAttempt `json:"history"` // attempts that failed, and the last of several
	Audit       []AuditedOrder `json:"audit"`   // what operators ordered, oldest first
}

// ShownResponse is what is kept of the last answer.
type ShownResponse struct {
	ContentType string `json:"content_type"`
	BodyBytes   int    `json:"body_bytes"`
	Body        []byte `json:"body,omitempty"`
	Truncated   bool   `json:"truncated"`
}

// ShownAttempt is one call.
type ShownAttempt struct {
	Attempt    int       `json:"attempt"`
	Time       time.Time `json:"time"`
	HTTPStatus int       `json:"http_status,omitempty"`
	Error      string    `json:"error,omitempty"`
}

// ShowEffect shows all of an effect, with what was ordered about it.
func ShowEffect(e *ledger.Effect, audit []outbox.Audit) ShownEffect {
	shown := ShownEffect{
		ListedEffect: ListEffect(e), Class: string(e.Intent.Class), Trace: e.Intent.Trace, TraceState: e.Intent.TraceState,
		ContentType: e.Intent.ContentType, BodyBytes: len(e.Intent.Body), Body: e.Intent.Body, History: []ShownAttempt{}, Audit: ListAudit(audit),
	}
	if twin := e.Intent.Twin; twin != nil {
		shown.First = EffectPlace{twin.Lane, twin.Offset}.String()
	}
	if e.Outcome != nil && e.Outcome.Response != nil {
		r := e.Outcome.Response
		shown.Response = &ShownResponse{r.ContentType, len(r.Body), r.Body, r.Truncated}
	}
	for _, a := range e.History {
		shown.History = append(shown.History, ShownAttempt{a.Number, a.At, a.Status, a.Error})
	}
	return shown
}

// hideContents leaves only the sizes of what was sent and answered.
func (s *ShownEffect) hideContents() {
	s.Body = nil
	if s.Response != nil {
		s.Response.Body = nil
	}
}

// AuditedOrder is an order as it is remembered.
type AuditedOrder struct {
	Number int64     `json:"number"`
	Effect string    `json:"effect"`
	Action string    `json:"action"`
	Time   time.Time `json:"time"`
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	Result string    `json:"result"`          // open, obeyed or late
	Ended  time.Time `json:"ended,omitzero"`  // when it was obeyed or found late
	Owner  string    `json:"owner,omitempty"` // the process that did
}

// ListAudit shows what operators ordered.
func ListAudit(audit []outbox.Audit) []AuditedOrder {
	orders := make([]AuditedOrder, 0, len(audit))
	for _, a := range audit {
		orders = append(orders, AuditedOrder{
			Number: a.Order.Number, Effect: EffectPlace{a.Order.Lane, a.Order.Offset}.String(), Action: string(a.Order.Action),
			Time: a.At, Actor: a.Actor, Reason: a.Order.Reason, Result: string(a.Result), Ended: a.Ended, Owner: a.Owner,
		})
	}
	return orders
}
