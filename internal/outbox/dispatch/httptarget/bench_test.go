package httptarget

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

// callers call at once, as a busy dispatcher's do.
const callers = 64

// BenchmarkSend is a call to a server of this process, so both sides share the figures. "bare" is
// net/http alone, with the same connections and the same body. The raw server does nothing but one
// read and one write per call, so that what remains is nearly the client's; cpu-ns/op is the process's
// time, both sides and the kernel's part included.
func BenchmarkSend(b *testing.B) {
	const answer = `{"charged":true}`
	full := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		_, _ = io.WriteString(w, answer)
	}))
	b.Cleanup(full.Close)
	raw := answerEachRead(b, "HTTP/1.1 200 OK\r\nDate: Sun, 01 Mar 2026 12:00:00 GMT\r\nContent-Length: 16\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"+answer)
	body := make([]byte, 300)
	for _, server := range []struct{ name, url string }{{"full", full.URL}, {"raw", raw}} {
		b.Run(server.name, func(b *testing.B) {
			b.Run("bare", func(b *testing.B) { benchmarkBare(b, server.url, body) })
			for _, c := range []struct {
				name   string
				class  message.Class
				secret bool
			}{{"at-least-once", message.AtLeastOnce, false}, {"signed", message.AtLeastOnce, true}, {"at-most-once", message.AtMostOnce, false}} {
				b.Run(c.name, func(b *testing.B) { benchmarkSend(b, server.url, body, c.class, c.secret) })
			}
		})
	}
}

func benchmarkBare(b *testing.B, url string, body []byte) {
	b.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: callers, MaxConnsPerHost: callers}
	defer transport.CloseIdleConnections()
	measure(b, func() {
		request, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, io.NopCloser(bytes.NewReader(body)))
		if err != nil {
			b.Error(err)
			return
		}
		request.ContentLength = int64(len(body))
		response, err := transport.RoundTrip(request)
		if err != nil {
			b.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	})
}

func benchmarkSend(b *testing.B, url string, body []byte, class message.Class, secret bool) {
	b.Helper()
	conf := Config{URL: url, AllowPrivate: true, Concurrency: callers}
	if secret {
		file := filepath.Join(b.TempDir(), "secret")
		if err := os.WriteFile(file, []byte(encoded(keyOne)), 0o600); err != nil {
			b.Fatal(err)
		}
		conf.SecretFiles = []string{file}
	}
	target, err := New(conf)
	if err != nil {
		b.Fatal(err)
	}
	defer target.Close()
	intent := outbox.Call{Attempt: 1, Fence: 1, Intent: outbox.Intent{Class: class, ContentType: "application/json", Body: body}}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	measure(b, func() {
		if answer := target.Send(ctx, intent); answer.Status != 200 {
			b.Errorf("%+v", answer)
		}
	})
}

func measure(b *testing.B, op func()) {
	b.Helper()
	b.ReportAllocs()
	b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
	before := used(b)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			op()
		}
	})
	b.ReportMetric(float64(used(b)-before)/float64(b.N), "cpu-ns/op")
}

// used is the processor time of this process.
func used(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// answerEachRead serves answer for whatever one read brings.
func answerEachRead(b *testing.B, answer string) (url string) {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				request := make([]byte, 4096)
				for err == nil {
					if _, err = conn.Read(request); err == nil {
						_, err = io.WriteString(conn, answer)
					}
				}
			}()
		}
	}()
	return "http://" + listener.Addr().String()
}
