package admin

import (
	"context"
	"log/slog"
	"net/http"
)

// DeadLetters is the dead-letter topic as an operator sees it. All of it needs the token, because keys and errors are
// somebody's data. What it returns is answered as JSON. An error that is a *Problem is answered as it is.
type DeadLetters interface {
	// List tells of the newest ones, by reason. It reads a bounded part of the topic.
	List(ctx context.Context) (any, error)
	// Show tells all about one; of its value and headers only the sizes, unless contents are asked for.
	Show(ctx context.Context, letter string, contents bool) (any, error)
}

// routeLetters serves the dead letters, or says that they are not shown here.
func (s *Server) routeLetters(mux *http.ServeMux) {
	topic := newAsked("the dead-letter topic")
	topic.away = "`processor check --connect` says what brokers lack"
	if s.config.DeadLetters == nil {
		topic.missing = "this process shows no dead letters: use `processor dlq ls`"
	}
	s.routeAsked(mux, topic, "GET /api/v1/dead-letters", func(ctx context.Context, _ http.ResponseWriter, r *http.Request) (int, any, error) {
		if len(r.URL.Query()) > 0 {
			return 0, nil, &Problem{http.StatusBadRequest, "this takes no query: `processor dlq ls` can filter"}
		}
		value, err := s.config.DeadLetters.List(ctx)
		return http.StatusOK, value, err
	})
	s.routeAsked(mux, topic, "GET /api/v1/dead-letters/{partition}/{offset}", func(ctx context.Context, _ http.ResponseWriter, r *http.Request) (int, any, error) {
		letter := r.PathValue("partition") + "/" + r.PathValue("offset")
		contents, err := s.contentsAsked(r, "processor dlq show "+letter)
		if err != nil {
			return 0, nil, err
		}
		value, err := s.config.DeadLetters.Show(ctx, letter, contents)
		if err == nil && contents {
			s.config.Log.LogAttrs(ctx, slog.LevelInfo, "contents of a dead letter were shown", slog.String("letter", letter), slog.String("remote", r.RemoteAddr))
		}
		return http.StatusOK, value, err
	})
}
