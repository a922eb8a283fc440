package txn

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Rule 5. A process dies between TxnOffsetCommit and EndTxn, and nobody starts it again. Once the group has given its
// member up a survivor ends the transaction: the partition goes on long before the transaction's timeout.
func TestRule5SurvivorEndsOpenTransaction(t *testing.T) {
	t.Parallel()
	// What the group waits for a member, and how often members hear of it: as configured, and under KIP-848 as the broker says.
	for protocol, c := range map[Protocol]struct{ session, heartbeat time.Duration }{
		ProtocolClassic:  {6 * time.Second, 100 * time.Millisecond},
		ProtocolConsumer: {45 * time.Second, 5 * time.Second},
	} {
		t.Run(string(protocol), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 2)
				w.config.Protocol = protocol
				g := w.newGate()
				w.run(func(c *Config) { c.Instance, c.Client = "two", append(slices.Clone(c.Client), g.dial()) })
				next(t, w.hooks.joined, "join of the first")
				buried := make(chan Buried, 1000)
				survivor := w.run(func(c *Config) { c.Hooks.Buried = func(b Buried) { buried <- b } })
				time.Sleep(20 * time.Second) //nolint:forbidigo // virtual time: each has a partition now
				died := make(chan time.Time, 1)
				w.cluster.ControlKey(int16(kmsg.EndTxn), func(request kmsg.Request) (kmsg.Response, error, bool) {
					if request.(*kmsg.EndTxnRequest).TransactionalID != "app.two.0" {
						w.cluster.KeepControl()
						return nil, nil, false
					}
					g.kill()
					died <- time.Now()
					return nil, errDead, true // neither executed nor answered
				})
				w.produce(0, numbers(0, 10)...)
				w.produce(1, numbers(10, 20)...)
				dead := next(t, died, "EndTxn of the one that dies")
				within(t, 2*time.Minute, w.hooks.ended, "20 committed records", committed(20))
				took, most := time.Since(dead), c.session+2*c.heartbeat+2*time.Second
				t.Logf("the dead one's partition went on after %s", took)
				if took > most {
					t.Errorf("the dead one's partition went on after %s, want at most %s", took, most)
				}
				if b := next(t, buried, "burial"); b != (Buried{Member: "app.two.0"}) {
					t.Errorf("told %+v, want the end of app.two.0", b)
				}
				g.mend() // so that it can end
				if err := survivor.drain(); err != nil {
					t.Error(err)
				}
				w.wantOnce(outTopic, numbers(0, 20))
			})
		})
	}
}

// Rules 4 and 5. A fence is no twin's where the group had given the session's member up before: then an undertaker has
// been here. A twin's is one, whatever the group did before.
func TestRule4BurialIsNoTwin(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		roster   bool   // our name is in the group
		expelled bool   // the group had given us up
		member   string // what our session takes itself for: "same" is who is there
		err      error
		counts   bool
	}{
		"thrown out":                     {member: "old", err: kerr.ProducerFenced},
		"thrown out, an old epoch":       {member: "old", err: kerr.InvalidProducerEpoch},
		"thrown out, and back":           {roster: true, expelled: true, member: "same", err: kerr.ProducerFenced},
		"thrown out, and about to be":    {roster: true, expelled: true, err: kerr.ProducerFenced},
		"a member the whole time":        {roster: true, member: "same", err: kerr.ProducerFenced, counts: true},
		"another came under our name":    {roster: true, expelled: true, member: "old", err: kerr.ProducerFenced, counts: true},
		"the member's name was taken":    {member: "old", err: kerr.FencedInstanceID, counts: true},
		"it is no member for the moment": {roster: true, err: kerr.ProducerFenced, counts: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 1)
				session := &memberSession{id: c.member}
				if c.roster {
					member := w.member("app.one.0")
					if id, _ := member.GroupMetadata(); c.member == "same" {
						session.id = id
					}
				}
				l := newLane(w.config, 0, 1, w.client, nil, nil)
				l.begin().gone(nil, c.expelled)
				if n := l.fenced(session, c.err); (n == 1) != c.counts || len(w.hooks.fenced) != n {
					t.Errorf("%d fences were counted and %d told, want one of each: %t", n, len(w.hooks.fenced), c.counts)
				}
			})
		})
	}
}

// memberSession is a Session that knows nothing but its member id.
type memberSession struct {
	Session
	id string
}

func (m *memberSession) Member() string { return m.id }

