package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// logRepeatInterval is how long one message of the client library stays quiet after it was
	// written: with a broker down, every lane says so several times a second.
	logRepeatInterval = 10 * time.Second
	logDistinctMax    = 256
)

// logger passes the client library's warnings and errors to slog. Below WARN the library writes
// several lines per transaction. It never logs what is inside a request, so no secret passes here.
type logger struct {
	log *slog.Logger

	mu   sync.Mutex
	seen map[string]repeat
}

type repeat struct {
	written time.Time
	held    int // since written
}

var _ kgo.Logger = (*logger)(nil)

func newLogger(log *slog.Logger) *logger {
	return &logger{log: log, seen: make(map[string]repeat)}
}

// Level implements kgo.Logger.
func (l *logger) Level() kgo.LogLevel {
	switch {
	case l.log.Enabled(context.Background(), slog.LevelWarn):
		return kgo.LogLevelWarn
	case l.log.Enabled(context.Background(), slog.LevelError):
		return kgo.LogLevelError
	default:
		return kgo.LogLevelNone
	}
}

// Log implements kgo.Logger.
func (l *logger) Log(level kgo.LogLevel, text string, keyvals ...any) {
	attrs := make([]slog.Attr, 0, 2+len(keyvals)/2)
	attrs = append(attrs, slog.String("event", text))
	var key strings.Builder // what makes two messages the same
	key.WriteString(text)
	for i := 0; i+1 < len(keyvals); i += 2 {
		name, value := fmt.Sprint(keyvals[i]), keyvals[i+1]
		attrs = append(attrs, slog.Any(name, value))
		switch name {
		case "broker", "topic", "partition":
			fmt.Fprint(&key, "\x00", value)
		case "err":
			fmt.Fprint(&key, "\x00", cause(value))
		}
	}
	held, ok := l.admit(key.String(), time.Now())
	if !ok {
		return
	}
	if held > 0 {
		attrs = append(attrs, slog.Int("repeated", held))
	}
	severity := slog.LevelWarn
	if level == kgo.LogLevelError {
		severity = slog.LevelError
	}
	l.log.LogAttrs(context.Background(), severity, "kafka client report", attrs...)
}

// admit says whether a message may be written now and how many like it were held back before it.
func (l *logger) admit(key string, now time.Time) (held int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, found := l.seen[key]
	if found && now.Sub(last.written) < logRepeatInterval {
		last.held++
		l.seen[key] = last
		return 0, false
	}
	if !found && len(l.seen) >= logDistinctMax {
		clear(l.seen) // at worst a few lines come twice
	}
	l.seen[key] = repeat{written: now}
	return last.held, true
}

// cause gives the innermost error, whose text carries no port that changes with every attempt.
func cause(value any) any {
	err, ok := value.(error)
	if !ok {
		return value
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err
}
