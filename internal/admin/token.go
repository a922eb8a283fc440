package admin

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	tokenBytesMax     = 4 << 10
	refusalLogMinimum = time.Second // between two lines about refused tokens
)

// authorised reports whether the request carries the token; where it does not, it has answered.
func (s *Server) authorised(w http.ResponseWriter, r *http.Request) bool {
	if s.config.TokenFile == "" {
		writeProblem(w, http.StatusForbidden,
			"this is refused because no token is configured: set admin.token_file (PROCESSOR_ADMIN_TOKEN_FILE) and restart")
		return false
	}
	want, err := readToken(s.config.TokenFile)
	if err != nil {
		s.config.Log.LogAttrs(r.Context(), slog.LevelError, "admin token cannot be read", slog.Any("err", err))
		writeProblem(w, http.StatusInternalServerError, "the configured token cannot be read; the log says why")
		return false
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") && equal([]byte(strings.TrimSpace(given)), want) {
		return true
	}
	if suppressed, ok := s.refusals.allow(); ok {
		s.config.Log.LogAttrs(r.Context(), slog.LevelWarn, "admin token refused",
			slog.String("path", r.URL.Path), slog.String("remote", r.RemoteAddr), slog.Int("suppressed", suppressed))
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="processor"`)
	writeProblem(w, http.StatusUnauthorized, "this needs the header Authorization: Bearer TOKEN with the token of admin.token_file")
	return false
}

// readToken reads the file at every use: changes are rare, and so a rotated token works at once,
// however it came there (written in place, renamed over, or swapped by a mounted secret's symlink).
func readToken(path string) ([]byte, error) {
	file, err := os.Open(path) //nolint:gosec // the operator's own path, from the configuration
	if err != nil {
		return nil, fmt.Errorf("read token: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(file, tokenBytesMax+1))
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("read token: %w", err)
	}
	if len(text) > tokenBytesMax {
		return nil, fmt.Errorf("read token: %s has more than %d bytes", path, tokenBytesMax)
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		// Without this, an empty file would open the door to an empty token.
		return nil, fmt.Errorf("read token: %s is empty", path)
	}
	return text, nil
}

// equal compares in a time that depends on neither the contents nor the lengths.
func equal(a, b []byte) bool {
	left, right := sha256.Sum256(a), sha256.Sum256(b)
	return subtle.ConstantTimeCompare(left[:], right[:]) == 1
}

// limiter keeps a stranger who guesses tokens from filling the log.
type limiter struct {
	mu         sync.Mutex
	last       time.Time
	suppressed int
}

// allow reports whether a line may be written now, and how many were not since the last one.
func (l *limiter) allow() (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.last) < refusalLogMinimum {
		l.suppressed++
		return 0, false
	}
	suppressed, l.suppressed, l.last = l.suppressed, 0, now
	return suppressed, true
}
