package app

import (
	"io"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"pawl/internal/redact"
	"pawl/internal/telemetry"
)

const (
	// censorAge is how long the texts to look for are remembered: their files may be replaced at any time.
	censorAge = time.Minute
	// censoredMin is the least length of a secret that is looked for in the log. A shorter one may be an ordinary word,
	// as the passwords of trials are.
	censoredMin = 12
)

// censor takes our secrets out of what others have written. Nothing of ours writes one, but a broker, a database or an
// endpoint may quote in an error what we sent, and errors are logged.
type censor struct {
	conf Config

	mu       sync.Mutex
	made     time.Time
	redactor *redact.Redactor
}

func (c *censor) current() *redact.Redactor {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.redactor != nil && time.Since(c.made) < censorAge {
		return c.redactor
	}
	var texts []string
	secrets, _ := c.conf.Secrets() // what can't be read can't be sent, nor quoted
	for _, secret := range append(secrets, telemetry.TracingSecrets(os.Getenv)...) {
		if utf8.RuneCountInString(secret) >= censoredMin {
			texts = append(texts, secret)
		}
	}
	c.redactor, c.made = redact.New(texts), time.Now()
	return c.redactor
}

// text is what may be shown.
func (c *censor) text(text string) string { return c.current().String(text) }

// writer passes on what is written in whole lines.
func (c *censor) writer(w io.Writer) io.Writer { return censored{c, w} }

type censored struct {
	*censor

	w io.Writer
}

func (c censored) Write(line []byte) (int, error) {
	if _, err := c.w.Write(c.current().Bytes(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}
