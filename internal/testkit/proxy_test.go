package testkit

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echo opens a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return listener.Addr().String()
}

// dial connects a client that speaks in lines.
func dial(t *testing.T, address string) *bufio.ReadWriter {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c))
}

// ask sends a line and waits for it to come back.
func ask(c *bufio.ReadWriter) error {
	if _, err := c.WriteString("line\n"); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return err
	}
	_, err := c.ReadString('\n')
	return err
}

// isReset tells whether the proxy turns a new connection away, at the latest when it is used.
func isReset(t *testing.T, p *Proxy) bool {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.Address())
	if err != nil {
		return true
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = c.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

func TestProxyCutsAndRefuses(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	c := dial(t, p.Address())
	if err := ask(c); err != nil {
		t.Fatal(err)
	}
	if n := p.Cut(); n != 1 {
		t.Errorf("cut %d connections, want 1", n)
	}
	if err := ask(c); err == nil {
		t.Error("a connection works after Cut")
	}
	if err := ask(dial(t, p.Address())); err != nil {
		t.Errorf("after Cut, new connection: %v", err)
	}
	p.Refuse()
	if !isReset(t, p) {
		t.Error("a connection works after Refuse")
	}
	p.Accept()
	if err := ask(dial(t, p.Address())); err != nil {
		t.Errorf("after Accept: %v", err)
	}
	if p.Hits() < 3 { // a cut, a cut by Refuse, a refusal
		t.Errorf("%d hits, want at least 3", p.Hits())
	}
}

// The target knows a connection by its address, and may be asked of it long after the cut.
func TestProxyTellsWhichConnectionsItCut(t *testing.T) {
	t.Parallel()
	target, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	p := NewProxy(t, target.Addr().String())
	var from [2]string
	for i := range from {
		dial(t, p.Address())
		c, err := target.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		from[i] = c.RemoteAddr().String()
		if i == 0 {
			WaitFor(t, 10*time.Second, "a connection to be cut", func() bool { return p.Cut() == 1 })
		}
	}
	if !p.WasCut(from[0]) || p.WasCut(from[1]) {
		t.Errorf("cut: %t and %t, want the first only", p.WasCut(from[0]), p.WasCut(from[1]))
	}
}

func TestProxyHoldsUntilRelease(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	c := dial(t, p.Address())
	p.Hold(ToClient)
	answered := make(chan error, 1)
	go func() { answered <- ask(c) }()
	WaitFor(t, 10*time.Second, "the answer to reach the gate", func() bool { return p.Hits() > 0 })
	select {
	case err := <-answered:
		t.Fatalf("answered while on hold: %v", err)
	default:
	}
	p.Release()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestProxyDelays(t *testing.T) {
	t.Parallel()
	const delay = 50 * time.Millisecond
	p := NewProxy(t, echo(t))
	p.Delay(delay)
	begin := time.Now()
	if err := ask(dial(t, p.Address())); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 2*delay {
		t.Errorf("there and back took %v, want at least %v", took, 2*delay)
	}
	if p.Hits() < 2 {
		t.Errorf("%d hits, want 2", p.Hits())
	}
}

// A proxy before a server that is down is down too, and comes back with it.
func TestProxyOfDeadTargetResets(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	p := NewProxy(t, listener.Addr().String())
	if !isReset(t, p) {
		t.Error("got an answer from nobody")
	}
}
