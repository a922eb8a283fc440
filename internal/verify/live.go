package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// System is a running Pawl, seen from outside. It is only read.
type System struct {
	client *kgo.Client
	logs   *Logs
	ledger *Ledger // nil: there is none, or it is not looked at
	group  string
	plan   Plan

	// Journal, where the plan has one, feeds the calls that endpoints took.
	Journal func(feed func(*Call) error) error
	// Progress, where it is set, is told what is being done. It is called from one goroutine.
	Progress func(step string)
	// StableMax is how long open transactions may keep a pass waiting; 0: two minutes.
	StableMax time.Duration
	// EffectsBack bounds by offsets how far back the effects of a lane are read again because one of them
	// has not ended; 0: 100,000.
	EffectsBack int64
}

const (
	stableMax   = 2 * time.Minute
	effectsBack = 100_000
)

// NewSystem looks at the system that a plan describes, whose consumer group is group. Topic ids and compaction
// are read from the brokers. The client and the ledger's pool stay the caller's.
func NewSystem(ctx context.Context, client *kgo.Client, ledger *Ledger, group string, plan Plan) (*System, error) {
	s := &System{client: client, logs: NewLogs(client), ledger: ledger, group: group, plan: plan, StableMax: stableMax, EffectsBack: effectsBack}
	s.plan.Ledger = ledger != nil
	s.plan.Inputs = slices.Clone(plan.Inputs)
	topics, err := s.logs.Topics(ctx, s.topics()...)
	if err != nil {
		return nil, err
	}
	compacted, err := s.compacted(ctx, slices.Sorted(maps.Keys(topics)))
	if err != nil {
		return nil, err
	}
	for i := range s.plan.Inputs {
		input := &s.plan.Inputs[i]
		input.TopicID = topics[input.Topic].ID
		input.Compacted = slices.Contains(compacted, input.Topic)
	}
	for _, name := range s.plan.Outputs {
		if slices.Contains(compacted, name) {
			s.plan.Compacted = append(s.plan.Compacted, name)
		}
	}
	return s, nil
}

func (s *System) topics() []string {
	names := append(s.made(), s.inputs()...)
	slices.Sort(names)
	return slices.Compact(names)
}

func (s *System) inputs() []string {
	names := make([]string, 0, len(s.plan.Inputs))
	for _, input := range s.plan.Inputs {
		names = append(names, input.Topic)
	}
	return names
}

