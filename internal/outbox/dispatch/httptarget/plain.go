package httptarget

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
)

// said is what counts of an answer: of its head, and its body.
type said struct {
	status      int
	contentType string
	retryAfter  string
	date        string    // as far as retryAfter needs it
	length      int64     // of the body; -1 where nothing says it before its end
	body        io.Reader // tells an end from a body cut short (io.ErrUnexpectedEOF)
	close       bool      // the endpoint ends the connection after it
}

// read is what net/http has read of an answer.
func read(response *http.Response) said {
	h := response.Header
	return said{
		status: response.StatusCode, contentType: h.Get(headerContentType), retryAfter: h.Get("Retry-After"), date: h.Get("Date"),
		length: response.ContentLength, body: response.Body, close: response.Close,
	}
}

// plain reads the head of an answer as nearly all are: it stands whole in the buffer, is HTTP/1.1, and says how long its body is. All
// that could be understood in more than one way is left to net/http, which then finds the buffer as it was. What is read here
// is understood as net/http understands it (FuzzPlain); it costs a tenth and allocates a string at most.
func (c *conn) plain() (s said, ok bool) {
	text, _ := c.in.Peek(c.in.Buffered()) // that much is there
	end := bytes.Index(text, []byte("\r\n\r\n"))
	if end < 0 {
		return said{}, false
	}
	line, text, more := bytes.Cut(text[:end], []byte("\r\n"))
	if s.status = plainStatus(line); s.status == 0 {
		return said{}, false
	}
	s.length = -1
	for more {
		line, text, more = bytes.Cut(text, []byte("\r\n"))
		if !s.plainHeader(line, c) {
			return said{}, false
		}
	}
	if s.length < 0 {
		return said{}, false
	}
	_, _ = c.in.Discard(end + len("\r\n\r\n")) // so much was peeked at
	c.body = sized{c.in, s.length}
	s.body = &c.body
	return s, true
}

// plainStatus is the status of an answer that has a body, or may have one; 0 for all others.
func plainStatus(line []byte) (status int) {
	digits, is := bytes.CutPrefix(line, []byte("HTTP/1.1 "))
	digits, reason, _ := bytes.Cut(digits, []byte(" "))
	if !is || len(digits) != len("200") || !printable(reason) {
		return 0
	}
	number, is := plainNumber(digits)
	if status = int(number); !is || status < 200 || status == http.StatusNoContent || status == http.StatusNotModified {
		return 0
	}
	return status
}

// plainHeader takes one line of a head and reports whether it leaves no doubt.
func (s *said) plainHeader(line []byte, c *conn) bool {
	name, value, _ := bytes.Cut(line, []byte(":"))
	if len(name) == 0 || len(name) == len(line) || bytes.ContainsFunc(name, notInName) || !printable(value) {
		return false
	}
	value = bytes.Trim(value, " \t")
	is := func(other string) bool { return len(name) == len(other) && strings.EqualFold(string(name), other) }
	switch {
	case is("Content-Length"):
		length, ok := plainNumber(value)
		if !ok || s.length >= 0 {
			return false
		}
		s.length = length
	case is("Transfer-Encoding"), is("Trailer"):
		return false
	case is("Connection"):
		s.close = s.close || strings.EqualFold(string(value), "close")
		return s.close || strings.EqualFold(string(value), "keep-alive")
	case is(headerContentType):
		if s.contentType == "" {
			if string(value) != c.contentType { // nearly always it is that of the answer before
				c.contentType = string(value)
			}
			s.contentType = c.contentType
		}
	case is("Retry-After"):
		return false // rare, and then Date counts too
	}
	return true
}

// plainNumber reads digits, no more than a length of the usual size has.
func plainNumber(text []byte) (number int64, ok bool) {
	const digitsMax = 15
	if len(text) == 0 || len(text) > digitsMax {
		return 0, false
	}
	for _, b := range text {
		if b < '0' || b > '9' {
			return 0, false
		}
		number = 10*number + int64(b-'0')
	}
	return number, true
}

// notInName is true of what is in no name of a header, or in no usual one.
func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

func printable(text []byte) bool {
	for _, b := range text {
		if b < ' ' && b != '\t' || b == 0x7f {
			return false
		}
	}
	return true
}

// sized is a body of a length that was said.
type sized struct {
	in   *bufio.Reader
	left int64
}

// Read implements io.Reader.
func (b *sized) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.in.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
