package httptarget

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

// Connections that rest count as well: a call that wants a new one closes one of them first.
func TestNoMoreConnectionsAreOpenThanTheConcurrency(t *testing.T) {
	t.Parallel()
	const callers, concurrency, calls = 12, 3, 40
	r := receive(t, status(200), nil)
	target := open(t, r.URL, func(c *Config) { c.Concurrency = concurrency })
	var mu sync.Mutex
	var sockets []syscall.RawConn
	var dials, full int
	target.pool.dialer.ControlContext = func(_ context.Context, _, _ string, socket syscall.RawConn) error {
		mu.Lock()
		defer mu.Unlock()
		sockets = slices.DeleteFunc(append(sockets, socket), func(s syscall.RawConn) bool { return s.Control(func(uintptr) {}) != nil }) // which says that it's closed
		if dials++; len(sockets) == concurrency {
			full++
		} else if len(sockets) > concurrency {
			t.Errorf("%d connections are open", len(sockets))
		}
		return nil
	}
	var running sync.WaitGroup
	for caller := range callers {
		running.Go(func() {
			for n := range calls {
				it := call(nil)
				if (caller+n)%3 == 0 {
					once(&it)
				}
				if answer := send(t, target, it); answer.Status != 200 {
					t.Errorf("answer: %+v", answer)
				}
			}
		})
	}
	running.Wait()
	if dials < callers*calls/3 || full == 0 {
		t.Errorf("%d dials, with all others open in %d", dials, full)
	}
}

// watched counts a receiver's connections by how they stand.
type watched struct{ opened, closed atomic.Int32 }

func (w *watched) on(s *httptest.Server) {
	count := s.Config.ConnState
	s.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		count(conn, state)
		switch state {
		case http.StateNew:
			w.opened.Add(1)
		case http.StateClosed:
			w.closed.Add(1)
		default:
		}
	}
}

// What rests for too long is closed without anybody's call, by us: so the endpoint doesn't close it
// just when a call comes.
func TestConnectionThatRestsTooLongIsClosed(t *testing.T) {
	t.Parallel()
	var w watched
	arrived, release := make(chan struct{}, 3), make(chan struct{})
	r := receive(t, func(http.ResponseWriter, *http.Request) { arrived <- struct{}{}; <-release }, w.on)
	target := open(t, r.URL, nil)
	target.pool.rest = time.Hour
	var running sync.WaitGroup
	for range 3 {
		running.Go(func() { send(t, target, call(nil)) })
	}
	for range 3 {
		<-arrived
	}
	close(release)
	running.Wait()
	p := &target.pool
	p.mu.Lock()
	p.reaper.Stop()
	p.rest = 100 * time.Millisecond
	p.idle[0].rested = time.Now().Add(-time.Hour)
	p.idle[1].rested = time.Now().Add(-time.Hour)
	p.mu.Unlock()
	p.reap()
	until(t, "two are closed", func() bool { return w.closed.Load() >= 2 })
	until(t, "all are closed", func() bool { return w.closed.Load() == 3 }) // the third by the clock
	if answer := send(t, target, call(nil)); answer.Status != 200 || w.opened.Load() != 4 {
		t.Errorf("answer: %+v, %d connections", answer, w.opened.Load())
	}
}

// Close takes what rests at once, and what a call has when it's over.
func TestCloseLeavesNoConnection(t *testing.T) {
	t.Parallel()
	var w watched
	var holds atomic.Bool
	arrived, release := make(chan struct{}), make(chan struct{})
	r := receive(t, func(http.ResponseWriter, *http.Request) {
		if holds.Load() {
			arrived <- struct{}{}
			<-release
		}
	}, w.on)
	target := open(t, r.URL, nil)
	left, used := resting(t, target), resting(t, target)
	holds.Store(true)
	var running sync.WaitGroup
	var answer outbox.Answer
	running.Go(func() { answer = send(t, target, call(nil)) })
	<-arrived
	target.Close()
	until(t, "what rests is closed", func() bool { return w.closed.Load() == 1 })
	runtime.KeepAlive(left) // or it would be closed as garbage
	close(release)
	running.Wait()
	if answer.Status != 200 {
		t.Errorf("answer: %+v", answer)
	}
	until(t, "all is closed", func() bool { return w.closed.Load() == 2 })
	runtime.KeepAlive(used)
	if target.pool.idle != nil {
		t.Error("a connection rests in a closed target")
	}
}

