package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// patience bounds every wait of these tests.
const patience = 30 * time.Second

// serving is a server that runs.
type serving struct {
	*site
	t      *testing.T
	client *http.Client
	cancel context.CancelFunc
	ended  chan error
}

func serve(t *testing.T, change func(*Config), adjust func(*http.Server)) *serving {
	t.Helper()
	s := open(t, change)
	if adjust != nil {
		adjust(s.http)
	}
	ctx, cancel := context.WithCancel(context.Background())
	transport := &http.Transport{DisableKeepAlives: true}
	running := &serving{site: s, t: t, client: &http.Client{Transport: transport}, cancel: cancel, ended: make(chan error, 1)}
	go func() { running.ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		transport.CloseIdleConnections()
	})
	return running
}

// stream is an open answer of server-sent events.
type stream struct {
	t      *testing.T
	answer *http.Response
	lines  *bufio.Reader
	leave  context.CancelFunc
}

func (s *serving) stream() *stream {
	s.t.Helper()
	ctx, leave := context.WithTimeout(context.Background(), patience)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Addr().String()+"/api/v1/events", http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	answer, err := s.client.Do(request)
	if err != nil {
		leave()
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		leave()
		_ = answer.Body.Close() // it was cut off
	})
	return &stream{t: s.t, answer: answer, lines: bufio.NewReader(answer.Body), leave: leave}
}

// next reads one event: its fields up to the empty line.
func (s *stream) next() (fields map[string]string, err error) {
	fields = map[string]string{}
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return fields, err
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			return fields, nil
		}
		name, value, found := strings.Cut(line, ": ")
		if _, twice := fields[name]; !found || twice {
			s.t.Errorf("line %q is no field of an event, or one too many", line)
		}
		fields[name] = value
	}
}

func (s *stream) mustNext() map[string]string {
	s.t.Helper()
	fields, err := s.next()
	if err != nil {
		s.t.Fatal(err)
	}
	return fields
}

// Each event is one line of data with everything that the page shows; the first comes at once and tells
// the browser how long to wait before it comes again.
func TestEventsAreSnapshots(t *testing.T) {
	t.Parallel()
	s := serve(t, func(c *Config) {
		c.View = func(context.Context) (any, error) {
			return map[string]string{"text": "two\nlines\r\nand\u2028more"}, nil
		}
		c.Ready = []Check{{Name: "group", Probe: fails("not joined")}}
	}, nil)
	stream := s.stream()
	if kind := stream.answer.Header.Get("Content-Type"); stream.answer.StatusCode != http.StatusOK || kind != "text/event-stream" {
		t.Fatalf("status %d, content type %q", stream.answer.StatusCode, kind)
	}
	if cache := stream.answer.Header.Get("Cache-Control"); cache != "no-store" {
		t.Errorf("Cache-Control is %q", cache)
	}
	first, second := stream.mustNext(), stream.mustNext()
	if first["retry"] != "2000" || first["event"] != "snapshot" || second["event"] != "snapshot" || second["retry"] != "" {
		t.Errorf("events are %v and %v", first, second)
	}
	var got, later snapshot
	if err := json.Unmarshal([]byte(first["data"]), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(second["data"]), &later); err != nil {
		t.Fatal(err)
	}
	if !later.At.After(got.At) {
		t.Errorf("the second snapshot is of %s, the first of %s", later.At, got.At)
	}
	view, _ := got.View.(map[string]any)
	if got.Application != "orders" || got.Instance != "orders-0" || view["text"] != "two\nlines\r\nand\u2028more" || !got.Can.Drain || got.Can.Effects {
		t.Errorf("the snapshot is %+v", got)
	}
	if len(got.Ready) != 1 || got.Ready[0].Name != "group" || got.Ready[0].Failed != "not joined" {
		t.Errorf("ready is %+v", got.Ready)
	}
}

// The server's limits for a request and its answer are not those of a stream.
func TestEventsOutliveTheLimitsOfRequests(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, func(server *http.Server) {
		server.ReadTimeout, server.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond
	})
	stream := s.stream()
	for range 3 {
		stream.mustNext()
	}
}

