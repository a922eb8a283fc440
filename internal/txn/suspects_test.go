package txn

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/control"
)

func newMemory(w *world) *memory {
	w.t.Helper()
	client, err := kgo.NewClient(append(w.config.Client, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(client.Close)
	return &memory{topic: control.Topic{Name: controlTopic, Client: client, Options: w.config.Client}, reader: "app.one"}
}

func TestSuspectsAreReadBackBesideWhatOthersWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	m := newMemory(w)
	ctx := context.Background()
	if found, err := m.read(ctx); err != nil || len(found) != 0 {
		t.Fatalf("an empty topic gave %v, %v", found, err)
	}
	want := suspect{Format: suspectFormat, Offset: 7, Until: 20, Crashes: 2, Alone: 1}
	if err := m.write(ctx, map[string]suspect{"suspect/x/0": {Offset: 1}, "suspect/x/1": want}); err != nil {
		t.Fatal(err)
	}
	if err := w.client.ProduceSync(ctx,
		&kgo.Record{Topic: controlTopic, Key: []byte("redrive/x/0/1"), Value: []byte("not json")},
		&kgo.Record{Topic: controlTopic, Key: []byte("suspect/x/0")},
	).FirstErr(); err != nil {
		t.Fatal(err)
	}
	found, err := m.read(ctx)
	if err != nil || len(found) != 1 || found["suspect/x/1"] != want {
		t.Errorf("read %+v, %v; want only %+v", found, err, want)
	}
}

// A log whose last records compaction has taken away ends with a hole. A reader that waits for the
// record before the end would wait for ever.
func TestSuspectsAreReadBeforeAHole(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	if err := w.cluster.DeleteTopic(controlTopic); err != nil {
		t.Fatal(err)
	}
	if err := w.cluster.CreateTopic(controlTopic, 1, map[string]string{"cleanup.policy": "compact", "delete.retention.ms": "0"}); err != nil {
		t.Fatal(err)
	}
	m := newMemory(w)
	ctx := context.Background()
	if err := m.write(ctx, map[string]suspect{"suspect/x/1": {Offset: 7}}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := w.client.ProduceSync(ctx, &kgo.Record{Topic: controlTopic, Key: []byte("redrive/x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		w.cluster.Compact()
	}
	if found, err := m.read(ctx); err != nil || found["suspect/x/1"].Offset != 7 {
		t.Errorf("read %+v, %v", found, err)
	}
}

func TestSuspectsOfANewerFormatStopTheLane(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	m := newMemory(w)
	ctx := context.Background()
	if err := w.client.ProduceSync(ctx, &kgo.Record{Topic: controlTopic, Key: []byte("suspect/x/0"), Value: []byte(`{"format":2}`)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.read(ctx); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("read gave %v, want an error that names format 2", err)
	}
}

// Whatever stands on the control topic is a note or an error. A note says what it was written with, and about
// another offset it says nothing that was not said.
func FuzzReadSuspect(f *testing.F) {
	f.Add([]byte(`{"format":1,"offset":7,"until":9,"crashes":2,"alone":1,"hunting":true}`), int64(8))
	f.Add([]byte(`{"format":2}`), int64(0))
	f.Add([]byte(`{"format":1,"offset":9223372036854775807,"until":-1}`), int64(-1))
	f.Fuzz(func(t *testing.T, value []byte, offset int64) {
		s, err := readSuspect(value)
		if err != nil {
			return
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := readSuspect(text); err != nil || again != s {
			t.Errorf("%+v is read back as %+v, %v", s, again, err)
		}
		if at := s.at(offset); at.Crashes > max(0, s.Crashes) || at.Alone > max(1, s.Alone) || at != (suspect{}) && at.Until != s.Until {
			t.Errorf("at %d, %+v means %+v", offset, s, at)
		}
	})
}
