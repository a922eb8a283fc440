//go:build integration

package txn

import (
	"bytes"
	"net"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/testkit"
)

// A producer aborts twice in a row and another one commits. A replica that catches up with all that at once writes
// into its index that everything up to the third transaction was decided with the first. Leader later, it does not
// list the second one with an answer that ends within it, and a client gives its records as committed.
func TestAbortedInputThatTheBrokerDoesNotListIsNotHandled(t *testing.T) {
	t.Parallel()
	const count, size = 32, 2 * fetchPartitionBytes / 32
	var aborted []*kgo.Record
	for range count {
		aborted = append(aborted, &kgo.Record{Value: bytes.Repeat([]byte("x"), size)})
	}
	kafka, topic := testkit.UnlistedKafka(t, &kgo.Record{Value: []byte("first")}, aborted, &kgo.Record{Value: []byte("last")})
	brokers := kafka.Brokers()
	testkit.CreateTopics(t, brokers, 1, nil, outTopic, effectsTopic, deadTopic, controlTopic)
	w := &world{t: t, hooks: &hookLog{t: t, ended: make(chan Ended, 100_000)}}
	var d net.Dialer
	w.dial, w.client = d.DialContext, testkit.Client(t, brokers)
	w.config = validConfig()
	w.config.Application, w.config.Instance, w.config.Group = "app", "one", "app"
	w.config.Client = []kgo.Opt{kgo.SeedBrokers(brokers...)}
	w.config.Outputs, w.config.Routes = map[string]string{"out": outTopic}, []Route{{Topics: []string{topic}, Name: "copy", Handler: copyHandler{}}}
	w.config.EffectsTopic, w.config.DeadLetterTopic, w.config.ControlTopic, w.config.Lanes = effectsTopic, deadTopic, controlTopic, 1
	w.config.Hooks = w.hooks.hooks()
	var unlisted atomic.Int64
	w.config.Hooks.Unlisted = func(u Unlisted) { unlisted.Add(u.Records) }

	end := testkit.EndOffsets(t, brokers, topic)[0]
	r := w.run()
	admin := kadm.NewClient(w.client)
	testkit.WaitFor(t, patience, "the end of the log", func() bool {
		offsets, err := admin.FetchOffsets(t.Context(), w.config.Group)
		at, _ := offsets.Lookup(topic, 0)
		return err == nil && at.At == end
	})
	if err := r.drain(); err != nil {
		t.Fatal(err)
	}
	if unlisted.Load() == 0 {
		t.Error("the broker listed all that was aborted: nothing was shown")
	}
	w.wantOnceReal(outTopic, []string{"last"})
}
