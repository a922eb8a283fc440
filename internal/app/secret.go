package app

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

const hidden = "***"

// Secret is text that is never printed. Only Reveal gives it away. The text stands behind a pointer
// because package fmt cannot call the methods of a Secret in somebody's unexported field: it prints
// the fields then, and of a pointer the address.
type Secret struct{ text *string }

// NewSecret hides a text.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal returns the text. Call it where the secret is used and nowhere else.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero tells an absent secret from a hidden one.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// Equal compares the texts.
func (s Secret) Equal(other Secret) bool { return s.Reveal() == other.Reveal() }

// String gives ***, or nothing where there is no secret to hide.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return hidden
}

// GoString serves %#v.
func (s Secret) GoString() string { return s.String() }

// Format serves every verb of package fmt, also those that would go through the fields.
func (s Secret) Format(state fmt.State, _ rune) { _, _ = io.WriteString(state, s.String()) }

// MarshalText serves encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON serves encoding/json.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// MarshalYAML serves the YAML encoder.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// LogValue serves slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// UnmarshalText takes the secret in.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}

// secretBytesMax bounds a secret's file: anything larger is the wrong file.
const secretBytesMax = 64 << 10

// ConnString returns the connection string of the database, from the file where one is named. Read it
// anew for every new pool: the file may have been replaced since.
func (p Postgres) ConnString() (Secret, error) {
	if p.DSNFile == "" {
		return p.DSN, nil
	}
	secret, err := readSecretFile(p.DSNFile)
	if err != nil {
		return Secret{}, fmt.Errorf("read postgres.dsn_file: %w", err)
	}
	return NewSecret(secret), nil
}

// readSecretFile reads a file that holds a secret.
func readSecretFile(name string) (string, error) {
	file, err := os.Open(name) //nolint:gosec // the operator names it
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(file, secretBytesMax+1))
	if err := errors.Join(err, file.Close()); err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(text), "\r\n") // an editor's, not the secret's
	if secret == "" || len(secret) > secretBytesMax {
		return "", fmt.Errorf("%s holds %d bytes, want 1 to %d", name, len(text), secretBytesMax)
	}
	return secret, nil
}
