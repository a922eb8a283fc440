package control

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = "app.control"

func open(t *testing.T) (Topic, *kfake.Cluster) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	if err := cluster.CreateTopic(name, 1, map[string]string{"cleanup.policy": "compact", "delete.retention.ms": "0"}); err != nil {
		t.Fatal(err)
	}
	topic, err := Open(name, []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(topic.Client.Close)
	return topic, cluster
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func write(t *testing.T, topic Topic, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if err := topic.Client.ProduceSync(t.Context(), &kgo.Record{Topic: name, Key: []byte(key), Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func mark(t *testing.T, topic Topic) int64 {
	t.Helper()
	offset, err := topic.Mark(bounded(t), "test")
	if err != nil {
		t.Fatal(err)
	}
	return offset
}

// read gives the keys up to a new mark.
func read(t *testing.T, topic Topic) []string {
	t.Helper()
	var keys []string
	if err := topic.Read(bounded(t), mark(t, topic), func(r *kgo.Record) { keys = append(keys, string(r.Key)) }); err != nil {
		t.Fatal(err)
	}
	return keys
}

// What was written before the mark is read, and the mark ends it: where nothing was written, and where compaction has
// taken the last records away, so that the log ends with a hole.
func TestReadEndsWithItsMark(t *testing.T) {
	t.Parallel()
	topic, cluster := open(t)
	if got := read(t, topic); !slices.Equal(got, []string{"mark/test"}) {
		t.Errorf("of nothing %v was read", got)
	}
	write(t, topic, "a", "b")
	if got := read(t, topic); !slices.Equal(got, []string{"mark/test", "a", "b", "mark/test"}) {
		t.Errorf("%v was read", got)
	}
	for range 3 {
		mark(t, topic)
		cluster.Compact()
	}
	if got := read(t, topic); !slices.Contains(got, "a") || !slices.Contains(got, "b") || len(got) > 5 {
		t.Errorf("behind a hole %v was read", got)
	}
}

// Who follows is told what comes, and may stop waiting without losing his place.
func TestFollowerGoesOnAfterAWait(t *testing.T) {
	t.Parallel()
	topic, _ := open(t)
	reader, err := topic.Follow()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := reader.Poll(gone, func(*kgo.Record) { t.Error("of nothing a record came") }); err != nil || reader.Next() != 0 {
		t.Fatalf("a wait that was ended gave %v, at %d", err, reader.Next())
	}
	write(t, topic, "a", "b")
	var keys []string
	for end := mark(t, topic); reader.Next() <= end; {
		if err := reader.Poll(bounded(t), func(r *kgo.Record) { keys = append(keys, string(r.Key)) }); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"a", "b", "mark/test"}; !slices.Equal(keys, want) || reader.Next() != 3 {
		t.Errorf("%v was read up to %d, want %v", keys, reader.Next(), want)
	}
}

// Whoever may not write a mark, may not read, or is told to stop, learns it, and is never given a part for the whole.
func TestReadingThatFailsIsAnError(t *testing.T) {
	t.Parallel()
	topic, cluster := open(t)
	write(t, topic, "a")
	end := mark(t, topic)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := topic.Read(gone, end, func(*kgo.Record) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("told to stop, it gave %v", err)
	}
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.Fetch} {
		fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Topic: name, Err: kerr.TopicAuthorizationFailed, Count: 1})
		_, err := topic.Mark(bounded(t), "test")
		if err == nil {
			err = topic.Read(bounded(t), end, func(*kgo.Record) {})
		}
		if !errors.Is(err, kerr.TopicAuthorizationFailed) || fault.Hits() == 0 {
			t.Errorf("without the right for %s: %v after %d faults", key.Name(), err, fault.Hits())
		}
	}
}
