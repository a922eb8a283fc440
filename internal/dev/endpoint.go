package dev

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// EndpointConfig says how well a charge endpoint behaves. The shares lie within 0..1.
type EndpointConfig struct {
	Listen  string        // host:port; port 0 takes a free one
	Journal string        // file to append every call to, as lines of JSON; empty for none
	Seed    uint64        // of what follows: the same calls have the same fates in every run
	Fail    float64       // share of calls answered 500, answered 503 or, after the charge was made, reset
	Late    float64       // share of calls that are answered late; their charge is made at once
	LateBy  time.Duration // how late
	Decline float64       // share of charges that are refused for good, with 402
}

// Validate names everything that is wrong.
func (c EndpointConfig) Validate() error {
	var errs []error
	for _, share := range []struct {
		name  string
		value float64
	}{{"fail", c.Fail}, {"late", c.Late}, {"decline", c.Decline}} {
		if !(share.value >= 0 && share.value <= 1) { // so that NaN is refused too
			errs = append(errs, fmt.Errorf("the share %s is %v, want 0..1", share.name, share.value))
		}
	}
	if c.LateBy < 0 {
		errs = append(errs, fmt.Errorf("late by %s, want 0 or more", c.LateBy))
	}
	return errors.Join(errs...)
}

// Endpoint plays the payment provider: it takes charges over HTTP, remembers what it did for each
// Idempotency-Key, fails now and then, and counts what a provider would complain about.
//
// It honours keys as a good receiver does: a key that it has settled gets the same answer again and
// nothing is done, unless the body is another one, which is answered with 422. It keeps everything that
// it has seen in memory, so it is for demonstrations and tests.
type Endpoint struct {
	config   EndpointConfig
	listener net.Listener
	server   http.Server
	book     book

	mu      sync.Mutex     // of everything below and of the book
	journal *os.File       // nil for none
	broken  error          // the first that writing the journal met
	open    map[string]int // calls that have not been answered yet, by sender
}

const (
	chargesPath      = "/charges"
	chargeBytesMax   = 1 << 20
	endpointShutdown = 2 * time.Second
)

// OpenEndpoint listens and opens the journal. Run must follow; it closes both.
func OpenEndpoint(ctx context.Context, config EndpointConfig) (*Endpoint, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("open charge endpoint: %w", err)
	}
	e := &Endpoint{config: config, book: newBook(), open: make(map[string]int)}
	if config.Journal != "" {
		var err error
		if e.journal, err = os.OpenFile(config.Journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return nil, fmt.Errorf("open charge endpoint: journal: %w", err)
		}
	}
	var listen net.ListenConfig
	var err error
	if e.listener, err = listen.Listen(ctx, "tcp", config.Listen); err != nil {
		if e.journal != nil {
			err = errors.Join(err, e.journal.Close())
		}
		return nil, fmt.Errorf("open charge endpoint: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+chargesPath, e.charge)
	e.server = http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // it would tell of every reset
	}
	return e, nil
}

// URL is where charges are to be sent.
func (e *Endpoint) URL() string { return "http://" + e.listener.Addr().String() + chargesPath }

func (e *Endpoint) address() string { return e.listener.Addr().String() }

// Run serves until ctx ends, then cuts off what is still answered late. It may be called once.
func (e *Endpoint) Run(ctx context.Context) error {
	e.server.BaseContext = func(net.Listener) context.Context { return ctx }
	served := make(chan error, 1)
	go func() { served <- e.server.Serve(e.listener) }()
	var errs []error
	select {
	case err := <-served:
		errs = append(errs, err)
	case <-ctx.Done():
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endpointShutdown)
		defer cancel()
		if err := e.server.Shutdown(end); err != nil {
			errs = append(errs, err, e.server.Close())
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	errs = append(errs, e.broken)
	if e.journal != nil {
		errs = append(errs, e.journal.Close())
		e.journal = nil
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("charge endpoint: %w", err)
	}
	return nil
}

// Summary counts what has happened so far.
func (e *Endpoint) Summary() EndpointSummary {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.book.summary
}

// Calls lists every call so far, in the order in which they were judged.
func (e *Endpoint) Calls() []ChargeCall {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]ChargeCall(nil), e.book.calls...)
}

// UnderWay counts the calls of a sender that wait for their answer.
func (e *Endpoint) UnderWay(sender string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.open[sender]
}

