package txn

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// gate is the network of one process under test. It can die with the process, and it can lose the
// answers to requests of one kind after the broker has executed them.
type gate struct {
	mu     sync.Mutex
	conns  map[*gateConn]bool
	dead   bool
	frozen bool
	late   int // connections whose writes came late
	lose   map[kmsg.Key]bool
	lost   int    // requests whose answer was lost
	dials  int    // connections that were asked for
	onCut  func() // after the first loss
	stop   *stop  // where the process stands still
	reach  dialer
}

// stop is the request at which a process stands still: it is on its way when everything freezes.
type stop struct {
	at   kmsg.Key
	then func()
}

// dialer makes connections.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

func (w *world) newGate() *gate {
	return &gate{conns: map[*gateConn]bool{}, lose: map[kmsg.Key]bool{}, reach: w.dial}
}

var errDead = errors.New("the process is dead")

// dialTimeout is the client's own, which it does not apply to foreign dialers.
const dialTimeout = 10 * time.Second

func (g *gate) dial() kgo.Opt {
	return kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
		g.mu.Lock()
		g.dials++
		frozen := g.frozen
		g.mu.Unlock()
		if frozen {
			pause(ctx, dialTimeout)
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
		}
		conn, err := g.reach(ctx, network, address)
		if err != nil {
			return nil, err
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.dead {
			_ = conn.Close()
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errDead}
		}
		c := &gateConn{Conn: conn, gate: g}
		g.conns[c] = true
		return c, nil
	})
}

// kill ends all connections and allows no new ones: for the brokers, SIGKILL.
func (g *gate) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dead = true
	for c := range g.conns {
		_ = c.Conn.Close()
	}
}

// freeze lets nothing reach the brokers any more and says so to nobody: a cable that was pulled. What is
// written meanwhile is kept on the way.
func (g *gate) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.frozen = true
}

// freezeAt freezes at the first request of a kind.
func (g *gate) freezeAt(key kmsg.Key, then func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stop = &stop{key, then}
}

// mend lets connections through again. What was written during a freeze arrives now, even that of
// connections which were given up: as a network does it, minutes late.
func (g *gate) mend() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dead, g.frozen = false, false
	for c := range g.conns {
		if len(c.held) > 0 {
			g.late++
			go c.deliver()
		}
	}
}

func (g *gate) dialled() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dials
}

func (g *gate) loseAnswers(key kmsg.Key, lose bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lose[key] = lose
}

func (g *gate) losses() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lost
}

type gateConn struct {
	net.Conn
	gate   *gate
	held   [][]byte // written during a freeze; guarded by the gate
	closed bool     // by the client, while something was held
}

// deliver passes on what was held.
func (c *gateConn) deliver() {
	for {
		c.gate.mu.Lock()
		held, closed := c.held, c.closed
		c.gate.mu.Unlock()
		if len(held) == 0 {
			if closed {
				_ = c.Close()
			}
			return
		}
		if closed { // nobody reads the answers
			_ = c.SetReadDeadline(time.Time{})
			go func() { _, _ = io.Copy(io.Discard, c.Conn) }()
		}
		_, _ = c.Conn.Write(held[0])
		c.gate.mu.Lock()
		c.held = c.held[1:]
		c.gate.mu.Unlock()
	}
}

// executed is more than a broker needs for a request. In virtual time it passes only when the broker
// has nothing left to do.
const executed = 50 * time.Millisecond

// Write passes requests on. A request whose answer is to be lost reaches the broker; then the
// connection is cut.
func (c *gateConn) Write(b []byte) (int, error) {
	c.gate.mu.Lock()
	if stop := c.gate.stop; stop != nil && len(b) >= 6 && kmsg.Key(binary.BigEndian.Uint16(b[4:6])) == stop.at {
		c.gate.frozen, c.gate.stop = true, nil
		stop.then()
	}
	hold := c.gate.frozen || len(c.held) > 0
	if hold {
		c.held = append(c.held, bytes.Clone(b))
	}
	c.gate.mu.Unlock()
	if hold {
		return len(b), nil
	}
	n, err := c.Conn.Write(b)
	if err != nil || len(b) < 6 {
		return n, asNetwork("write", err)
	}
	key := kmsg.Key(binary.BigEndian.Uint16(b[4:6]))
	c.gate.mu.Lock()
	lose, onCut := c.gate.lose[key], c.gate.onCut
	if lose {
		c.gate.lost++
		c.gate.onCut = nil
	}
	c.gate.mu.Unlock()
	if lose {
		time.Sleep(executed) //nolint:forbidigo // virtual time: the broker has executed what it will not be asked about
		if onCut != nil {
			onCut()
		}
		_ = c.Conn.Close()
	}
	return n, err
}

func (c *gateConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	return n, asNetwork("read", err)
}

// asNetwork makes a pipe end as a socket ends, which for the client is worth another try.
func asNetwork(op string, err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		return &net.OpError{Op: op, Net: "tcp", Err: net.ErrClosed}
	}
	return err
}

func (c *gateConn) Close() error {
	c.gate.mu.Lock()
	late := len(c.held) > 0 && !c.gate.dead
	if late {
		c.closed = true
	} else {
		delete(c.gate.conns, c)
	}
	c.gate.mu.Unlock()
	if late {
		return c.SetReadDeadline(time.Now())
	}
	return c.Conn.Close()
}
