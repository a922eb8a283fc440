package httptarget

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pawl/internal/outbox"
)

// until waits for a condition that nobody tells of.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for begun := time.Now(); !holds(); runtime.Gosched() {
		if time.Since(begun) > wait {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// fakeWire stands below a connection in place of its socket.
type fakeWire struct {
	net.Conn

	writes, reads int
	fails         error     // of every write
	writable      int       // bytes that are written nevertheless
	answer        io.Reader // instead of the endpoint; where it has nothing to say, the endpoint is asked
}

func (f *fakeWire) Write(p []byte) (int, error) {
	f.writes++
	if f.fails != nil {
		return f.writable, f.fails
	}
	return f.Conn.Write(p)
}

func (f *fakeWire) Read(p []byte) (int, error) {
	f.reads++
	if f.answer != nil {
		if n, err := f.answer.Read(p); n > 0 || err != nil {
			return n, err
		}
	}
	return f.Conn.Read(p)
}

// resting makes a connection to a receiver, which the next call takes, with a fake below it.
func resting(t *testing.T, target *Target) *fakeWire {
	t.Helper()
	if err := target.pool.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer target.pool.leave()
	c, err := target.pool.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fake := &fakeWire{Conn: c.wire.Conn}
	c.wire.Conn = fake
	target.pool.keep(c)
	return fake
}

// Each system call is a good part of what a call costs.
func TestSmallCallIsOneWriteAndOneRead(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	target := open(t, r.URL, nil)
	fake := resting(t, target)
	small := call(func(c *outbox.Call) { c.Intent.Body = bytes.Repeat([]byte("a"), inlineMax) })
	if answer := send(t, target, small); answer.Status != 200 {
		t.Fatalf("answer: %+v", answer)
	}
	if fake.writes != 1 || fake.reads != 1 {
		t.Errorf("%d writes, %d reads", fake.writes, fake.reads)
	}
	sameBytes(t, [][]byte{r.seen()[0].body}, small.Intent.Body)
}

// What a failed write has handed to the network decides whether a call may be made again.
func TestSentMeansThatSomeByteWasWritten(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	for _, c := range []struct {
		writable int
		fails    error
		sent     bool
	}{{0, syscall.EPIPE, false}, {0, syscall.EHOSTUNREACH, false}, {1, syscall.ECONNRESET, true}, {1, syscall.EHOSTUNREACH, true}} {
		target := open(t, r.URL, nil)
		fake := resting(t, target)
		fake.fails, fake.writable, fake.answer = c.fails, c.writable, strings.NewReader("")
		connection, err := target.pool.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var answer outbox.Answer
		if err := target.try(t.Context(), connection, request{head: []byte("POST")}, true, &answer); err == nil || answer.Sent != c.sent {
			t.Errorf("%v after %d bytes: %v, sent %v", c.fails, c.writable, err, answer.Sent)
		}
	}
	if got := len(r.seen()); got != 0 {
		t.Errorf("%d calls arrived", got)
	}
}

// A connection that rests breaks before a byte of the call is written: the call's first transmission
// is the one on a new connection, and no replay.
func TestCallThatWasNotWrittenIsNoTransmission(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	target := open(t, r.URL, nil)
	fake := resting(t, target)
	fake.fails = syscall.EPIPE
	if answer := send(t, target, call(nil)); answer.Status != 200 || answer.Replays != 0 || fake.writes != 1 {
		t.Errorf("answer: %+v, %d writes on the broken connection", answer, fake.writes)
	}
	if got := len(r.seen()); got != 1 {
		t.Errorf("%d calls arrived", got)
	}
}

// An endpoint that refuses a call by its head need not read the rest. What it said counts, although
// the rest cannot be written any more.
func TestEarlyAnswerCountsAlthoughTheWriteFails(t *testing.T) {
	t.Parallel()
	const tooLarge = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"
	r := receive(t, nil, nil)
	for _, fails := range []error{syscall.EPIPE, syscall.ECONNRESET} {
		target := open(t, r.URL, nil)
		fake := resting(t, target)
		fake.fails, fake.writable, fake.answer = fails, 1, strings.NewReader(tooLarge)
		if answer := send(t, target, call(nil)); answer.Status != 413 || string(answer.Response.Body) != "big" || answer.Replays != 0 || fake.writes != 1 {
			t.Errorf("%v: %+v, %d writes", fails, answer, fake.writes)
		}
		if len(target.pool.idle) != 0 {
			t.Errorf("%v: the connection is kept", fails)
		}
	}

	// The same with a body that no socket holds, of which nothing is read.
	for _, class := range []func(*outbox.Call){nil, once} {
		url := serveHeads(t, func(conn *net.TCPConn, _ *bufio.Reader) {
			say(conn, tooLarge)
			_ = conn.CloseWrite()
			_, _ = conn.Read(make([]byte, 1)) // so that the answer is not overtaken by a reset
		})
		large := call(class)
		large.Intent.Body = make([]byte, 32<<20)
		if answer := send(t, open(t, url, nil), large); answer.Status != 413 || string(answer.Response.Body) != "big" {
			t.Errorf("large: %+v", answer)
		}
	}
}

// The endpoint reads the body when its answer is read, and its answer is more than sockets hold: who
// writes it all first waits for ever.
func TestLargeCallAndLargeAnswerDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	var got atomic.Int64
	url := serveHeads(t, func(conn *net.TCPConn, in *bufio.Reader) {
		_ = conn.SetWriteBuffer(4 << 10)
		say(conn, "HTTP/1.1 200 OK\r\nContent-Length: "+strconv.Itoa(drainMax)+"\r\n\r\n"+strings.Repeat("a", drainMax))
		n, _ := io.CopyN(io.Discard, in, size)
		got.Store(n)
	})
	large := call(nil)
	large.Intent.Body = make([]byte, size)
	answer := send(t, open(t, url, nil), large)
	if answer.Status != 200 || len(answer.Response.Body) != outbox.ResponseMax {
		t.Errorf("answer: %+v", answer)
	}
}

