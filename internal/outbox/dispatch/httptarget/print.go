package httptarget

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// String gives the address without its query, and the names of the headers.
func (c Config) String() string {
	where, err := parseURL(c.URL, true)
	if err != nil {
		return "POST to no valid URL"
	}
	names := slices.AppendSeq(slices.Collect(maps.Keys(c.Headers)), maps.Keys(c.HeaderFiles))
	slices.Sort(names)
	return fmt.Sprintf("POST %s://%s%s [%s]", where.Scheme, where.Host, where.EscapedPath(), strings.Join(names, " "))
}

// Format serves every verb of package fmt, also those that would go through the fields.
func (c Config) Format(state fmt.State, _ rune) { _, _ = io.WriteString(state, c.String()) }

// LogValue serves slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText serves encoders.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Format serves every verb of package fmt.
func (t *Target) Format(state fmt.State, verb rune) { t.conf.Format(state, verb) }

// LogValue serves slog.
func (t *Target) LogValue() slog.Value { return t.conf.LogValue() }
