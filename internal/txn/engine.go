package txn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/control"
	"pawl/internal/message"
)

// Engine runs the lanes of one process as members of one group.
type Engine struct {
	config Config
	leave  atomic.Bool

	mu    sync.Mutex
	lanes []*lane
}

// New checks the configuration; nothing is opened before Run.
func New(c Config) (*Engine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Engine{config: c}, nil
}

// StuckError ends an engine whose handler did not return. The handler can't be stopped, so the
// process must end: Run returns while the handler's goroutine still runs.
type StuckError struct {
	Source  message.Source
	Handler string
	After   time.Duration
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("handler %s has not returned from record %s for %s (txn.handler_timeout): the process ends, its transaction will be aborted, the record comes again; after %d such deaths it is isolated and dead-lettered",
		e.Handler, e.Source, e.After, countedMax)
}

// ErrDrain is returned by Run when the lanes did not end within the drain timeout. Their
// transactions will be aborted by their successors: nothing is lost, some work is done again.
var ErrDrain = errors.New("txn.drain_timeout passed before every lane had ended its transaction")

// Leave makes the members leave the group when Run ends, for a scale-down: their partitions move
// at once instead of after the session timeout (rule 6).
func (e *Engine) Leave() { e.leave.Store(true) }

// Run works until ctx ends, then lets every lane finish its transaction. It returns nil after a
// clean drain, a *TwinError, a *StuckError, ErrDrain, or an error of the first contact with the
// brokers. It may be called once.
func (e *Engine) Run(ctx context.Context) error {
	c := e.config
	opts := append(append([]kgo.Opt(nil), c.Client...),
		kgo.ClientID(c.Application+"."+c.Instance),
		kgo.MetadataMinAge(metadataMinAge), kgo.RetryBackoffFn(retryBackoff),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), // notes go to one partition and wait for their answer one by one
	)
	plain, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("open client: %w", err)
	}
	defer plain.Close()
	if c.known, err = e.partitions(ctx, plain); err != nil {
		return ignoreEnd(ctx, err)
	}
	sizes, err := e.sizes(ctx, plain)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	memory := &memory{topic: control.Topic{Name: c.ControlTopic, Client: plain, Options: opts}, reader: c.Application + "." + c.Instance}
	partitions := 0
	for _, n := range c.known {
		partitions += n
	}
	count := Lanes(c.Lanes, partitions)
	c.RecordsMax, c.BytesMax = c.recordsMax(count), c.bytesMax(count)
	workers := max(1, runtime.GOMAXPROCS(0))
	undertaker := &undertaker{config: c, plain: plain, known: map[string]bool{}}
	e.mu.Lock()
	for number := range count {
		e.lanes = append(e.lanes, newLane(c, number, workers, plain, memory, sizes))
		undertaker.own = append(undertaker.own, c.member(number))
	}
	e.mu.Unlock()
	looking, stop := context.WithCancel(ctx)
	var looks sync.WaitGroup
	looks.Go(func() { undertaker.run(looking) })
	err = e.runLanes(ctx)
	for e.stays(ctx, plain, err) {
		err = e.runLanes(ctx)
	}
	stop()
	looks.Wait()
	if err == nil && e.leave.Load() {
		err = e.leaveGroup(plain)
	}
	return err
}

// Lanes is the number of lanes to run: as configured, or one for two cores, since a lane keeps more
// than one core busy (it fetches, handles and produces at the same time) and each has transactions of
// its own, which cost the broker. More lanes than partitions would be idle.
func Lanes(configured, partitions int) int {
	if configured > 0 {
		return configured
	}
	return max(1, min(partitions, lanesMax, (runtime.GOMAXPROCS(0)+1)/2))
}

// recordsMax is the most a transaction may have: as configured, or a lane's share of what keeps the
// memory of a process within bounds.
func (c Config) recordsMax(lanes int) int {
	if c.RecordsMax > 0 {
		return c.RecordsMax
	}
	return max(recordsLeast, recordsShared/lanes)
}