func TestLargeBodiesArriveWholeAndKeepTheConnection(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	target := open(t, r.URL, nil)
	var bodies [][]byte
	for _, size := range []int{inlineMax - 1, inlineMax, inlineMax + 1, 4 << 20, 1} {
		body := bytes.Repeat([]byte{0, '\r', '\n', 0xff, byte(size)}, size/5+1)[:size]
		bodies = append(bodies, body)
		if answer := send(t, target, call(func(c *outbox.Call) { c.Intent.Body = body })); answer.Status != 200 {
			t.Fatalf("%d bytes: %+v", size, answer)
		}
		<-time.After(2 * sendGrace) // what was granted to one call must be over for the next
	}
	for i, got := range r.seen() {
		sameBytes(t, [][]byte{got.body}, bodies[i])
	}
	if r.connections() != 1 {
		t.Errorf("%d connections", r.connections())
	}
}

// serveHeads gives script each connection once a request's head was read from it, and closes it then.
func serveHeads(t *testing.T, script func(*net.TCPConn, *bufio.Reader)) (url string) {
	t.Helper()
	return serveConns(t, func(conn *net.TCPConn) {
		in := bufio.NewReader(conn)
		if _, err := http.ReadRequest(in); err == nil {
			script(conn, in)
		}
	})
}

