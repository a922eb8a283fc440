package httptarget

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"pawl/internal/outbox"
)

func TestAnswerIsKeptUpToItsLimitAndItsConnectionReused(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 1000, outbox.ResponseMax - 1, outbox.ResponseMax, outbox.ResponseMax + 1, outbox.ResponseMax + drainMax/2} {
		for _, sized := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d sized=%v", size, sized), func(t *testing.T) {
				t.Parallel()
				body := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
				r := receive(t, func(w http.ResponseWriter, _ *http.Request) {
					if sized {
						w.Header().Set("Content-Length", strconv.Itoa(size))
					} else {
						w.(http.Flusher).Flush()
					}
					_, _ = w.Write(body)
				}, nil)
				target := open(t, r.URL, nil)
				for range 2 {
					got := send(t, target, call(nil)).Response
					if !bytes.Equal(got.Body, body[:min(size, outbox.ResponseMax)]) || got.Truncated != (size > outbox.ResponseMax) {
						t.Fatalf("%d bytes are kept, truncated %v", len(got.Body), got.Truncated)
					}
				}
				if r.connections() != 1 {
					t.Errorf("%d connections", r.connections())
				}
			})
		}
	}
}

// 1 GB is announced and would be sent. What is read is what is kept and what the sockets hold.
func TestAnswerWithoutEndIsCutShort(t *testing.T) {
	t.Parallel()
	for _, sized := range []bool{true, false} {
		var written atomic.Int64
		ended := make(chan struct{})
		r := receive(t, func(w http.ResponseWriter, _ *http.Request) {
			defer close(ended)
			if sized {
				w.Header().Set("Content-Length", strconv.Itoa(1<<30))
			}
			chunk := make([]byte, 64<<10)
			for written.Load() < 1<<30 {
				n, err := w.Write(chunk)
				written.Add(int64(n))
				if err != nil {
					return
				}
			}
		}, nil)
		answer := send(t, open(t, r.URL, nil), call(nil))
		if answer.Status != 200 || !answer.Response.Truncated || len(answer.Response.Body) != outbox.ResponseMax {
			t.Errorf("sized %v: status %d, truncated %v, %d bytes", sized, answer.Status, answer.Response.Truncated, len(answer.Response.Body))
		}
		<-ended
		if written.Load() > 64<<20 {
			t.Errorf("sized %v: the endpoint could write %d bytes", sized, written.Load())
		}
	}
}

// The status has arrived: the endpoint has answered, and the rest of its answer changes nothing.
func TestAnswerWhoseBodyBreaksOffCounts(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
		"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\npart",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n",
	} {
		r := serveRaw(t, func(conn *net.TCPConn, _, _ int) bool { say(conn, text); return false })
		answer := send(t, open(t, r.url, nil), call(nil))
		if answer.Status != 200 || !answer.Response.Truncated || string(answer.Response.Body) != "part" {
			t.Errorf("%q: %+v %+v", text, answer, answer.Response)
		}
	}
}

func TestBodyThatDripsEndsWithTheCall(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	r := receive(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "drip")
		w.(http.Flusher).Flush()
		<-release
	}, nil)
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	answer := open(t, r.URL, nil).Send(ctx, call(nil))
	check(t, answer)
	if answer.Status != 200 || !answer.Response.Truncated || string(answer.Response.Body) != "drip" {
		t.Errorf("answer: %+v", answer)
	}
}

// Whatever an endpoint says instead of HTTP, nothing of it gets into the error: it may be our own
// payload or a credential that it gives back.
func TestGarbageIsAnErrorThatQuotesNothing(t *testing.T) {
	t.Parallel()
	const echo = "hunter2"
	for name, text := range map[string]string{
		"no HTTP":                echo + "\r\n\r\n",
		"bad status":             "HTTP/1.1 " + echo + "\r\n\r\n",
		"bad version":            "HTTP/9." + echo + " 200 OK\r\n\r\n",
		"bad header":             "HTTP/1.1 200 OK\r\n" + echo + "\r\n\r\n",
		"bad length":             "HTTP/1.1 200 OK\r\nContent-Length: " + echo + "\r\n\r\n",
		"two lengths":            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: " + echo + "\r\n\r\n",
		"bad encoding":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + echo + "\r\n\r\n",
		"too many headers":       "HTTP/1.1 200 OK\r\nX: " + strings.Repeat(echo, 2*headersMax/len(echo)) + "\r\n\r\n",
		"half a header":          "HTTP/1.1 200 OK\r\nX: " + echo,
		"nothing":                "",
		"status beyond HTTP":     "HTTP/1.1 999 " + echo + "\r\nContent-Length: 0\r\n\r\n",
		"status below HTTP":      "HTTP/1.1 000 " + echo + "\r\nContent-Length: 0\r\n\r\n",
		"switch of protocols":    "HTTP/1.1 101 " + echo + "\r\nConnection: upgrade\r\nUpgrade: " + echo + "\r\n\r\n" + fine,
		"control characters":     "\x00\x01\x02" + echo + "\xff\r\n\r\n",
		"informational for ever": strings.Repeat("HTTP/1.1 103 Early\r\nX: "+echo+"\r\n\r\n", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, class := range []func(*outbox.Call){nil, once} {
				r := serveRaw(t, func(conn *net.TCPConn, _, _ int) bool { say(conn, text); return false })
				answer := send(t, open(t, r.url, nil), call(class))
				if answer.Err == nil || !answer.Sent {
					t.Fatalf("answer: %+v", answer)
				}
				if strings.Contains(answer.Err.Error(), echo[:4]) {
					t.Errorf("the error quotes the endpoint: %v", answer.Err)
				}
				if got := len(r.bodies()); got != 1 {
					t.Errorf("%d transmissions", got)
				}
			}
		})
	}
}

