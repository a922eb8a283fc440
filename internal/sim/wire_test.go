//go:build synctests

package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// deed is what a rule does to a request.
type deed string

const (
	cutBefore   deed = "cut-before"   // the connection ends before the broker has read the request
	cutAfter    deed = "cut-after"    // the broker has executed it, and its answer is lost
	lie         deed = "lie"          // the broker has executed it, and the answer says that it failed
	delay       deed = "delay"        // the answer comes late
	crashBefore deed = "crash-before" // the process dies instead of sending it
	crashAfter  deed = "crash-after"  // the process dies when the broker has executed it
)

// rule is a fault that waits for requests of a kind.
type rule struct {
	key   kmsg.Key
	deed  deed
	left  int       // so many requests
	until time.Time // and none later than this
	code  int16     // of a lie
	late  time.Duration
	kind  string
}

// link is the way to one broker.
type link struct {
	gate

	down atomic.Bool // nobody is there
}

// wire is the network of one process.
type wire struct {
	reach   func(ctx context.Context, network, address string) (net.Conn, error)
	cluster *kfake.Cluster
	power   *power
	crash   func()
	alone   func() bool       // no other process of the same name has lived for as long as a session lasts
	bit     func(kind string) // a fault did something

	all gate // of the network

	mu    sync.Mutex
	links map[string]*link // by port
	rules []*rule
	conns map[*conn]bool
}

func newWire(cluster *kfake.Cluster, reach func(context.Context, string, string) (net.Conn, error), power *power, bit func(string)) *wire {
	return &wire{reach: reach, cluster: cluster, power: power, bit: bit, links: map[string]*link{}, conns: map[*conn]bool{}}
}

// to is the link to one broker, which has its port in its address and several names for the host.
func (w *wire) to(address string) *link {
	_, port, _ := net.SplitHostPort(address)
	address = port
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.links[address]
	if g == nil {
		g = &link{}
		w.links[address] = g
	}
	return g
}

// open ends all that holds something back.
func (w *wire) open() {
	w.all.open()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.links {
		g.open()
	}
	w.rules = nil
}

func (w *wire) add(r rule) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rules = append(w.rules, &r)
}

// match takes a unit of the first rule that fits a request.
func (w *wire) match(key kmsg.Key) *rule {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.rules = slices.DeleteFunc(w.rules, func(r *rule) bool { return r.left == 0 || now.After(r.until) })
	for _, r := range w.rules {
		if r.key == key {
			r.left--
			w.bit(r.kind)
			return r
		}
	}
	return nil
}

// cut ends every connection and reports whether there was one.
func (w *wire) cut() bool {
	conns := w.connections()
	for _, c := range conns {
		c.end()
	}
	return len(conns) > 0
}

// lose ends every connection to one broker, and refuses new ones until it is back.
func (w *wire) lose(address string) {
	to := w.to(address)
	to.down.Store(true)
	for _, c := range w.connections() {
		if c.to == to {
			c.end()
		}
	}
}

// die ends every connection of a dead process.
func (w *wire) die() {
	for _, c := range w.connections() {
		c.drop()
		_ = c.Close()
	}
}

func (w *wire) connections() []*conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.conns))
}

const latency = 500 * time.Microsecond // of a request and its answer

const dialTimeout = 10 * time.Second

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	wait, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	to := w.to(address)
	if err := w.power.wait(wait); err != nil {
		return nil, refused("dial", err)
	}
	for _, g := range []*gate{&w.all, &to.gate} {
		if held := g.blocked(); held != nil {
			select {
			case <-held:
			case <-w.power.dead:
				return nil, refused("dial", errDead)
			case <-wait.Done():
				return nil, refused("dial", os.ErrDeadlineExceeded)
			}
		}
	}
	inner, err := w.reach(ctx, network, address)
	if err != nil {
		return nil, refused("dial", err)
	}
	c := &conn{Conn: inner, wire: w, to: to, closed: make(chan struct{}), asked: map[int32]asked{}}
	w.mu.Lock()
	w.conns[c] = true
	w.mu.Unlock()
	if w.power.over() || to.down.Load() {
		c.end()
		return nil, refused("dial", net.ErrClosed)
	}
	return c, nil
}