// Which connections carry another call: the number of connections that two calls take tells.
func TestConnectionIsReusedOnlyWhereTheAnswerAllowsIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, answer string
		connections  int
	}{
		{"HTTP/1.1", fine, 1},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 1},
		{"with a trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n", 1},
		{"without a body", "HTTP/1.1 204 No Content\r\n\r\n", 1},
		{"after informational ones", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + fine, 1},
		{"close", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", 2},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 2},
		{"HTTP/1.0 with keep-alive", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", 1},
		{"more than is announced", fine + "HTTP/1.1 500 Not Yours\r\nContent-Length: 0\r\n\r\n", 2},
		{"a body where none may be", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", 2},
		{"more than is drained", "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + strings.Repeat("a", 300000), 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var connections atomic.Int32
			r := serveRaw(t, func(conn *net.TCPConn, connection, _ int) bool {
				connections.Store(int32(connection) + 1)
				return say(conn, c.answer)
			})
			target := open(t, r.url, nil)
			for range 2 {
				if answer := send(t, target, call(nil)); answer.Status/100 != 2 || answer.Replays != 0 {
					t.Fatalf("answer: %+v", answer)
				}
			}
			if got := int(connections.Load()); got != c.connections {
				t.Errorf("%d connections, want %d", got, c.connections)
			}
		})
	}
}

// The endpoint closes a connection that rests, or says something on it that nobody asked for. Who used
// it would have to guess what became of the call, or take the wrong answer.
func TestConnectionThatDiedAtRestIsNotUsed(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*net.TCPConn) bool{
		"closed": func(*net.TCPConn) bool { return false },
		"reset":  reset,
		"talks": func(conn *net.TCPConn) bool {
			return say(conn, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gone := make(chan struct{})
			r := serveRaw(t, func(conn *net.TCPConn, connection, _ int) bool {
				if !say(conn, fine) || connection > 0 {
					return true
				}
				<-gone
				return end(conn)
			})
			target := open(t, r.url, nil)
			if first := send(t, target, call(nil)); first.Status != 200 {
				t.Fatalf("first: %+v", first)
			}
			close(gone)
			until(t, "the end has arrived", func() bool { return !target.pool.idle[0].alive() })
			if second := send(t, target, call(nil)); second.Status != 200 || second.Replays != 0 {
				t.Errorf("second: %+v", second)
			}
			if got := len(r.bodies()); got != 2 {
				t.Errorf("%d transmissions", got)
			}
		})
	}
}

// A connection that was used before breaks under a call. Only where no byte of an answer has come is
// the call made again, and only once.
func TestReplayIsForSilenceOnUsedConnectionsOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, said             string // on the used connection
		again                  bool   // it breaks on the new one too
		transmissions, replays int
		status                 int
	}{
		{name: "silence", transmissions: 2, replays: 1, status: 200},
		{name: "silence twice", again: true, transmissions: 2, replays: 1},
		{name: "a byte", said: "H", transmissions: 1},
		{name: "an informational answer", said: "HTTP/1.1 102 Processing\r\n\r\n", transmissions: 1},
		{name: "half a head", said: "HTTP/1.1 200 OK\r\nContent-", transmissions: 1},
		{name: "half a body", said: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", transmissions: 1, status: 200},
	} {
		for _, hangUp := range []func(*net.TCPConn) bool{reset, func(*net.TCPConn) bool { return false }} {
			var breaks atomic.Int32
			r := serveRaw(t, func(conn *net.TCPConn, connection, request int) bool {
				if connection == 0 && request == 0 || connection > 0 && !c.again {
					return say(conn, fine)
				}
				breaks.Add(1)
				say(conn, c.said)
				if c.said != "" {
					_ = conn.CloseWrite() // a reset could overtake what was said
					return false
				}
				return hangUp(conn)
			})
			target := open(t, r.url, nil)
			if first := send(t, target, call(nil)); first.Status != 200 {
				t.Fatalf("%s: first: %+v", c.name, first)
			}
			second := send(t, target, call(nil))
			if second.Status != c.status || second.Replays != c.replays || !second.Sent {
				t.Errorf("%s: second: %+v", c.name, second)
			}
			if got := len(r.bodies()) - 1; got != c.transmissions || breaks.Load() == 0 {
				t.Errorf("%s: %d transmissions, want %d; %d breaks", c.name, got, c.transmissions, breaks.Load())
			}
		}
	}
}

