package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const (
	askedTimeout  = 10 * time.Second
	askedAtOnce   = 2   // the work needs the connections more than its readers do
	askedPatience = "2" // seconds, told to whom is turned away
)

// asked is what requests ask beside the process itself: a database, brokers.
type asked struct {
	name    string // with its article
	missing string // why it is not there; empty where it is
	away    string // what to know and do while it does not answer
	turns   chan struct{}
}

func newAsked(name string) *asked { return &asked{name: name, turns: make(chan struct{}, askedAtOnce)} }

// answer makes the answer to a request, or says why there is none. An error that is a *Problem is answered as it is; any
// other one means that what was asked does not answer now.
type answer func(ctx context.Context, w http.ResponseWriter, r *http.Request) (code int, value any, err error)

// routeAsked serves requests behind the token, few at a time and each within a time.
func (s *Server) routeAsked(mux *http.ServeMux, of *asked, pattern string, answer answer) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if !s.authorised(w, r) {
			return
		}
		if of.missing != "" {
			writeProblem(w, http.StatusNotFound, of.missing)
			return
		}
		select {
		case of.turns <- struct{}{}:
			defer func() { <-of.turns }()
		default:
			w.Header().Set("Retry-After", askedPatience)
			writeProblem(w, http.StatusServiceUnavailable, fmt.Sprintf("%d questions to %s are being answered: ask again", askedAtOnce, of.name))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), askedTimeout)
		defer cancel()
		code, value, err := answer(ctx, w, r)
		if err == nil {
			writeJSON(w, code, value)
			return
		}
		problem, is := errors.AsType[*Problem](err)
		if !is {
			problem = &Problem{http.StatusServiceUnavailable, of.name + " cannot be asked: " + err.Error() + "; " + of.away}
		}
		writeProblem(w, problem.Status, problem.Detail)
	})
}

// contentsAsked tells whether a request asks for contents, which must be allowed; command shows them too.
func (s *Server) contentsAsked(r *http.Request, command string) (bool, error) {
	query := r.URL.Query()
	contents := query.Get("contents")
	query.Del("contents")
	switch {
	case len(query) > 0 || contents != "" && contents != "true" && contents != "false":
		return false, &Problem{http.StatusBadRequest, "the query takes contents=true and nothing else"}
	case contents == "true" && !s.config.Contents:
		return false, &Problem{http.StatusForbidden, "contents are not shown here: set admin.contents, or use `" + command + "`"}
	}
	return contents == "true", nil
}