// made lists the topics that Pawl writes.
func (s *System) made() []string {
	names := slices.Collect(maps.Values(s.plan.Outputs))
	for _, name := range []string{s.plan.Effects, s.plan.DeadLetters, s.plan.Results} {
		if name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// compacted tells which topics lose records from their midst.
func (s *System) compacted(ctx context.Context, names []string) (found []string, err error) {
	request := kmsg.NewPtrDescribeConfigsRequest()
	for _, name := range names {
		resource := kmsg.NewDescribeConfigsRequestResource()
		resource.ResourceType, resource.ResourceName, resource.ConfigNames = kmsg.ConfigResourceTypeTopic, name, []string{"cleanup.policy"}
		request.Resources = append(request.Resources, resource)
	}
	response, err := request.RequestWith(ctx, s.client)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	for _, resource := range response.Resources {
		if err := kerr.ErrorForCode(resource.ErrorCode); err != nil {
			return nil, fmt.Errorf("read cleanup.policy of topic %s: %w: allow DescribeConfigs on it", resource.ResourceName, err)
		}
		for _, setting := range resource.Configs {
			if setting.Name == "cleanup.policy" && setting.Value != nil && strings.Contains(*setting.Value, "compact") {
				found = append(found, resource.ResourceName)
			}
		}
	}
	return found, nil
}

// Positions is an offset for each partition of some topics.
type Positions map[string]map[int32]int64

func (p Positions) at(topic string, partition int32) (int64, bool) {
	offset, known := p[topic][partition]
	return offset, known
}

// Window is what a pass judges: the inputs from From on, below To where it is set, and what was made of them.
type Window struct {
	From Positions // of inputs; a partition that is missing begins where its log does
	To   Positions // of inputs; nil: as far as the service has come

	// What a pass leaves for the next one.
	made    Positions // where the logs of what is made are read from; missing: from their beginning
	fresh   Positions // what was decided from here on was so after all inputs below From had been judged
	history []anchor
}

// anchor says that of the effects from its positions on nothing was told before its offsets of the results topic.
type anchor struct{ effects, results map[int32]int64 }

// Coverage is what a pass has judged.
type Coverage struct {
	From    Positions     `json:"from"`
	To      Positions     `json:"to"` // offsets below
	Effects Positions     `json:"effects_from,omitempty"`
	Took    time.Duration `json:"-"`
}

// Now gives the window that begins with what is processed from now on.
func (s *System) Now(ctx context.Context) (Window, error) {
	p := &pass{System: s}
	if err := p.ask(ctx); err != nil {
		return Window{}, err
	}
	open, err := p.awaitStable(ctx)
	if err != nil {
		return Window{}, err
	}
	if len(open) > 0 {
		return Window{}, fmt.Errorf("an open transaction holds %s for longer than %s: see `processor txn ls --all`", open[0], s.StableMax)
	}
	p.to = p.committed
	return p.following(), nil
}

// Pass judges a window once and gives the one that follows it.
//
// The order of its questions is what lets it work while the service runs. First come the last stable offsets of what is
// made: whatever is committed behind them is of this or a later window. Then the committed offsets of the inputs: they
// bound the window. Then the ends of what is made: all that was made of the window stands below, though markers may be
// missing, so it waits until the last stable offsets are there and asks for the ends again. The ledger comes last, so that it is ahead of all that was read,
// and how far results had been told was asked before their end was.
func (s *System) Pass(ctx context.Context, w Window) (Report, Coverage, Window, error) {
	p := &pass{System: s, window: w, begun: time.Now()}
	report, err := p.run(ctx)
	return report, p.coverage(), p.following(), err
}

// pass is one pass in hand.
type pass struct {
	*System

	window  Window
	begun   time.Time
	checker *Checker

	starts    Positions // of all topics
	stable    Positions // of what is made, when the pass began
	committed Positions // of the inputs, likewise
	ends      Positions // of what is made, after that: all that was made of the window stands below
	last      Positions // likewise, when nothing below ends was open any more: the markers stand below
	told      map[int32]int64
	from, to  Positions // of the inputs that are judged
	effects   Scope
	ranges    []Range // that were read
}

func (s *System) say(format string, args ...any) {
	if s.Progress != nil {
		s.Progress(fmt.Sprintf(format, args...))
	}
}

func (p *pass) run(ctx context.Context) (report Report, err error) {
	if p.checker, err = New(p.plan); err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, p.checker.Close()) }()
	if err := p.ask(ctx); err != nil {
		return Report{}, err
	}
	open, err := p.awaitStable(ctx)
	if err != nil {
		return Report{}, err
	}
	if len(open) > 0 { // and then nothing else can be judged
		for _, at := range open {
			p.checker.Hanging(at, p.StableMax)
		}
		return p.checker.Report()
	}
	if err := p.feedLogs(ctx); err != nil {
		return Report{}, err
	}
	if err := p.feedOffsets(ctx); err != nil {
		return Report{}, err
	}
	if err := p.feedReads(ctx); err != nil {
		return Report{}, err
	}
	if p.ledger != nil {
		p.say("reading the ledger")
		if err := p.ledger.Feed(ctx, p.effects, p.told, p.checker); err != nil {
			return Report{}, err
		}
	}
	if p.plan.Journal {
		if err := p.Journal(p.checker.Call); err != nil {
			return Report{}, err
		}
	}
	p.say("comparing")
	return p.checker.Report()
}

// ask asks in the order that Pass tells of.
func (p *pass) ask(ctx context.Context) (err error) {
	if p.starts, err = p.logs.Starts(ctx, p.topics()...); err != nil {
		return err
	}
	if p.stable, err = p.logs.Ends(ctx, Committed, p.made()...); err != nil {
		return err
	}
	if p.committed, err = p.stableOffsets(ctx); err != nil {
		return err
	}
	if p.ledger != nil {
		if p.told, err = p.ledger.Told(ctx); err != nil {
			return err
		}
	}
	p.ends, err = p.logs.Ends(ctx, Uncommitted, p.made()...)
	return err
}