// Whatever a call waits for, the end of its context ends it. Only once the endpoint may have a byte of
// the call is it sent.
func TestCallEndsWithItsContextInEveryPhase(t *testing.T) {
	t.Parallel()
	silent := func(t *testing.T, reached func()) string {
		t.Helper()
		done := make(chan struct{})
		url := serveConns(t, func(*net.TCPConn) { reached(); <-done })
		t.Cleanup(func() { close(done) })
		return url
	}
	after := func(t *testing.T, said string, reached func()) string {
		t.Helper()
		done := make(chan struct{})
		url := serveHeads(t, func(conn *net.TCPConn, _ *bufio.Reader) { say(conn, said); reached(); <-done })
		t.Cleanup(func() { close(done) })
		return url
	}
	body := func(t *testing.T, said string, reached func()) *Target {
		t.Helper()
		target := open(t, silent(t, func() {}), nil)
		fake := resting(t, target)
		fake.answer = io.MultiReader(strings.NewReader(said), told(reached))
		return target
	}
	for _, c := range []struct {
		name  string
		sent  bool
		ready func(t *testing.T, reached func()) (*Target, outbox.Call)
	}{
		{"wait", false, func(t *testing.T, reached func()) (*Target, outbox.Call) {
			target := open(t, silent(t, func() {}), func(c *Config) { c.Concurrency = 1 })
			target.pool.slots <- struct{}{}
			reached()
			return target, call(nil)
		}},
		{"resolve", false, func(t *testing.T, reached func()) (*Target, outbox.Call) {
			target := open(t, "http://pay.example/", nil)
			target.pool.dialer.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				reached()
				<-ctx.Done()
				return nil, ctx.Err()
			}}
			return target, call(nil)
		}},
		{"dial", false, func(t *testing.T, reached func()) (*Target, outbox.Call) {
			target := open(t, silent(t, func() {}), nil)
			target.pool.dialer.ControlContext = func(ctx context.Context, _, _ string, _ syscall.RawConn) error {
				reached()
				<-ctx.Done()
				return nil
			}
			return target, call(nil)
		}},
		{"handshake", false, func(t *testing.T, reached func()) (*Target, outbox.Call) {
			return open(t, "https"+strings.TrimPrefix(silent(t, reached), "http"), nil), call(nil)
		}},
		{"write", true, func(t *testing.T, reached func()) (*Target, outbox.Call) {
			return open(t, after(t, "", reached), nil), call(func(c *outbox.Call) { c.Intent.Body = make([]byte, 32<<20) })
		}},
		{"head", true, func(t *testing.T, reached func()) (*Target, outbox.Call) {
			return open(t, after(t, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2", reached), nil), call(nil)
		}},
		{"body", true, func(t *testing.T, reached func()) (*Target, outbox.Call) {
			return body(t, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", reached), call(nil)
		}},
		{"body beyond what is kept", true, func(t *testing.T, reached func()) (*Target, outbox.Call) {
			return body(t, "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"+strings.Repeat("a", 2*outbox.ResponseMax), reached), call(nil)
		}},
	} {
		for _, class := range []func(*outbox.Call){func(*outbox.Call) {}, once} {
			for want, end := range map[string]error{"the call was cancelled": context.Canceled, " in time": context.DeadlineExceeded} {
				t.Run(c.name+" "+end.Error(), func(t *testing.T) {
					t.Parallel()
					ctx := &ending{Context: t.Context(), done: make(chan struct{}), err: end}
					target, it := c.ready(t, sync.OnceFunc(func() { close(ctx.done) }))
					if strings.HasPrefix(c.name, "body") == (len(target.pool.idle) == 0) {
						t.Fatalf("%d connections rest before", len(target.pool.idle))
					}
					if len(target.pool.idle) == 0 {
						class(&it)
					}
					answer := target.Send(ctx, it)
					check(t, answer)
					if answer.Sent != c.sent || answer.Replays != 0 {
						t.Errorf("answer: %+v", answer)
					}
					if strings.HasPrefix(c.name, "body") {
						if answer.Status != 200 || !answer.Response.Truncated {
							t.Errorf("answer: %+v", answer)
						}
					} else if answer.Err == nil || !strings.HasSuffix(answer.Err.Error(), want) || !errors.Is(answer.Err, end) {
						t.Errorf("answer: %+v", answer)
					}
					if len(target.pool.idle) != 0 {
						t.Error("the connection is kept")
					}
				})
			}
		}
	}
}

// ending is a context that ends when the test says so.
type ending struct {
	context.Context

	done chan struct{}
	err  error
}

func (e *ending) Done() <-chan struct{} { return e.done }

func (e *ending) Err() error {
	select {
	case <-e.done:
		return e.err
	default:
		return nil
	}
}

// told is a reader that says nothing, but that somebody reads.
type told func()

func (f told) Read([]byte) (int, error) { f(); return 0, nil }

// A context that has ended sends nothing, also where a connection is ready.
func TestEndedContextSendsNothing(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	target := open(t, r.URL, nil)
	fake := resting(t, target)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if answer := target.Send(ctx, call(nil)); answer.Err == nil || answer.Sent || fake.writes != 0 {
		t.Errorf("answer: %+v, %d writes", answer, fake.writes)
	}
	if answer := send(t, target, call(nil)); answer.Status != 200 || fake.writes != 1 {
		t.Errorf("afterwards: %+v, %d writes", answer, fake.writes)
	}
}

// serveConns gives script each connection, and closes it then.
func serveConns(t *testing.T, script func(*net.TCPConn)) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var conns []*net.TCPConn
		var running []chan struct{}
		for {
			conn, err := listener.Accept()
			if err != nil {
				break
			}
			done := make(chan struct{})
			conns, running = append(conns, conn.(*net.TCPConn)), append(running, done)
			go func() {
				defer close(done)
				defer conn.Close()
				script(conn.(*net.TCPConn))
			}()
		}
		for i, conn := range conns {
			conn.Close()
			<-running[i]
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-ended
	})
	return fmt.Sprintf("http://%s/charges", listener.Addr())
}

