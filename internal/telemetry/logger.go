package telemetry

import (
	"fmt"
	"io"
	"log/slog"
)

// The formats of a log.
const (
	FormatJSON = "json" // one object a line
	FormatText = "text" // key=value, for people
)

// NewLogger makes the logger of a process. level is debug, info, warn or error; the returned
// variable changes it while the process runs.
func NewLogger(w io.Writer, level, format string) (*slog.Logger, *slog.LevelVar, error) {
	threshold := &slog.LevelVar{}
	if err := threshold.UnmarshalText([]byte(level)); err != nil {
		return nil, nil, fmt.Errorf("log level %q, want debug, info, warn or error: %w", level, err)
	}
	options := &slog.HandlerOptions{Level: threshold}
	switch format {
	case FormatJSON:
		return slog.New(slog.NewJSONHandler(w, options)), threshold, nil
	case FormatText:
		return slog.New(slog.NewTextHandler(w, options)), threshold, nil
	default:
		return nil, nil, fmt.Errorf("log format %q, want %s or %s", format, FormatJSON, FormatText)
	}
}
