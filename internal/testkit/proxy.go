package testkit

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	chunkSize   = 32 << 10
	chunksMax   = 64 // read ahead per direction, for Delay and Hold
)

// Direction is one way through a proxy, or both.
type Direction int

// The directions.
const (
	ToTarget Direction = 1 << iota // what the client sends
	ToClient                       // what the server answers
	Both     = ToTarget | ToClient
)

// Proxy forwards TCP connections to one target and breaks them on demand. Its methods may be called
// at any time from any goroutine. A test that breaks something must check with Hits that it did.
type Proxy struct {
	tb       testing.TB
	target   string
	listener net.Listener
	frames   *faults // not nil: Kafka frames are parsed, see KafkaProxy
	done     sync.WaitGroup
	hits     atomic.Int64

	mu       sync.Mutex
	links    map[*link]struct{}
	cut      map[string]struct{} // addresses from which the target was reached by connections that were cut
	refusing bool
	closed   bool
	delay    time.Duration
	gates    map[Direction]chan struct{} // of the directions on hold; closed on Release
	chosen   func(client string) bool    // whom Hold and Cut strike; nil: everybody's
}

// NewProxy opens a proxy that forwards bytes of any protocol to the address target. It ends with the
// test.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	return newProxy(tb, target, nil)
}

func newProxy(tb testing.TB, target string, frames *faults) *Proxy {
	tb.Helper()
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("open proxy: %v", err)
	}
	p := &Proxy{tb: tb, target: target, listener: listener, frames: frames, links: map[*link]struct{}{}, cut: map[string]struct{}{}, gates: map[Direction]chan struct{}{}}
	p.done.Go(p.accept)
	tb.Cleanup(p.close)
	return p
}

// Address returns where clients connect to.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Hits counts what the proxy has done to its clients: connections cut or refused, and pieces of
// traffic held or delayed.
func (p *Proxy) Hits() int { return int(p.hits.Load()) }

// Cut closes all connections, or those of the clients that were chosen, and returns how many there
// were. What was held on them is lost. New ones are taken as before.
func (p *Proxy) Cut() int {
	p.mu.Lock()
	var links []*link
	for l := range p.links {
		if p.strikes(l) {
			links = append(links, l)
			delete(p.links, l)
			p.cut[l.target.LocalAddr().String()] = struct{}{}
		}
	}
	p.mu.Unlock()
	for _, l := range links {
		l.close()
	}
	p.hits.Add(int64(len(links)))
	return len(links)
}

// WasCut tells whether Cut or Refuse struck the connection that reached the target from this address, the last
// that did. What the target answers on it is lost, however late it reads what came before the cut.
func (p *Proxy) WasCut(from string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, cut := p.cut[from]
	return cut
}

// Refuse cuts all connections and resets new ones as soon as they come, until Accept.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	p.refusing = true
	p.mu.Unlock()
	p.Cut()
}

// Accept ends Refuse.
func (p *Proxy) Accept() {
	p.mu.Lock()
	p.refusing = false
	p.mu.Unlock()
}

// Hold stops the traffic in a direction; connections stay open, also new ones, and what arrives waits
// for Release.
func (p *Proxy) Hold(direction Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range []Direction{ToTarget, ToClient} {
		if direction&d != 0 && p.gates[d] == nil {
			p.gates[d] = make(chan struct{})
		}
	}
}

// Choose makes Hold, old or new, strike only the connections of clients that the function picks by
// their Kafka client id; nil picks all. Other than on KafkaProxies no client has one.
func (p *Proxy) Choose(clients func(id string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.chosen = clients
}

// strikes tells whether the traffic of a link is to be held.
func (p *Proxy) strikes(l *link) bool {
	return p.chosen == nil || p.chosen(l.clientID())
}

// Release lets held traffic go on, in both directions.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d, gate := range p.gates {
		close(gate)
		delete(p.gates, d)
	}
}

// Delay makes everything that arrives from now on take so much longer, in each direction. Zero ends
// it.
func (p *Proxy) Delay(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.chosen = nil
	p.mu.Unlock()
	if err := p.listener.Close(); err != nil {
		p.tb.Errorf("close proxy: %v", err)
	}
	p.Cut()
	p.done.Wait()
}

