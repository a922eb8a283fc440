//go:build synctests

package sim

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// nemesis carries a script's faults out, each at its time and on a goroutine of its own.
type nemesis struct {
	world *world
}

func (n *nemesis) run() {
	var running []chan struct{}
	for _, f := range n.world.script.Faults {
		n.world.sleep(f.At - time.Since(n.world.begun))
		n.world.note("fault %s", f)
		if deeds := n.strike(f); deeds != nil {
			done := make(chan struct{})
			running = append(running, done)
			go func() {
				defer close(done)
				deeds()
			}()
		}
	}
	for _, done := range running {
		<-done
	}
}

// strike begins a fault; what it returns goes on for a while.
func (n *nemesis) strike(f Fault) func() {
	w := n.world
	s := w.slots[f.Replica%len(w.slots)]
	p := s.current()
	bit := func(did bool) {
		if did {
			w.bit(f.name())
		}
	}
	last := func(begin, end func()) func() {
		begin()
		bit(true)
		return func() {
			w.sleep(f.For)
			end()
		}
	}
	switch f.Kind {
	case "crash":
		bit(s.crash(p, f.For))
	case "crash-for-good":
		s.retire()
		bit(s.crash(p, -1))
		return func() { w.expire(s) }
	case "restart", "leave":
		bit(s.drain(f.For, f.Kind == "leave"))
	case "twin":
		return n.twin(f, s)
	case "coordinator-move":
		w.cluster.RehashCoordinators()
		bit(true)
	case "leader-move":
		w.cluster.ShufflePartitionLeaders()
		bit(true)
	case "broker-down":
		return n.brokerDown(f)
	case "error":
		return n.fail(f)
	case "produce-refused":
		return n.refuse(f)
	case "markers-late":
		w.markers.add(lateness{kind: f.name(), left: f.Count, until: time.Now().Add(f.For), late: f.Late})
	case "offsets-expired":
		return n.expireOffsets(f)
	case "ledger-down", "ledger-lost-commit", "ledger-slow":
		one := storm{kind: f.Kind, until: time.Now().Add(f.For), share: f.Share}
		if f.Replica > 0 { // the others are hit too when it is the first
			one.process = s.name
		}
		w.skies.add(one)
	case "ledger-restore":
		backup, taken := w.ledger.Clone(), time.Now()
		return func() {
			w.sleep(f.For)
			bit(w.restore(backup, taken))
		}
	case "endpoint-refuses", "endpoint-answer-lost", "endpoint-slow", "endpoint-503", "endpoint-429":
		w.journal.cloud(weather{kind: f.Kind, until: time.Now().Add(f.For), share: f.Share})
	}
	if p == nil {
		return nil
	}
	switch f.Kind {
	case "pause":
		return last(p.power.close, p.power.open)
	case "cut":
		bit(p.wire.cut())
	case "network-held":
		return last(p.wire.all.close, p.wire.all.open)
	case "broker-held":
		g := p.wire.to(fmt.Sprintf(":%d", firstPort+f.Node))
		return last(g.close, g.open)
	case "slow-handler":
		p.trouble.slowUntil.Store(time.Now().Add(f.For).UnixNano())
	case "stuck-handler":
		w.accuse()
		p.trouble.stuck.Add(1)
	case "failing-handler":
		p.trouble.failing.Add(int64(f.Count))
	default:
		if deed, is := deeds[f.Kind]; is {
			p.wire.add(rule{
				kind: f.name(), key: keyNamed(f.Request), deed: deed, left: f.Count, until: time.Now().Add(f.For),
				code: codeNamed(f.Code), late: f.For / 2,
			})
		}
	}
	return nil
}

// deeds are what rules of the wire do, by kind.
var deeds = map[string]deed{
	"request-lost": cutBefore, "answer-lost": cutAfter, "answer-late": delay, "answer-lies": lie, "commit-denied": lie,
	"crash-sending": crashBefore, "crash-executed": crashAfter,
}

// twin is a second process under a name that is in use, for a while.
func (n *nemesis) twin(f Fault, s *slot) func() {
	w := n.world
	w.mu.Lock()
	w.twins = true
	w.mu.Unlock()
	s.mu.Lock()
	if s.gone || s.process == nil || w.closing() {
		s.mu.Unlock()
		return nil
	}
	p := s.begin()
	s.mu.Unlock()
	w.bit(f.name())
	return func() {
		w.sleep(f.For)
		p.die()
	}
}

