package kafka

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"pawl/internal/redact"
)

// The mechanisms that SASL.Mechanism may name.
const (
	mechanismPlain       = "PLAIN"
	mechanismScramSHA256 = "SCRAM-SHA-256"
	mechanismScramSHA512 = "SCRAM-SHA-512"
	mechanismOAuthBearer = "OAUTHBEARER"
)

// secretBytesMax bounds a secret's file: anything larger is the wrong file.
const secretBytesMax = 64 << 10

// CredentialsError says that a broker or a secret's file gave us no way in. Trying again is of use
// only after somebody has changed something.
type CredentialsError struct {
	Mechanism string
	Err       error
}

func (e *CredentialsError) Error() string { return e.Mechanism + ": " + e.Err.Error() }

func (e *CredentialsError) Unwrap() error { return e.Err }

// mechanism is a SASL mechanism that passes the gate before every authentication and then reads
// its secret from the file.
type mechanism struct {
	sasl.Mechanism
	gate *gate
}

// newMechanism returns nil where no mechanism is configured. It reads the secret once, to report a
// file that cannot work, and forgets it.
func newMechanism(conf SASL, gate *gate) (*mechanism, error) {
	name := strings.ToUpper(conf.Mechanism)
	if name == "" {
		if conf.Username != "" || conf.PasswordFile != "" || conf.TokenFile != "" {
			return nil, errors.New("kafka.sasl has settings but kafka.sasl.mechanism is empty: set it to PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER")
		}
		return nil, nil //nolint:nilnil // no mechanism is a configuration like any other
	}
	inner, err := conf.inner(name)
	if err != nil {
		return nil, err
	}
	return &mechanism{Mechanism: inner, gate: gate}, nil
}

// next is what to do about a refusal.
func (s SASL) next() string {
	if strings.ToUpper(s.Mechanism) == mechanismOAuthBearer {
		return "check that whatever writes kafka.sasl.token_file is running, and the token's audience and issuer"
	}
	return fmt.Sprintf("check kafka.sasl.username and the password in %s (kafka.sasl.password_file): it is read again for every connection", s.PasswordFile)
}

func (s SASL) inner(name string) (sasl.Mechanism, error) {
	if name == mechanismOAuthBearer {
		if _, err := s.token(); err != nil {
			return nil, err
		}
		return oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			token, err := s.token()
			return oauth.Auth{Token: token, Extensions: s.Extensions}, err
		}), nil
	}
	var errs []error
	if s.Username == "" {
		errs = append(errs, fmt.Errorf("kafka.sasl.username is empty: %s needs one", name))
	}
	if _, err := s.password(); err != nil {
		errs = append(errs, err)
	}
	scrammed := func(context.Context) (scram.Auth, error) {
		password, err := s.password()
		return scram.Auth{User: s.Username, Pass: password}, err
	}
	var inner sasl.Mechanism
	switch name {
	case mechanismPlain:
		inner = plain.Plain(func(context.Context) (plain.Auth, error) {
			password, err := s.password()
			return plain.Auth{User: s.Username, Pass: password}, err
		})
	case mechanismScramSHA256:
		inner = scram.Sha256(scrammed)
	case mechanismScramSHA512:
		inner = scram.Sha512(scrammed)
	default:
		return nil, fmt.Errorf("kafka.sasl.mechanism is %q, want PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER", s.Mechanism)
	}
	return inner, errors.Join(errs...)
}

// Authenticate implements sasl.Mechanism. kgo calls it for every new connection and every
// re-authentication (KIP-368).
func (m *mechanism) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	if err := m.gate.wait(ctx); err != nil {
		return nil, nil, err
	}
	inner, first, err := m.Mechanism.Authenticate(ctx, host)
	if err != nil {
		return nil, nil, &CredentialsError{Mechanism: m.Name(), Err: err}
	}
	return &session{inner: inner, mechanism: m.Name()}, first, nil
}

// session gives a refusal inside the mechanism's own exchange the type of a refusal.
type session struct {
	inner     sasl.Session
	mechanism string
}

// Challenge implements sasl.Session.
func (s *session) Challenge(response []byte) (bool, []byte, error) {
	done, next, err := s.inner.Challenge(response)
	if err == nil {
		return done, next, nil
	}
	if s.mechanism == mechanismOAuthBearer && len(response) > 0 {
		// RFC 7628 section 3.2.2: a refused token is answered by a JSON document, which tells more
		// than the status that would follow.
		err = fmt.Errorf("the broker refuses the token: %s", clip(string(response)))
	}
	return done, next, &CredentialsError{Mechanism: s.mechanism, Err: err}
}

// hiddenMin is the least length of a secret that is looked for in what brokers say: anything shorter is there by chance.
const hiddenMin = 12

// hide takes our secret out of what a broker says, which may quote what we sent.
func (s SASL) hide(text string) string {
	var secrets []string
	for _, read := range []func() (string, error){s.password, s.token} {
		if secret, err := read(); err == nil && len(secret) >= hiddenMin { // what can't be read can't be sent, nor quoted
			secrets = append(secrets, secret)
		}
	}
	return redact.New(secrets).String(text)
}

func (s SASL) password() (string, error) {
	if s.PasswordFile == "" {
		return "", errors.New("kafka.sasl.password_file is empty: name the file that holds the password")
	}
	return readSecret("kafka.sasl.password_file", s.PasswordFile)
}

func (s SASL) token() (string, error) {
	if s.TokenFile == "" {
		return "", errors.New("kafka.sasl.token_file is empty: name the file that holds the bearer token")
	}
	token, err := readSecret("kafka.sasl.token_file", s.TokenFile)
	if err != nil {
		return "", err
	}
	if strings.ContainsAny(token, " \t\r\n\x01") {
		return "", fmt.Errorf("kafka.sasl.token_file: %s holds more than one token", s.TokenFile)
	}
	if end, ok := tokenEnd(token); ok && !time.Now().Before(end) {
		return "", fmt.Errorf("kafka.sasl.token_file: the token in %s expired at %s: whatever renews the file has stopped", s.TokenFile, end.UTC().Format(time.RFC3339))
	}
	return token, nil
}

// readSecret reads one secret. A newline at the end belongs to the editor, not to the secret;
// other white space is kept.
func readSecret(setting, file string) (string, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s: %w: correct the file's name, or mount it", setting, err)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", setting, err)
	}
	if info.Size() > secretBytesMax {
		return "", fmt.Errorf("%s: %s is %d bytes, which is no secret: want at most %d", setting, file, info.Size(), secretBytesMax)
	}
	text, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return "", fmt.Errorf("%s: %w", setting, err)
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if secret == "" {
		return "", fmt.Errorf("%s: %s is empty", setting, file)
	}
	return secret, nil
}

// tokenEnd reads the exp claim of a JSON Web Token (RFC 7519). An opaque token has none. The token
// is not verified here: that is the broker's work.
func tokenEnd(token string) (time.Time, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		End float64 `json:"exp"`
	}
	if err := json.Unmarshal(text, &claims); err != nil || claims.End <= 0 {
		return time.Time{}, false
	}
	return time.Unix(int64(claims.End), 0), true
}

// clip shortens text from the network for a message, and takes the control characters out of it.
func clip(text string) string {
	const clipMax = 200
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if len(text) > clipMax {
		text = strings.ToValidUTF8(text[:clipMax], "") + "..."
	}
	return text
}