// stableOffsets reads the group's committed offsets; those that an open transaction is about to replace are asked for
// again until it has ended.
func (s *System) stableOffsets(ctx context.Context) (Positions, error) {
	since := time.Now()
	for { // ends when no offset is pending, or when that takes too long
		offsets, pending, err := s.fetchOffsets(ctx)
		away := kerr.IsRetriable(err) && time.Since(since) < s.StableMax // a coordinator that moves, or is made
		if !away && (err != nil || pending == "") {
			return offsets, err
		}
		if !away && time.Since(since) > s.StableMax {
			return nil, fmt.Errorf("the committed offset of %s has been held by an open transaction for %s: see `processor txn ls`", pending, s.StableMax)
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

func (s *System) fetchOffsets(ctx context.Context) (offsets Positions, pending string, err error) {
	topics, err := s.logs.Topics(ctx, s.inputs()...)
	if err != nil {
		return nil, "", err
	}
	group := kmsg.NewOffsetFetchRequestGroup()
	group.Group = s.group
	for name, info := range topics {
		topic := kmsg.NewOffsetFetchRequestGroupTopic()
		topic.Topic, topic.TopicID = name, info.ID
		topic.Partitions = slices.Sorted(maps.Keys(info.Leaders))
		group.Topics = append(group.Topics, topic)
	}
	request := kmsg.NewPtrOffsetFetchRequest()
	request.Groups, request.RequireStable = append(request.Groups, group), true
	response, err := request.RequestWith(ctx, s.client)
	if err != nil {
		return nil, "", fmt.Errorf("fetch offsets of group %s: %w", s.group, err)
	}
	offsets = Positions{}
	for _, answered := range response.Groups {
		switch err := kerr.ErrorForCode(answered.ErrorCode); {
		case errors.Is(err, kerr.GroupIDNotFound):
			return offsets, "", nil
		case err != nil:
			return nil, "", fmt.Errorf("fetch offsets of group %s: %w", s.group, err)
		}
		for _, topic := range answered.Topics {
			name := topic.Topic
			for known, info := range topics {
				if name == "" && info.ID == topic.TopicID {
					name = known
				}
			}
			for _, partition := range topic.Partitions {
				switch err := kerr.ErrorForCode(partition.ErrorCode); {
				case errors.Is(err, kerr.UnstableOffsetCommit):
					pending = fmt.Sprintf("%s/%d", name, partition.Partition)
				case err != nil:
					return nil, "", fmt.Errorf("fetch offset of %s/%d: %w", name, partition.Partition, err)
				case partition.Offset >= 0:
					offsets.set(name, partition.Partition, partition.Offset)
				}
			}
		}
	}
	return offsets, pending, nil
}

func (p Positions) set(topic string, partition int32, offset int64) {
	if p[topic] == nil {
		p[topic] = map[int32]int64{}
	}
	p[topic][partition] = offset
}

// awaitStable waits until everything below the ends is decided, and asks where the logs end then. It gives the places at
// which readers are still held after StableMax.
func (p *pass) awaitStable(ctx context.Context) (open []Place, err error) {
	since := time.Now()
	for { // ends when all is decided, or when that takes too long
		stable, err := p.logs.Ends(ctx, Committed, p.made()...)
		if err != nil {
			return nil, err
		}
		open = open[:0]
		for topic, partitions := range p.ends {
			for partition, end := range partitions {
				if at := stable[topic][partition]; at < end {
					open = append(open, Place{topic, partition, at})
				}
			}
		}
		if len(open) == 0 {
			p.last, err = p.logs.Ends(ctx, Uncommitted, p.made()...)
			return nil, err
		}
		if time.Since(since) > p.StableMax {
			return open, nil
		}
		p.say("waiting for transactions that are open in %s", counted(int64(len(open)), "partition"))
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// feedLogs brings all logs of the window to the checker.
func (p *pass) feedLogs(ctx context.Context) error {
	ranges := map[string]map[int32]Range{}
	add := func(topic string, partition int32, from, to int64) {
		from = max(from, p.starts[topic][partition])
		if r, there := ranges[topic][partition]; there { // a topic may be an input and be made
			from, to = min(from, r.From), max(to, r.To)
		}
		if ranges[topic] == nil {
			ranges[topic] = map[int32]Range{}
		}
		ranges[topic][partition] = Range{topic, partition, from, to}
	}
	p.bounds(add)
	for topic, partitions := range p.last {
		if topic == p.plan.Effects || topic == p.plan.Results {
			continue
		}
		for partition, end := range partitions {
			add(topic, partition, p.window.made[topic][partition], end)
		}
	}
	if err := p.feedEffects(ctx, add); err != nil {
		return err
	}
	var all []Range
	var offsets int64
	for topic, partitions := range ranges {
		for partition, r := range partitions {
			if err := p.checker.Begin(&Begin{topic, partition, p.starts[topic][partition]}); err != nil {
				return err
			}
			if fresh, known := p.window.fresh.at(topic, partition); known {
				if err := p.checker.Fresh(&Begin{topic, partition, fresh}); err != nil {
					return err
				}
			}
			all = append(all, r)
			offsets += max(0, r.To-r.From)
		}
	}
	p.say("reading %d offsets of %s", offsets, counted(int64(len(all)), "partition"))
	p.ranges = all
	var read int64
	last := time.Now()
	return p.logs.Read(ctx, Uncommitted, all, func(e *Entry) error {
		if read++; read%progressEach == 0 && time.Since(last) > time.Second {
			last = time.Now()
			p.say("read %d of about %d records", read, offsets)
		}
		return p.checker.Entry(e)
	})
}

const progressEach = 4096

// feedReads reads everything a second time, as a read_committed reader gets it, which goes by the brokers' lists of aborted
// transactions and not by the markers.
func (p *pass) feedReads(ctx context.Context) error {
	if !p.plan.Readers {
		return nil
	}
	stable, err := p.logs.Ends(ctx, Committed, p.topics()...)
	if err != nil {
		return err
	}
	ranges := slices.Clone(p.ranges)
	for i := range ranges {
		ranges[i].To = min(ranges[i].To, stable[ranges[i].Topic][ranges[i].Partition])
	}
	p.say("reading as a read_committed reader")
	return p.logs.Read(ctx, Committed, ranges, func(e *Entry) error {
		return p.checker.Read(&Read{Reader: "read_committed", Record: e.Record})
	})
}

// bounds finds which inputs are judged.
func (p *pass) bounds(add func(topic string, partition int32, from, to int64)) {
	p.from, p.to = Positions{}, Positions{}
	for _, input := range p.plan.Inputs {
		for partition, start := range p.starts[input.Topic] {
			to, known := p.committed.at(input.Topic, partition)
			if !known {
				continue // the service has not begun it
			}
			from := start
			if asked, is := p.window.From.at(input.Topic, partition); is {
				from = max(asked, start)
			}
			if p.window.To != nil {
				limit, is := p.window.To.at(input.Topic, partition)
				if !is {
					continue
				}
				to = min(to, limit)
			}
			p.from.set(input.Topic, partition, from)
			p.to.set(input.Topic, partition, max(from, to))
			add(input.Topic, partition, from, max(from, to))
		}
	}
}

// feedEffects says from where effects and results are read, and what of the ledger.
func (p *pass) feedEffects(ctx context.Context, add func(topic string, partition int32, from, to int64)) error {
	p.effects = Scope{}
	from := map[int32]int64{}
	for lane, end := range p.last[p.plan.Effects] {
		start := max(p.window.made[p.plan.Effects][lane], p.starts[p.plan.Effects][lane])
		if p.ledger != nil && start > 0 {
			at, marks, err := p.ledger.Start(ctx, lane, start)
			if err != nil {
				return err
			}
			start = max(at, p.starts[p.plan.Effects][lane])
			if err := p.checker.Lane(&Lane{Lane: lane, Marks: marks}); err != nil {
				return err
			}
		}
		from[lane] = start
		p.effects[lane] = Stretch{start, end}
		add(p.plan.Effects, lane, start, end)
	}
	results := p.resultsFrom(from)
	for partition, end := range p.last[p.plan.Results] {
		add(p.plan.Results, partition, results[partition], end)
	}
	return nil
}

// resultsFrom gives from where events must be read so that none of an effect from those offsets on is missed.
func (p *pass) resultsFrom(effects map[int32]int64) map[int32]int64 {
	for _, a := range slices.Backward(p.window.history) {
		fits := true
		for lane, offset := range effects {
			fits = fits && a.effects[lane] <= offset
		}
		if fits {
			return a.results
		}
	}
	return nil
}

// feedOffsets tells the checker what is judged, and asks once more how far the service has come: what is committed
// now must have its offset committed, too.
func (p *pass) feedOffsets(ctx context.Context) error {
	after, err := p.stableOffsets(ctx)
	if err != nil {
		return err
	}
	ends, err := p.logs.Ends(ctx, Uncommitted, p.inputs()...)
	if err != nil {
		return err
	}
	for topic, partitions := range p.to {
		for partition, to := range partitions {
			now, _ := after.at(topic, partition)
			if err := p.checker.Offsets(&Offsets{Topic: topic, Partition: partition, From: p.from[topic][partition], Committed: to, After: now, End: ends[topic][partition]}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *pass) coverage() Coverage {
	c := Coverage{From: p.from, To: p.to, Took: time.Since(p.begun)}
	for lane, stretch := range p.effects {
		if c.Effects == nil {
			c.Effects = Positions{}
		}
		c.Effects.set(p.plan.Effects, lane, stretch.From)
	}
	return c
}

// following is the window behind this one. Effects that have not ended are read again, as far back as EffectsBack
// allows.
func (p *pass) following() Window {
	if p.to == nil || p.last == nil {
		return p.window // nothing was judged
	}
	next := Window{From: p.to, made: Positions{}, fresh: Positions{}}
	for topic, partitions := range p.stable {
		for partition, offset := range partitions {
			if topic == p.plan.Effects && p.checker != nil {
				if waiting, is := p.checker.waiting[partition]; is {
					offset = max(min(offset, waiting), p.last[topic][partition]-p.EffectsBack, 0)
				}
			}
			next.made.set(topic, partition, offset)
			next.fresh.set(topic, partition, p.last[topic][partition])
		}
	}
	next.history = append(slices.Clone(p.window.history), anchor{p.stable[p.plan.Effects], p.stable[p.plan.Results]})
	if len(next.history) > historyMax {
		next.history = slices.Delete(next.history, 0, 1) // without one that fits, all results are read
	}
	return next
}

// historyMax bounds what is remembered of earlier passes.
const historyMax = 1000
