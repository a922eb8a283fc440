package committed

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"pawl/internal/transact"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const topicName = "log"

// world is a cluster with one partition, in virtual time.
type world struct {
	t       *testing.T
	network kfake.VirtualNetwork
	cluster *kfake.Cluster
	client  *kgo.Client
}

// inWorld runs a test in a bubble, in parallel with other tests.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t)) })
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	var err error
	w.cluster, err = kfake.NewCluster(kfake.NumBrokers(2), kfake.Ports(9092, 9093), kfake.ListenFn(w.network.Listen), kfake.SeedTopics(1, topicName))
	w.must(err)
	t.Cleanup(w.cluster.Close)
	w.client = w.connect()
	return w
}

func (w *world) connect(options ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(w.cluster.ListenAddrs()...), kgo.DefaultProduceTopic(topicName),
		kgo.Dialer(w.network.DialContext), kgo.MetadataMinAge(20*time.Millisecond), kgo.TransactionTimeout(5*time.Minute))...)
	w.must(err)
	w.t.Cleanup(client.Close)
	return client
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) transact(client *kgo.Client, end kgo.TransactionEndTry, records int) {
	w.t.Helper()
	w.must(client.BeginTransaction())
	w.produce(client, records)
	w.must(transact.End(w.t.Context(), client, end, topicName, 0))
}

func (w *world) produce(client *kgo.Client, records int) {
	w.t.Helper()
	for range records {
		w.must(client.ProduceSync(w.t.Context(), kgo.StringRecord("v")).FirstErr())
	}
}

func (w *world) topic() kadm.TopicDetail {
	w.t.Helper()
	topics, err := kadm.NewClient(w.client).ListTopics(w.t.Context(), topicName)
	w.must(err)
	return topics[topicName]
}

// scan gives the offsets that were visited.
func (w *world) scan(ctx context.Context, topic kadm.TopicDetail, from, to int64) (offsets []int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*stallMax)
	defer cancel()
	err = Scan(ctx, w.client, topic, 0, from, to, func(r *kgo.Record) error {
		offsets = append(offsets, r.Offset)
		return nil
	})
	return offsets, err
}

func (w *world) wants(from, to int64, want ...int64) {
	w.t.Helper()
	if got, err := w.scan(w.t.Context(), w.topic(), from, to); err != nil || !slices.Equal(got, want) {
		w.t.Errorf("from %d to %d it visits %v, %v, want %v", from, to, got, err, want)
	}
}

// What the markers say is committed is visited, up to the end and not beyond it; what is aborted before the end
// ends it as well as anything.
func TestScanVisitsWhatIsCommitted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		one := w.connect(kgo.TransactionalID("one"))
		w.wants(0, 0)
		w.transact(one, kgo.TryCommit, 3) // marker 3
		w.transact(one, kgo.TryAbort, 2)  // 4, 5, marker 6
		w.produce(w.client, 1)            // 7
		w.transact(one, kgo.TryAbort, 2)  // 8, 9, marker 10
		w.wants(0, 11, 0, 1, 2, 7)
		w.wants(1, 7, 1, 2)
		w.wants(4, 10, 7)
		w.wants(8, 10)
		stop := errors.New("stop")
		if err := Scan(t.Context(), w.client, w.topic(), 0, 0, 11, func(*kgo.Record) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("a visit that fails gives %v", err)
		}
	})
}

// What is open below the end is waited for, though its marker lies beyond it.
func TestScanWaitsForWhatIsOpen(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		one := w.connect(kgo.TransactionalID("one"))
		w.must(one.BeginTransaction())
		w.produce(one, 2)
		w.produce(w.client, 1)
		fetches := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Observe: true, Count: -1})
		got := make(chan []int64, 1)
		topic := w.topic()
		go func() {
			offsets, err := w.scan(context.Background(), topic, 0, 2)
			if err != nil {
				t.Error(err)
			}
			got <- offsets
		}()
		w.must(fetches.Wait(t.Context(), 2)) // it has read to the end, and asks again
		select {
		case offsets := <-got:
			t.Errorf("%v before the transaction ended", offsets)
		default:
		}
		w.must(transact.Commit(t.Context(), one, topicName, 0))
		if offsets := <-got; !slices.Equal(offsets, []int64{0, 1}) {
			t.Errorf("visited %v", offsets)
		}
	})
}

