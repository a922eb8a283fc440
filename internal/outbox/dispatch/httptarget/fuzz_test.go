package httptarget

import (
	"bufio"
	"io"
	"net"
	"net/http"
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
		got := retryAfter(http.Header{"Retry-After": {text}, "Date": {date}}, time.Unix(0, 0))
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