// bytesMax is the same for the bytes of the input.
func (c Config) bytesMax(lanes int) int64 {
	if c.BytesMax > 0 {
		return c.BytesMax
	}
	return max(bytesLeast, bytesShared/int64(lanes))
}

func (e *Engine) runLanes(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, len(e.lanes))
	for _, l := range e.lanes {
		go func() { ended <- l.run(ctx) }()
	}
	stuck := make(chan error, 1)
	watching := make(chan struct{})
	watchCtx, unwatch := context.WithCancel(context.Background())
	go func() {
		defer close(watching)
		ticker := time.NewTicker(e.config.HandlerTimeout / watchTicks)
		defer ticker.Stop()
		e.watchdog(watchCtx, ticker.C, stuck)
	}()
	defer func() {
		unwatch()
		<-watching
	}()

	var deadline <-chan time.Time
	var first error
	done := ctx.Done()
	for running := len(e.lanes); running > 0; {
		select {
		case err := <-ended:
			running--
			if err != nil && first == nil {
				first = err
				stop()
			}
		case err := <-stuck:
			return err // the one case in which goroutines are left behind
		case <-done:
			done = nil
			timer := time.NewTimer(e.config.DrainTimeout)
			defer timer.Stop()
			deadline = timer.C
		case <-deadline:
			return errors.Join(first, ErrDrain)
		}
	}
	return first
}

// stays reports whether lanes that ended because of a twin are to work on: where the group has the name of the first one, which
// every process has, as ours. Two processes that take their names from each other may both be fenced for the third time at once, one in
// this lane and one in that, and one of them has to stay. Our lanes have ended here and join no more until we stay: whoever ends has seen
// the other with the name, which then can't see us with it. Who took our transactional ids may not have joined yet; it is waited for.
func (e *Engine) stays(ctx context.Context, plain *kgo.Client, err error) bool {
	if _, twin := errors.AsType[*TwinError](err); !twin || errors.Is(err, ErrDrain) {
		return false
	}
	first := e.lanes[0]
	looking, cancel := context.WithTimeout(ctx, rosterTimeout)
	defer cancel()
	for more := true; more; more = pause(looking, rosterPause) {
		members, failed := e.config.roster(looking, plain)
		holder := members[e.config.member(first.number)]
		if failed != nil && looking.Err() == nil || holder != "" && holder != first.joined {
			return false
		}
	}
	if stopping(ctx) {
		return false
	}
	for _, l := range e.lanes {
		l.fences = fences{}
	}
	hook2(e.config.Hooks.Retrying, first.number, fmt.Errorf("this process stays, the group has its name as its own: %w", err))
	return true
}

// watchTicks is the number of looks within a handler timeout. Looks are counted, not time: after
// the whole process was stopped and continued, the clock has run on but nothing was looked at, and
// no record is to blame.
const watchTicks = 10

// watchdog looks with each tick. It reports a handler call that is still the same after watchTicks
// looks, and tells the transformers whose batch takes that long.
func (e *Engine) watchdog(ctx context.Context, ticks <-chan time.Time, stuck chan<- error) {
	type seen struct {
		number int64
		looks  int
	}
	look := func(s *seen, number int64) bool {
		if number == 0 || number != s.number {
			*s = seen{number: number}
			return false
		}
		s.looks++
		return s.looks >= watchTicks
	}
	calls := map[*worker]*seen{}
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return
		case now = <-ticks:
		}
		for _, l := range e.lanes {
			t := l.transformer
			t.overdue(now)
			for _, w := range t.workers {
				if calls[w] == nil {
					calls[w] = &seen{}
				}
				if !look(calls[w], w.watch.call.Load()) {
					continue
				}
				r := w.watch.record.Load()
				source := message.Source{Application: e.config.Application, Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}
				stuck <- &StuckError{Source: source, Handler: t.routes[r.Topic].Name, After: e.config.HandlerTimeout}
				return
			}
		}
	}
}

