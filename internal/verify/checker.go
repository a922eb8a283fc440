package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"pawl/internal/message"
)

// Checker takes the evidence piece by piece and judges it in Report. Lane and Begin come before the
// log; the log comes partition by partition or mixed, that of one partition in the order of offsets;
// everything else comes after the log. It is not safe for concurrent use.
type Checker struct {
	plan     Plan
	digest   *digester
	findings findings
	saw      Saw

	topics    []*topic
	byName    map[string]*topic
	parts     map[spotOf]*partition
	bounds    map[spotOf]Offsets
	roads     map[road]*lastOn
	lanes     map[int32]*Lane
	waiting   map[int32]int64           // by lane, the first effect that has not ended or not been told
	fences    map[int32]int64           // by lane, the highest that a call had
	marks     map[laneOrigin]SourceMark // the highest that a lane was given so far
	readers   map[readerOf]*readerSpan  // what each reader got of each partition
	tiles     map[spotOf][]tile         // what committed transactions took, as workers say
	sums      map[string]*balance       // accounts
	calls     int64                     // fed so far
	reasons   map[string]int64          // of dead letters
	fates     map[string]int64          // of result events
	batch     message.Batch             // of the model
	judgement judgement                 // the one in hand
	lastWay   road                      // that an outcome took, and what it brought
	lastRoad  *lastOn
	last      struct { // where the last entry stood: most stand in the same partition
		topic     *topic
		partition *partition
		number    int32
	}
	pool []*transaction // to be used again

	budget  budget
	sources *groups // by source: what an input must lead to and what there is
	intents *groups // by lane and offset: effect, ledger, calls, result
	ends    *groups // by producer and epoch: the ends of one transaction
	places  *groups // by place in a log: what readers got; only with Plan.Readers
	orders  *groups // by lane and order key: who came first
	ids     *groups // by idempotency key: which effects were executed
}

// topic is a topic with its roles; it may have several.
type topic struct {
	number    uint16
	name      string
	input     *Input
	spaces    []message.Space // of an input, by generation
	output    bool
	letters   bool
	effects   bool
	results   bool
	compacted bool

	saw TopicSaw
}

// spotOf is a partition of a topic.
type spotOf struct {
	topic     uint16
	partition int32
}

// partition is how far a log has been fed.
type partition struct {
	begin int64 // of the log
	fresh int64 // what was decided from here on was so after the inputs below the range had been judged; 0: nothing is known
	first int64 // offset that was fed first
	next  int64 // all below has been fed
	open  map[int64]*transaction
}

// road is the way of outcomes from a partition of an input to one of another topic.
type road struct{ from, to spotOf }

// lastOn is what a road brought last.
type lastOn struct {
	first  int64 // source offset of the first
	source int64
	offset int64
	id     message.ID
}

type laneOrigin struct {
	lane   int32
	origin Origin
}

// New makes a Checker for a plan.
func New(plan Plan) (*Checker, error) {
	if err := plan.validate(); err != nil {
		return nil, fmt.Errorf("plan a check: %w", err)
	}
	c := &Checker{
		plan: plan, digest: newDigester(), byName: map[string]*topic{}, parts: map[spotOf]*partition{},
		bounds: map[spotOf]Offsets{}, roads: map[road]*lastOn{}, lanes: map[int32]*Lane{}, waiting: map[int32]int64{}, fences: map[int32]int64{},
		marks: map[laneOrigin]SourceMark{}, readers: map[readerOf]*readerSpan{}, tiles: map[spotOf][]tile{},
		sums: map[string]*balance{}, reasons: map[string]int64{}, fates: map[string]int64{}, budget: budget{dir: plan.Dir, max: plan.Memory},
	}
	for _, g := range []**groups{&c.sources, &c.intents, &c.ends, &c.places, &c.orders, &c.ids} {
		*g = newGroups(&c.budget, 0)
	}
	for i := range plan.Inputs {
		input := &c.plan.Inputs[i]
		t := c.topicNamed(input.Topic)
		t.input = input
		for generation := range plan.Generation + 1 {
			t.spaces = append(t.spaces, message.Source{Application: plan.Application, ReplayGeneration: generation, TopicID: input.TopicID}.Space())
		}
	}
	for _, name := range plan.Outputs {
		c.topicNamed(name).output = true
	}
	c.topicNamed(plan.DeadLetters).letters = true
	c.topicNamed(plan.Effects).effects = true
	c.topicNamed(plan.Results).results = true
	for _, name := range plan.Compacted {
		c.topicNamed(name).compacted = true
	}
	return c, nil
}