func TestResetIsAnErrorAfterWhichNobodyKnows(t *testing.T) {
	t.Parallel()
	for _, class := range []func(*outbox.Call){nil, once} {
		r := serveRaw(t, func(conn *net.TCPConn, _, _ int) bool { return reset(conn) })
		answer := send(t, open(t, r.url, nil), call(class))
		if answer.Err == nil || !answer.Sent || answer.Err.Error() != "the endpoint reset the connection before it answered" {
			t.Errorf("answer: %+v", answer)
		}
	}
}

// The address is the operator's, but its query and what goes with the call are nobody's to read in a
// log.
func TestErrorsHoldNoCredential(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	target := open(t, "http://"+listener.Addr().String()+"/hunter2?token=hunter2", func(c *Config) {
		c.Headers = map[string]string{"Authorization": "hunter2"}
	})
	answer := send(t, target, call(func(c *outbox.Call) { c.Intent.Body = []byte("hunter2") }))
	if answer.Err == nil || strings.Contains(answer.Err.Error(), "hunter2") {
		t.Errorf("answer: %+v", answer)
	}
}

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, c := range []struct {
		after, date string
		want        time.Duration
	}{
		{"", "", 0},
		{"0", "", 0},
		{"7", "", 7 * time.Second},
		{" 7 ", "", 7 * time.Second},
		{"3600", at(0), time.Hour},
		{"9223372036", "", retryAfterMax},
		{"99999999999999999999999999", "", retryAfterMax},
		{"-7", "", 0},
		{"+7", "", 0},
		{"1.5", "", 0},
		{"1e9", "", 0},
		{"soon", "", 0},
		{"٣", "", 0},
		{at(90 * time.Second), "", 90 * time.Second},
		{at(-90 * time.Second), "", 0},
		{at(20000 * time.Hour), "", retryAfterMax},
		// The endpoint's clock is an hour ahead of ours.
		{at(time.Hour + time.Minute), at(time.Hour), time.Minute},
		{at(time.Minute), "nonsense", time.Minute},
		{now.Add(time.Minute).Format(time.RFC850), "", time.Minute},
		{now.Add(time.Minute).Format(time.RFC3339), "", 0},
	} {
		if got := (&said{retryAfter: c.after, date: c.date}).wait(now); got != c.want {
			t.Errorf("Retry-After %q, Date %q: %s, want %s", c.after, c.date, got, c.want)
		}
	}
	r := receive(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(429)
	}, nil)
	if answer := send(t, open(t, r.URL, nil), call(nil)); answer.RetryAfter != 2*time.Minute || answer.Status != 429 {
		t.Errorf("answer: %+v", answer)
	}
}

func TestLinesAreLines(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text, limit := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "text"), rapid.IntRange(0, 40).Draw(t, "limit")
		line := oneLine(text, limit)
		if len(line) > limit || !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\u2028' || r == '\u0085' }) {
			t.Fatalf("%q", line)
		}
	})
	if got := oneLine(" a\r\nb\x1b[31m\u2028c ", 100); got != "a  b [31m c" {
		t.Errorf("%q", got)
	}
	if got := oneLine("häß", 2); got != "h" {
		t.Errorf("%q", got)
	}
}

// A context that ends for a reason of the caller's own is a timeout all the same.
func TestDeadlineWithACauseIsATimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("the tenure ends"))
		defer cancel()
		<-ctx.Done()
		if got := describe(ctx, context.Cause(ctx), true); got.Error() != "no answer in time" {
			t.Errorf("%v", got)
		}
	})
}
