package deadletter

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/message"
)

func TestRedriveGivesTheRefusedRecordBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	then := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	originals := []kgo.Record{
		{Key: []byte("k"), Value: []byte("v"), Timestamp: then},
		{Key: nil, Value: nil, Timestamp: then.Add(time.Second)},
		{Key: []byte{}, Value: []byte{}, Timestamp: then},
		{Key: []byte{0xff, 0}, Value: bytes.Repeat([]byte{0xfe}, 900_000), Timestamp: then, Headers: []kgo.RecordHeader{header("a", "\xff"), {Key: "a"}, header("pawl-source", "other/0/1"), header("pawl-id", "x")}},
		{Key: []byte("again"), Value: []byte("v"), Timestamp: then, Headers: []kgo.RecordHeader{header("pawl-redrive", "1"), header("z", "")}},
	}
	for i, record := range originals {
		w.produce(w.letter(refused{source: message.Source{Topic: "in", Partition: 1, Offset: int64(i)}, record: record, reason: "bad_json"}))
	}
	q := w.open()
	if summary := w.redrive(q); summary.Settled != len(originals) || len(summary.Refused) != 0 {
		t.Fatalf("%+v", summary)
	}
	got := w.read("in")
	if len(got) != len(originals) {
		t.Fatalf("%d records came back, want %d", len(got), len(originals))
	}
	for i, want := range originals {
		var headers []kgo.RecordHeader
		for _, h := range want.Headers {
			if h.Key != message.HeaderRedrive {
				headers = append(headers, h)
			}
		}
		count := "1"
		if string(want.Key) == "again" {
			count = "2"
		}
		headers = append(headers, header(message.HeaderRedrive, count))
		r := got[i]
		if r.Partition != 1 || !bytes.Equal(r.Key, want.Key) || !bytes.Equal(r.Value, want.Value) || (r.Key == nil) != (want.Key == nil) || (r.Value == nil) != (want.Value == nil) || !r.Timestamp.Equal(want.Timestamp) {
			t.Errorf("record %d came back as %d %q %.20q %s", i, r.Partition, r.Key, r.Value, r.Timestamp)
		}
		if diff := cmp.Diff(headers, r.Headers); diff != "" {
			t.Errorf("headers of record %d differ: %s", i, diff)
		}
	}
	if again := w.redrive(w.open()); again.Settled != 0 {
		t.Errorf("a second run redrives %d again", again.Settled)
	}
	if open := w.list(q, Filter{}); len(open) != 0 {
		t.Errorf("%d letters are open", len(open))
	}
	for _, l := range w.list(q, Filter{Settled: true}) {
		if l.State != StateRedriven {
			t.Errorf("%s is %s", l.Position(), l.State)
		}
	}
}

func TestRedriveTakesWhatTheFilterSelectsAndNoMoreThanMax(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(60)
	q := w.open()
	summary := w.redrive(q, func(o *RedriveOptions) { o.Filter = Filter{Reasons: []string{"panic"}, Topics: []string{"in"}} })
	if summary.Settled != 10 {
		t.Errorf("%+v", summary)
	}
	for _, r := range append(w.read("in"), w.read("in2")...) {
		if n, _ := strconv.Atoi(string(r.Value)); n%3 != 2 || n%2 != 0 {
			t.Errorf("letter %d was redriven", n)
		}
	}
	for _, want := range []int{17, 17, 16, 0} {
		if summary = w.redrive(q, func(o *RedriveOptions) { o.Max = 17 }); summary.Settled != want {
			t.Errorf("settled %d, want %d", summary.Settled, want)
		}
	}
	w.wantOnce(60)
}

// A dry run must not fence the run that is at work, and must leave no trace.
func TestDryRunCountsAndTouchesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(25)
	q := w.open()
	q.hooks.produced = func() {
		dry := w.redrive(w.open(), func(o *RedriveOptions) { o.DryRun = true })
		if dry.Settled == 0 {
			t.Error("the dry run sees nothing to do")
		}
	}
	if summary := w.redrive(q); summary.Settled != 25 {
		t.Errorf("%+v", summary)
	}
	w.wantOnce(25)
}

