package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

const actorRuneMax = 100

// Effects is the effect ledger as an operator sees it. All of it needs the token, because keys and errors
// are somebody's data. What it returns is answered as JSON. An error that is a *Problem is answered as it is;
// any other one means that the ledger cannot be asked now.
type Effects interface {
	// List answers for the query parameters of the request.
	List(ctx context.Context, query url.Values) (any, error)
	// Show tells all about one effect; of what was sent and answered only the sizes, unless contents are asked for.
	Show(ctx context.Context, effect string, contents bool) (any, error)
	// Order orders one of the actions and leaves what an auditor asks for. action is retry or cancel.
	Order(ctx context.Context, effect, action string, order Order) (any, error)
	// Audit answers for the query parameters of the request what was ordered.
	Audit(ctx context.Context, query url.Values) (any, error)
}

// Order is an operator's wish.
type Order struct {
	Reason string `json:"reason"` // never empty
	// Actor is who gives the order, by his own word: everybody has the same token. The address that the request
	// came from is added.
	Actor string `json:"actor"`
}

// Problem is an error that is answered with a status of its own.
type Problem struct {
	Status int
	Detail string // for the client: one sentence, without secrets
}

func (p *Problem) Error() string { return p.Detail }

func (o *Order) validate() error {
	if err := validateReason(&o.Reason); err != nil {
		return err
	}
	o.Actor = strings.TrimSpace(o.Actor)
	if utf8.RuneCountInString(o.Actor) > actorRuneMax || !utf8.ValidString(o.Actor) || strings.ContainsFunc(o.Actor, unicode.IsControl) {
		return fmt.Errorf("actor is no name of at most %d characters", actorRuneMax)
	}
	return nil
}

// routeEffects serves the ledger, or says that there is none.
func (s *Server) routeEffects(mux *http.ServeMux) {
	ledger := newAsked("the ledger")
	ledger.away = "effects wait on their topic; `processor migrate status` says why its database cannot be had"
	if s.config.Effects == nil {
		ledger.missing = "this process has no effect ledger: ask one that has postgres.dsn_file or PROCESSOR_POSTGRES_DSN"
	}
	handle := func(pattern string, answer answer) { s.routeAsked(mux, ledger, pattern, answer) }
	handle("GET /api/v1/effects", func(ctx context.Context, _ http.ResponseWriter, r *http.Request) (int, any, error) {
		value, err := s.config.Effects.List(ctx, r.URL.Query())
		return http.StatusOK, value, err
	})
	handle("GET /api/v1/effects/{effect}", s.showEffect)
	handle("POST /api/v1/effects/{effect}/{action}", s.orderEffect)
	handle("GET /api/v1/audit", func(ctx context.Context, _ http.ResponseWriter, r *http.Request) (int, any, error) {
		value, err := s.config.Effects.Audit(ctx, r.URL.Query())
		return http.StatusOK, value, err
	})
}

func (s *Server) showEffect(ctx context.Context, _ http.ResponseWriter, r *http.Request) (int, any, error) {
	contents, err := s.contentsAsked(r, "processor effects show")
	if err != nil {
		return 0, nil, err
	}
	value, err := s.config.Effects.Show(ctx, r.PathValue("effect"), contents)
	if err == nil && contents {
		s.config.Log.LogAttrs(ctx, slog.LevelInfo, "contents of an effect were shown", slog.String("effect", r.PathValue("effect")), slog.String("remote", r.RemoteAddr))
	}
	return http.StatusOK, value, err
}

func (s *Server) orderEffect(ctx context.Context, w http.ResponseWriter, r *http.Request) (int, any, error) {
	effect, action := r.PathValue("effect"), r.PathValue("action")
	if action != "retry" && action != "cancel" {
		return 0, nil, &Problem{http.StatusNotFound, "there is nothing at " + r.URL.Path + ", an effect takes retry and cancel"}
	}
	var order Order
	if code, err := readJSON(w, r, &order); err != nil {
		return 0, nil, &Problem{code, err.Error()}
	}
	if err := order.validate(); err != nil {
		return 0, nil, &Problem{http.StatusUnprocessableEntity, err.Error()}
	}
	order.Actor = order.from(r)
	value, err := s.config.Effects.Order(ctx, effect, action, order)
	s.audit(ctx, r.RemoteAddr, err, slog.String("action", action), slog.String("effect", effect), slog.String("reason", order.Reason), slog.String("actor", order.Actor))
	return http.StatusAccepted, value, err
}
