package testkit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/cluster"
)

const (
	frameMax  = 256 << 20
	headerMin = 8 // of a request: key, version, correlation id
)

// KafkaProxies stand before the nodes of a cluster, one each, and know the Kafka protocol (not under
// TLS). Brokers advertise them, so that every client of Brokers goes through them: also one in
// another process, also after a rebalance or a new leader.
type KafkaProxies struct {
	tb      testing.TB
	faults  *faults
	mu      sync.Mutex
	proxies map[int]*Proxy
}

// KafkaBehindProxies opens a cluster for this test alone with a proxy before each node. Clients of
// the cluster's InternalBrokers go around the proxies.
func KafkaBehindProxies(tb testing.TB, config cluster.KafkaConfig) (*cluster.Kafka, *KafkaProxies) {
	tb.Helper()
	p := &KafkaProxies{tb: tb, faults: &faults{}, proxies: map[int]*Proxy{}}
	config.Advertise = p.advertise
	return OpenKafka(tb, config), p
}

func (p *KafkaProxies) advertise(node int, address string) (string, error) {
	proxy := newProxy(p.tb, address, p.faults)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proxies[node] = proxy
	return proxy.Address(), nil
}

// Node returns the proxy before a node.
func (p *KafkaProxies) Node(node int) *Proxy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.proxies[node]
}

// Inject makes a fault happen to exchanges with any node from now on, on connections old and new. The
// test fails at its end if the fault never happened.
func (p *KafkaProxies) Inject(tb testing.TB, fault Fault) *Injection {
	tb.Helper()
	return p.faults.add(tb, fault)
}

// Try is Inject for a fault that chance may keep from happening: whoever tries it looks at Hits. It ends
// with Remove.
func (p *KafkaProxies) Try(fault Fault) *Injection {
	return p.faults.begin(fault)
}

// Choose makes Hold and Cut of every node's proxy strike the chosen clients only, see Proxy.Choose.
func (p *KafkaProxies) Choose(clients func(id string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, proxy := range p.proxies {
		proxy.Choose(clients)
	}
}

// exchange is a request whose answer a fault waits for.
type exchange struct {
	key, version int16
	fault        *Injection
}

// exchanges follows the requests and answers of one connection.
type exchanges struct {
	link   *link
	faults *faults

	mu   sync.Mutex
	open map[int32]exchange // by correlation id
}

// errCut ends a connection because a fault wants it.
var errCut = errors.New("cut by a fault")

// readRequest reads one request, and notes it if a fault strikes it.
func (e *exchanges) readRequest() (chunk, error) {
	frame, err := readFrame(e.link.client)
	if err != nil {
		if errors.Is(err, errFrame) && e.link.id.Load() == nil {
			// Ports of this machine are everybody's: somebody else's client tries its luck with what was its
			// server's port before. It never said anything of Kafka.
			e.link.proxy.tb.Logf("proxy: a stranger came: %v", err)
			return chunk{}, err
		}
		return chunk{}, e.complain(err)
	}
	body := frame[4:]
	if len(body) < headerMin {
		return chunk{}, e.complain(fmt.Errorf("a request of %d bytes is not Kafka's", len(body)))
	}
	key, version, correlation := readInt16(body), readInt16(body[2:]), readInt32(body[4:])
	if id, _, err := cutClientID(body[headerMin:]); err == nil && e.link.id.Load() == nil {
		e.link.id.Store(&id)
	}
	fault := e.faults.strike(key, func() (kmsg.Request, bool) {
		request, err := decodeRequest(key, version, body)
		return request, e.complain(err) == nil
	})
	c := chunk{data: frame}
	if fault == nil {
		return c, nil
	}
	if fault.DropRequest {
		fault.hit()
		return chunk{}, errCut
	}
	if fault.HoldRequest != nil {
		fault.hit()
		c.hold = fault.HoldRequest
	}
	if fault.wantsAnswer() {
		e.mu.Lock()
		e.open[correlation] = exchange{key: key, version: version, fault: fault}
		e.mu.Unlock()
	}
	return c, nil
}

// readAnswer reads one answer, and changes it if it belongs to a request that was struck.
func (e *exchanges) readAnswer() (chunk, error) {
	frame, err := readFrame(e.link.target)
	if err != nil {
		return chunk{}, e.complain(err)
	}
	if len(frame) < 8 {
		return chunk{}, e.complain(fmt.Errorf("an answer of %d bytes is not Kafka's", len(frame)-4))
	}
	correlation := readInt32(frame[4:])
	e.mu.Lock()
	exchange, ok := e.open[correlation]
	delete(e.open, correlation)
	e.mu.Unlock()
	if !ok {
		return chunk{data: frame}, nil
	}
	fault := exchange.fault
	if fault.LoseAnswer {
		fault.hit()
		return chunk{}, errCut
	}
	if fault.Rewrite != nil {
		if frame, err = rewriteAnswer(exchange.key, exchange.version, frame, fault.Rewrite); err != nil {
			return chunk{}, e.complain(err)
		}
	}
	fault.hit()
	return chunk{data: frame, hold: fault.HoldAnswer}, nil
}

// complain fails the test for errors that are not the ordinary end of a connection.
func (e *exchanges) complain(err error) error {
	var network *net.OpError
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &network) {
		e.link.proxy.tb.Errorf("proxy: %v", err)
	}
	return err
}