// A connection that looks as good as any, and must not be kept: the call's end may still reach it, the
// rest of an answer is still to come, or the endpoint was told that there would be no other call.
func TestConnectionIsNotKeptWhereItsCallMayReachTheNext(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	target := open(t, r.URL, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	resting(t, target).answer = io.MultiReader(strings.NewReader(fine[:len(fine)-1]), &lastByte{cancel})
	if answer := target.Send(ctx, call(nil)); answer.Status != 200 || answer.Response.Truncated {
		t.Errorf("context that ends with the answer: %+v", answer)
	}
	if len(target.pool.idle) != 0 {
		t.Error("the connection is kept, and its deadline may be set later")
	}

	const read = outbox.ResponseMax + 1 + drainMax
	target = open(t, r.URL, nil)
	resting(t, target).answer = strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(read+10) + "\r\n\r\n" + strings.Repeat("a", read))
	if answer := send(t, target, call(nil)); answer.Status != 200 {
		t.Errorf("long answer: %+v", answer)
	}
	if len(target.pool.idle) != 0 {
		t.Error("the connection is kept before the end of the answer")
	}

	stubborn := serveRaw(t, func(conn *net.TCPConn, _, _ int) bool { return say(conn, fine) })
	target = open(t, stubborn.url, nil)
	if answer := send(t, target, call(once)); answer.Status != 200 || len(target.pool.idle) != 0 {
		t.Errorf("at-most-once: %+v, %d connections rest", answer, len(target.pool.idle))
	}
}

// lastByte is one byte, with whose reading something happens.
type lastByte struct{ happens func() }

func (l *lastByte) Read(p []byte) (int, error) {
	l.happens()
	p[0] = 'k'
	return 1, nil
}