// An answer with nothing ends a scan, since compaction may have left a hole up to the end; but not that of a broker that
// throttles, nor that of one which has not got so far yet.
func TestScanEndsWithAnAnswerWithNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.produce(w.client, 5)
		answers := []func(*kmsg.FetchResponse){
			func(r *kmsg.FetchResponse) { r.Topics, r.ThrottleMillis = nil, 1 },
			func(r *kmsg.FetchResponse) { r.ThrottleMillis = 1 },
			func(r *kmsg.FetchResponse) { r.Topics[0].Partitions[0].HighWatermark = 7 },
		}
		var given atomic.Int64
		w.cluster.ControlKey(int16(kmsg.Fetch), func(request kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			fetch := request.(*kmsg.FetchRequest) //nolint:forcetypeassert // the key says so
			n := given.Load()
			if at := fetch.Topics[0].Partitions[0].FetchOffset; n < int64(len(answers)) || at >= 5 {
				given.Add(1)
				part := kmsg.NewFetchResponseTopicPartition()
				part.HighWatermark = 8
				of := kmsg.NewFetchResponseTopic()
				of.Topic, of.TopicID, of.Partitions = fetch.Topics[0].Topic, fetch.Topics[0].TopicID, []kmsg.FetchResponseTopicPartition{part}
				response := fetch.ResponseKind().(*kmsg.FetchResponse) //nolint:forcetypeassert // as above
				response.Topics = []kmsg.FetchResponseTopic{of}
				if n < int64(len(answers)) {
					answers[n](response)
				}
				return response, nil, true
			}
			return nil, nil, false
		})
		w.wants(0, 8, 0, 1, 2, 3, 4)
		if want := int64(len(answers)) + 1; given.Load() != want {
			t.Errorf("%d answers with nothing were given, want %d", given.Load(), want)
		}
	})
}

// The log begins later, the leader moves, a broker has a bad moment: the scan goes on. It does not where the topic
// is another one of the same name, or the offset is none.
func TestScanGoesOnWhereItCan(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.produce(w.client, 6)
		known := w.topic()
		var deleted kadm.Offsets
		deleted.Add(kadm.Offset{Topic: topicName, At: 2})
		_, err := kadm.NewClient(w.client).DeleteRecords(t.Context(), deleted)
		w.must(err)
		w.wants(0, 6, 2, 3, 4, 5)
		fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.KafkaStorageError, Count: 2})
		w.wants(3, 6, 3, 4, 5)
		if fault.Hits() != 2 {
			t.Errorf("%d fetches have failed, want 2", fault.Hits())
		}
		w.must(w.cluster.MoveTopicPartition(topicName, 0, 1-known.Partitions[0].Leader))
		if got, err := w.scan(t.Context(), known, 4, 6); err != nil || !slices.Equal(got, []int64{4, 5}) {
			t.Errorf("from another leader it visits %v, %v", got, err)
		}
		if _, err := w.scan(t.Context(), known, 9, 12); !errors.Is(err, kerr.OffsetOutOfRange) || !strings.Contains(err.Error(), "log/0 at offset 9") {
			t.Errorf("an offset that is none gives %v", err)
		}
		w.must(w.cluster.DeleteTopic(topicName))
		w.must(w.cluster.CreateTopic(topicName, 1, nil))
		w.produce(w.connect(), 6)
		if got, err := w.scan(t.Context(), known, 0, 6); err == nil || len(got) > 0 || !strings.Contains(err.Error(), "made anew") {
			t.Errorf("of another topic it visits %v, %v", got, err)
		}
	})
}

// Who is told to stop learns what it was that did not succeed.
func TestScanThatIsStoppedNamesItsTrouble(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.produce(w.client, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.KafkaStorageError, Count: -1})
		done := make(chan error, 1)
		topic := w.topic()
		go func() {
			_, err := w.scan(ctx, topic, 0, 1)
			done <- err
		}()
		wait, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		w.must(fault.Wait(wait, 2))
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it gives %v", err)
		}
		fault.Remove()
		deny := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		if _, err := w.scan(t.Context(), topic, 0, 1); err == nil || !strings.Contains(err.Error(), "lacks the right Read") || deny.Hits() == 0 {
			t.Errorf("without the right it gives %v after %d refusals", err, deny.Hits())
		}
	})
}

// A transaction that stays open is named after a while, with what to do about it; visits take as long as they want, also
// those of records that waited for a marker behind the end.
func TestScanGivesUpOnWhatStaysOpenButNotOnVisits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var open []*kgo.Client
		for _, id := range []string{"one", "two", "three"} {
			client := w.connect(kgo.TransactionalID(id))
			w.must(client.BeginTransaction())
			w.produce(client, 1)
			open = append(open, client)
		}
		topic := w.topic()
		began := time.Now()
		if got, err := w.scan(t.Context(), topic, 0, 3); err == nil || !strings.Contains(err.Error(), "processor txn abort") || len(got) > 0 {
			t.Errorf("what stays open gives %v, %v", got, err)
		}
		if took := time.Since(began); took < stallMax || took > stallMax+time.Second {
			t.Errorf("it gave up after %s", took)
		}
		visited := 0
		commit := func(client *kgo.Client) {
			if err := transact.Commit(t.Context(), client, topicName, 0); err != nil {
				t.Error(err)
			}
		}
		commit(open[0])
		err := Scan(t.Context(), w.client, topic, 0, 0, 3, func(*kgo.Record) error {
			time.Sleep(stallMax + time.Second) //nolint:forbidigo // virtual time
			if visited++; visited < len(open) {
				next := open[visited]
				time.AfterFunc(time.Second, func() { commit(next) }) // when the scan waits for it
			}
			return nil
		})
		if err != nil || visited != 3 {
			t.Errorf("slow visits: %d, %v", visited, err)
		}
	})
}