func (c *Checker) topicNamed(name string) *topic {
	t := c.byName[name]
	if t == nil {
		t = &topic{number: uint16(len(c.topics)), name: name} //nolint:gosec // a plan has few
		c.topics = append(c.topics, t)
		c.byName[name] = t
	}
	return t
}

// Close gives the files back. It may be called more than once.
func (c *Checker) Close() error {
	return errors.Join(c.sources.close(), c.intents.close(), c.ends.close(), c.places.close(), c.orders.close(), c.ids.close())
}

// Begin tells where the log of a partition begins.
func (c *Checker) Begin(b *Begin) error {
	t := c.byName[b.Topic]
	if t == nil {
		return fmt.Errorf("the plan has no topic %s", b.Topic)
	}
	c.partition(t, b.Partition).begin = b.Offset
	return nil
}

// Fresh tells that what was decided in a partition from an offset on, by the place of its marker, was so after all
// inputs below the range had been judged: an outcome of one of those is there a second time.
func (c *Checker) Fresh(b *Begin) error {
	t := c.byName[b.Topic]
	if t == nil {
		return fmt.Errorf("the plan has no topic %s", b.Topic)
	}
	c.partition(t, b.Partition).fresh = b.Offset
	return nil
}

// Offsets tells how far an input partition has been processed.
func (c *Checker) Offsets(o *Offsets) error {
	t := c.byName[o.Topic]
	if t == nil || t.input == nil {
		return fmt.Errorf("the plan has no input topic %s", o.Topic)
	}
	one := *o
	one.After = max(one.After, one.Committed)
	c.bounds[spotOf{t.number, o.Partition}] = one
	return nil
}

// Lane tells how far the ledger has ingested a lane.
func (c *Checker) Lane(l *Lane) error {
	one := *l
	c.lanes[l.Lane] = &one
	for origin, mark := range l.Marks {
		c.marks[laneOrigin{l.Lane, origin}] = mark
	}
	return nil
}

func (c *Checker) partition(t *topic, number int32) *partition {
	at := spotOf{t.number, number}
	p := c.parts[at]
	if p == nil {
		p = &partition{first: -1, open: map[int64]*transaction{}}
		c.parts[at] = p
	}
	return p
}

// Entry takes what stands next in a log.
func (c *Checker) Entry(e *Entry) error {
	if e.Marker != nil {
		return c.Marker(e.Marker)
	}
	return c.Record(e.Record)
}

// advance keeps whoever feeds from feeding out of order: that would be taken for findings.
func (c *Checker) advance(name string, number int32, offset int64) (*topic, *partition, error) {
	t, p := c.last.topic, c.last.partition
	if p == nil || c.last.number != number || t.name != name {
		if t = c.byName[name]; t == nil {
			return nil, nil, fmt.Errorf("the plan has no topic %s", name)
		}
		p = c.partition(t, number)
		c.last.topic, c.last.partition, c.last.number = t, p, number
	}
	if offset < p.next {
		return nil, nil, fmt.Errorf("%s/%d is fed out of order: offset %d after %d", name, number, offset, p.next-1)
	}
	if p.first < 0 {
		p.first = offset
	}
	p.next = offset + 1
	return t, p, nil
}