// charge serves one call. All of it is decided, done and written down at once; only the answer may come
// late, or never.
func (e *Endpoint) charge(w http.ResponseWriter, r *http.Request) {
	call, body, err := readCall(w, r)
	if err != nil {
		e.mu.Lock()
		e.book.summary.Malformed++
		e.mu.Unlock()
		answer(w, http.StatusBadRequest, problem(err.Error()))
		return
	}

	e.mu.Lock()
	fate, late := e.fate(call.ID, e.book.count(call.ID)+1)
	call.Fate, call.Late = fate, late
	call, reply := e.book.judge(call, e.share("decline", call.ID, 0) < e.config.Decline, body)
	e.write(call)
	e.open[call.Sender]++
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.open[call.Sender]--
		e.mu.Unlock()
	}()

	if late {
		timer := time.NewTimer(e.config.LateBy)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
		}
	}
	switch {
	case fate == FateReset:
		reset(w)
	case r.Context().Err() != nil: // nobody waits any more
		e.lost(call.ID)
		panic(http.ErrAbortHandler) // how net/http is told to give no answer at all
	default:
		answer(w, call.Status, reply)
		if r.Context().Err() != nil {
			e.lost(call.ID)
		}
	}
}

func (e *Endpoint) lost(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.book.lost(id)
}

// write appends to the journal. An error ends the journal and is told by Run: a proof must not rest on
// a journal with a hole.
func (e *Endpoint) write(call ChargeCall) {
	if e.journal == nil || e.broken != nil {
		return
	}
	line, err := json.Marshal(call)
	if err == nil {
		_, err = e.journal.Write(append(line, '\n'))
	}
	if err != nil {
		e.broken = fmt.Errorf("write journal: %w", err)
	}
}

// Fate is what becomes of a call, whatever it asks for.
type Fate string

// The fates. Whoever is reset has been charged.
const (
	FateAnswer      Fate = "answer"
	FateError       Fate = "500"
	FateUnavailable Fate = "503"
	FateReset       Fate = "reset"
)

// fate depends on nothing but the seed, the key and how many calls with this key have come, nth among
// them. The number of the attempt would not do: an HTTP client may repeat a reset call by itself, and
// would be reset again and again.
func (e *Endpoint) fate(id string, nth int) (fate Fate, late bool) {
	late = e.share("late", id, nth) < e.config.Late
	if e.share("fail", id, nth) >= e.config.Fail {
		return FateAnswer, late
	}
	fates := []Fate{FateError, FateUnavailable, FateReset}
	return fates[int(e.share("how", id, nth)*float64(len(fates)))], late
}

// share gives a number of [0, 1), evenly spread.
func (e *Endpoint) share(of, id string, nth int) float64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %s %d", e.config.Seed, of, id, nth))
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
}

// readCall checks what every call of Pawl has.
func readCall(w http.ResponseWriter, r *http.Request) (call ChargeCall, body chargeBody, err error) {
	fail := func(what string) (ChargeCall, chargeBody, error) {
		return ChargeCall{}, chargeBody{}, errors.New(what)
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, chargeBytesMax))
	if err != nil {
		return fail("the body cannot be read")
	}
	call = ChargeCall{At: time.Now().UTC(), ID: r.Header.Get("Idempotency-Key"), Order: r.Header.Get("Pawl-Order"), Sender: r.Header.Get(senderHeader)}
	if call.ID == "" {
		return fail("Idempotency-Key is missing")
	}
	lane, offset, found := strings.Cut(call.Order, ":")
	number, errLane := strconv.ParseInt(lane, 10, 32)
	position, errOffset := strconv.ParseInt(offset, 10, 64)
	if !found || errLane != nil || errOffset != nil || number < 0 || position < 0 {
		return fail("Pawl-Order is not lane:offset")
	}
	call.lane, call.offset = int32(number), position
	if call.Attempt, err = strconv.Atoi(r.Header.Get("Pawl-Attempt")); err != nil || call.Attempt < 1 {
		return fail("Pawl-Attempt is no number from 1")
	}
	if call.Fence, err = strconv.ParseInt(r.Header.Get("Pawl-Fence"), 10, 64); err != nil {
		return fail("Pawl-Fence is no number")
	}
	if err := json.Unmarshal(text, &body); err != nil || body.Operation == "" || body.OrderID == "" || body.CustomerID == "" {
		return fail("the body is no charge: want operation, order_id and customer_id in JSON")
	}
	sum := sha256.Sum256(text)
	call.Customer, call.Charge, call.Body = body.CustomerID, body.Operation+":"+body.OrderID, hex.EncodeToString(sum[:])
	return call, body, nil
}

func answer(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // whoever has gone is noticed by the context
	_ = http.NewResponseController(w).Flush()
}

// problem is the JSON of a refusal.
func problem(text string) []byte { return fmt.Appendf(nil, "{\"error\":%q}\n", text) }

// reset ends the connection of a call as a crash would: with RST where that is possible.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // as above
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
