package txn

import (
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// Reasons of rejects that the engine itself gives. Handlers have their own.
const (
	RejectPanic           = "panic"
	RejectPoison          = "poison"
	RejectOutputTooLarge  = "output_too_large"
	RejectOutputUnknown   = "output_unknown"
	RejectEndpointUnknown = "endpoint_unknown"
	RejectTooMany         = "too_many_outputs"
)

// RejectReasons lists them, for metrics.
func RejectReasons() []string {
	return []string{
		RejectPanic, RejectPoison, RejectOutputTooLarge, RejectOutputUnknown, RejectEndpointUnknown, RejectTooMany,
	}
}

const (
	// entriesMax bounds what one record may ask for.
	entriesMax = 10_000
	// fanOutMin is the handler work from which spreading a batch over cores pays for the goroutines,
	// fanOutEach that of one record from which it pays for finding out whose it is.
	fanOutMin  = time.Millisecond
	fanOutEach = 2 * time.Microsecond
	// partMax is how many records are handled and produced at a time where one worker does all: few
	// enough that the second finds what the first has touched still in a core's cache.
	partMax = 512
	// stackBytesMax bounds the stack of a panic in a dead letter.
	stackBytesMax = 2 << 10
)

// rejected is what a handler's error may be. The engine asks for behaviour, never for a type.
type rejected interface {
	error
	Reason() string
}

// reject is the fate of one record: the dead-letter topic.
type reject struct {
	reason string
	err    error
}

// outcome is what became of one input record: a span of its worker's batch, or a reject.
type outcome struct {
	worker        *worker
	from, to      int // entries
	outs, effects int // cursors at from
	reject        *reject
}

// worker runs handlers on one goroutine and keeps what they asked for.
type worker struct {
	asked   message.Batch
	headers slab[message.Header]
	watch   watch
}

// watch shows the watchdog what a worker is doing.
type watch struct {
	call   atomic.Int64 // number of the handler call in progress, 0 between calls
	calls  int64
	record atomic.Pointer[kgo.Record]
}

// transformer runs the handlers of a batch on a fixed number of workers. Records with one key stay
// on one worker, in order; which worker works on what has no influence on the result.
type transformer struct {
	config  Config
	routes  map[string]*Route
	sizes   map[string]int // largest record per topic
	workers []*worker
	seed    maphash.Seed
	due     atomic.Int64 // when the handlers at work must be done, in Unix ns; 0 while none is
	late    atomic.Int64 // the newest due that has passed

	outcomes []outcome
}

// part is a piece of a batch and what became of it.
type part struct {
	records  []*kgo.Record
	outcomes []outcome     // one for each record; they live until the next part
	took     time.Duration // of the handlers, also where they failed
}

func newTransformer(c Config, sizes map[string]int, workers int) *transformer {
	t := &transformer{config: c, routes: map[string]*Route{}, sizes: sizes, seed: maphash.MakeSeed()}
	for i := range c.Routes {
		for _, topic := range c.Routes[i].Topics {
			t.routes[topic] = &c.Routes[i]
		}
	}
	for range workers {
		t.workers = append(t.workers, &worker{headers: slab[message.Header]{size: slabChunk}})
	}
	return t
}

// errSlow says that the handlers of a batch passed their deadline together; each of them returned.
var errSlow = errors.New("the handlers of this batch passed txn.handler_timeout together")

// run hands every record to its handler and yields the batch part by part, in input order. An error
// that is no reject ends the batch. each is what a record has cost lately, 0 if that is not known.
func (t *transformer) run(records []*kgo.Record, topicID func(string) [16]byte, poison map[spot]error, each time.Duration) iter.Seq2[part, error] {
	return func(yield func(part, error) bool) {
		left := t.config.HandlerTimeout
		for len(records) > 0 {
			p := part{records: records}
			spread := len(t.workers) > 1 && each >= fanOutEach && each*time.Duration(len(records)) >= fanOutMin
			if !spread {
				p.records = records[:min(len(records), partMax)]
			}
			err := t.handlePart(&p, left, spread, topicID, poison)
			if !yield(p, err) || err != nil {
				return
			}
			records = records[len(p.records):]
			left -= p.took
			if each == 0 {
				each = p.took / time.Duration(len(p.records))
			}
		}
	}
}

// handlePart runs the handlers of a part, which have the time that is left for the batch.
func (t *transformer) handlePart(p *part, left time.Duration, spread bool, topicID func(string) [16]byte, poison map[spot]error) error {
	for _, w := range t.workers {
		w.asked.Reset()
		w.headers.reset()
	}
	if cap(t.outcomes) < len(p.records) {
		t.outcomes = make([]outcome, len(p.records))
	}
	p.outcomes = t.outcomes[:len(p.records)]
	clear(p.outcomes)

	begun := time.Now()
	due := begun.Add(left).UnixNano()
	t.due.Store(due)
	var err error
	if spread {
		err = t.fanOut(p, due, topicID, poison)
	} else {
		err = t.work(t.workers[0], p, due, topicID, poison, func(int) bool { return true })
	}
	t.due.Store(0)
	p.took = time.Since(begun)
	if err == nil && (p.took >= left || t.late.Load() == due) {
		err = errSlow // rule 1: the deadline has passed, though nothing is stuck
	}
	return err
}

// overdue takes note, for the watchdog, of handlers that should be done by now. They end when the
// call in progress returns.
func (t *transformer) overdue(now time.Time) {
	if due := t.due.Load(); due != 0 && now.UnixNano() >= due {
		t.late.Store(due)
	}
}

func (t *transformer) fanOut(p *part, due int64, topicID func(string) [16]byte, poison map[spot]error) error {
	errs := make([]error, len(t.workers))
	var wait sync.WaitGroup
	for i, w := range t.workers {
		wait.Go(func() {
			errs[i] = t.work(w, p, due, topicID, poison, func(n int) bool { return t.mine(p.records[n], n, i) })
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// mine spreads by key; records without one have no order among each other.
func (t *transformer) mine(r *kgo.Record, n, worker int) bool {
	if r.Key == nil {
		return n%len(t.workers) == worker
	}
	return maphash.Bytes(t.seed, r.Key)%uint64(len(t.workers)) == uint64(worker) //nolint:gosec // small and not negative
}

func (t *transformer) work(w *worker, p *part, due int64, topicID func(string) [16]byte, poison map[spot]error, mine func(int) bool) error {
	source := message.Source{Application: t.config.Application, ReplayGeneration: t.config.ReplayGeneration}
	var route *Route
	outs, effects := 0, 0
	for n, r := range p.records {
		if !mine(n) {
			continue
		}
		if t.late.Load() == due {
			return errSlow
		}
		if r.Topic != source.Topic {
			source.Topic, source.TopicID = r.Topic, topicID(r.Topic)
			route = t.routes[r.Topic]
		}
		source.Partition, source.Offset = r.Partition, r.Offset
		from := w.asked.Len()
		rejection, err := t.handle(w, route, source, r, poison)
		if err != nil {
			return fmt.Errorf("handler %s: %s: %w", route.Name, source, err)
		}
		if rejection != nil {
			w.asked.Truncate(from)
		}
		p.outcomes[n] = outcome{worker: w, from: from, to: w.asked.Len(), outs: outs, effects: effects, reject: rejection}
		outs, effects = len(w.asked.Outs()), len(w.asked.Effects())
	}
	return nil
}

func (t *transformer) handle(w *worker, route *Route, source message.Source, r *kgo.Record, poison map[spot]error) (*reject, error) {
	if len(poison) > 0 {
		if cause, guilty := poison[spotOf(source)]; guilty {
			return &reject{RejectPoison, cause}, nil
		}
	}
	in := message.In{Source: source, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}
	if len(r.Headers) > 0 {
		in.Headers = w.headers.take(len(r.Headers))
		for i, h := range r.Headers {
			in.Headers[i] = message.Header(h)
		}
	}
	from, outs, effects := w.asked.Len(), len(w.asked.Outs()), len(w.asked.Effects())
	rejection, err := w.call(route.Handler, in, r)
	if rejection != nil || err != nil {
		return rejection, err
	}
	return t.inspect(w, r, from, outs, effects), nil
}

// call is the one place where a panic is caught: it is the handler's, and becomes a reject.
func (w *worker) call(h Handler, in message.In, r *kgo.Record) (rejection *reject, err error) {
	w.watch.calls++
	w.watch.record.Store(r)
	w.watch.call.Store(w.watch.calls)
	defer func() {
		w.watch.call.Store(0)
		if p := recover(); p != nil {
			stack := debug.Stack()
			rejection, err = &reject{RejectPanic, &panicked{value: p, stack: stack[:min(len(stack), stackBytesMax)]}}, nil
		}
	}()
	if err = h.Handle(in, &w.asked); err == nil {
		return nil, nil //nolint:nilnil // neither rejected nor failed
	}
	// An error may be a nil pointer in disguise, which panics when it is asked: better here than later.
	_ = err.Error()
	if refusal, ok := errors.AsType[rejected](err); ok {
		return &reject{refusal.Reason(), err}, nil
	}
	return nil, err
}

// panicked is a handler's panic.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v\n%s", p.value, p.stack) }

// inspect refuses what the brokers would refuse, before it is produced: a refused produce aborts
// the whole batch, a reject costs one record.
func (t *transformer) inspect(w *worker, r *kgo.Record, from, outs, effects int) *reject {
	if n := w.asked.Len() - from; n > entriesMax {
		return &reject{RejectTooMany, fmt.Errorf("%d outputs and effects for one record, at most %d are allowed", n, entriesMax)}
	}
	inherited := message.TraceOf(r.Headers).Size()
	for _, out := range w.asked.Outs()[outs:] {
		topic, ok := t.config.Outputs[out.Output]
		if !ok {
			return &reject{RejectOutputUnknown, fmt.Errorf("the handler wrote to output %q, which outputs does not have", out.Output)}
		}
		if size := recordSize(out.Key, out.Value, out.Headers) + inherited; size > t.sizes[topic] {
			return &reject{RejectOutputTooLarge, fmt.Errorf("an output to %s needs up to %d bytes, max.message.bytes allows %d: raise it, restart, then redrive", topic, size, t.sizes[topic])}
		}
	}
	for _, effect := range w.asked.Effects()[effects:] {
		if !t.hasEndpoint(effect.Endpoint) {
			return &reject{RejectEndpointUnknown, fmt.Errorf("the handler called endpoint %q, which endpoints does not have", effect.Endpoint)}
		}
		if size := effectSize(r, &effect) + inherited; size > t.sizes[t.config.EffectsTopic] {
			return &reject{RejectOutputTooLarge, fmt.Errorf("an effect needs up to %d bytes, max.message.bytes of %s allows %d: raise it, restart, then redrive", size, t.config.EffectsTopic, t.sizes[t.config.EffectsTopic])}
		}
	}
	return nil
}

func (t *transformer) hasEndpoint(name string) bool {
	return slices.Contains(t.config.Endpoints, name)
}

// recordOverhead is more than what a record, its batch and our own headers add to the handler's
// bytes (record batch format v2: 61 bytes of batch, at most 60 of varints, and pawl-source and pawl-id).
// effectOverhead is more than what an effect has beside them: eight more headers, and the source for a
// key. The trace context that an output or effect inherits is counted by itself.
const (
	recordOverhead = 512
	effectOverhead = 768
	headerOverhead = 10
)

// recordSize is an upper bound of the bytes a record needs in an uncompressed batch of its own.
func recordSize(key, value []byte, headers []message.Header) int {
	size := recordOverhead + len(key) + len(value)
	for _, h := range headers {
		size += headerOverhead + len(h.Key) + len(h.Value)
	}
	return size
}

// effectSize is the same for an effect.
func effectSize(r *kgo.Record, effect *message.Effect) int {
	key := effect.OrderKey
	if key == nil {
		key = r.Key
	}
	return recordSize(key, effect.Body, nil) + effectOverhead +
		len(effect.Endpoint) + len(effect.Class) + len(effect.ContentType) + len(effect.BusinessKey)
}