// The command is killed between the last produce and the end of a transaction, in every transaction
// in turn. What it leaves open is aborted by the next one, which redrives it.
func TestRedriveCutOffBeforeTheCommitIsDoneByTheNext(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 45
	w.fill(n)
	cuts := 0
	for transactions := 0; ; transactions++ {
		q := w.open()
		died := true
		calls := 0
		q.hooks.produced = func() {
			if calls++; calls > transactions {
				cuts++
				runtime.Goexit() // the session is closed, its transaction stays open on the broker
			}
		}
		var wait sync.WaitGroup
		wait.Go(func() {
			if _, err := q.Redrive(w.ctx(), RedriveOptions{RedrivesMax: 3}); err != nil {
				t.Error(err)
			}
			died = false
		})
		wait.Wait()
		if !died {
			break
		}
	}
	if cuts == 0 {
		t.Fatal("nothing was cut")
	}
	w.wantOnce(n)
}

// The broker commits and its answer is lost, beyond all the client's retries: the outcome is unknown
// to us. The markers tell.
func TestRedriveSurvivesLostAnswersToTheEnd(t *testing.T) {
	t.Parallel()
	for _, lost := range []int64{1, 3} {
		w := newWorld(t)
		const n = 45
		w.fill(n)
		eater := &answerEater{key: endTxn}
		eater.left.Store(lost)
		q := w.open(kgo.Dialer(eater.dial), kgo.RequestRetries(0))
		if summary := w.redrive(q); summary.Settled != n {
			t.Errorf("lost %d: %+v", lost, summary)
		}
		if eater.eaten.Load() != lost {
			t.Fatalf("%d answers were lost, want %d", eater.eaten.Load(), lost)
		}
		w.wantOnce(n)
	}
}

// The first run's answer is lost, and before it asks again how its transaction ended, a second run
// takes over and redrives all the rest. The first must not go on by the markers it began with.
func TestRunThatWasOvertakenWhileInDoubtDoublesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 45
	w.fill(n)
	second := w.open()
	eater := &answerEater{key: endTxn}
	eater.left.Store(1)
	eater.lost = func() {
		if summary := w.redrive(second); summary.Settled != n-10 {
			t.Errorf("the second run redrives %d, want %d", summary.Settled, n-10)
		}
	}
	if summary := w.redrive(w.open(kgo.Dialer(eater.dial), kgo.RequestRetries(0))); summary.Settled != 10 {
		t.Errorf("%+v", summary)
	}
	if eater.eaten.Load() != 1 {
		t.Fatalf("%d answers were lost", eater.eaten.Load())
	}
	w.wantOnce(n)
}

func TestRedriveSurvivesErrorsOfTheEnd(t *testing.T) {
	t.Parallel()
	for _, err := range []*kerr.Error{kerr.UnknownServerError, kerr.RequestTimedOut, kerr.InvalidTxnState} {
		w := newWorld(t)
		const n = 25
		w.fill(n)
		fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, TxnID: "app.redrive", Err: err, TopLevel: true, Count: 2})
		if summary := w.redrive(w.open(kgo.RequestRetries(0))); summary.Settled != n {
			t.Errorf("%s: %+v", err.Message, summary)
		}
		if fault.Hits() == 0 {
			t.Fatalf("%s: the fault did not happen", err.Message)
		}
		w.wantOnce(n)
	}
}

// Someone runs the command a second time while the first one has a transaction in hand. The second
// fences the first, waits for its transaction to be aborted, and only then reads the markers.
func TestSecondRunFencesTheFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 45
	w.fill(n)
	first, second := w.open(), w.open()
	runs := 0
	first.hooks.produced = func() {
		if runs++; runs == 2 {
			if summary := w.redrive(second); summary.Settled != n-10 {
				t.Errorf("the second run redrives %d, want %d", summary.Settled, n-10)
			}
		}
	}
	summary, err := first.Redrive(w.ctx(), RedriveOptions{RedrivesMax: 3})
	if !errors.Is(err, ErrFenced) || summary.Settled != 10 {
		t.Errorf("the first run ends with %+v, %v", summary, err)
	}
	w.wantOnce(n)
}

// A session that stands still between reading the markers and its first transaction must not begin
// one after another has settled everything: the fence is up before the markers are read.
func TestSessionIsFencedFromItsOpeningOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(1)
	q := w.open()
	session, err := q.openSession(w.ctx(), &origins{known: make(map[string]*origin)})
	if err != nil {
		t.Fatal(err)
	}
	defer session.close()
	l := w.list(q, Filter{})[0]
	w.redrive(w.open())
	marker, err := session.markers.record(control, l.Position(), StateRedriven, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := session.commit(w.ctx(), []*kgo.Record{l.restore(false), marker}); !fenced(err) {
		t.Errorf("the first session commits: %v", err)
	}
	w.wantOnce(1)
}

