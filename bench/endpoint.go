package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
)

const (
	endpointHeadMax = 64 << 10
	endpointBuffer  = 4 << 10 // to begin with
	endpointAnswer  = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n"
	endpointRefusal = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)

// endpoint is what all peers call. It speaks as much HTTP/1.1 as they do and no more: each request has a
// body and says how long it is, connections stay open. Server and caller share a machine, so that all
// the server takes is taken from the peer and makes peers look alike. With net/http a call took it
// twice what it takes here, where the kernel has most of it.
type endpoint struct {
	url      string
	listener net.Listener
	seen     func(body []byte) error
	running  sync.WaitGroup

	mu          sync.Mutex
	connections map[net.Conn]struct{} // nil once closed
	problem     error                 // the first
}

// openEndpoint listens on loopback. seen is called for each body before it is answered, by many at a
// time; it may not keep the body. What it gives an error for is answered with 400.
func openEndpoint(ctx context.Context, seen func(body []byte) error) (*endpoint, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the endpoint: %w", err)
	}
	e := &endpoint{
		url: "http://" + listener.Addr().String() + "/", listener: listener, seen: seen, connections: map[net.Conn]struct{}{},
	}
	e.running.Go(e.accept)
	return e, nil
}

// close ends all connections. Its error is also one of a request that was refused: no peer makes such.
func (e *endpoint) close() error {
	e.mu.Lock()
	connections := e.connections
	e.connections = nil
	e.mu.Unlock()
	err := e.listener.Close()
	for connection := range connections {
		_ = connection.Close() // a peer that has ended has closed it
	}
	e.running.Wait()
	if err := errors.Join(e.problem, err); err != nil {
		return fmt.Errorf("endpoint: %w", err)
	}
	return nil
}

func (e *endpoint) accept() {
	for {
		connection, err := e.listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				e.note(err)
			}
			return
		}
		e.mu.Lock()
		open := e.connections != nil
		if open {
			e.connections[connection] = struct{}{}
			e.running.Go(func() { e.serve(connection) })
		}
		e.mu.Unlock()
		if !open {
			_ = connection.Close()
		}
	}
}

func (e *endpoint) note(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.problem == nil {
		e.problem = err
	}
}

// serve answers the requests of a connection until the peer has enough.
func (e *endpoint) serve(connection net.Conn) {
	defer func() {
		_ = connection.Close() // nothing is left to be sent
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.connections, connection)
	}()
	buffer := make([]byte, 0, endpointBuffer)
	for {
		body, size, err := parseRequest(buffer)
		if err == nil && size > 0 {
			err = e.seen(body)
		}
		if err != nil {
			e.note(err)
			_, _ = connection.Write([]byte(endpointRefusal)) // it has failed as it is
			return
		}
		if size > 0 {
			if _, err := connection.Write([]byte(endpointAnswer)); err != nil {
				return
			}
			buffer = append(buffer[:0], buffer[size:]...)
			continue
		}
		if len(buffer) == cap(buffer) {
			buffer = append(make([]byte, 0, 2*cap(buffer)), buffer...)
		}
		n, err := connection.Read(buffer[len(buffer):cap(buffer)])
		if err != nil {
			return
		}
		buffer = buffer[:len(buffer)+n]
	}
}

// parseRequest gives the body of the request that text begins with, and the size of the whole: 0 where
// a part is still to come.
func parseRequest(text []byte) (body []byte, size int, err error) {
	head, _, complete := bytes.Cut(text, []byte("\r\n\r\n"))
	if !complete {
		if len(text) > endpointHeadMax {
			return nil, 0, fmt.Errorf("headers of more than %d bytes", endpointHeadMax)
		}
		return nil, 0, nil
	}
	length, err := contentLength(head)
	if err != nil {
		return nil, 0, err
	}
	begin := len(head) + len("\r\n\r\n")
	if len(text) < begin+length {
		return nil, 0, nil
	}
	return text[begin : begin+length], begin + length, nil
}

// contentLength reads what the lines of a request say of its body. One that is sent in chunks says
// nothing.
func contentLength(head []byte) (int, error) {
	const name = "content-length:"
	for len(head) > 0 {
		var line []byte
		line, head, _ = bytes.Cut(head, []byte("\r\n"))
		if len(line) < len(name) || !bytes.EqualFold(line[:len(name)], []byte(name)) {
			continue
		}
		length, err := strconv.Atoi(string(bytes.TrimSpace(line[len(name):])))
		if err != nil || length < 0 || length > effectBodyMax {
			return 0, fmt.Errorf("%s, want a number up to %d", line, effectBodyMax)
		}
		return length, nil
	}
	return 0, errors.New("a request without a content-length")
}