// Status is a snapshot of the lanes; before Run there are none.
func (e *Engine) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := Status{Lanes: make([]LaneStatus, 0, len(e.lanes))}
	for _, l := range e.lanes {
		s.Lanes = append(s.Lanes, l.status())
	}
	return s
}

const askTimeout = 30 * time.Second

// partitions counts those of the input topics.
func (e *Engine) partitions(ctx context.Context, plain *kgo.Client) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	topics, err := kadm.NewClient(plain).ListTopics(ctx, e.config.topics()...)
	if err != nil {
		return nil, fmt.Errorf("look up input topics: %w", err)
	}
	counts := map[string]int{}
	for _, topic := range e.config.topics() {
		if err := topics[topic].Err; err != nil {
			return nil, fmt.Errorf("look up input topic %s: %w; create it or correct routes, then run: processor topics plan", topic, err)
		}
		counts[topic] = len(topics[topic].Partitions)
	}
	return counts, nil
}

// sizeDefault is Kafka's default of max.message.bytes, used where we may not read the setting.
const sizeDefault = 1<<20 + 12

// sizes looks up the largest record that each topic we write to takes.
func (e *Engine) sizes(ctx context.Context, plain *kgo.Client) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	sizes := map[string]int{e.config.DeadLetterTopic: sizeDefault}
	if e.config.EffectsTopic != "" {
		sizes[e.config.EffectsTopic] = sizeDefault
	}
	for _, topic := range e.config.Outputs {
		sizes[topic] = sizeDefault
	}
	configs, err := kadm.NewClient(plain).DescribeTopicConfigs(ctx, slices.Collect(maps.Keys(sizes))...)
	if err != nil {
		if _, forbidden := errors.AsType[*kadm.AuthError](err); forbidden {
			return sizes, nil
		}
		return nil, fmt.Errorf("look up max.message.bytes: %w", err)
	}
	for _, config := range configs {
		for _, setting := range config.Configs {
			if setting.Key != "max.message.bytes" || config.Err != nil {
				continue
			}
			if size, err := strconv.Atoi(setting.MaybeValue()); err == nil {
				sizes[config.Name] = size
			}
		}
	}
	return sizes, nil
}

// leaveGroup removes the static members, by their instance ids (KIP-345). A lane that had no time to
// join is no member, and need not leave. Under KIP-848 each of them leaves by a heartbeat: Kafka 4.3.1
// takes that request for such members too, kfake answers that it does not know them.
func (e *Engine) leaveGroup(plain *kgo.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	members := make([]string, 0, len(e.lanes))
	for _, l := range e.lanes {
		members = append(members, e.config.member(l.number))
	}
	if e.config.Protocol == ProtocolConsumer {
		var errs []error
		for _, member := range members {
			if err := resign(ctx, plain, e.config.Group, member, leaveForGood); err != nil {
				errs = append(errs, fmt.Errorf("leave group %s as %s: %w; its partitions move after the group's session timeout", e.config.Group, member, err))
			}
		}
		return errors.Join(errs...)
	}
	left, err := kadm.NewClient(plain).LeaveGroup(ctx, kadm.LeaveGroup(e.config.Group).InstanceIDs(members...).Reason("scale-down"))
	for _, member := range left {
		if err == nil && !errors.Is(member.Err, kerr.UnknownMemberID) {
			err = member.Err
		}
	}
	if err != nil && !errors.Is(err, kerr.UnknownMemberID) && !errors.Is(err, kerr.GroupIDNotFound) {
		return fmt.Errorf("leave group %s: %w; its partitions move after kafka.session_timeout", e.config.Group, err)
	}
	return nil
}

// ignoreEnd turns an error that only says that ctx ended into none.
func ignoreEnd(ctx context.Context, err error) error {
	if stopping(ctx) {
		return nil
	}
	return err
}