// A stranger's transaction on the control topic hides our markers behind it from read_committed
// readers. Whoever settles next has to wait until it sees them.
func TestRedriveWaitsForMarkersBehindAnOpenTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(10)
	stranger, err := kgo.NewClient(append(w.options, kgo.TransactionalID("stranger"))...)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	first := w.open()
	first.recordsMax = 5
	begun := false
	first.hooks.produced = func() {
		if begun {
			return
		}
		begun = true
		err := stranger.BeginTransaction()
		if err == nil {
			err = stranger.ProduceSync(w.ctx(), &kgo.Record{Topic: control, Key: []byte("stranger")}).FirstErr()
		}
		if err != nil {
			t.Error(err)
		}
	}
	w.redrive(first)

	fetches := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, TopicID: w.ids[control], Observe: true, Count: -1})
	done := make(chan Summary, 1)
	go func() {
		summary, err := w.open().Redrive(w.ctx(), RedriveOptions{RedrivesMax: 3})
		if err != nil {
			t.Error(err)
		}
		done <- summary
	}()
	if err := fetches.Wait(w.ctx(), 2); err != nil {
		t.Error(err)
	}
	if err := stranger.EndTransaction(w.ctx(), kgo.TryAbort); err != nil {
		t.Error(err)
	}
	if summary := <-done; summary.Settled != 0 {
		t.Errorf("the second run redrives %d", summary.Settled)
	}
	w.wantOnce(10)
}

func TestDiscardFencesARedrive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(20)
	first, second := w.open(), w.open()
	first.hooks.produced = func() {
		if summary, err := second.Discard(w.ctx(), DiscardOptions{Reason: "test data"}); err != nil || summary.Settled != 20 {
			t.Errorf("discard: %+v, %v", summary, err)
		}
	}
	if _, err := first.Redrive(w.ctx(), RedriveOptions{RedrivesMax: 3}); !errors.Is(err, ErrFenced) {
		t.Errorf("the redrive ends with %v", err)
	}
	w.wantOnce(0)
	for _, l := range w.list(second, Filter{Settled: true}) {
		if l.State != StateDiscarded {
			t.Errorf("%s is %s", l.Position(), l.State)
		}
	}
}

// Several people run it at once and again until it says that nothing is left.
func TestConcurrentRunsRedriveEachLetterOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 200
	w.fill(n)
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			q := w.open()
			for {
				_, err := q.Redrive(w.ctx(), RedriveOptions{RedrivesMax: 3})
				if err == nil {
					return
				}
				if !errors.Is(err, ErrFenced) {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	w.wantOnce(n)
}

func TestRedriveStopsBetweenTransactionsWhenAskedTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(45)
	ctx, cancel := context.WithCancel(w.ctx())
	defer cancel()
	q := w.open()
	summary, err := q.Redrive(ctx, RedriveOptions{Options: Options{Progress: func(Summary) { cancel() }}, RedrivesMax: 3})
	if !errors.Is(err, context.Canceled) || summary.Settled != 10 {
		t.Errorf("%+v, %v", summary, err)
	}
	if summary := w.redrive(q); summary.Settled != 35 {
		t.Errorf("%+v", summary)
	}
	w.wantOnce(45)
}