// ledger is what a test's endpoint has seen: transmissions by the offset of their intent.
type ledger struct {
	mu            sync.Mutex
	transmissions map[string]int
}

func (l *ledger) note(order string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.transmissions[order]++
}

// An endpoint that closes connections whenever it likes. Those that rest: at-least-once calls get
// through all the same. And new ones, before or after it has read a call: at-most-once calls fail then,
// and each was transmitted once at most; none of which it is said that it was not sent was seen.
func TestCallsUnderAnEndpointThatClosesConnections(t *testing.T) {
	t.Parallel()
	for _, class := range []message.Class{message.AtLeastOnce, message.AtMostOnce} {
		t.Run(string(class), func(t *testing.T) {
			t.Parallel()
			const callers, calls = 8, 150
			seen := ledger{transmissions: map[string]int{}}
			var rests, breaks atomic.Int32 // connections closed at rest, and under a call
			url := serveConns(t, func(conn *net.TCPConn) {
				chance := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
				in := bufio.NewReader(conn)
				hangUp := func(count *atomic.Int32) {
					count.Add(1)
					if chance.IntN(2) == 0 {
						reset(conn)
					}
				}
				if class == message.AtMostOnce && chance.IntN(8) == 0 {
					hangUp(&breaks)
					return
				}
				for request := 0; ; request++ {
					if request > 0 {
						_ = conn.SetReadDeadline(time.Now().Add(time.Duration(chance.IntN(1000)) * time.Microsecond))
					}
					q, err := http.ReadRequest(in)
					if err != nil {
						if errors.Is(err, os.ErrDeadlineExceeded) {
							hangUp(&rests)
						}
						return
					}
					_, _ = io.Copy(io.Discard, q.Body)
					seen.note(q.Header.Get(headerOrder))
					if (class == message.AtMostOnce || request > 0) && chance.IntN(8) == 0 {
						hangUp(&breaks)
						return
					}
					if !say(conn, fine) {
						return
					}
				}
			})
			target := open(t, url, func(c *Config) { c.Concurrency = callers })
			var replays, unsent, failed atomic.Int32
			var running sync.WaitGroup
			for caller := range callers {
				running.Go(func() {
					for n := range calls {
						it := call(func(c *outbox.Call) { c.Intent.Class, c.Intent.Lane, c.Intent.Offset = class, int32(caller), int64(n) })
						answer := send(t, target, it)
						seen.mu.Lock()
						got := seen.transmissions[fmt.Sprintf("%d:%d", caller, n)]
						seen.mu.Unlock()
						replays.Add(int32(answer.Replays))
						if answer.Err != nil {
							failed.Add(1)
						}
						if !answer.Sent {
							unsent.Add(1)
						}
						switch {
						case !answer.Sent && got > 0:
							t.Errorf("not sent, but seen %d times: %+v", got, answer)
						case got > 1+answer.Replays:
							t.Errorf("seen %d times: %+v", got, answer)
						case answer.Err == nil && got == 0:
							t.Errorf("answered, but not seen: %+v", answer)
						case class == message.AtLeastOnce && answer.Status != 200:
							t.Errorf("answer: %+v", answer)
						case class == message.AtMostOnce && answer.Replays != 0:
							t.Errorf("replayed: %+v", answer)
						}
						<-time.After(time.Duration(rand.IntN(1500)) * time.Microsecond) // so that connections rest
					}
				})
			}
			running.Wait()
			t.Logf("%d connections closed at rest, %d under a call; %d replays, %d calls failed, %d unsent", rests.Load(), breaks.Load(), replays.Load(), failed.Load(), unsent.Load())
			if breaks.Load() == 0 || class == message.AtLeastOnce && (rests.Load() == 0 || replays.Load() == 0) || class == message.AtMostOnce && failed.Load() == 0 {
				t.Error("there were too few faults")
			}
		})
	}
}
