// Package httptarget makes the calls of the effect ledger over HTTP: one POST per attempt, the same
// bytes and the same key on each.
//
// # What goes out
//
// The body is the intent's, byte for byte. Headers: Idempotency-Key (the intent's id), Pawl-Attempt,
// Pawl-Fence (epoch of the tenure: a receiver that remembers the highest one can refuse a paused
// sender), Pawl-Order (lane:offset), traceparent where the input had a well-formed one and then its tracestate, Content-Type,
// the configured headers, and where secrets are configured the three headers of Standard Webhooks.
//
// # What may happen to it on the way
//
// Redirects are answers like any other and are never followed: the operator has named this URL and no
// other. No proxy is taken from the environment: behind one, the address that is checked would not be
// the address that is called. The address is checked at every dial, after the name was resolved, so
// that a name which changes its mind gains nothing (see Config.AllowPrivate).
//
// # Why not net/http's Transport
//
// A connection that breaks under a call leaves open whether the call was made. The Transport then sends
// it again by itself where it deems that right, and doesn't say whether anything of a failed call was
// written. Both decide here what may be done next, so the connections are our own, and of net/http only
// the reader of answers is in use, for those that are not plain (see conn.plain). It's also cheaper by more
// than half: nothing stands between a call and its connection.
//
// A call of the class at-least-once takes a connection that was used before, if there is one. Where that
// breaks before the first byte of an answer, the call is made once more, at once and on a new connection:
// endpoints close connections whenever they like, and that says nothing about them. It is told in
// Answer.Replays. A call of the class at-most-once has a new connection for itself and is never made
// twice. It pays with a dial for each call.
//
// HTTP/1.1 is what is spoken, and the only thing that TLS offers. In HTTP/2, calls would share a
// connection's fate and its flow control, and which of them a broken one has carried is a matter of
// stream numbers that arrive too late. Receivers of such calls speak HTTP/1.1 as well.
package httptarget

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"pawl/internal/outbox"
)

// Config says where calls go and what goes with them. It may hold credentials: packages fmt and slog
// print its address and the names of its headers and nothing else, unless it stands in somebody's
// unexported field, where they cannot call its methods.
type Config struct {
	// URL is where to POST to, http or https, without user and fragment. Only errors of New and Config's
	// own text show it, never with its query.
	URL string

	// Headers are sent with every call. Their values count as secrets. Names that Pawl writes itself, or
	// that belong to the connection, are refused.
	Headers map[string]string

	// HeaderFiles name, for more headers, the file that holds the value: one line, with the space at its
	// ends left out. Like the files below, they are read again when they change.
	HeaderFiles map[string]string

	// SecretFiles name up to two files, each with a signing secret in the form of Standard Webhooks:
	// whsec_ and 24 to 64 bytes in base64. With two, every call carries both signatures, so that a
	// receiver can change from one to the other. A file that changes is read again within a second. While
	// it cannot be read or is no secret, the last good one stays in use.
	SecretFiles []string

	// AllowPrivate permits addresses that the internet doesn't route: loopback, private, link-local,
	// carrier-grade NAT, multicast, reserved and cloud metadata ones, also within IPv6. Without it they
	// are refused at each dial, after the name was resolved; a URL whose host is such an address, or
	// localhost, is refused by New. An endpoint inside one's own network needs it.
	AllowPrivate bool

	// Concurrency is how many calls are made at once, and so many connections are open at most. Calls
	// beyond it wait. A connection is kept for reuse, except that of a call of the class at-most-once,
	// and replaced when it is a minute old.
	Concurrency int

	Hooks Hooks
}

// ConcurrencyMax bounds Config.Concurrency.
const ConcurrencyMax = 10_000

// Hooks are told what nobody asked for. They are called from within Send: be brief.
type Hooks struct {
	// Secret is called when a secret file has changed: with nil when the new secret is in use, otherwise
	// with the reason why the old one stays, each time it's another reason.
	Secret func(file string, err error)
}

const (
	dialTimeout   = 10 * time.Second      // of a connection, and again of its TLS handshake; the call's own limit may be shorter
	idleTimeout   = 30 * time.Second      // below what receivers and balancers allow, so that we close first
	rotatePeriod  = time.Minute           // no connection begins a call at a greater age, so that a moved name is noticed
	sendGrace     = 50 * time.Millisecond // for the rest of a request that the answer was faster than
	headersMax    = 64 << 10              // bytes of an answer's headers
	inlineMax     = 16 << 10              // bytes of a body that go out in one piece with the head
	drainMax      = 256 << 10             // bytes of an answer that are read and dropped to keep its connection
	contentMax    = 200                   // bytes of an answer's content type that are kept
	retryAfterMax = 30 * 24 * time.Hour
)

// Target makes calls to one URL. It is safe for concurrent use.
type Target struct {
	conf     Config
	preamble []byte   // of every request
	secrets  *secrets // nil where none are configured
	pool     pool

	fileHeaders *fileHeaders // nil where none are configured

	requests sync.Pool // of *[]byte, space for a request
	spaces   sync.Pool // of *space
}

