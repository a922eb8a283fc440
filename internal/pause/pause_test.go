package pause

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"pawl/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m, func() error { return goleak.Find() })) }

const (
	controlTopic = "app.control"
	patience     = 20 * time.Second // for what takes a moment
)

// world is a fake cluster with a control topic.
type world struct {
	t       *testing.T
	cluster *kfake.Cluster
	client  []kgo.Opt
	raw     *kgo.Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, controlTopic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	w := &world{t: t, cluster: cluster, client: []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}}
	if w.raw, err = kgo.NewClient(w.client...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.raw.Close)
	return w
}

// put writes any record.
func (w *world) put(key, value string) {
	w.t.Helper()
	record := &kgo.Record{Topic: controlTopic, Key: []byte(key)}
	if value != "" {
		record.Value = []byte(value)
	}
	if err := w.raw.ProduceSync(w.t.Context(), record).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// follower is a board that runs, with what it told.
type follower struct {
	*Board

	t       *testing.T
	changes chan Change
	ignored chan Ignored
	obeyed  chan Set
}

func (w *world) follow(name string) *follower {
	w.t.Helper()
	f := &follower{t: w.t, changes: make(chan Change, 100), ignored: make(chan Ignored, 100), obeyed: make(chan Set, 100)}
	board, err := Open(Config{Client: w.client, Topic: controlTopic, Reader: name, Hooks: Hooks{
		Changed:  func(c Change) { f.changes <- c },
		Obey:     func(s Set) { f.obeyed <- s },
		Ignored:  func(i Ignored) { f.ignored <- i },
		Retrying: func(err error) { w.t.Logf("%s: %v", name, err) },
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	f.Board = board
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- board.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		board.Close()
	})
	return f
}

func (f *follower) refresh() Set {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	if err := f.Refresh(ctx); err != nil {
		f.t.Fatal(err)
	}
	return f.Set()
}

func (f *follower) next() string {
	f.t.Helper()
	select {
	case c := <-f.changes:
		return fmt.Sprintf("%s %s %s/%s", c.Kind, c.Pause.Target, c.Actor, c.Reason)
	case <-time.After(patience):
		f.t.Fatalf("nothing changed within %s", patience)
		return ""
	}
}

func (f *follower) want(changes ...string) {
	f.t.Helper()
	for _, want := range changes {
		if got := f.next(); got != want {
			f.t.Errorf("changed %q, want %q", got, want)
		}
	}
}

func (f *follower) write(target Target, note Note) {
	f.t.Helper()
	if err := f.Write(f.t.Context(), target, note); err != nil {
		f.t.Fatal(err)
	}
}

func noteBy(actor, reason string) Note {
	return Note{Paused: true, Actor: actor, Reason: reason, At: time.Now().UTC()}
}

func liftedBy(actor, reason string) Note {
	return Note{Actor: actor, Reason: reason, At: time.Now().UTC()}
}

// Whatever process writes, all obey, those too that come later; the newest word about a target counts.
func TestEveryProcessObeysTheNewestWord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two := w.follow("one"), w.follow("two")
	if set := one.refresh(); len(set) != 0 {
		t.Fatalf("at first %v is paused", set)
	}
	select {
	case <-one.Ready():
	default:
		t.Error("the board is not ready after a refresh")
	}
	changed := two.Changed()
	one.write(Topic("orders"), noteBy("ann", "bad data"))
	one.write(Endpoint("payments"), noteBy("ann", "bank is closed"))
	for _, f := range []*follower{one, two} {
		f.want("began input/orders ann/bad data", "began endpoint/payments ann/bank is closed")
	}
	select {
	case <-changed:
	case <-time.After(patience):
		t.Fatal("nobody was told of the change")
	}
	two.write(Topic("orders"), noteBy("bob", "still bad"))
	two.write(Endpoint("payments"), liftedBy("bob", "it is open"))
	for _, f := range []*follower{one, two} {
		f.want("again input/orders bob/still bad", "lifted endpoint/payments bob/it is open")
	}
	three := w.follow("three")
	if set := three.refresh(); len(set) != 1 || set[Topic("orders")].Actor != "bob" {
		t.Errorf("a process that starts later obeys %v", set)
	}
	three.want("began input/orders bob/still bad")
	if !three.Paused("orders", 7) || three.Paused("prices", 7) {
		t.Error("it stops other partitions than those of the topic")
	}
	w.put(Prefix+"input/orders", "") // somebody deleted the note
	for _, f := range []*follower{one, two, three} {
		f.want("lifted input/orders /")
	}
}

// What was ordered before a refresh is known after it, however slowly the notes come: it waits for them.
func TestRefreshKnowsAllThatWasOrderedBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.follow("one")
	f.refresh()
	held, let := make(chan struct{}), make(chan struct{})
	tell := sync.OnceFunc(func() { close(held) })
	w.cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		tell()
		w.cluster.SleepControl(func() { <-let })
		return nil, nil, false
	})
	f.write(Topic("orders"), noteBy("ann", "bad data")) // the fetch that waits at the broker brings this one
	<-held
	f.write(Topic("prices"), noteBy("ann", "worse data"))
	known := make(chan Set, 1)
	go func() { known <- f.refresh() }()
	defer close(let)
	select {
	case set := <-known:
		t.Fatalf("two orders were given, and a refresh was over when %d were known", len(set))
	case <-time.After(time.Second): // long enough for one that does not wait
	}
	let <- struct{}{}
	if set := <-known; len(set) != 2 {
		t.Errorf("after two orders %d are known", len(set))
	}
}

