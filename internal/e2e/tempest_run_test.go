//go:build chaos && linux

package e2e

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

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/kafka"
	"pawl/internal/load"
	"pawl/internal/testkit"
)

// outputs are the topics that processors write to.
func (w *tempest) outputs() []string {
	var all []string
	for _, suffix := range []string{".out", ".priced", ".ledger", ".effects", ".effect-results", ".dead-letter"} {
		all = append(all, w.application+suffix)
	}
	return all
}

// inputs are the topics that they read.
func (w *tempest) inputs() []string {
	return []string{w.input, w.application + ".orders", w.application + ".effect-results"}
}

// begin starts the processors, those who keep them up, and the first readers.
func (w *tempest) begin(t *testing.T) {
	t.Helper()
	for _, v := range w.steady {
		v.wanted = true
		v.start(t)
	}
	for _, v := range w.steady {
		v.awaitReady(t)
	}
	w.monitor = w.rig.monitor()
	brokers := w.kafka.InternalBrokers()
	w.watchers = append(
		w.watchers,
		watch(t.Context(), t, "first reader", brokers, "", w.outputs()...),
		watch(t.Context(), t, "reader in a group", brokers, w.application+"-readers", w.output, w.application+".priced"),
	)
	ctx, stop := context.WithCancel(t.Context())
	var keeping sync.WaitGroup
	keeping.Go(func() { w.keepUp(ctx) })
	t.Cleanup(func() { stop(); keeping.Wait() })
	w.began = time.Now()
}

// keepUp starts again what has died by itself, as an orchestrator does.
func (w *tempest) keepUp(ctx context.Context) {
	ticker := time.NewTicker(keepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, v := range w.steady {
			if !v.mu.TryLock() {
				continue // somebody does something to it, and leaves it alive
			}
			if v.wanted && !v.alive() && ctx.Err() == nil {
				w.note(func() { w.ends = append(w.ends, fmt.Sprintf("%s: %v: %s", v.name, v.err, lastError(v.log))) })
				v.start(w.t)
			}
			v.mu.Unlock()
		}
	}
}

// lastError is the last line of a log that tells of an error.
func lastError(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	last := ""
	for line := range strings.Lines(string(text)) {
		for _, sign := range []string{`"level":"ERROR"`, "panic:", "fatal error:", "Error:"} {
			if strings.Contains(line, sign) {
				last = strings.TrimSpace(line)
			}
		}
	}
	return last
}

// burden is the load of a tempest.
type burden struct {
	copies, orders *load.Producer
	stop           context.CancelFunc
	done           sync.WaitGroup
	errors         [2]error
}

// produced is how many records the brokers took.
type produced struct{ copies, orders int64 }

// repeating makes orders of which some come twice and some a second time with other prices.
type repeating struct{ *load.Orders }

// Of so many orders one is an earlier one again, and of so many one is an earlier one changed.
const (
	repeatEvery, repeatBack = 50, 25
	changeEvery, changeBack = 200, 24
)

func (r repeating) Fill(record *kgo.Record, stamp load.Stamp) {
	switch {
	case stamp.N%repeatEvery == repeatEvery-1:
		stamp.N -= repeatBack
		r.Orders.Fill(record, stamp)
	case stamp.N%changeEvery == changeEvery/2:
		stamp.N -= changeBack
		r.Orders.Fill(record, stamp)
		record.Value = []byte(strings.Replace(string(record.Value), `"unit_price":"`, `"unit_price":"1`, 1))
	default:
		r.Orders.Fill(record, stamp)
	}
}

