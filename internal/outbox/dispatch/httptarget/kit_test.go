package httptarget

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wait bounds what a test waits for and does not expect to take long.
const wait = 20 * time.Second

var source = message.Source{Application: "shop", Topic: "orders", TopicID: [16]byte{1}, Partition: 3, Offset: 42}

// call makes a call with a body that no text would survive as.
func call(change func(*outbox.Call)) outbox.Call {
	c := outbox.Call{
		Attempt: 2, Fence: 7,
		Intent: outbox.Intent{
			Lane: 5, Offset: 1234, ID: source.ID(1), Source: source, Index: 1, Endpoint: "payments",
			Class: message.AtLeastOnce, ContentType: "application/json", Key: []byte("customer"),
			Body: []byte("{\"a\": 1.0,\r\n \"b\":\"\x00\xff\"}"), Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", TraceState: "a=1, b=2",
		},
	}
	if change != nil {
		change(&c)
	}
	return c
}

func once(c *outbox.Call) { c.Intent.Class = message.AtMostOnce }

// open makes a target for an address of this machine, and closes it after the test.
func open(t *testing.T, url string, change func(*Config)) *Target {
	t.Helper()
	conf := Config{URL: url, AllowPrivate: true, Concurrency: 8}
	if change != nil {
		change(&conf)
	}
	target, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(target.Close)
	return target
}

// send makes a call that is to be over soon.
func send(t *testing.T, target *Target, c outbox.Call) outbox.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	answer := target.Send(ctx, c)
	check(t, answer)
	return answer
}

// check holds what is promised of every answer.
func check(t *testing.T, a outbox.Answer) {
	t.Helper()
	if a.Err == nil {
		if !a.Sent || a.Status < 200 || a.Status > 599 || a.Response == nil {
			t.Fatalf("answer without error: %+v", a)
		}
		if len(a.Response.Body) > outbox.ResponseMax {
			t.Fatalf("%d bytes are kept of an answer", len(a.Response.Body))
		}
		return
	}
	if a.Status != 0 || a.Response != nil || a.RetryAfter != 0 {
		t.Fatalf("answer with error: %+v", a)
	}
	if text := a.Err.Error(); text == "" || text != oneLine(text, outbox.ErrorMax) {
		t.Fatalf("error is no line of at most %d bytes: %q", outbox.ErrorMax, text)
	}
}

// seen is a request as a receiver got it.
type seen struct {
	header http.Header
	body   []byte
	proto  string
	method string
	uri    string
	host   string
	from   string // address of the client's end
}

// receiver records requests.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	calls []seen
	conns int
}

func (r *receiver) seen() []seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls
}

func (r *receiver) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conns
}

// receive starts a receiver; answer may be nil for a plain 200.
func receive(t *testing.T, answer http.HandlerFunc, change func(*httptest.Server)) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		r.mu.Lock()
		r.calls = append(r.calls, seen{header: q.Header, body: body, proto: q.Proto, method: q.Method, uri: q.RequestURI, host: q.Host, from: q.RemoteAddr})
		r.mu.Unlock()
		if answer != nil {
			answer(w, q)
		}
	}))
	r.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			r.mu.Lock()
			r.conns++
			r.mu.Unlock()
		}
	}
	if change != nil {
		change(r.Server)
	}
	if r.TLS == nil {
		r.Start()
	} else {
		r.StartTLS()
	}
	t.Cleanup(r.Close)
	return r
}

// status answers with it and a short body.
func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, "said")
	}
}

// raw is a server below HTTP: script gets each request that arrives, with the number of its connection
// and of the request on it, both from 0, and says whether the connection is to live on.
type raw struct {
	url string
	mu  sync.Mutex
	got [][]byte // bodies
}

func (r *raw) bodies() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got
}

func serveRaw(t *testing.T, script func(conn *net.TCPConn, connection, request int) bool) *raw {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &raw{url: "http://" + listener.Addr().String() + "/charges"}
	var running sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	running.Go(func() {
		for connection := 0; ; connection++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			running.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for request := 0; ; request++ {
					q, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					body, err := io.ReadAll(q.Body)
					if err != nil {
						return
					}
					r.mu.Lock()
					r.got = append(r.got, body)
					r.mu.Unlock()
					if !script(conn.(*net.TCPConn), connection, request) {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for _, conn := range conns {
			conn.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return r
}

// say writes an answer as it stands.
func say(conn net.Conn, text string) bool {
	_, err := io.WriteString(conn, text)
	return err == nil
}

const fine = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// reset ends a connection with RST in place of FIN.
func reset(conn *net.TCPConn) bool {
	_ = conn.SetLinger(0)
	return false
}

func sameBytes(t *testing.T, got [][]byte, want []byte) {
	t.Helper()
	for i, body := range got {
		if !bytes.Equal(body, want) {
			t.Errorf("body of transmission %d is %q, want %q", i, body, want)
		}
	}
}