// refused is an error of the network. It takes its time, so that no loop goes round without time moving.
func refused(op string, err error) error {
	time.Sleep(latency) //nolint:forbidigo // virtual time
	return &net.OpError{Op: op, Net: "tcp", Err: err}
}

// conn passes whole requests and whole answers.
type conn struct {
	net.Conn

	wire *wire
	to   *link

	mu       sync.Mutex
	asked    map[int32]asked // by correlation id, where something is to be done with the answer
	held     []frame         // written while the way was blocked
	deadline time.Time
	changed  chan struct{} // closed when the deadline changes; nil where nobody waits
	over     bool          // closed by the client
	once     sync.Once
	closed   chan struct{}
	answer   []byte // what is left of the last answer
}

// asked is a request whose answer is of interest.
type asked struct {
	key     kmsg.Key
	version int16
	rule    *rule
}

// frame is a request on its way. One that a process which stands still has not really sent yet dies with
// that process; one that the network holds does not.
type frame struct {
	bytes []byte
	sent  bool
}

// blocked gives what ends when the way opens, nil where it is open.
func (c *conn) blocked() (blocked <-chan struct{}, sent bool) {
	if g := c.wire.power.blocked(); g != nil {
		return g, false
	}
	if g := c.wire.all.blocked(); g != nil {
		return g, true
	}
	return c.to.blocked(), true
}

// Write takes one request.
func (c *conn) Write(b []byte) (int, error) {
	if c.wire.power.over() {
		return 0, refused("write", errDead)
	}
	if len(b) < 12 {
		return c.Conn.Write(b)
	}
	key := kmsg.Key(binary.BigEndian.Uint16(b[4:6]))
	a := asked{key: key, version: int16(binary.BigEndian.Uint16(b[6:8])), rule: c.wire.match(key)}
	if a.rule != nil {
		switch a.rule.deed {
		case cutBefore:
			c.end()
			return 0, refused("write", net.ErrClosed)
		case crashBefore:
			c.wire.crash()
			return 0, refused("write", errDead)
		default: // the others wait for the answer
		}
	}
	if a.rule != nil || key == kmsg.OffsetForLeaderEpoch || key == kmsg.JoinGroup {
		c.mu.Lock()
		c.asked[int32(binary.BigEndian.Uint32(b[8:12]))] = a
		c.mu.Unlock()
	}
	blocked, sent := c.blocked()
	c.mu.Lock()
	if blocked != nil || len(c.held) > 0 {
		c.held = append(c.held, frame{bytes.Clone(b), sent})
		if len(c.held) == 1 {
			go c.deliver()
		}
		c.mu.Unlock()
		return len(b), nil
	}
	c.mu.Unlock()
	n, err := c.Conn.Write(patient(key, b))
	return n, asNetwork("write", err)
}

// fetchWait is how long a broker may keep a Fetch. Clients ask for half a second, and idle ones would be
// most of what a history costs.
const fetchWait = 4000

// patient lengthens the wait of a Fetch. It is answered as soon as there is something, as ever.
func patient(key kmsg.Key, b []byte) []byte {
	if key != kmsg.Fetch || binary.BigEndian.Uint16(b[6:8]) < 15 {
		return b
	}
	at := 4 + 2 + 2 + 4 + 2 + int(binary.BigEndian.Uint16(b[12:14])) + 1 // size, key, version, correlation, client id, tags
	b = bytes.Clone(b)
	binary.BigEndian.PutUint32(b[at:], fetchWait)
	return b
}