func (n *nemesis) brokerDown(f Fault) func() {
	w := n.world
	node := int32(f.Node)
	if w.cluster.RemoveNode(node) != nil {
		return nil
	}
	w.cluster.RehashCoordinators()
	w.bit(f.name())
	address := fmt.Sprintf(":%d", firstPort+node)
	for _, wire := range w.allWires() { // kfake leaves the connections of a broker that it has removed to themselves
		wire.lose(address)
	}
	return func() {
		w.sleep(f.For)
		if _, _, err := w.cluster.AddNode(node, firstPort+int(node)); err != nil {
			w.problem("SETUP bring broker %d back: %v", node, err)
		}
		for _, wire := range n.world.allWires() {
			wire.to(address).down.Store(false)
		}
	}
}

// fail lets the brokers answer an error instead of doing what they are asked.
func (n *nemesis) fail(f Fault) func() {
	w := n.world
	key, code := keyNamed(f.Request), kerr.TypedErrorForCode(codeNamed(f.Code))
	if code == kerr.MessageTooLarge {
		w.accuse()
	}
	faults := []kfake.Fault{{Keys: []kmsg.Key{key}, Err: code, Count: f.Count, When: notOurs}}
	if key != kmsg.OffsetFetch { // whose top level belongs to versions long gone
		faults = append(faults, kfake.Fault{Keys: []kmsg.Key{key}, Err: code, Count: f.Count, When: notOurs, TopLevel: true})
	}
	handle := w.cluster.Fault(faults...)
	return func() {
		w.sleep(f.For)
		handle.Remove()
		for range handle.Hits() {
			w.bit(f.name())
		}
	}
}

// refuse lets one partition refuse records.
func (n *nemesis) refuse(f Fault) func() {
	w := n.world
	w.accuse()
	handle := w.cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: f.Topic, Partitions: []int32{int32(f.Node % len(w.cluster.PartitionInfos(f.Topic)))},
		Err: kerr.TypedErrorForCode(codeNamed(f.Code)), Count: f.Count, When: notOurs,
	})
	return func() {
		w.sleep(f.For)
		handle.Remove()
		for range handle.Hits() {
			w.bit(f.name())
		}
	}
}

// notOurs keeps errors from the writer of the inputs, which is no part of what is tested, and errors of
// transactional ids from producers that have none.
func notOurs(request kmsg.Request) bool {
	switch r := request.(type) {
	case *kmsg.ProduceRequest:
		return r.TransactionID != nil
	case *kmsg.InitProducerIDRequest:
		return r.TransactionalID != nil
	default:
		return true
	}
}

// hasTwins reports that two living processes have had one name: for the ledger they are one owner, so that
// one of them may not know that its tenure has ended.
func (w *world) hasTwins() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.twins
}

func (w *world) accuse() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.accused = true
}

// expire ends the sessions of a replica that is gone, as a broker does: once no life of its name, a twin's
// among them, has been there for a session. kfake begins the session of a static member with its first
// heartbeat, so that one which died before it would own its partitions for ever.
func (w *world) expire(s *slot) {
	for !s.alone(nil) && !w.closing() {
		w.sleep(time.Second)
	}
	w.endSessions(s)
}

func (w *world) endSessions(s *slot) {
	names := map[string][]string{ledgerGroup: {application + "." + s.name}}
	for lane := range w.script.Lanes {
		names[group] = append(names[group], fmt.Sprintf("%s.%s.%d", application, s.name, lane))
	}
	for group, members := range names {
		leave := kadm.LeaveGroup(group).InstanceIDs(members...)
		if _, err := kadm.NewClient(w.client).LeaveGroup(w.ctx, leave); err != nil {
			w.note("end the sessions of %s: %v", s.name, err) // most have ended by themselves
		}
	}
}

// heal ends every fault and starts what is down.
func (w *world) heal() {
	w.skies.clear()
	w.journal.clear()
	for _, s := range w.slots {
		if p := s.current(); p != nil {
			p.trouble.end()
			p.power.open()
			p.wire.open()
		}
		s.start()
	}
	w.note("healed")
}

func keyNamed(name string) kmsg.Key {
	for key := range kmsg.Key(kmsg.MaxKey + 1) {
		if key.Name() == name {
			return key
		}
	}
	return -1
}

func codeNamed(name string) int16 {
	for code := int16(-1); code < 200; code++ {
		if err := kerr.TypedErrorForCode(code); err != nil && err.Message == name {
			return code
		}
	}
	return 0
}