// Rule 5. Only lanes that were members and are none any more are fenced, only those of our application, not our own,
// and only as long as we are members ourselves: what knows nothing of us is no group, or a coordinator of old.
func TestRule5OnlyTheGoneAreFenced(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		id         string
		stay, away bool // the member stays in the group; we are not in it
		own        bool // it is a lane of ours
		fenced     bool
	}{
		"gone":                  {id: "app.two.0", fenced: true},
		"a member":              {id: "app.two.0", stay: true},
		"another application's": {id: "application.two.0"},
		"our own":               {id: "app.one.1", own: true},
		"we are no members":     {id: "app.two.0", away: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 1)
				ours := w.member("app.one.0")
				other := w.member(c.id)
				begin(t, other)
				var buried []Buried
				w.config.Hooks.Buried = func(b Buried) { buried = append(buried, b) }
				u := &undertaker{config: w.config, plain: w.client, own: []string{"app.one.0"}, known: map[string]bool{}}
				if c.own {
					u.own = append(u.own, c.id)
				}
				look := func() {
					if err := u.look(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				look()
				if !c.stay {
					w.dismiss(other, c.id)
				}
				if c.away {
					w.dismiss(ours, "app.one.0")
				}
				look()
				look()
				open, err := u.open(t.Context(), []string{c.id})
				if err != nil {
					t.Fatal(err)
				}
				if fenced := len(open) == 0; fenced != c.fenced {
					t.Errorf("fenced: %t, want %t", fenced, c.fenced)
				}
				if told := len(buried) == 1; told != c.fenced {
					t.Errorf("told %+v, want one burial: %t", buried, c.fenced)
				}
			})
		})
	}
}

// Rule 5. A lane is back in the group before it is fenced: the transaction that was seen may be its new one.
func TestRule5WhoComesBackIsNotFenced(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.member("app.one.0")
		other := w.member("app.two.0")
		var back atomic.Bool
		plain, err := kgo.NewClient(append(slices.Clone(w.config.Client), kgo.WithHooks(answered(func(key int16) {
			if key == int16(kmsg.DescribeTransactions) && back.CompareAndSwap(false, true) {
				begin(t, w.member("app.two.0"))
			}
		})))...)
		if err != nil {
			t.Fatal(err)
		}
		defer plain.Close()
		u := &undertaker{config: w.config, plain: plain, own: []string{"app.one.0"}, known: map[string]bool{}}
		if err := u.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		begin(t, other)
		w.dismiss(other, "app.two.0")
		if err := u.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if open, err := u.open(t.Context(), []string{"app.two.0"}); err != nil || len(open) != 1 || !back.Load() {
			t.Errorf("open are %v, %v; it came back: %t; want the transaction of who came back", open, err, back.Load())
		}
	})
}

// answered is called with each answer, before the client has it.
type answered func(key int16)

// OnBrokerRead implements kgo.HookBrokerRead.
func (a answered) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	a(key)
}

// begin leaves a transaction open.
func begin(t *testing.T, client *kgo.Client) {
	t.Helper()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: outTopic, Value: []byte("open")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// member makes a client that is a static member of the group under its transactional id, and waits until it is.
func (w *world) member(id string) *kgo.Client {
	w.t.Helper()
	client, err := kgo.NewClient(append(slices.Clone(w.config.Client), kgo.ConsumerGroup(w.config.Group), kgo.InstanceID(id), kgo.TransactionalID(id),
		kgo.ConsumeTopics(inTopic), kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.TransactionTimeout(w.config.Timeout), kgo.SessionTimeout(w.config.SessionTimeout),
		kgo.HeartbeatInterval(w.config.Heartbeat))...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(client.CloseAllowingRebalance)
	for range 1000 {
		members, err := w.config.roster(w.t.Context(), w.client)
		if err != nil {
			w.t.Fatal(err)
		}
		if own, _ := client.GroupMetadata(); own != "" && members[id] == own {
			return client
		}
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // virtual time
	}
	w.t.Fatalf("%s does not join", id)
	return nil
}

// dismiss ends a static member and takes it out of the group, as the end of its session does.
func (w *world) dismiss(client *kgo.Client, id string) {
	w.t.Helper()
	client.CloseAllowingRebalance()
	left, err := kadm.NewClient(w.client).LeaveGroup(w.t.Context(), kadm.LeaveGroup(w.config.Group).InstanceIDs(id))
	if err != nil || left.Error() != nil {
		w.t.Fatal(err, left.Error())
	}
}
