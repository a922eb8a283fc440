package httptarget

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"syscall"
	"time"
)

// conn is a connection to the endpoint. One call at a time has it, and uses it from one goroutine; only
// expire may be called from others.
type conn struct {
	socket *net.TCPConn
	raw    syscall.RawConn // of socket
	wire   wire            // over socket
	stream net.Conn        // what is said: over wire, or over TLS over wire
	in     *bufio.Reader   // over conn itself
	born   time.Time
	rested time.Time          // when its last call was over
	reused bool               // it has carried a call before
	expire func()             // lets all that waits for the peer fail, now and later
	look   func(uintptr) bool // see alive

	probe  [1]byte
	silent bool // what look has found

	// Of the present call:
	left     int       // bytes that may still be read
	answered bool      // some byte of the answer has arrived
	broken   bool      // reading or writing has failed: it carries no other call
	sending  chan bool // gets whether all of a large body was written; nil when none is under way
	body     sized     // of an answer that says how long it is

	contentType string // of some answer before, most likely of the next one too
}

// wire notes whether anything was handed to the network, so below TLS.
type wire struct {
	net.Conn

	wrote bool
}

// Write writes. Only its first success changes anything, and a call's first write is one that nothing
// runs beside.
func (w *wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if n > 0 && !w.wrote {
		w.wrote = true
	}
	return n, err
}

func newConn(socket *net.TCPConn) (*conn, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("open connection: %w", err)
	}
	c := &conn{socket: socket, raw: raw, wire: wire{Conn: socket}, born: time.Now()}
	c.stream = &c.wire
	c.in = bufio.NewReader(c)
	c.expire = func() { _ = socket.SetDeadline(time.Unix(1, 0)) } // fails only where all else does
	c.look = func(fd uintptr) bool {
		n, err := syscall.Read(int(fd), c.probe[:]) // sockets don't block: see package net
		c.silent = n < 0 && errors.Is(err, syscall.EAGAIN)
		return true
	}
	return c, nil
}

// alive reports whether the connection, which rests, can carry a call. One that the endpoint has closed
// can't, nor one on which it said something unasked, which would be taken for our answer. The byte
// that may be read is never missed then.
func (c *conn) alive() bool {
	return c.raw.Read(c.look) == nil && c.silent
}

var errHead = fmt.Errorf("the answer's head has more than %d bytes", headersMax)

// Read reads what the endpoint says; it is what the buffer reads from.
func (c *conn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errHead
	}
	n, err := c.stream.Read(p)
	c.left -= n
	c.answered = c.answered || n > 0
	c.broken = c.broken || err != nil
	return n, err
}

// ask sends the request and waits for the head of its answer, whose body needs no Close: it would read
// to the end, however far that is. Whether anything was sent then stands in wire.wrote.
func (c *conn) ask(q request) (said, error) {
	c.wire.wrote, c.answered, c.left = false, false, headersMax
	_, err := c.stream.Write(q.head)
	switch {
	case err == nil && len(q.body) > 0:
		// An endpoint that answers before it has read all may stop reading, for good or until somebody
		// reads what it writes. So writing waits for nothing that reading is needed for.
		c.sending = make(chan bool, 1)
		go func() {
			_, err := c.stream.Write(q.body)
			c.sending <- err == nil
		}()
	case err != nil && (!c.wire.wrote || !hungUp(err)):
		return said{}, err
	case err != nil:
		c.broken = true // it may have answered before it hung up
	}
	return c.hear()
}

// hear waits for the head of an answer.
func (c *conn) hear() (said, error) {
	if _, err := c.in.Peek(1); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return said{}, err
	}
	if s, ok := c.plain(); ok {
		c.left = math.MaxInt // its reader bounds the body
		return s, nil
	}
	for {
		response, err := http.ReadResponse(c.in, nil) //nolint:bodyclose // see ask
		if err != nil {
			return said{}, err
		}
		// What is informational comes before the answer (RFC 9110 section 15.2), as often as fits the
		// bound of the head. A switch of protocols was not asked for, and nothing comes after it.
		if response.StatusCode < 100 || response.StatusCode > 199 || response.StatusCode == http.StatusSwitchingProtocols {
			c.left = math.MaxInt // its reader bounds the body
			return read(response), nil
		}
	}
}

func hungUp(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// sent waits for the end of the request's transmission, which the answer was faster than perhaps, and
// reports whether the connection is as good as before the call.
func (c *conn) sent() bool {
	if c.sending != nil {
		_ = c.socket.SetWriteDeadline(time.Now().Add(sendGrace)) // where it fails, so does the writing
		c.broken = !<-c.sending || c.broken
		c.sending = nil
		_ = c.socket.SetWriteDeadline(time.Time{})
	}
	return !c.broken && c.in.Buffered() == 0
}

// close ends a connection that rests. Where there's TLS, it says goodbye.
func (c *conn) close() { _ = c.stream.Close() } // nothing hangs on it

// abort ends a connection and whatever is under way on it.
func (c *conn) abort() {
	_ = c.socket.Close()
	if c.sending != nil {
		<-c.sending
		c.sending = nil
	}
}