// Record takes the next record of a log. It keeps nothing of it.
func (c *Checker) Record(r *Record) error {
	t, p, err := c.advance(r.Topic, r.Partition, r.Offset)
	if err != nil {
		return err
	}
	tx := c.begin(p, r)
	if t.input != nil {
		c.input(t, r, tx)
	}
	if t.output || t.letters || t.effects {
		c.outcome(t, r, tx)
	}
	if t.results {
		c.event(t, r, tx)
	}
	if c.plan.Readers {
		tx.add(c.places, placeKey(t.number, r.Partition, r.Offset), fact{
			kind: factLog, offset: r.Offset, digest: c.digest.record(r.Timestamp, r.Key, r.Value, r.Headers, true),
		})
	}
	if r.Transactional {
		return nil
	}
	return c.settle(t, p, r.Partition, tx, decision{true, r.Offset, r.Timestamp.UnixMilli()})
}

// model notes what must come of an input. It reports false where that is not known.
func (c *Checker) input(t *topic, r *Record, tx *transaction) {
	k := placeKey(t.number, r.Partition, r.Offset)
	whole := c.digest.record(r.Timestamp, r.Key, r.Value, r.Headers, true)
	at := fact{kind: factInput, topic: t.number, partition: r.Partition, offset: r.Offset, digest: whole}
	if t.input.Handler == nil {
		tx.add(c.sources, k, at)
		return
	}
	at.flags |= flagModelled
	tx.add(c.sources, k, at)
	source := message.Source{
		Application: c.plan.Application, ReplayGeneration: c.plan.Generation,
		Topic: t.name, TopicID: t.input.TopicID, Partition: r.Partition, Offset: r.Offset,
	}
	in := message.In{Source: source, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp}
	if reason := c.handle(t.input.Handler, in); reason != "" {
		tx.add(c.sources, k, fact{kind: factExpected, topic: c.byName[c.plan.DeadLetters].number, index: deadLetterIndex, digest: whole, text: reason})
		return
	}
	c.batch.Walk(0, c.batch.Len(), 0, 0, func(e message.Entry) { tx.add(c.sources, k, c.expected(&in, e)) })
}

// handle applies the model; the reason is that of a reject, empty without one.
func (c *Checker) handle(handler Handler, in message.In) (reason string) {
	defer func() {
		if recover() != nil {
			reason = reasonPanic
		}
	}()
	c.batch.Reset()
	if err := handler.Handle(in, &c.batch); err != nil {
		if reject, is := errors.AsType[interface {
			error
			Reason() string
		}](err); is {
			return reject.Reason()
		}
		return reasonPoison // the engine halves the batch until the record is alone
	}
	for _, out := range c.batch.Outs() {
		if c.plan.Outputs[out.Output] == "" {
			return reasonOutputUnknown
		}
	}
	return ""
}

// The reasons of the engine's own rejects. They depend on brokers, settings and attempts, which no
// model knows: where a dead letter tells one, it is what the input led to.
const (
	reasonPanic         = "panic"
	reasonPoison        = "poison"
	reasonOutputUnknown = "output_unknown"
)

var engineReasons = []string{reasonPanic, reasonPoison, reasonOutputUnknown, "output_too_large", "endpoint_unknown", "too_many_outputs"}

func byEngine(reason string) bool { return slices.Contains(engineReasons, reason) }