// deliver passes on what was held, even where the client has given up waiting for the answer: as a
// network does it, late.
func (c *conn) deliver() {
	for {
		if blocked, _ := c.blocked(); blocked != nil {
			<-blocked
			continue
		}
		if c.wire.power.over() {
			c.drop()
		}
		c.mu.Lock()
		if len(c.held) == 0 {
			over := c.over
			c.mu.Unlock()
			if over {
				_ = c.Conn.Close()
			}
			return
		}
		next, over := c.held[0], c.over
		c.mu.Unlock()
		if over && joins(next.bytes) {
			c.mu.Lock()
			c.passed(next)
			c.mu.Unlock()
			continue
		}
		if over { // nobody reads the answers
			_ = c.Conn.SetDeadline(time.Time{})
			go func() { _, _ = io.Copy(io.Discard, c.Conn) }()
		}
		_, _ = c.Conn.Write(next.bytes)
		c.mu.Lock()
		c.passed(next)
		last := len(c.held) == 0 && c.over
		c.mu.Unlock()
		if last {
			time.Sleep(executed) //nolint:forbidigo // virtual time: the broker has read it and done what it asks
			_ = c.Conn.Close()
			return
		}
	}
}

// passed takes out what is not held any more, unless the end of the process has done so meanwhile.
func (c *conn) passed(f frame) {
	if len(c.held) > 0 && &c.held[0].bytes[0] == &f.bytes[0] {
		c.held = c.held[1:]
	}
}

// joins tells requests that make a member. Those that come after their client has given them up are left
// out: kfake begins a member's session with its first heartbeat, so that such a member would be waited for
// in every rebalance, where a broker ends its session.
func joins(request []byte) bool {
	key := kmsg.Key(binary.BigEndian.Uint16(request[4:6]))
	return key == kmsg.JoinGroup || key == kmsg.SyncGroup || key == kmsg.ConsumerGroupHeartbeat
}

// executed is more than a broker needs for a request.
const executed = 10 * time.Millisecond

// drop forgets what a dead process never sent.
func (c *conn) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = slices.DeleteFunc(c.held, func(f frame) bool { return !f.sent })
}

// Read gives the bytes of the next answer.
func (c *conn) Read(b []byte) (int, error) {
	for len(c.answer) == 0 {
		answer, err := c.next()
		if err != nil {
			return 0, err
		}
		c.answer = answer
	}
	n := copy(b, c.answer)
	c.answer = c.answer[n:]
	return n, nil
}

func (c *conn) next() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c.Conn, size[:]); err != nil {
		return nil, asNetwork("read", err)
	}
	answer := make([]byte, 4+binary.BigEndian.Uint32(size[:]))
	copy(answer, size[:])
	if _, err := io.ReadFull(c.Conn, answer[4:]); err != nil {
		return nil, asNetwork("read", err)
	}
	for {
		blocked, _ := c.blocked()
		if blocked == nil {
			break
		}
		if err := c.wait(blocked); err != nil {
			return nil, refused("read", err)
		}
	}
	time.Sleep(latency) //nolint:forbidigo // virtual time: no loop goes round without it moving
	id := int32(binary.BigEndian.Uint32(answer[4:8]))
	c.mu.Lock()
	a, known := c.asked[id]
	delete(c.asked, id)
	c.mu.Unlock()
	if !known {
		return answer, nil
	}
	if a.rule == nil {
		return c.correct(a, answer), nil
	}
	switch a.rule.deed {
	case cutAfter:
		c.end()
		return nil, refused("read", net.ErrClosed)
	case crashAfter:
		c.wire.crash()
		return nil, refused("read", errDead)
	case delay:
		time.Sleep(a.rule.late) //nolint:forbidigo // virtual time
	case lie:
		return rewrite(a, answer, func(r kmsg.Response) { setCodes(reflect.ValueOf(r).Elem(), a.rule.code) }), nil
	default: // done when the request was written
	}
	return answer, nil
}