// New checks the configuration, reads the secrets, and connects nowhere. Every problem is reported at
// once.
func New(conf Config) (*Target, error) {
	t := &Target{
		conf:     conf,
		requests: sync.Pool{New: func() any { return new([]byte) }},
		spaces:   sync.Pool{New: func() any { return new(space) }},
	}
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	where, err := parseURL(conf.URL, conf.AllowPrivate)
	note(err)
	headers, err := checkHeaders(conf.Headers)
	note(err)
	if conf.Concurrency < 1 || conf.Concurrency > ConcurrencyMax {
		note(fmt.Errorf("concurrency is %d, want 1 to %d", conf.Concurrency, ConcurrencyMax))
	}
	if len(conf.HeaderFiles) > 0 {
		t.fileHeaders, err = openHeaders(conf.HeaderFiles, headers, conf.Hooks.Secret)
		note(err)
	}
	if len(conf.SecretFiles) > 0 {
		t.secrets, err = openSecrets(conf.SecretFiles, conf.Hooks.Secret)
		note(err)
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("HTTP target: %w", errors.Join(errs...))
	}
	t.preamble = preamble(where, headers, t.fileHeaders)
	t.pool.init(where, conf)
	return t, nil
}

// parseURL never quotes the text: it may hold credentials.
func parseURL(text string, allowPrivate bool) (*url.URL, error) {
	where, err := url.Parse(text)
	switch {
	case err != nil || where.Hostname() == "" || where.Scheme != "http" && where.Scheme != "https":
		return nil, errors.New("the URL is not of the form http://host/path or https://host/path")
	case where.User != nil:
		return nil, errors.New("the URL has a user in it, which would be logged along the way: use a header")
	case where.Fragment != "":
		return nil, errors.New("the URL has a fragment (#), which is never sent: leave it out")
	case !validHost(where.Hostname()):
		return nil, errors.New("the URL's host is no address and has a character that no host name on the wire has: write an international name in its form for DNS (xn--)")
	case strings.ContainsRune(where.RawQuery, ' '):
		return nil, errors.New("the URL's query has a space in it, at which the request's line would end: write %20")
	case allowPrivate:
		return where, nil
	}
	host := strings.TrimSuffix(strings.ToLower(where.Hostname()), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return nil, errors.New("the URL's host is this machine: allow private addresses for this endpoint, or name another host")
	}
	if address, err := netip.ParseAddr(host); err == nil {
		if err := refusePrivate(address); err != nil {
			return nil, fmt.Errorf("the URL's host: %w", err)
		}
	}
	return where, nil
}

// validHost tells what may stand in a Host header and be asked of DNS.
func validHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return !strings.ContainsFunc(host, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
	})
}

// Send makes one call and waits for its answer, at most as long as ctx allows: give it a deadline. An
// answer whose status has arrived counts as one, whatever happens to its body.
func (t *Target) Send(ctx context.Context, call outbox.Call) outbox.Answer {
	space := t.requests.Get().(*[]byte)
	defer t.requests.Put(space)
	q, err := t.request(*space, &call, time.Now())
	if err != nil {
		return outbox.Answer{Err: err, Hopeless: true}
	}
	*space = q.head // which may have grown

	if err := t.pool.enter(ctx); err != nil {
		return outbox.Answer{Err: describe(ctx, err, false)}
	}
	defer t.pool.leave()
	if err := ctx.Err(); err != nil { // perhaps while it waited; a connection would notice too late
		return outbox.Answer{Err: describe(ctx, err, false)}
	}
	var answer outbox.Answer
	if repeatable(&call) {
		err = t.repeated(ctx, q, &answer)
	} else {
		err = t.once(ctx, q, &answer)
	}
	if err != nil {
		answer.Err = describe(ctx, err, answer.Sent)
	}
	return answer
}

// once makes a call on a connection of its own.
func (t *Target) once(ctx context.Context, q request, answer *outbox.Answer) error {
	c, err := t.pool.open(ctx)
	if err != nil {
		return err
	}
	return t.try(ctx, c, q, false, answer)
}

// repeated makes a call on a connection that was used before perhaps. An endpoint may close one just
// when we use it, which says nothing of the endpoint; then the call is made once more, on a connection
// that nobody can have tired of. After the first byte of an answer it isn't.
func (t *Target) repeated(ctx context.Context, q request, answer *outbox.Answer) error {
	c, err := t.pool.take(ctx)
	if err != nil {
		return err
	}
	err = t.try(ctx, c, q, true, answer)
	if err == nil || !c.reused || c.answered {
		return err
	}
	if c, err = t.pool.open(ctx); err != nil {
		return err
	}
	return t.try(ctx, c, q, true, answer)
}

// try makes a call on one connection, which is kept or closed afterwards, and notes what is to be said
// of it.
func (t *Target) try(ctx context.Context, c *conn, q request, keep bool, answer *outbox.Answer) error {
	stop := context.AfterFunc(ctx, c.expire)
	s, err := c.ask(q)
	if c.wire.wrote && answer.Sent {
		answer.Replays++
	}
	answer.Sent = answer.Sent || c.wire.wrote
	if err == nil && (s.status < 200 || s.status > 599) {
		err = fmt.Errorf("the endpoint answered with status %d, which ends no call", s.status)
	}
	if err != nil {
		stop()
		c.abort()
		return err
	}
	answer.Status = s.status
	if s.retryAfter != "" {
		answer.RetryAfter = s.wait(time.Now())
	}
	var whole bool
	answer.Response, whole = t.keep(&s)
	if stop() && keep && whole && !s.close && c.sent() {
		t.pool.keep(c)
	} else {
		c.abort()
	}
	return nil
}

// Close closes the connections that no call uses; those of unfinished calls close after them. Later
// calls are refused. It may be called more than once.
func (t *Target) Close() { t.pool.close() }