// However many look, the process is asked once for all of them; and nobody is asked while nobody looks.
func TestViewersShareASnapshot(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := open(t, func(c *Config) {
		c.View = func(context.Context) (any, error) { return asked.Add(1), nil }
	})
	if asked.Load() != 0 {
		t.Error("asked before anybody looked")
	}
	begun := time.Now()
	for range 50 {
		if answer := s.get(t, "/api/v1/view"); answer.Code != http.StatusOK {
			t.Fatalf("status %d: %s", answer.Code, answer.Body)
		}
	}
	if most := 1 + int64(time.Since(begun)/snapshotAge); asked.Load() > most {
		t.Errorf("asked %d times, want at most %d", asked.Load(), most)
	}
}

// A viewer who goes away while the snapshot is made does not spoil it for the others.
func TestSnapshotOutlivesWhoAskedForIt(t *testing.T) {
	t.Parallel()
	s := open(t, func(c *Config) {
		c.View = func(ctx context.Context) (any, error) { return "fine", ctx.Err() }
	})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if body, err := s.snapshot(gone); err != nil {
		t.Errorf("%s, %v", body, err)
	}
}

// A process that cannot show itself says why, and goes on trying.
func TestEventsTellOfAViewThatFails(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	broken.Store(true)
	s := serve(t, func(c *Config) {
		c.View = func(context.Context) (any, error) {
			if broken.Load() {
				return nil, errors.New("pipe burst")
			}
			return "mended", nil
		}
	}, nil)
	wantProblem(t, s.get(t, "/api/v1/view"), http.StatusServiceUnavailable, "pipe burst")
	stream := s.stream()
	if first := stream.mustNext(); first["event"] != "problem" || !strings.Contains(first["data"], "pipe burst") {
		t.Errorf("the event is %v", first)
	}
	broken.Store(false)
	for {
		if next := stream.mustNext(); next["event"] == "snapshot" {
			break
		}
	}
}

// Streams are bounded; who leaves makes room.
func TestEventsAreForABoundedNumberOfViewers(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, nil)
	streams := make([]*stream, viewersMax)
	for i := range streams {
		streams[i] = s.stream()
		streams[i].mustNext()
	}
	refused := s.get(t, "/api/v1/events")
	wantProblem(t, refused, http.StatusServiceUnavailable, "16 streams")
	if refused.Header().Get("Retry-After") == "" {
		t.Error("no word of when to come again")
	}
	streams[0].leave()
	for deadline := time.Now().Add(patience); ; {
		stream := s.stream()
		if stream.answer.StatusCode == http.StatusOK {
			stream.mustNext()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the one who left has made no room")
		}
	}
}

// A viewer who takes nothing is cut off, so that it can't hold its place for ever.
func TestEventsCutOffWhoReadsNothing(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 8<<20) // more than the buffers of a connection hold
	s := serve(t, func(c *Config) {
		c.View = func(context.Context) (any, error) { return big, nil }
	}, nil)
	connection, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	if _, err := io.WriteString(connection, "GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	await(t, "the stream to begin", func() bool { return len(s.viewers) == 1 })
	await(t, "the stream to be cut off", func() bool { return len(s.viewers) == 0 })
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for timeout := time.After(patience); !done(); {
		select {
		case <-look.C:
		case <-timeout:
			t.Fatalf("waited %s in vain for %s", patience, what)
		}
	}
}

// The end of the process does not wait for viewers, and cuts nothing off in the middle of an event.
func TestEventsEndWithTheServer(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, nil)
	stream := s.stream()
	stream.mustNext()
	begun := time.Now()
	s.cancel()
	for {
		rest, err := stream.next()
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) || len(rest) > 0 {
			t.Errorf("the stream ends with %v and %v, want a clean end", rest, err)
		}
		break
	}
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took >= closeTimeout {
		t.Errorf("the end took %s: the server waited for its viewer", took)
	}
	if len(s.viewers) != 0 {
		t.Errorf("%d viewers are left", len(s.viewers))
	}
}

// HEAD has no body to stream, so its answer ends at once, also for a client that keeps its connection.
func TestEventsAnswerHeadAndEnd(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, nil)
	connection, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	if _, err := io.WriteString(connection, "HEAD /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	head, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil || !strings.Contains(head, "200") {
		t.Errorf("answered %q, %v", head, err)
	}
	await(t, "the request to end", func() bool { return len(s.viewers) == 0 })
}
