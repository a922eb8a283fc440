package httptarget

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"
)

// pool keeps the connections to one address: those that calls use and those that rest, together at
// most as many as it has slots.
type pool struct {
	address string      // host:port
	dialer  net.Dialer  // with the guard
	tls     *tls.Config // nil where there's no TLS
	rotate  time.Duration
	rest    time.Duration // how long a connection may be without a call

	slots chan struct{} // one for each call that has or wants a connection

	mu     sync.Mutex
	closed bool
	idle   []*conn     // the one that rests longest is the first
	reaper *time.Timer // nil while nothing rests
}

// init makes the pool ready, whose URL and configuration have been checked.
func (p *pool) init(where *url.URL, conf Config) {
	secure := where.Scheme == "https"
	port := where.Port()
	switch {
	case port == "" && secure:
		port = "443"
	case port == "":
		port = "80"
	}
	p.address = net.JoinHostPort(where.Hostname(), port)
	p.dialer.Timeout = dialTimeout
	if !conf.AllowPrivate {
		p.dialer.ControlContext = guard(refusePrivate)
	}
	if secure {
		p.tls = &tls.Config{ServerName: where.Hostname(), NextProtos: []string{"http/1.1"}} // the rest is Go's choice
	}
	p.rotate, p.rest = rotatePeriod, idleTimeout
	p.slots = make(chan struct{}, conf.Concurrency)
}

var errClosed = errors.New("the target is closed")

// enter takes a slot for one call, as soon as there is one. leave gives it back, after the call's
// connection is kept or closed.
func (p *pool) enter(ctx context.Context) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pool) leave() { <-p.slots }

// take gives a connection that rests and is good for a call, otherwise a new one.
func (p *pool) take(ctx context.Context) (*conn, error) {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return p.open(ctx)
		}
		// The one that was used last: so those too many come to rest for long enough to be closed.
		c := p.idle[n-1]
		p.idle = slices.Delete(p.idle, n-1, n)
		p.mu.Unlock()
		if time.Since(c.born) < p.rotate && c.alive() {
			c.reused = true
			return c, nil
		}
		c.close()
	}
}

// open gives a new connection.
func (p *pool) open(ctx context.Context) (*conn, error) {
	if err := p.room(); err != nil {
		return nil, err
	}
	dialed, err := p.dialer.DialContext(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	c, err := newConn(dialed.(*net.TCPConn))
	if err == nil && p.tls != nil {
		err = c.secure(ctx, p.tls)
	}
	if err != nil {
		_ = dialed.Close() // it has carried nothing
		return nil, err
	}
	return c, nil
}

// secure puts TLS over the wire.
func (c *conn) secure(ctx context.Context, conf *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	session := tls.Client(&c.wire, conf)
	if err := session.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.stream = session
	return nil
}

// room closes a connection that rests, if there would otherwise be one too many.
func (p *pool) room() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return errClosed
	}
	var one *conn
	if len(p.idle) > 0 && len(p.idle)+len(p.slots) > cap(p.slots) {
		one = p.idle[0]
		p.idle = slices.Delete(p.idle, 0, 1)
	}
	p.mu.Unlock()
	if one != nil {
		one.close()
	}
	return nil
}

// keep lets a connection rest until the next call.
func (p *pool) keep(c *conn) {
	now := time.Now()
	p.mu.Lock()
	closed := p.closed
	if !closed {
		c.rested = now
		p.idle = append(p.idle, c)
		if p.reaper == nil {
			p.reaper = time.AfterFunc(p.rest, p.reap)
		}
	}
	p.mu.Unlock()
	if closed {
		c.close()
	}
}

// reap closes what has rested for too long, and comes back for the others.
func (p *pool) reap() {
	p.mu.Lock()
	now := time.Now()
	n := 0
	for n < len(p.idle) && now.Sub(p.idle[n].rested) >= p.rest {
		n++
	}
	old := slices.Clone(p.idle[:n])
	p.idle = slices.Delete(p.idle, 0, n)
	p.reaper = nil
	if len(p.idle) > 0 {
		p.reaper = time.AfterFunc(p.idle[0].rested.Add(p.rest).Sub(now), p.reap)
	}
	p.mu.Unlock()
	for _, c := range old {
		c.close()
	}
}

// close closes what rests, and lets nothing rest any more.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	if p.reaper != nil {
		p.reaper.Stop()
	}
	p.mu.Unlock()
	for _, c := range idle {
		c.close()
	}
}
