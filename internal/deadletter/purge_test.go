package deadletter

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/transact"
)

func TestPurgeRemovesSettledLettersUpToTheFirstOpenOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(40)
	q := w.open()
	// Letter 21 stays open: it stands at offset 10 of partition 1. Everything else is settled.
	if _, err := q.Discard(w.ctx(), DiscardOptions{Options: Options{Filter: Filter{Reasons: []string{"bad_json"}}}}); err != nil {
		t.Fatal(err)
	}
	w.redrive(q)
	open := w.letterValue("open")
	w.produce(open)
	for _, dry := range []bool{true, false} {
		purged, err := q.Purge(w.ctx(), dry)
		if err != nil || purged.Letters != 40 || purged.Markers != 40 {
			t.Fatalf("dry run %v: %+v, %v", dry, purged, err)
		}
	}
	left := w.list(q, Filter{Settled: true})
	if len(left) != 1 || string(left[0].Value) != "open" || left[0].State != StateOpen {
		t.Errorf("left are %+v", left)
	}
	if purged, err := q.Purge(w.ctx(), false); err != nil || purged != (Purged{}) {
		t.Errorf("a second purge finds %+v, %v", purged, err)
	}
	if summary := w.redrive(q); summary.Settled != 1 {
		t.Errorf("%+v", summary)
	}
}

func (w *world) letterValue(value string) *kgo.Record {
	record := w.letter(refused{record: kgo.Record{Value: []byte(value)}, reason: "r"})
	record.Headers[0].Value = []byte("in/0/0")
	source := parse(record).Source
	source.Application, source.TopicID = "app", w.ids["in"]
	record.Headers[1].Value = []byte(source.ID(deadLetterIndex).String())
	return record
}

// The answer to our commit is lost. Before we ask again, somebody purges: the letters are gone, and
// their markers too. What is gone must not be taken for open.
func TestPurgeBetweenALostAnswerAndTheNextLookDoublesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 10
	w.fill(n)
	eater := &answerEater{key: endTxn}
	q := w.open(kgo.Dialer(eater.dial), kgo.RequestRetries(0))
	q.hooks.produced = func() { eater.left.Store(1) }
	r := &run{queue: q, origins: &origins{known: make(map[string]*origin)}, state: StateRedriven}
	r.summary.Refused = make(map[Cause]int)
	session, err := q.openSession(w.ctx(), r.origins)
	if err != nil {
		t.Fatal(err)
	}
	r.session = session
	defer func() { r.session.close() }()
	for _, l := range w.list(q, Filter{}) {
		marker, err := session.markers.record(control, l.Position(), StateRedriven, "")
		if err != nil {
			t.Fatal(err)
		}
		r.batch = append(r.batch, item{letter: l.Position(), record: l.restore(false), marker: marker})
	}
	if err := session.commit(w.ctx(), r.records()); err == nil || eater.eaten.Load() != 1 {
		t.Fatalf("commit ends with %v, %d answers lost", err, eater.eaten.Load())
	}
	if purged, err := w.open().Purge(w.ctx(), false); err != nil || purged.Letters != n || purged.Markers != n {
		t.Fatalf("%+v, %v", purged, err)
	}
	if err := r.reopen(w.ctx()); err != nil {
		t.Fatal(err)
	}
	if len(r.batch) != 0 {
		t.Errorf("%d letters are taken for open", len(r.batch))
	}
	w.wantOnce(n)
}

func TestPurgeTakesBackMarkersOfAnEarlierTopic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	earlier := markers{topicID: [16]byte{1}}
	for i := range 25 {
		w.produce(&kgo.Record{Topic: control, Key: earlier.key(Position{0, int64(i)}), Value: []byte(`{"format":1,"state":"redriven"}`)})
	}
	w.produce(&kgo.Record{Topic: control, Key: []byte("suspect/a"), Value: []byte("{}")})
	w.fill(1)
	q := w.open()
	if purged, err := q.Purge(w.ctx(), false); err != nil || purged.Markers != 25 || purged.Letters != 0 {
		t.Errorf("%+v, %v", purged, err)
	}
	live := make(map[string]bool)
	for _, r := range w.read(control) {
		live[string(r.Key)] = r.Value != nil
	}
	for key, alive := range live {
		if alive != strings.HasPrefix(key, "suspect/") {
			t.Errorf("%s is alive: %v", key, alive)
		}
	}
}

// A reader must end where the last records below the end are not for it: aborted ones here.
func TestScanEndsBehindAbortedRecords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(4)
	aborting, err := kgo.NewClient(append(w.options, kgo.TransactionalID("engine"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer aborting.Close()
	begin := func() {
		if err := aborting.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			if err := aborting.ProduceSync(w.ctx(), &kgo.Record{Topic: letters, Value: []byte("aborted " + strconv.Itoa(i))}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	begin()
	if err := aborting.EndTransaction(w.ctx(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	begin() // and leave it open: the last stable offset stays below the end
	q := w.open()
	if got := w.list(q, Filter{}); len(got) != 4 {
		t.Errorf("%d letters, want 4", len(got))
	}
	if err := transact.Commit(w.ctx(), aborting, letters, 0); err != nil {
		t.Fatal(err)
	}
	if got := w.list(q, Filter{}); len(got) != 9 {
		t.Errorf("%d letters, want 9", len(got))
	}
}

// Compaction may have taken the last records below the end. The broker then answers with nothing at
// all, and goes on doing so.
func TestScanEndsInAHole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(20)
	asked := 0
	w.cluster.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		fetch := r.(*kmsg.FetchRequest) //nolint:forcetypeassert // the key says so
		ask := fetch.Topics[0].Partitions[0]
		if ask.FetchOffset == 0 {
			return nil, nil, false
		}
		asked++
		answer := kmsg.NewFetchResponseTopicPartition()
		answer.Partition, answer.HighWatermark, answer.LastStableOffset = ask.Partition, 15, 15
		topic := kmsg.NewFetchResponseTopic()
		topic.Topic, topic.TopicID, topic.Partitions = fetch.Topics[0].Topic, fetch.Topics[0].TopicID, []kmsg.FetchResponseTopicPartition{answer}
		response := fetch.ResponseKind().(*kmsg.FetchResponse) //nolint:forcetypeassert // as above
		response.Topics = []kmsg.FetchResponseTopic{topic}
		return response, nil, true
	})
	q := w.open()
	topic, err := q.describe(w.ctx(), letters)
	if err != nil {
		t.Fatal(err)
	}
	visited := 0
	if err := q.scan(w.ctx(), topic, 0, 0, 15, func(*kgo.Record) error { visited++; return nil }); err != nil || visited != 10 || asked != 1 {
		t.Errorf("%d records, %d questions into the hole, %v", visited, asked, err)
	}
}

func TestScanGoesOnWhereTheLogBeginsLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(20)
	q := w.open()
	topic, err := q.describe(w.ctx(), letters)
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	if err := q.deleteBelow(w.ctx(), letters, 0, 6); err != nil {
		t.Fatal(err)
	}
	var first int64 = -1
	if err := q.scan(w.ctx(), topic, 0, 0, 10, func(r *kgo.Record) error { first = r.Offset; return stop }); !errors.Is(err, stop) || first != 6 {
		t.Errorf("first offset is %d, %v", first, err)
	}
}