// errFrame is returned for what cannot be a message.
var errFrame = errors.New("not Kafka's (TLS?)")

// readFrame reads a message with the four bytes of its size before it.
func readFrame(from io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(from, size[:]); err != nil {
		return nil, err //nolint:wrapcheck // the caller asks for io.EOF
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > frameMax {
		return nil, fmt.Errorf("a frame of %d bytes: %w", n, errFrame)
	}
	frame := make([]byte, 4+n)
	copy(frame, size[:])
	if _, err := io.ReadFull(from, frame[4:]); err != nil {
		return nil, err //nolint:wrapcheck // the caller asks for io.EOF
	}
	return frame, nil
}

// decodeRequest decodes a request without its size. Its header is version 1, or 2 with tags where the
// request is flexible (KIP-482): key, version, correlation id, client id.
func decodeRequest(key, version int16, body []byte) (kmsg.Request, error) {
	request := kmsg.RequestForKey(key)
	if request == nil || version > request.MaxVersion() {
		return nil, fmt.Errorf("cannot decode request %s version %d", kmsg.NameForKey(key), version)
	}
	request.SetVersion(version)
	_, rest, err := cutClientID(body[headerMin:])
	if err != nil {
		return nil, fmt.Errorf("decode request %s: %w", kmsg.NameForKey(key), err)
	}
	if request.IsFlexible() {
		if rest, err = skipTags(rest); err != nil {
			return nil, fmt.Errorf("decode request %s: %w", kmsg.NameForKey(key), err)
		}
	}
	if err := request.ReadFrom(rest); err != nil {
		return nil, fmt.Errorf("decode request %s version %d: %w", kmsg.NameForKey(key), version, err)
	}
	return request, nil
}

// cutClientID splits the client id off what follows the first fields of a request's header.
func cutClientID(b []byte) (id string, rest []byte, err error) {
	if len(b) < 2 {
		return "", nil, errors.New("no client id")
	}
	length := max(0, int(readInt16(b))) // -1 is null
	if len(b) < 2+length {
		return "", nil, errors.New("client id cut off")
	}
	return string(b[2:][:length]), b[2+length:], nil
}

// rewriteAnswer decodes a framed answer, lets change alter it and encodes it again under the same
// header: the correlation id, and tags where the answer is flexible, save that of ApiVersions.
func rewriteAnswer(key, version int16, frame []byte, change func(kmsg.Response)) ([]byte, error) {
	response := kmsg.ResponseForKey(key)
	if response == nil || version > response.MaxVersion() {
		return nil, fmt.Errorf("cannot decode answer %s version %d", kmsg.NameForKey(key), version)
	}
	response.SetVersion(version)
	rest := frame[8:]
	if response.IsFlexible() && key != int16(kmsg.ApiVersions) {
		var err error
		if rest, err = skipTags(rest); err != nil {
			return nil, fmt.Errorf("decode answer %s: %w", kmsg.NameForKey(key), err)
		}
	}
	header := len(frame) - len(rest)
	if err := response.ReadFrom(rest); err != nil {
		return nil, fmt.Errorf("decode answer %s version %d: %w", kmsg.NameForKey(key), version, err)
	}
	change(response)
	changed := response.AppendTo(append([]byte{}, frame[:header]...))
	binary.BigEndian.PutUint32(changed, uint32(len(changed)-4)) //nolint:gosec // below frameMax
	return changed, nil
}

// skipTags returns what follows the tagged fields at the start of b: a count, and for each field its
// number, its size and its bytes.
func skipTags(b []byte) ([]byte, error) {
	errTags := errors.New("tags cut off")
	count, n := binary.Uvarint(b)
	if n <= 0 {
		return nil, errTags
	}
	b = b[n:]
	for ; count > 0; count-- {
		_, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errTags
		}
		b = b[n:]
		size, n := binary.Uvarint(b)
		if n <= 0 || uint64(len(b)-n) < size { //nolint:gosec // n <= len(b)
			return nil, errTags
		}
		b = b[n:][size:]
	}
	return b, nil
}

func readInt16(b []byte) int16 { return int16(binary.BigEndian.Uint16(b)) } //nolint:gosec // two's complement

func readInt32(b []byte) int32 { return int32(binary.BigEndian.Uint32(b)) } //nolint:gosec // two's complement
