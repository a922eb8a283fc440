package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const pausesTimeout = 15 * time.Second

// Pauses are the orders to leave input or endpoints alone for a while. An error that is a *Problem is answered as it is.
type Pauses interface {
	// List returns what is in force, as JSON. It needs no token: whoever sees that nothing moves is to see why.
	List(ctx context.Context) (any, error)
	// Order gives an order for all processes: pause, hold or resume.
	Order(ctx context.Context, action string, order PauseOrder) (any, error)
}

// PauseOrder is an operator's wish about a target.
type PauseOrder struct {
	Target string `json:"target"`
	For    string `json:"for"`    // after which it ends by itself, such as 30m; empty: it stays until it is resumed
	Expect string `json:"expect"` // how long it is expected to last where it does not end by itself
	Reason string `json:"reason"`
	Actor  string `json:"actor"`
}

func (s *Server) routePauses(mux *http.ServeMux) {
	if s.config.Pauses == nil {
		return
	}
	mux.HandleFunc("GET /api/v1/pauses", func(w http.ResponseWriter, r *http.Request) {
		value, err := s.config.Pauses.List(r.Context())
		if err != nil {
			writeProblem(w, http.StatusServiceUnavailable, "what is paused cannot be had: "+err.Error())
			return
		}
		writeJSON(w, http.StatusOK, value)
	})
	for _, action := range []string{"pause", "hold", "resume"} {
		mux.HandleFunc("POST /api/v1/"+action, func(w http.ResponseWriter, r *http.Request) { s.orderPause(w, r, action) })
	}
}

func (s *Server) orderPause(w http.ResponseWriter, r *http.Request, action string) {
	if !s.authorised(w, r) {
		return
	}
	var order PauseOrder
	if code, err := readJSON(w, r, &order); err != nil {
		writeProblem(w, code, err.Error())
		return
	}
	who := Order{Reason: order.Reason, Actor: order.Actor}
	if err := who.validate(); err != nil {
		writeProblem(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	order.Reason, order.Actor = who.Reason, who.from(r)
	ctx, cancel := context.WithTimeout(r.Context(), pausesTimeout)
	defer cancel()
	value, err := s.config.Pauses.Order(ctx, action, order)
	s.audit(r.Context(), r.RemoteAddr, err, slog.String("action", action), slog.String("target", order.Target), slog.String("for", order.For),
		slog.String("reason", order.Reason), slog.String("actor", order.Actor))
	if err == nil {
		writeJSON(w, http.StatusAccepted, value)
		return
	}
	problem, is := errors.AsType[*Problem](err)
	if !is {
		problem = &Problem{http.StatusServiceUnavailable, "the order cannot be given: " + err.Error()}
	}
	writeProblem(w, problem.Status, problem.Detail)
}

// from names who gives an order: his own word, and the address that the request came from.
func (o Order) from(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	if o.Actor == "" {
		o.Actor = "api"
	}
	return o.Actor + "@" + host
}
