package httptarget

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

func TestOnlyAddressesOfTheInternetAreCalled(t *testing.T) {
	t.Parallel()
	for _, refused := range []string{
		"127.0.0.1", "127.255.255.254", "::1", // loopback
		"10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12:3456::1", // private
		"169.254.1.1", "fe80::1", "fe80::1%eth0", "febf::1", // link-local
		"224.0.0.1", "239.255.255.250", "ff02::1", // multicast
		"0.0.0.0", "0.1.2.3", "::", // unspecified
		"100.64.0.1", "100.127.255.255", // carrier-grade NAT
		"169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192", // metadata
		"::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", // IPv4 in IPv6
		"::10.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:a00:1::1", "2001:0:1::1",
		"255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1", // reserved
		"2001:db8::1", "3fff::1", "100::1", "fec0::1", "5f00::1", "4000::1",
	} {
		address := netip.MustParseAddr(refused)
		if err := refusePrivate(address); err == nil {
			t.Errorf("%s is allowed", refused)
		} else if !strings.HasPrefix(err.Error(), address.String()+" is ") {
			t.Errorf("%s: %v", refused, err)
		}
	}
	for _, allowed := range []string{
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "192.169.0.1", "168.63.129.17", "223.255.255.255",
		"2606:4700::1111", "2001:4860:4860::8888", "2a00:1450::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8",
	} {
		if err := refusePrivate(netip.MustParseAddr(allowed)); err != nil {
			t.Errorf("%s: %v", allowed, err)
		}
	}
}

func TestNameThatResolvesToAPrivateAddressIsNotCalled(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
		for _, class := range []message.Class{message.AtLeastOnce, message.AtMostOnce} {
			r := receive(t, nil, nil)
			target := open(t, "http://pay.example:"+port(t, r.URL), func(c *Config) { c.AllowPrivate = false })
			target.pool.dialer.Resolver = resolve(t, address)
			answer := send(t, target, call(func(c *outbox.Call) { c.Intent.Class = class }))
			if answer.Err == nil || answer.Sent || !strings.Contains(answer.Err.Error(), "is loopback: allow private addresses") {
				t.Errorf("%s, %s: %+v", address, class, answer)
			}
			if r.connections() != 0 {
				t.Errorf("%s, %s: %d connections", address, class, r.connections())
			}
		}
	}
}

// The name resolves to an address that is allowed, and to another one when it is asked again: each
// dial is judged by its own address.
func TestNameThatChangesItsMindIsJudgedAgain(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	target := open(t, "http://pay.example:"+port(t, r.URL), nil)
	target.pool.dialer.Resolver = resolve(t, "127.0.0.1", "127.0.0.2")
	target.pool.dialer.ControlContext = guard(func(address netip.Addr) error {
		if address.String() == "127.0.0.1" {
			return nil
		}
		return refusedError{address: address.String(), what: "private"}
	})
	if answer := send(t, target, call(nil)); answer.Status != 200 {
		t.Fatalf("first: %+v", answer)
	}
	target.pool.rotate = 0 // so that it dials again
	if answer := send(t, target, call(nil)); answer.Err == nil || answer.Sent || !strings.Contains(answer.Err.Error(), "127.0.0.2 is private") {
		t.Errorf("second: %+v", answer)
	}
	if got := r.connections(); got != 1 {
		t.Errorf("%d connections", got)
	}
}

func TestNameThatCannotBeResolvedSendsNothing(t *testing.T) {
	t.Parallel()
	target := open(t, "http://pay.example/", nil)
	target.pool.dialer.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("the resolver is down")
	}}
	if answer := send(t, target, call(nil)); answer.Err == nil || answer.Sent || !strings.HasPrefix(answer.Err.Error(), "look up host: ") {
		t.Errorf("resolver down: %+v", answer)
	}

	silent := open(t, "http://pay.example/", nil)
	silent.pool.dialer.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	answer := silent.Send(ctx, call(nil))
	check(t, answer)
	if answer.Err == nil || answer.Sent || answer.Err.Error() != "no connection in time" {
		t.Errorf("resolver silent: %+v", answer)
	}
}

// resolve makes a resolver that knows one address of every name; of several, the first question for
// one gets the first, and so on, and the last one stays.
func resolve(t *testing.T, addresses ...string) *net.Resolver {
	t.Helper()
	var asked atomic.Int32
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return &nameServer{next: func(kind uint16) netip.Addr {
			i := min(int(asked.Load()), len(addresses)-1)
			address := netip.MustParseAddr(addresses[i])
			if address.Is4() != (kind == typeA) {
				return netip.Addr{}
			}
			asked.Add(1)
			return address
		}}, nil
	}}
}

const typeA = 1

// nameServer is a connection to a name server (RFC 1035) that lives within it. It looks like TCP to
// the resolver: messages have their length before them.
type nameServer struct {
	net.Conn
	next   func(kind uint16) netip.Addr
	answer bytes.Buffer
}

func (s *nameServer) Write(p []byte) (int, error) {
	query := p[2:]
	end := 12 + bytes.IndexByte(query[12:], 0) + 5 // of the question: name, type, class
	question := query[12:end]
	kind := binary.BigEndian.Uint16(question[len(question)-4:])
	address := s.next(kind)
	count := byte(0)
	if address.IsValid() {
		count = 1
	}
	reply := slices.Concat(query[:2], []byte{0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0}, question)
	if address.IsValid() {
		data := address.AsSlice()
		reply = append(reply, 0xc0, 12) // the name of the question
		reply = binary.BigEndian.AppendUint16(reply, kind)
		reply = append(reply, 0, 1, 0, 0, 0, 0, 0, byte(len(data)))
		reply = append(reply, data...)
	}
	s.answer.Write(binary.BigEndian.AppendUint16(nil, uint16(len(reply))))
	s.answer.Write(reply)
	return len(p), nil
}

func (s *nameServer) Read(p []byte) (int, error) {
	if s.answer.Len() == 0 {
		return 0, fmt.Errorf("nothing was asked: %w", io.EOF)
	}
	return s.answer.Read(p)
}

func (*nameServer) Close() error                { return nil }
func (*nameServer) SetDeadline(time.Time) error { return nil }