func TestRedriveRefusesWhatCannotGoBackAndGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	week := "604800000"
	small := "2000"
	for name, settings := range map[string]map[string]*string{"short": {"retention.ms": &week}, "tight": {"max.message.bytes": &small}} {
		if _, err := w.admin.CreateTopic(w.ctx(), 1, -1, settings, name); err != nil {
			t.Fatal(err)
		}
	}
	topics, err := w.admin.ListTopics(w.ctx(), "short", "tight")
	if err != nil {
		t.Fatal(err)
	}
	for name, topic := range topics {
		w.ids[name] = topic.ID
	}
	fresh := func(value string) kgo.Record { return kgo.Record{Value: []byte(value), Timestamp: time.Now()} }
	old := kgo.Record{Value: []byte("old"), Timestamp: time.Now().Add(-7 * 24 * time.Hour)}
	often := fresh("often")
	often.Headers = []kgo.RecordHeader{header("pawl-redrive", "3")}
	w.produce(
		w.letter(refused{source: message.Source{Topic: "in"}, record: fresh("0"), reason: "r"}),
		&kgo.Record{Topic: letters, Value: []byte("not a dead letter")},
		w.letter(refused{source: message.Source{Topic: "gone", TopicID: kadm.TopicID{1}}, record: fresh("gone"), reason: "r"}),
		w.letter(refused{source: message.Source{Topic: "in", TopicID: kadm.TopicID{1}}, record: fresh("recreated"), reason: "r"}),
		w.letter(refused{source: message.Source{Topic: "in", Partition: 9}, record: fresh("partition"), reason: "r"}),
		w.letter(refused{source: message.Source{Topic: "in"}, record: often, reason: "r"}),
		w.letter(refused{source: message.Source{Topic: "short"}, record: old, reason: "r"}),
		w.letter(refused{source: message.Source{Topic: "tight"}, record: fresh(strings.Repeat("x", 2000)), reason: "r"}),
		// Written in an earlier replay generation: still the same topic.
		w.letter(refused{source: message.Source{Topic: "in", ReplayGeneration: 1}, record: fresh("1"), reason: "r"}),
	)
	q := w.open()
	for _, dry := range []bool{true, false} {
		summary := w.redrive(q, func(o *RedriveOptions) { o.DryRun = dry })
		want := map[Cause]int{CauseUnreadable: 1, CauseGone: 2, CauseRecreated: 1, CauseTooOften: 1, CauseExpired: 1, CauseTooLarge: 1}
		if diff := cmp.Diff(want, summary.Refused); diff != "" || summary.Settled != 2 || len(summary.Refusals) != 7 {
			t.Errorf("dry run %v: settled %d, refused: %s", dry, summary.Settled, diff)
		}
	}
	w.wantOnce(2)
	if open := w.list(q, Filter{}); len(open) != 7 {
		t.Errorf("%d letters are open, want 7", len(open))
	}
	summary := w.redrive(q, func(o *RedriveOptions) { o.RedrivesMax, o.Restamp, o.Recreated = 4, true, true })
	if want := map[Cause]int{CauseUnreadable: 1, CauseGone: 2, CauseTooLarge: 1}; cmp.Diff(want, summary.Refused) != "" || summary.Settled != 3 {
		t.Errorf("with every permission: %+v", summary)
	}
	for _, r := range w.read("short") {
		if time.Since(r.Timestamp) > time.Hour {
			t.Errorf("restamped record has %s", r.Timestamp)
		}
	}
}

// The broker refuses one partition's records for a reason of their own. They stay open, the others
// of the same transaction are redriven.
func TestRedriveLeavesOutWhatTheBrokerRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(40)
	fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "in", Partitions: []int32{1}, Err: kerr.MessageTooLarge, Count: -1})
	q := w.open()
	summary := w.redrive(q)
	if summary.Settled != 30 || summary.Refused[CauseTooLarge] != 10 || fault.Hits() == 0 {
		t.Fatalf("%+v, %d faults", summary, fault.Hits())
	}
	fault.Remove()
	if summary := w.redrive(q); summary.Settled != 10 {
		t.Errorf("%+v", summary)
	}
	w.wantOnce(40)
}

func TestSettlingWithoutTheRightsSaysWhichAreMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(5)
	for _, test := range []struct {
		fault kfake.Fault
		want  string
	}{
		{kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: control, Err: kerr.TopicAuthorizationFailed}, "Write on the control topic app.control"},
		{kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TxnID: "app.redrive", Err: kerr.TransactionalIDAuthorizationFailed, TopLevel: true}, "transactional id app.redrive"},
	} {
		handle := w.cluster.Fault(test.fault)
		_, err := w.open().Discard(w.ctx(), DiscardOptions{})
		if err == nil || !strings.Contains(err.Error(), test.want) || handle.Hits() == 0 {
			t.Errorf("%d faults, error %v, want %q in it", handle.Hits(), err, test.want)
		}
	}
}

func TestMissingTopicsAreErrorsWithANextStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	q := w.open()
	q.config.Topic = "other.dead-letter"
	if err := q.Each(w.ctx(), Filter{}, func(Letter) error { return nil }); err == nil || !strings.Contains(err.Error(), "processor topics apply") {
		t.Errorf("error is %v", err)
	}
}

func TestMarkerOfALaterReleaseIsNotGuessedAt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(2)
	q := w.open()
	id := markers{topicID: w.ids[letters]}
	for _, r := range []*kgo.Record{
		{Topic: control, Key: []byte("suspect/x"), Value: []byte("not ours")},
		{Topic: control, Key: id.key(Position{0, 0}), Value: []byte(`{"format":2,"state":"redriven"}`)},
	} {
		w.produce(r)
	}
	if _, err := q.Redrive(w.ctx(), RedriveOptions{RedrivesMax: 3}); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("error is %v", err)
	}
	w.wantOnce(0)
}
