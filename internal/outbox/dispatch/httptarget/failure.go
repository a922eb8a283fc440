package httptarget

import (
	"context"
	"errors"
	"io"
	"net"
	"net/textproto"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"pawl/internal/outbox"
)

// failure is an error whose text is fit for the ledger, a log and a result event; the cause stays
// behind it for errors.Is.
type failure struct {
	text string
	err  error
}

func (f failure) Error() string { return f.text }

// Unwrap gives the cause. Its text may hold what an endpoint sent: print the failure instead.
func (f failure) Unwrap() error { return f.err }

// describe says why there is no answer. Most texts of net, net/http and crypto/tls are good, but some
// quote what the endpoint sent, which may be anything, our own payload included.
func describe(ctx context.Context, err error, sent bool) failure {
	var refused refusedError
	var lookup *net.DNSError
	var line textproto.ProtocolError
	var text string
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		text, err = "no answer in time", ctx.Err()
		if !sent {
			text = "no connection in time"
		}
	case ctx.Err() != nil:
		text, err = "the call was cancelled", ctx.Err()
	case errors.As(err, &refused):
		text = "address refused: " + refused.Error()
	case errors.As(err, &lookup):
		text = "look up host: " + lookup.Err
	case errors.As(err, &line):
		text = "the answer has a malformed header"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		text = "the endpoint reset the connection before it answered"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		text = "the endpoint closed the connection before it answered"
	default:
		text, _, _ = strings.Cut(err.Error(), `"`) // all of those packages quote with %q
	}
	return failure{text: oneLine(text, outbox.ErrorMax), err: err}
}

// oneLine makes text printable: valid UTF-8 without control characters, cut to so many bytes.
func oneLine(text string, bytesMax int) string {
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != utf8.RuneError {
			return r
		}
		return ' '
	}, text))
	if len(text) <= bytesMax {
		return text
	}
	for bytesMax > 0 && !utf8.RuneStart(text[bytesMax]) {
		bytesMax--
	}
	return text[:bytesMax]
}