func (c *Checker) expected(in *message.In, e message.Entry) fact {
	f := fact{kind: factExpected, index: int32(e.Index)} //nolint:gosec // an input asks for some thousands
	if out := e.Out; out != nil {
		at := out.Timestamp
		if at.IsZero() {
			at = in.Timestamp
		}
		f.topic = c.byName[c.plan.Outputs[out.Output]].number
		f.digest = c.digest.record(at, out.Key, out.Value, out.Headers, false)
		if trace := inherited(in, out); trace != nil {
			f.extra = f.digest // releases before there were traces
			f.digest = c.digest.record(at, out.Key, out.Value, slices.Concat(out.Headers, trace), false)
		}
		return f
	}
	effect := e.Effect
	key := effect.OrderKey
	if key == nil {
		key = in.Key
	}
	if key == nil {
		key = in.Source.AppendText(nil)
	}
	class, content := string(effect.Class), effect.ContentType
	if class == "" {
		class = string(message.AtLeastOnce)
	}
	if content == "" {
		content = "application/json"
	}
	f.topic = c.byName[c.plan.Effects].number
	f.digest = c.digest.effect([]byte(effect.Endpoint), []byte(class), []byte(content), []byte(effect.BusinessKey), key, effect.Body)
	if effect.BusinessKey != "" {
		f.flags |= flagBusiness
		f.id = message.BusinessID(c.plan.Application, effect.Endpoint, effect.BusinessKey)
	}
	return f
}

// inherited gives the headers by which an output goes on with its input's trace, unless the handler has given it a
// trace.
func inherited(in *message.In, out *message.Out) (headers []message.Header) {
	if slices.ContainsFunc(out.Headers, func(h message.Header) bool { return message.IsTrace(h.Key) }) {
		return nil
	}
	trace := message.TraceOf(in.Headers)
	if trace.Parent != nil {
		headers = append(headers, message.Header{Key: message.HeaderTrace, Value: trace.Parent})
	}
	if trace.State != nil {
		headers = append(headers, message.Header{Key: message.HeaderState, Value: trace.State})
	}
	return headers
}

// outcome takes an output, a dead letter or an effect.
func (c *Checker) outcome(t *topic, r *Record, tx *transaction) {
	o, ok := readOrigin(r.Headers)
	from := c.byName[string(o.topic)]
	if !ok || from == nil || from.input == nil || t.effects && o.topicID != from.input.TopicID {
		tx.strange = append(tx.strange, strangeRecord{r.Offset, string(o.source), ok, t.effects})
		return
	}
	f := fact{kind: factSeen, topic: t.number, partition: r.Partition, offset: r.Offset, index: o.index, id: o.id, producer: r.Producer, epoch: r.Epoch}
	switch {
	case t.effects:
		f.digest = c.digest.effect(o.endpoint, o.class, o.contentType, o.business, r.Key, r.Value)
		f.extra = uint64(o.replay) //nolint:gosec // bits
		if len(o.business) > 0 {
			f.flags |= flagBusiness
		}
		c.intent(r, &o, &f, tx)
	case t.letters:
		f.index = deadLetterIndex
		f.digest = c.digest.record(r.Timestamp, r.Key, r.Value, r.Headers[:o.story], true)
		f.text = string(o.reason[:min(len(o.reason), reasonMax)])
	default:
		f.digest = c.digest.record(r.Timestamp, r.Key, r.Value, r.Headers, false)
	}
	tx.add(c.sources, placeKey(from.number, o.partition, o.offset), f)
}

const reasonMax = 256

// intent notes an effect for what becomes of it.
func (c *Checker) intent(r *Record, o *origin, seen *fact, tx *transaction) {
	f := *seen
	f.kind, f.extra = factIntent, c.digest.key(r.Key)
	if bytes.Equal(o.class, []byte(message.AtMostOnce)) {
		f.flags |= flagAtMostOnce
	}
	if c.plan.Journal {
		f.number = bodyDigest(sha256.Sum256(r.Value))
	}
	f.text = string(o.source)
	tx.add(c.intents, placeKey(0, r.Partition, r.Offset), f)
	tx.origins = append(tx.origins, Origin{o.topicID, o.partition, o.replay})
	tx.marks = append(tx.marks, SourceMark{o.offset, int(o.index)})
}

// bodyDigest is as much of a hash as a fact has room for.
func bodyDigest(sum [sha256.Size]byte) int64 { return int64(binary.LittleEndian.Uint64(sum[:])) } //nolint:gosec // bits