func (p *Proxy) accept() {
	for { // ends when the listener is closed
		client, err := p.listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				p.tb.Errorf("proxy: accept: %v", err)
			}
			return
		}
		p.done.Go(func() { p.serve(client) })
	}
}

// serve connects a client with the target and returns when the connection has ended.
func (p *Proxy) serve(client net.Conn) {
	p.mu.Lock()
	refuse := p.refusing
	p.mu.Unlock()
	if refuse {
		p.hits.Add(1)
		reset(client)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	target, err := new(net.Dialer).DialContext(ctx, "tcp", p.target)
	if err != nil { // the server is down: so are we
		reset(client)
		return
	}
	l := &link{proxy: p, client: client, target: target, ended: make(chan struct{})}
	p.mu.Lock()
	late := p.refusing || p.closed
	if !late {
		p.links[l] = struct{}{}
		delete(p.cut, target.LocalAddr().String()) // the system has given the address again
	}
	p.mu.Unlock()
	if late {
		l.close()
		return
	}
	var done sync.WaitGroup
	readRequest, readAnswer := l.readers()
	done.Go(func() { l.pump(ToTarget, target, readRequest) })
	done.Go(func() { l.pump(ToClient, client, readAnswer) })
	done.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// reset closes a connection so that the other end gets an error at once.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// link is one connection through the proxy.
type link struct {
	proxy  *Proxy
	client net.Conn
	target net.Conn
	once   sync.Once
	ended  chan struct{}
	id     atomic.Pointer[string] // of the client, once it has said it
}

func (l *link) clientID() string {
	if id := l.id.Load(); id != nil {
		return *id
	}
	return ""
}

func (l *link) close() {
	l.once.Do(func() {
		close(l.ended)
		_ = l.client.Close()
		_ = l.target.Close()
	})
}

// chunk is a piece of traffic on its way.
type chunk struct {
	data []byte
	due  time.Time       // not to be written before
	hold <-chan struct{} // if not nil, not to be written before it is closed
}

// reader returns the next piece of one direction; an error ends the connection.
type reader func() (chunk, error)

// readers are where the pieces of the two directions come from.
func (l *link) readers() (request, answer reader) {
	if l.proxy.frames != nil {
		e := &exchanges{link: l, faults: l.proxy.frames, open: map[int32]exchange{}}
		return e.readRequest, e.readAnswer
	}
	return readBytes(l.client), readBytes(l.target)
}

func readBytes(from io.Reader) reader {
	return func() (chunk, error) {
		data := make([]byte, chunkSize)
		n, err := from.Read(data)
		return chunk{data: data[:n]}, err
	}
}

// pump moves one direction: it reads ahead, and writes when a piece is due and nothing holds it.
func (l *link) pump(direction Direction, to io.Writer, next reader) {
	queue := make(chan chunk, chunksMax)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(queue)
		for { // ends with the connection
			c, err := next()
			l.proxy.mu.Lock()
			delay := l.proxy.delay
			l.proxy.mu.Unlock()
			c.due = time.Now().Add(delay)
			if len(c.data) > 0 {
				select {
				case queue <- c:
				case <-l.ended:
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	for c := range queue {
		if !l.await(direction, c) {
			break
		}
		if _, err := to.Write(c.data); err != nil {
			break
		}
	}
	l.close()
	reading.Wait()
}

// await returns true when c may be written, false when the connection has ended.
func (l *link) await(direction Direction, c chunk) bool {
	if wait := time.Until(c.due); wait > 0 {
		l.proxy.hits.Add(1)
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.ended:
			return false
		}
	}
	l.proxy.mu.Lock()
	gate := l.proxy.gates[direction]
	if gate != nil && !l.proxy.strikes(l) {
		gate = nil
	}
	l.proxy.mu.Unlock()
	if gate != nil {
		l.proxy.hits.Add(1)
	}
	for _, obstacle := range []<-chan struct{}{gate, c.hold} {
		if obstacle == nil {
			continue
		}
		select {
		case <-obstacle:
		case <-l.ended:
			return false
		}
	}
	return true
}
