//go:build integration

package deadletter

import (
	"errors"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/cluster"
	"pawl/internal/message"
	"pawl/internal/testkit"
	"pawl/internal/transact"
)

// The faults of the unit tests once more, on brokers that append markers, hold readers back and
// compact in their own time. The tests share one cluster behind proxies and run one after the other,
// because the faults of a proxy strike all of its clients.
func TestRealBrokersRedriveEachLetterOnce(t *testing.T) {
	t.Parallel()
	kafka, proxies := testkit.KafkaBehindProxies(t, cluster.KafkaConfig{})
	const n = 600
	for _, test := range []struct {
		name string
		run  func(*testing.T, *world, *testkit.KafkaProxies)
	}{
		{"cut off before the end", cutOff},
		{"answers to the end are lost", loseAnswers},
		{"the end is answered with an error", rewriteAnswers},
		{"overtaken while in doubt", overtake},
		{"run at once", runAtOnce},
	} {
		t.Run(test.name, func(t *testing.T) { //nolint:paralleltest // see above
			prefix := testkit.Name(t, "")
			testkit.CreateTopics(t, kafka.InternalBrokers(), 2, nil, prefix+"in", prefix+"in2", prefix+letters)
			testkit.CreateTopics(t, kafka.InternalBrokers(), 1, map[string]string{"cleanup.policy": "compact"}, prefix+control)
			w := worldAt(t, prefix, kafka.Brokers()...)
			w.fillAsEngines(n)
			test.run(t, w, proxies)
			w.wantOnce(n)
			if open := w.list(w.open(), Filter{}); len(open) != 0 {
				t.Errorf("%d letters are open", len(open))
			}
			purged, err := w.open().Purge(w.ctx(), false)
			if err != nil || purged.Letters != n || purged.Markers != n {
				t.Errorf("purge: %+v, %v", purged, err)
			}
			if left := w.list(w.open(), Filter{Settled: true}); len(left) != 0 {
				t.Errorf("%d letters are left by the purge", len(left))
			}
			if again := w.redrive(w.open()); again.Settled != 0 {
				t.Errorf("after the purge %d letters are redriven again", again.Settled)
			}
		})
	}
}

// fillAsEngines writes n letters in transactions, of which every third is aborted and leaves no letter.
func (w *world) fillAsEngines(n int) {
	w.t.Helper()
	engine, err := kgo.NewClient(append(w.options, kgo.TransactionalID(w.prefix+"engine"), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(50*time.Millisecond))...)
	if err != nil {
		w.t.Fatal(err)
	}
	defer engine.Close()
	const size = 50
	for from, transaction := 0, 0; from < n; transaction++ {
		if err := engine.BeginTransaction(); err != nil {
			w.t.Fatal(err)
		}
		commit := transaction%3 != 1
		var records []*kgo.Record
		for i := from; i < from+size; i++ {
			record := w.letter(refused{
				source: message.Source{Topic: w.prefix + "in", Partition: int32(i % 2), Offset: int64(i)},
				record: kgo.Record{Value: []byte(strconv.Itoa(i)), Timestamp: time.Now()},
				reason: "panic",
			})
			record.Partition = int32(i % 2)
			records = append(records, record)
		}
		if err := engine.ProduceSync(w.ctx(), records...).FirstErr(); err != nil {
			w.t.Fatal(err)
		}
		if err := transact.End(w.ctx(), engine, kgo.TransactionEndTry(commit), records[0].Topic, records[0].Partition); err != nil {
			w.t.Fatal(err)
		}
		if commit {
			from += size
		}
	}
}

func (w *world) openLarge(options ...kgo.Opt) *Queue {
	w.t.Helper()
	q := w.open(options...)
	q.recordsMax = 100
	return q
}

// endOfRedrive matches EndTxn of the world's redrive.
func (w *world) endOfRedrive(r kmsg.Request) bool {
	end, is := r.(*kmsg.EndTxnRequest)
	return is && end.TransactionalID == w.prefix+"app.redrive"
}

func cutOff(t *testing.T, w *world, _ *testkit.KafkaProxies) {
	t.Helper()
	cuts := 0
	for run := range 3 {
		q := w.openLarge()
		calls := 0
		q.hooks.produced = func() {
			if calls++; calls == run+1 {
				cuts++
				runtime.Goexit()
			}
		}
		var wait sync.WaitGroup
		wait.Go(func() {
			_, err := q.Redrive(w.ctx(), RedriveOptions{RedrivesMax: 3})
			t.Errorf("the run is not cut off: %v", err)
		})
		wait.Wait()
	}
	if cuts != 3 {
		t.Fatalf("%d cuts, want 3", cuts)
	}
	if summary := w.redrive(w.openLarge()); summary.Settled != 600-0-100-200 {
		t.Errorf("the last run redrives %d", summary.Settled)
	}
}

func loseAnswers(t *testing.T, w *world, proxies *testkit.KafkaProxies) {
	t.Helper()
	fault := proxies.Inject(t, testkit.Fault{Key: kmsg.EndTxn, Match: w.endOfRedrive, Times: 3, LoseAnswer: true})
	if summary := w.redrive(w.openLarge(kgo.RequestRetries(0))); summary.Settled != 600 {
		t.Errorf("%+v", summary)
	}
	if fault.Hits() != 3 {
		t.Errorf("%d answers were lost", fault.Hits())
	}
}

func rewriteAnswers(t *testing.T, w *world, proxies *testkit.KafkaProxies) {
	t.Helper()
	fault := proxies.Inject(t, testkit.Fault{Key: kmsg.EndTxn, Match: w.endOfRedrive, Times: 3, Rewrite: func(r kmsg.Response) {
		if end, is := r.(*kmsg.EndTxnResponse); is {
			end.ErrorCode = kerr.UnknownServerError.Code
		}
	}})
	if summary := w.redrive(w.openLarge()); summary.Settled != 600 {
		t.Errorf("%+v", summary)
	}
	if fault.Hits() != 3 {
		t.Errorf("%d answers were rewritten", fault.Hits())
	}
}

func overtake(t *testing.T, w *world, proxies *testkit.KafkaProxies) {
	t.Helper()
	second := w.openLarge()
	fault := proxies.Inject(t, testkit.Fault{
		Key: kmsg.EndTxn, Match: w.endOfRedrive, Times: 1, LoseAnswer: true,
		Strike: func() {
			if summary := w.redrive(second); summary.Settled != 500 {
				t.Errorf("the second run redrives %d, want 500", summary.Settled)
			}
		},
	})
	if summary := w.redrive(w.openLarge(kgo.RequestRetries(0))); summary.Settled != 100 {
		t.Errorf("%+v", summary)
	}
	if fault.Hits() != 1 {
		t.Errorf("%d answers were lost", fault.Hits())
	}
}

func runAtOnce(t *testing.T, w *world, _ *testkit.KafkaProxies) {
	t.Helper()
	var (
		wait   sync.WaitGroup
		mu     sync.Mutex
		fenced int
	)
	for range 3 {
		wait.Go(func() {
			q := w.openLarge()
			for {
				_, err := q.Redrive(w.ctx(), RedriveOptions{RedrivesMax: 3})
				switch {
				case err == nil:
					return
				case errors.Is(err, ErrFenced):
					mu.Lock()
					fenced++
					mu.Unlock()
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	t.Logf("%d runs were fenced", fenced)
}