// A pause with an end is over by itself, on each process, and one that is over when a process starts never was.
func TestPauseEndsByItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two := w.follow("one"), w.follow("two")
	note := noteBy("ann", "an hour's work")
	note.Until = time.Now().Add(1500 * time.Millisecond).UTC()
	note.Expected = note.Until
	one.write(AllInput, note)
	for _, f := range []*follower{one, two} {
		f.want("began input ann/an hour's work", "ended input /")
		if f.Paused("orders", 0) {
			t.Error("it is over and still obeyed")
		}
		if time.Now().Before(note.Until) {
			t.Error("it was over too soon")
		}
	}
	three := w.follow("three")
	if set := three.refresh(); len(set) != 0 {
		t.Errorf("a process that starts after the end obeys %v", set)
	}
	if len(three.changes) != 0 {
		t.Errorf("it was told of %s", three.next())
	}
}

// What this release can't read is told and passed over; what else stands in the topic is nobody's business here.
func TestUnreadableNotesAreToldAndIgnored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	bad := map[string]string{
		Prefix + "input/orders/03":   `{"format":1,"paused":true}`,
		Prefix + "planet/earth":      `{"format":1,"paused":true}`,
		Prefix + "endpoint/payments": `{"format":2,"paused":true}`,
		Prefix + "input/orders":      `{"format":1,"paused":`,
		Prefix + "input":             `"paused"`,
	}
	w.put("suspect/00000000000000000000000000000000/1", `{"format":99}`)
	w.put("mark/app.one", "")
	for key, value := range bad {
		w.put(key, value)
	}
	f := w.follow("one")
	if set := f.refresh(); len(set) != 0 {
		t.Errorf("obeyed %v", set)
	}
	if f.Ignored() != len(bad) || len(f.ignored) != len(bad) {
		t.Fatalf("ignored %d, told %d, want %d", f.Ignored(), len(f.ignored), len(bad))
	}
	for range bad {
		if told := <-f.ignored; bad[told.Key] == "" || told.Err == nil {
			t.Errorf("told of %+v", told)
		}
	}
	f.write(AllInput, noteBy("ann", "mend it"))
	f.want("began input ann/mend it")
	f.refresh()
	if f.Ignored() != len(bad)-1 {
		t.Errorf("a good note took the place of a bad one, and %d are told, want %d", f.Ignored(), len(bad)-1)
	}
	// The newest word counts, also where nobody here can read it: else two processes would obey different ones.
	w.put(Prefix+"input", `{"format":7}`)
	f.want("ended input /")
}

// The brokers are away: what is in force stays in force, and what is ordered meanwhile is heard afterwards.
func TestPausesOutlastAnOutage(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, controlTopic))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	failing := make(chan struct{}, 1000)
	w := &world{t: t, client: []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}}
	f := w.follow("one")
	f.write(Topic("orders"), noteBy("ann", "bad data"))
	f.want("began input/orders ann/bad data")
	refused := 0
	cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		refused++
		failing <- struct{}{}
		if refused < 5 {
			return nil, errors.New("the line is cut"), true
		}
		return nil, nil, false
	})
	f.write(Endpoint("mail"), noteBy("ann", "full"))
	for range 5 {
		<-failing
		if !f.Paused("orders", 0) {
			t.Fatal("forgotten in an outage")
		}
	}
	f.want("began endpoint/mail ann/full")
}

func TestTargetsHaveOneNameEach(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"input", "input/orders", "input/a.b_c-9/0", "input/orders/2147483647", "endpoint/payments"} {
		if target, err := ParseTarget(text); err != nil || string(target) != text {
			t.Errorf("%s is %q, %v", text, target, err)
		}
	}
	for _, text := range []string{"", "inputs", "input/", "input//1", "input/orders/", "input/orders/-1", "input/orders/01", "input/orders/+1", "input/orders/1/2", "input/orders/2147483648", "endpoint", "endpoint/", "endpoint/a/b", "endpoint/a b", "input/ä", " input"} {
		if target, err := ParseTarget(text); err == nil || !strings.Contains(err.Error(), "input/TOPIC/PARTITION") {
			t.Errorf("%q is %q, %v", text, target, err)
		}
	}
	set := Set{}
	for _, target := range []Target{Endpoint("b"), Partition("t", 10), Topic("t"), Endpoint("a"), AllInput, Partition("t", 9)} {
		set[target] = Pause{Target: target}
	}
	var names []string
	for _, p := range set.List() {
		names = append(names, string(p.Target))
	}
	if want := []string{"input", "input/t", "input/t/9", "input/t/10", "endpoint/a", "endpoint/b"}; !slices.Equal(names, want) {
		t.Errorf("listed as %v, want %v", names, want)
	}
	if p, _ := set.Input("t", 9); p.Target != Partition("t", 9) {
		t.Errorf("the narrowest is %s", p.Target)
	}
	if p, _ := set.Input("other", 9); p.Target != AllInput {
		t.Errorf("another topic is stopped by %q", p.Target)
	}
	if _, is := (Set{AllInput: {}}).Endpoint("a"); is {
		t.Error("a pause of input stops an endpoint")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("pause/input/orders/3"), []byte(`{"format":1,"paused":true,"reason":"r","actor":"a","at":"2026-11-30T01:02:03Z","until":"2026-11-30T02:02:03Z"}`))
	f.Add([]byte("pause/endpoint/x"), []byte(`{"format":2}`))
	f.Add([]byte("suspect/00"), []byte(nil))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		target, note, is, err := decode(key, value)
		if !is || err != nil {
			return
		}
		if again, err := ParseTarget(string(target)); err != nil || again != target {
			t.Fatalf("%q is read as %q, %v", key, again, err)
		}
		text, err := encode(note)
		if err != nil {
			t.Skip() // a year that JSON can't write
		}
		if _, same, _, err := decode(key, text); err != nil || same != note {
			t.Fatalf("%+v is read as %+v, %v", note, same, err)
		}
	})
}
