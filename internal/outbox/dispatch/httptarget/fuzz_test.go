package httptarget

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Whatever an endpoint says it asks for, it is between nothing and the cap.
func FuzzRetryAfter(f *testing.F) {
	for _, text := range []string{"0", "120", "-1", "1e9", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 1999 23:59:59 GMT", " 7 ", "\x00"} {
		f.Add(text, "Sat, 01 Jan 2000 00:00:00 GMT")
	}
	f.Add("Sat, 01 Jan 2000 00:00:09 GMT", "tomorrow")
	f.Fuzz(func(t *testing.T, text, date string) {
		got := (&said{retryAfter: text, date: date}).wait(time.Unix(0, 0))
		if got < 0 || got > retryAfterMax {
			t.Errorf("Retry-After %q with Date %q asks for %s", text, date, got)
		}
	})
}

// Whatever bytes an endpoint answers with, the call ends in time with an answer that holds what is promised of every
// answer, see check; and the next call on the same target, whose endpoint is well by then, is answered by it and not
// by the rest of the first.
func FuzzAnswer(f *testing.F) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { listener.Close() })
	says := make(chan string, 1)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			answer := <-says
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.WriteString(conn, answer)
			}
			_ = conn.Close()
		}
	}()
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 x\r\nRetry-After: 7\r\n\r\n", "HTTP/1.1 101 Switching\r\n\r\n", "HTTP/1.0 200\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
		"\x00\xff garbage", "", "HTTP/1.1 999 x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
	} {
		f.Add([]byte(seed))
	}
	target, err := New(Config{URL: "http://" + listener.Addr().String(), AllowPrivate: true, Concurrency: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(target.Close)
	f.Fuzz(func(t *testing.T, answer []byte) {
		said := string(answer)
		says <- said
		_ = send(t, target, call(once)) // which holds check
		says <- "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
		if got := send(t, target, call(once)); got.Status != http.StatusTeapot {
			t.Errorf("after %q the next call is answered %+v", answer, got)
		}
	})
}

// What is read of an answer without net/http is what net/http reads, to the last byte of the body, and whatever is left to
// net/http finds the buffer as it was.
func FuzzPlain(f *testing.F) {
	const head = "HTTP/1.1 200 OK\r\n"
	for _, seed := range []string{
		"Content-Length: 2\r\n\r\nok", "Content-Length: 9\r\n\r\nok", "Content-Length: 0\r\n\r\n", "content-LENGTH:\t2 \r\nContent-Type: a; b=\"c\"\r\nContent-Type: d\r\n\r\nokHTTP/1.1",
		"Content-Length: 2\r\nConnection: close\r\n\r\nok", "Content-Length: 2\r\nConnection: keep-alive\r\n\r\nok", "Content-Length: 2\r\nConnection: x, close\r\n\r\nok",
		"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", "Content-Length: +2\r\n\r\nok", "Content-Length: 2\r\n folded\r\n\r\nok", "Content-Length : 2\r\n\r\nok",
		"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n", "Content-Length: 2\r\nRetry-After: 7\r\n\r\nok", "Content-Length: 2\nX: y\r\n\r\nok", ": 1\r\nContent-Length: 2\r\n\r\nok",
		"Content-Length: 2\r\nX\r\n\r\nok", "Content-Length: 2\r\nX: a\x01\r\n\r\nok", "\r\nok", "Content-Length: 2\r\nTrailer: Content-Length\r\n\r\nok", "Content-Length: 99999999999999999999\r\n\r\n",
	} {
		f.Add([]byte(head + seed))
	}
	for _, line := range []string{"HTTP/1.0 200 OK", "HTTP/1.1 204 No", "HTTP/1.1 304 x", "HTTP/1.1 100 Continue", "HTTP/1.1 200", "HTTP/1.1 2000 x", "HTTP/1.1  200 x", "HTTP/1.1 999 x\xff"} {
		f.Add([]byte(line + "\r\nContent-Length: 2\r\n\r\nok"))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := &conn{in: bufio.NewReaderSize(bytes.NewReader(answer), 4096)}
		_, _ = c.in.Peek(1) // an empty answer is tested elsewhere
		s, ok := c.plain()
		if !ok {
			if rest, _ := io.ReadAll(c.in); !bytes.Equal(rest, answer) {
				t.Fatalf("%q is not plain, and %q is left of it", answer, rest)
			}
			return
		}
		in := bufio.NewReaderSize(bytes.NewReader(answer), 4096)
		response, err := http.ReadResponse(in, nil) //nolint:bodyclose // it is read to its end below
		if err != nil {
			t.Fatalf("%q is plain, net/http says %v", answer, err)
		}
		want := read(response)
		body, failed := io.ReadAll(s.body)
		wantBody, wantFailed := io.ReadAll(want.body)
		if !bytes.Equal(body, wantBody) || !errors.Is(failed, wantFailed) {
			t.Errorf("body %q, %v; want %q, %v", body, failed, wantBody, wantFailed)
		}
		s.body, want.body, want.date = nil, nil, "" // which is for those that have a Retry-After
		if s != want {
			t.Errorf("%q is read as %+v, want %+v", answer, s, want)
		}
		rest, _ := io.ReadAll(c.in)
		if wantRest, _ := io.ReadAll(in); !bytes.Equal(rest, wantRest) {
			t.Errorf("%q is left, want %q", rest, wantRest)
		}
	})
}

// The usual answers are plain.
func TestUsualAnswersArePlain(t *testing.T) {
	t.Parallel()
	for _, head := range []string{
		"HTTP/1.1 200 OK\r\nDate: Sun, 01 Mar 2026 12:00:00 GMT\r\nContent-Length: 2\r\nContent-Type: application/json; charset=utf-8",
		"HTTP/1.1 503 Service Unavailable\r\nserver: nginx/1.27\r\ncontent-length: 2\r\nconnection: keep-alive\r\nset-cookie: a=b; Path=/",
		"HTTP/1.1 404 \r\nContent-Length: 2\r\nConnection: Close",
	} {
		c := &conn{in: bufio.NewReader(strings.NewReader(head + "\r\n\r\nok"))}
		_, err := c.in.Peek(1)
		if _, ok := c.plain(); err != nil || !ok {
			t.Errorf("%q is left to net/http", head)
		}
	}
}
