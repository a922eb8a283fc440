package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	bodyBytesMax  = 4 << 10
	reasonRuneMax = 200
)

// Drain is a request to stop taking work: finish and commit what is in hand, then rest.
type Drain struct {
	Leave  bool   `json:"leave"`  // also leave the consumer group, for a scale-down
	Reason string `json:"reason"` // for the audit; never empty
	Actor  string `json:"actor"`  // as in Order
}

func validateReason(reason *string) error {
	*reason = strings.TrimSpace(*reason)
	switch {
	case *reason == "":
		return errors.New("reason is empty: say why, the audit keeps it")
	case utf8.RuneCountInString(*reason) > reasonRuneMax:
		return fmt.Errorf("reason has more than %d characters", reasonRuneMax)
	case !utf8.ValidString(*reason) || strings.ContainsFunc(*reason, unicode.IsControl):
		return errors.New("reason holds control characters")
	}
	return nil
}

func (s *Server) drain(w http.ResponseWriter, r *http.Request) {
	if !s.authorised(w, r) {
		return
	}
	var request Drain
	if code, err := readJSON(w, r, &request); err != nil {
		writeProblem(w, code, err.Error())
		return
	}
	who := Order{Reason: request.Reason, Actor: request.Actor}
	if err := who.validate(); err != nil {
		writeProblem(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	request.Reason, request.Actor = who.Reason, who.from(r)
	err := s.config.Drain(r.Context(), request)
	s.audit(r.Context(), r.RemoteAddr, err, slog.String("action", "drain"), slog.Bool("leave", request.Leave), slog.String("reason", request.Reason), slog.String("actor", request.Actor))
	if err != nil {
		writeProblem(w, http.StatusConflict, "the drain cannot begin: "+err.Error())
		return
	}
	writeJSON(w, http.StatusAccepted, request)
}

// audit writes the log line of a change; err says that it was refused.
func (s *Server) audit(ctx context.Context, remote string, err error, attrs ...slog.Attr) {
	attrs = append(attrs, slog.String("remote", remote))
	if err != nil {
		s.config.Log.LogAttrs(ctx, slog.LevelWarn, "admin action refused", append(attrs, slog.Any("err", err))...)
		return
	}
	s.config.Log.LogAttrs(ctx, slog.LevelInfo, "admin action accepted", attrs...)
}

// readJSON reads exactly one JSON object of known fields; with an error comes the status to answer.
func readJSON(w http.ResponseWriter, r *http.Request, into any) (code int, err error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return http.StatusUnsupportedMediaType, errors.New("the body must be application/json")
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyBytesMax))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(into)
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return http.StatusRequestEntityTooLarge, fmt.Errorf("the body has more than %d bytes", bodyBytesMax)
	}
	if err != nil {
		return http.StatusBadRequest, fmt.Errorf("read body: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return http.StatusBadRequest, errors.New("read body: something follows the object")
	}
	return 0, nil
}