// produce begins the load, around the proxies: it goes on through everything that happens to brokers.
func (w *tempest) produce(t *testing.T) *burden {
	t.Helper()
	plain, err := load.NewPlain(load.PlainConfig{Run: 1, Bytes: copyBytes, Keys: copyKeys})
	if err != nil {
		t.Fatal(err)
	}
	orders, err := load.NewOrders(load.OrdersConfig{Seed: 1, BadShare: badShare})
	if err != nil {
		t.Fatal(err)
	}
	b := &burden{}
	producer := func(topic string, generator load.Generator, rate float64) *load.Producer {
		p, err := load.NewProducer(load.ProducerConfig{
			Options: []kgo.Opt{
				kgo.SeedBrokers(w.kafka.InternalBrokers()...), kgo.MetadataMinAge(100 * time.Millisecond), kgo.ProducerLinger(20 * time.Millisecond),
			},
			Topic: topic, Generator: generator, Rate: rate, Flush: readersTimeout,
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	b.copies = producer(w.input, plain, *tempestRate)
	b.orders = producer(w.application+".orders", repeating{orders}, *tempestOrders)
	var ctx context.Context
	ctx, b.stop = context.WithCancel(t.Context())
	for i, p := range []*load.Producer{b.copies, b.orders} {
		b.done.Go(func() { b.errors[i] = p.Run(ctx) })
	}
	t.Cleanup(func() { b.stop(); b.done.Wait() })
	return b
}

// halt ends the load.
func (b *burden) halt(t *testing.T) produced {
	t.Helper()
	b.stop()
	b.done.Wait()
	for _, err := range b.errors {
		if err != nil {
			t.Fatal(err)
		}
	}
	return produced{b.copies.Acked(), b.orders.Acked()}
}

// rage does a script, until the time is over and enough has been done to show something. On a slow machine
// faults take longer, and not each of them bites: there it goes on, at most to the end of the script.
func (w *tempest) rage(s script) {
	ctx := w.ctx
	began := time.Now()
	defer func() { w.raged = time.Since(began) }()
	for number, turn := range s.Turns {
		if ctx.Err() != nil || w.t.Failed() || time.Since(began) > *tempestDuration && w.showed() {
			return
		}
		w.watchLate()
		var acting sync.WaitGroup
		for _, a := range turn.Acts {
			acting.Go(func() { w.act(ctx, number, a) })
		}
		acting.Wait()
		waitOr(ctx.Done(), seconds(turn.Pause))
	}
}

// showed tells whether enough faults of enough kinds have bitten.
func (w *tempest) showed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	bit, kinds := w.bitten()
	return bit >= faultsMin && len(kinds) >= kindsMin
}

// lateReaders begin while the script is done, at even intervals, and read everything that there was before
// them, but for the first of them without the copies, which are many.
const lateReaders = 8

func (w *tempest) watchLate() {
	number := len(w.watchers) - 1 // two were there from the start
	if number > lateReaders || time.Since(w.began) < time.Duration(number)**tempestDuration/(lateReaders+1) {
		return
	}
	topics := w.outputs()
	if number > 1 {
		topics = slices.DeleteFunc(topics, func(topic string) bool { return topic == w.output })
	}
	w.watchers = append(w.watchers, watch(w.ctx, w.t, fmt.Sprintf("late reader %d", number), w.kafka.InternalBrokers(), "", topics...))
}

func seconds(number float64) time.Duration { return time.Duration(number * float64(time.Second)) }

// act does one act and writes it down.
func (w *tempest) act(ctx context.Context, number int, a act) {
	kind, _ := troubleNamed(a.Trouble)
	d := deed{act: a, Turn: number, From: time.Since(w.began).Seconds()}
	ctx, cancel := context.WithTimeout(ctx, seconds(a.Seconds))
	defer cancel()
	proof, err := kind.strike(ctx, w, a)
	d.To, d.Proof = time.Since(w.began).Seconds(), proof
	if err != nil {
		d.Error = err.Error()
	}
	w.note(func() { w.deeds = append(w.deeds, d) })
	w.t.Logf("%7.1f to %5.1f s, turn %d: %s: %s %s", d.From, d.To, number, a.Trouble, d.Proof, d.Error)
}

// settle heals whatever a failed act has left, waits until everything has come to rest and ends the
// processors. It returns how long that took.
func (w *tempest) settle(t *testing.T) time.Duration {
	t.Helper()
	w.heal(t)
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), drainedAtAll)
	defer cancel()
	if !until(ctx, func() bool { return w.rests(ctx) }) {
		t.Errorf("not at rest %s after the last fault: %s", drainedAtAll, w.unrest())
	}
	took := time.Since(began)
	for _, v := range w.steady {
		v.mu.Lock()
		v.wanted = false
		if err := w.endOne(v); err != nil {
			t.Errorf("%s ended with: %v", v.name, err)
		}
		v.mu.Unlock()
	}
	return took
}

// heal makes everything well that a fault may have broken.
func (w *tempest) heal(t *testing.T) {
	t.Helper()
	w.till.be(tillWell)
	w.proxies.Choose(nil)
	all := []*testkit.Proxy{w.databaseProxy, w.tillProxy}
	for node := range w.kafka.Nodes() {
		all = append(all, w.proxies.Node(node))
		if err := w.kafka.Resume(node); err != nil && w.kafka.Pid(node) != 0 {
			t.Error(err)
		}
	}
	for _, proxy := range all {
		proxy.Accept()
		proxy.Release()
		proxy.Delay(0)
	}
	if err := w.kafka.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.database.Resume(); err != nil {
		t.Error(err)
	}
	if err := w.database.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, v := range w.extra {
		if v.process != nil && v.alive() {
			v.kill()
		}
	}
}

// rests tells whether every input is committed to its end, and every effect that a reader sees has a result
// that it sees.
func (w *tempest) rests(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	lag, err := w.lag(ctx)
	if err != nil || lag > 0 {
		return false
	}
	reader := w.watchers[0]
	for _, suffix := range []string{".effects", ".effect-results"} {
		stable, err := w.admin.ListCommittedOffsets(ctx, w.application+suffix)
		if err != nil || stable.Error() != nil || !reader.reached(w.application+suffix, ends(stable, w.application+suffix)) {
			return false
		}
	}
	return reader.count(w.application+".effects") == reader.count(w.application+".effect-results")
}

func ends(listed kadm.ListedOffsets, topic string) map[int32]int64 {
	all := map[int32]int64{}
	for partition, end := range listed[topic] {
		all[partition] = end.Offset
	}
	return all
}

// lag is how many offsets of the inputs are not committed.
func (w *tempest) lag(ctx context.Context) (lag int64, err error) {
	lags, err := kafka.Lag(ctx, w.admin, w.application, w.inputs())
	for _, one := range lags {
		err = errors.Join(err, one.Err)
		lag += one.Lag
	}
	return lag, err
}

// unrest says what is not at rest.
func (w *tempest) unrest() string {
	ctx, cancel := context.WithTimeout(w.ctx, askTimeout)
	defer cancel()
	lag, err := w.lag(ctx)
	reader := w.watchers[0]
	return fmt.Sprintf("lag %d (%v), %d effects and %d results seen, calls %+v", lag, err,
		reader.count(w.application+".effects"), reader.count(w.application+".effect-results"), w.till.count())
}
