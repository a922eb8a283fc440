package kafka

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

// A broker may quote in a refusal what it was sent. What it says is shown, the token is not.
func TestTokenThatABrokerQuotesIsHidden(t *testing.T) {
	t.Parallel()
	const token = "opaque-token-5e1f"
	conf := Config{SASL: SASL{Mechanism: "OAUTHBEARER", TokenFile: write(t, "token", token+"\n")}}
	for name, err := range map[string]error{
		"by status":    fmt.Errorf("%w: nobody has the token %s", kerr.SaslAuthenticationFailed, token),
		"in challenge": &CredentialsError{Mechanism: "OAUTHBEARER", Err: errors.New("nobody has the token " + token)},
	} {
		detail, next := conf.explainCredentials(t.Context(), err)
		if !strings.Contains(detail, "nobody has the token ***") || strings.Contains(detail, token) || next == "" {
			t.Errorf("%s: %q, %q", name, detail, next)
		}
	}
}