// wait returns nil when the way opens.
func (c *conn) wait(opens <-chan struct{}) error {
	for {
		c.mu.Lock()
		deadline := c.deadline
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		var timeout <-chan time.Time
		if !deadline.IsZero() {
			timer := time.NewTimer(time.Until(deadline))
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-opens:
			return nil
		case <-changed:
		case <-timeout:
			return os.ErrDeadlineExceeded
		case <-c.wire.power.dead:
			return errDead
		case <-c.closed:
			return net.ErrClosed
		}
	}
}

// correct mends answers that kfake gives wrongly.
func (c *conn) correct(a asked, answer []byte) []byte {
	if a.key == kmsg.JoinGroup {
		return c.correctJoin(a, answer)
	}
	return c.correctEpochs(a, answer)
}

// correctJoin: kfake starts the session of a static member with its first heartbeat, so that one which died
// before that keeps its name for ever, and whoever had the name before is answered FENCED_INSTANCE_ID for
// ever. A broker forgets the name with the session, and then knows neither.
func (c *conn) correctJoin(a asked, answer []byte) []byte {
	return rewrite(a, answer, func(r kmsg.Response) {
		join := r.(*kmsg.JoinGroupResponse)
		if join.ErrorCode == kerr.FencedInstanceID.Code && c.wire.alone() {
			join.ErrorCode = kerr.UnknownMemberID.Code
			c.wire.bit("corrected:JoinGroup")
		}
	})
}

// correctEpochs: after the leader of a partition has moved kfake says of earlier epochs that it does not know
// them, or that they ended before what was read in them, which for the client is the loss of data. kfake
// never loses any: what was read is below the end of the log.
func (c *conn) correctEpochs(a asked, answer []byte) []byte {
	return rewrite(a, answer, func(r kmsg.Response) {
		for _, topic := range r.(*kmsg.OffsetForLeaderEpochResponse).Topics {
			for i := range topic.Partitions {
				p := &topic.Partitions[i]
				info := c.wire.cluster.PartitionInfo(topic.Topic, p.Partition)
				if p.ErrorCode == 0 && info != nil && p.EndOffset < info.HighWatermark {
					c.wire.bit("corrected:OffsetForLeaderEpoch")
					p.LeaderEpoch, p.EndOffset = info.Epoch, info.HighWatermark
				}
			}
		}
	})
}

// rewrite changes an answer.
func rewrite(a asked, answer []byte, change func(kmsg.Response)) []byte {
	response := kmsg.ResponseForKey(int16(a.key))
	response.SetVersion(a.version)
	head := 8
	if response.IsFlexible() && a.key != kmsg.ApiVersions {
		reader := kbin.Reader{Src: answer[head:]}
		kmsg.SkipTags(&reader)
		head = len(answer) - len(reader.Src)
	}
	if err := response.ReadFrom(answer[head:]); err != nil {
		panic(err) // our own bug
	}
	change(response)
	changed := response.AppendTo(bytes.Clone(answer[:head]))
	binary.BigEndian.PutUint32(changed, uint32(len(changed)-4))
	return changed
}

// setCodes sets every error code of an answer.
func setCodes(v reflect.Value, code int16) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Field(i); v.Type().Field(i).Name == "ErrorCode" {
				field.SetInt(int64(code))
			} else {
				setCodes(field, code)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			setCodes(v.Index(i), code)
		}
	default: // no error is in there
	}
}

// asNetwork makes a pipe end as a socket ends, which for the client is worth another try.
func asNetwork(op string, err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		return refused(op, net.ErrClosed)
	}
	return err
}

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
	return c.Conn.SetReadDeadline(t)
}

// end breaks the connection, with whatever is on its way.
func (c *conn) end() {
	c.mu.Lock()
	c.held = nil
	c.mu.Unlock()
	_ = c.Close()
}

// Close is the client's. What the network holds still arrives.
func (c *conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.wire.mu.Lock()
	delete(c.wire.conns, c)
	c.wire.mu.Unlock()
	c.mu.Lock()
	c.over = true
	late := len(c.held) > 0
	c.mu.Unlock()
	if late {
		return c.Conn.SetReadDeadline(time.Now())
	}
	return c.Conn.Close()
}
