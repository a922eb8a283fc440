package txn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Session is one transactional group member. All methods are called from one goroutine. After End
// gave an error the only legal call is Close.
type Session interface {
	// Poll returns records, or errors as fake fetches, as the client does. It returns early when ctx ends. Records that
	// are said to be committed come once the log says so too, and none counts as polled before (rule 14).
	Poll(ctx context.Context, limit int) kgo.Fetches
	// Produce adds a record to the transaction and begins one where there is none. The record must
	// not be touched before End has returned.
	Produce(record *kgo.Record)
	// End commits what was polled and produced, or aborts it and rewinds. It commits only if every
	// produce of this transaction succeeded (rule 1). Its time is bounded by the configuration and by
	// nothing else: cancelling the end of a transaction only hides its outcome (rule 8).
	End(commit bool) ending
	// Pause makes these the owned partitions that are not read; all others are.
	Pause(places map[place]bool)
	// Member is the member id that the group knows us by; empty while it knows none.
	Member() string
	// Close gives the session up. A static member stays in the group (rule 6).
	Close()
}

// ending is the answer of Session.End.
type ending struct {
	end
	produce error // the first failed produce; then wanted is false
	refused bool  // the broker refused the record itself
}

// watcher is told of what happens to a session's partitions, on the client's own goroutine.
type watcher interface {
	// settled comes before the first record of these partitions can be polled.
	settled(ctx context.Context, committed map[place]int64, ids map[string][16]byte, halted map[place]error) error
	// found comes after settled and still before the first record: of these partitions it pauses what must not be read.
	found(places map[place]int64, pause func(map[string][]int32))
	gone(partitions map[string][]int32, lost bool)
	assigned(partitions map[string][]int32)
	retrying(err error)
}

// kgoSession is a transactional group member over a client of its own. It ends transactions itself (end.go).
type kgoSession struct {
	config Config
	lane   int
	member string
	client *kgo.Client
	cancel context.CancelFunc // of everything the client still waits for

	begun   bool
	promise func(*kgo.Record, error)
	wrote   producer // who the brokers took the transaction's records from; belongs to the promises until a flush

	// deciding holds a token while a transaction is ended and what was polled is rewound. What gives partitions away waits
	// for it. It is no mutex, since brokers are waited for meanwhile.
	deciding chan struct{}

	mu      sync.Mutex // promises and group callbacks come from other goroutines
	failure error      // first failed produce of the transaction
	ids     map[string][16]byte
	// believed is what the group has committed of the owned partitions, as far as this session knows (rule 3): where an
	// abort rewinds to.
	believed map[place]kgo.EpochOffset
	sieve    sieve
	// given says that partitions were given away since the last end: what was polled of them is not ours to commit.
	given bool

	// What follows belongs to the group's goroutine: the OffsetFetch that is being settled, and the
	// client that it came by. The group may run before client is set.
	fetched map[place]committedOffset
	asked   *kgo.Client
}

// Client timings. The defaults of the client were measured to stall a lane for seconds after an
// everyday produce error (reasons in DESIGN.md).
const (
	metadataMinAge        = 50 * time.Millisecond
	concurrentTxnsBackoff = 2 * time.Millisecond
	retryBackoffMin       = 5 * time.Millisecond
	retryBackoffMax       = time.Second
	lingerMax             = 5 * time.Millisecond // End flushes, so this only shapes batches
	fetchMaxWait          = 500 * time.Millisecond
	fetchBytesMax         = 16 << 20 // per broker and lane; bounds memory
	fetchPartitionBytes   = 2 << 20  // a lane with few partitions fills a batch from one fetch
	decompressBytesMax    = 64 << 20 // one batch; a bomb halts its partition
	openTimeout           = 10 * time.Second
	settleBackoff         = 100 * time.Millisecond
	closeTimeout          = time.Second
	fenceBackoffMax       = 100 * time.Millisecond // a coordinator that can't write its markers is busy enough
)

func retryBackoff(tries int) time.Duration {
	return min(retryBackoffMax, retryBackoffMin<<min(tries-1, 10))
}

// openSession makes a session, after it has resolved the transaction that a predecessor of the same
// name may have left open (rule 5). The predecessor's transaction is ended before the new member
// joins: joining first would have its OffsetFetch answered UNSTABLE_OFFSET_COMMIT, which the client
// asks again only after a second (KIP-447).
func openSession(ctx context.Context, c Config, lane int, plain *kgo.Client, sizes map[string]int, watch watcher) (*kgoSession, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	member := c.member(lane)
	if err := fence(ctx, plain, member, c.Timeout); err != nil {
		return nil, err
	}
	if c.Protocol == ProtocolConsumer {
		if err := release(ctx, plain, c.Group, member); err != nil {
			return nil, err
		}
	}
	k := &kgoSession{config: c, lane: lane, member: member, ids: map[string][16]byte{}, believed: map[place]kgo.EpochOffset{}, deciding: make(chan struct{}, 1)}
	k.promise = func(r *kgo.Record, err error) {
		if err == nil && k.wrote.took(r) {
			return
		}
		if err == nil {
			err = errOtherProducer
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.failure == nil {
			k.failure = fmt.Errorf("produce to %s: %w", r.Topic, err)
		}
	}
	// Not derived from ctx: the session outlives the order to stop.
	life, cancel := context.WithCancel(context.Background())
	client, err := kgo.NewClient(append(append([]kgo.Opt(nil), c.Client...), append(k.options(sizes, watch), kgo.WithContext(life))...)...)
	if err != nil {
		cancel()
		return nil, &optionError{member, err}
	}
	k.client, k.cancel = client, cancel
	if _, _, err := client.ProducerID(ctx); err != nil {
		k.Close()
		return nil, fmt.Errorf("open session %s: load producer id: %w", member, err)
	}
	return k, nil
}

// optionError says that the client refuses its options: no waiting will mend that.
type optionError struct {
	member string
	err    error
}

func (e *optionError) Error() string { return "open session " + e.member + ": " + e.err.Error() }
func (e *optionError) Unwrap() error { return e.err }

// fence sends InitProducerID for a transactional id, which aborts whatever transaction it has open
// and locks out its last owner (KIP-98), and waits until that is done.
func fence(ctx context.Context, plain *kgo.Client, id string, timeout time.Duration) error {
	for tries := 0; ; tries++ {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID = &id
		req.TransactionTimeoutMillis = int32(timeout.Milliseconds()) //nolint:gosec // validated to minutes
		req.ProducerID, req.ProducerEpoch = -1, -1
		resp, err := req.RequestWith(ctx, plain)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, kerr.ConcurrentTransactions) {
			return fmt.Errorf("take over transactional id %s: %w", id, err)
		}
		if !pause(ctx, min(fenceBackoffMax, concurrentTxnsBackoff<<min(tries, 10))) {
			return fmt.Errorf("take over transactional id %s: its last transaction is still being ended: %w", id, ctx.Err())
		}
	}
}

// release frees the name of a static member whose process has died. Under the classic protocol a new
// member takes it over at once (KIP-345). Under KIP-848 the broker answers UNRELEASED_INSTANCE_ID for
// as long as the dead one's session lasts, 45 s by default, unless that member leaves for the moment
// with the epoch that says so: we say it in its name.
func release(ctx context.Context, plain *kgo.Client, group, instance string) error {
	if err := resign(ctx, plain, group, instance, leaveForNow); err != nil {
		return fmt.Errorf("take member %s over from its predecessor: %w", instance, err)
	}
	return nil
}

// The member epochs that say how a static member leaves (KIP-848).
const (
	leaveForGood = -1
	leaveForNow  = -2 // its partitions wait for its return, as long as its session lasts
)

// resign lets a static member leave in its name. It is no failure if there is none.
func resign(ctx context.Context, plain *kgo.Client, group, instance string, epoch int32) error {
	members, err := membersOf(ctx, plain, group)
	if err != nil {
		return err
	}
	for _, member := range members {
		if member.InstanceID == nil || *member.InstanceID != instance || member.MemberEpoch == epoch {
			continue
		}
		leave := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		leave.Group, leave.MemberID, leave.InstanceID, leave.MemberEpoch = group, member.MemberID, &instance, epoch
		resp, err := leave.RequestWith(ctx, plain)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err != nil && !errors.Is(err, kerr.UnknownMemberID) {
			return fmt.Errorf("leave: %w", err)
		}
	}
	return nil
}

func (k *kgoSession) options(sizes map[string]int, watch watcher) []kgo.Opt {
	c := k.config
	codec, _ := Codec(c.Compression) // Validate has seen it
	opts := []kgo.Opt{
		kgo.ClientID(k.member),
		kgo.TransactionalID(k.member),
		kgo.TransactionTimeout(c.Timeout),
		kgo.ConsumerGroup(c.Group),
		kgo.InstanceID(k.member),
		kgo.ConsumeTopics(c.topics()...),
		// Never used to start from: every partition has a committed offset before it is read.
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // rule 12
		kgo.SessionTimeout(c.SessionTimeout),
		kgo.HeartbeatInterval(c.Heartbeat),
		kgo.RebalanceTimeout(c.RebalanceTimeout),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.ConcurrentTransactionsBackoff(concurrentTxnsBackoff),
		kgo.RetryBackoffFn(retryBackoff),
		kgo.ProducerLinger(lingerMax),
		kgo.ProducerBatchCompression(codec),
		kgo.ProducerBatchMaxBytesFn(func(topic string) int32 {
			if size, ok := sizes[topic]; ok {
				return int32(size) //nolint:gosec // it came from a broker as an int32
			}
			return sizeDefault
		}),
		kgo.FetchMaxWait(fetchMaxWait),
		kgo.FetchMaxBytes(fetchBytesMax),
		kgo.FetchMaxPartitionBytes(fetchPartitionBytes),
		kgo.MaxDecompressBatchBytes(decompressBytesMax),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { watch.assigned(p) }),
		kgo.OnPartitionsRevoked(k.gone(watch, false)),
		kgo.OnPartitionsLost(k.gone(watch, true)),
		kgo.OnOffsetsFetched(func(_ context.Context, cl *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
			k.remember(cl, resp)
			return nil
		}),
		kgo.AdjustFetchOffsetsFn(func(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
			return k.settle(ctx, offsets, watch)
		}),
	}
	if c.Protocol == ProtocolConsumer {
		return append(opts, kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.ServerSideBalancer())
	}
	return append(opts, kgo.Balancers(kgo.CooperativeStickyBalancer()))
}

// remember keeps the answer of OffsetFetch, because only here its metadata can be seen.
func (k *kgoSession) remember(cl *kgo.Client, resp *kmsg.OffsetFetchResponse) {
	fetched := map[place]committedOffset{}
	for _, group := range resp.Groups {
		for _, topic := range group.Topics {
			for _, p := range topic.Partitions {
				have := committedOffset{offset: p.Offset}
				if p.Metadata != nil {
					have.topicID, have.known = ParseOffsetMetadata(*p.Metadata)
				}
				fetched[place{topic.Topic, p.Partition}] = have
			}
		}
	}
	k.fetched, k.asked = fetched, cl
}

// settle runs on the group's goroutine, between OffsetFetch and the first fetch. It tries until it
// succeeds or the group session ends: an error would make the client leave and join in a loop.
func (k *kgoSession) settle(ctx context.Context, offsets map[string]map[int32]kgo.Offset, watch watcher) (map[string]map[int32]kgo.Offset, error) {
	for {
		err := k.trySettle(ctx, k.asked, offsets, watch)
		if err == nil {
			return offsets, nil
		}
		watch.retrying(err)
		if !pause(ctx, settleBackoff) {
			return nil, ctx.Err()
		}
	}
}

func (k *kgoSession) trySettle(ctx context.Context, cl *kgo.Client, offsets map[string]map[int32]kgo.Offset, watch watcher) error {
	topics := make([]string, 0, len(offsets))
	for topic := range offsets {
		topics = append(topics, topic)
	}
	details, err := kadm.NewClient(cl).ListTopics(ctx, topics...)
	if err != nil {
		return fmt.Errorf("look up topic ids: %w", err)
	}
	ids := make(map[string][16]byte, len(topics))
	for _, topic := range topics {
		if err := details[topic].Err; err != nil {
			return fmt.Errorf("look up topic id of %s: %w", topic, err)
		}
		ids[topic] = details[topic].ID
	}
	halted, err := k.config.settle(ctx, cl, k.member, k.fetched, ids, offsets)
	if err != nil {
		return err
	}
	committed, begins := map[place]int64{}, map[place]kgo.EpochOffset{}
	for topic, partitions := range offsets {
		for partition, offset := range partitions {
			if at := (place{topic, partition}); halted[at] == nil {
				begins[at] = offset.EpochOffset()
				committed[at] = begins[at].Offset
			}
		}
	}
	if err := watch.settled(ctx, committed, ids, halted); err != nil {
		return err // and all is tried again: nothing may be forgotten, so nothing is removed before
	}
	watch.found(committed, func(paused map[string][]int32) { cl.PauseFetchPartitions(paused) })
	for at := range halted {
		delete(offsets[at.topic], at.partition)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.Copy(k.ids, ids)
	maps.Copy(k.believed, begins)
	k.sieve.share = heldShare(len(k.believed))
	for at := range committed {
		k.sieve.forget(at)
	}
	return nil
}

// gone is for partitions that are somebody else's to commit for. A transaction that is being ended is ended first:
// until then nobody else can read their offsets (KIP-447).
func (k *kgoSession) gone(watch watcher, lost bool) func(context.Context, *kgo.Client, map[string][]int32) {
	return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
		k.deciding <- struct{}{}
		defer func() { <-k.deciding }()
		k.mu.Lock()
		k.given = k.given || lost || len(partitions) > 0
		for topic, numbers := range partitions {
			for _, number := range numbers {
				delete(k.believed, place{topic, number})
				k.sieve.forget(place{topic, number})
			}
		}
		k.mu.Unlock()
		watch.gone(partitions, lost)
	}
}

func (k *kgoSession) topicID(topic string) [16]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ids[topic]
}

// Poll implements Session.
func (k *kgoSession) Poll(ctx context.Context, limit int) kgo.Fetches {
	k.rewindIfAsked()
	k.mu.Lock()
	left := k.sieve.left(limit)
	k.mu.Unlock()
	if left != nil {
		return left
	}
	fetches := k.client.PollRecords(ctx, limit)
	var told []Unlisted
	k.mu.Lock()
	k.sieve.pass(fetches, limit, k.believed, func(at place, records int64) {
		told = append(told, Unlisted{Lane: k.lane, Topic: at.topic, Partition: at.partition, Records: records})
	})
	k.mu.Unlock()
	for _, u := range told {
		hook(k.config.Hooks.Unlisted, u)
	}
	return fetches
}

// Produce implements Session.
func (k *kgoSession) Produce(record *kgo.Record) {
	if !k.begin() {
		return
	}
	// The context is deliberately without an end: End bounds the wait for the answer, and a cancelled
	// produce would leave its sequence number in doubt.
	k.client.Produce(context.Background(), record, k.promise)
}

func (k *kgoSession) begin() bool {
	if k.begun {
		return true
	}
	if err := k.client.BeginTransaction(); err != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.failure == nil {
			k.failure = &beginError{err}
		}
		return false
	}
	k.begun, k.wrote = true, producer{}
	return true
}

// producer is who wrote a transaction. A client whose producer id failed gets another epoch; whatever it wrote before was
// aborted with the old one (KIP-360), so the rest must not be committed.
type producer struct {
	known bool
	id    int64
	epoch int16
	at    place // of the first record that was acknowledged
}

var errOtherProducer = errors.New("the producer's epoch changed within the transaction")

// took notes an acknowledged record and reports that it is of this producer; the first one says who that is.
func (p *producer) took(r *kgo.Record) bool {
	if !p.known {
		*p = producer{true, r.ProducerID, r.ProducerEpoch, place{r.Topic, r.Partition}}
	}
	return p.is(r.ProducerID, r.ProducerEpoch)
}

func (p *producer) is(id int64, epoch int16) bool { return p.known && p.id == id && p.epoch == epoch }

// beginError says that the client is in a state from which no transaction can start.
type beginError struct{ err error }

func (e *beginError) Error() string { return "begin transaction: " + e.err.Error() }
func (e *beginError) Unwrap() error { return e.err }

// Pause implements Session.
func (k *kgoSession) Pause(places map[place]bool) {
	cl := k.client
	resumed := cl.PauseFetchPartitions(nil) // the paused ones
	paused := map[string][]int32{}
	for at := range places {
		paused[at.topic] = append(paused[at.topic], at.partition)
	}
	for topic, partitions := range resumed {
		resumed[topic] = slices.DeleteFunc(partitions, func(p int32) bool { return places[place{topic, p}] })
	}
	cl.PauseFetchPartitions(paused)
	cl.ResumeFetchPartitions(resumed)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sieve.paused = maps.Clone(places)
}

// Member implements Session.
func (k *kgoSession) Member() string {
	member, _ := k.client.GroupMetadata()
	return member
}

// Close does not wait for the group. The client, left alone, waits for the answer to a JoinGroup that
// is under way, which comes when every member has joined: another lane of this process, closed a
// moment ago, never will, and the wait would last as long as its session timeout. Nothing hangs on
// that answer, since the transaction has ended.
func (k *kgoSession) Close() {
	timer := time.AfterFunc(closeTimeout, k.cancel)
	defer timer.Stop()
	defer k.cancel()
	k.client.Close()
}

// isRefusal tells refusals of a record from failures of brokers and network: only the former may be
// the fault of a record (rule 7).
func isRefusal(err error) bool {
	return anyOf(err, kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp,
		kerr.UnsupportedForMessageFormat, kerr.PolicyViolation)
}

// isFenced reports that somebody else has our transactional id or our member name. A transaction
// that ran into its timeout looks the same.
func isFenced(err error) bool {
	return anyOf(err, kerr.ProducerFenced, kerr.FencedInstanceID, kerr.InvalidProducerEpoch)
}

func anyOf(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// Fence says what was taken from us: a closed set.
type Fence string

// The fences.
const (
	FenceProducer Fence = "producer" // the transactional id: another process began a session under it
	FenceMember   Fence = "member"   // the static member name: another process joined the group under it
	FenceEpoch    Fence = "epoch"    // the producer's epoch is old: the id was taken over, or a coordinator ended the transaction at its timeout or by an operator's order
)

// Fences lists them all, for metrics.
func Fences() []Fence { return []Fence{FenceProducer, FenceMember, FenceEpoch} }

// FenceOf names the kind of an error that the hook Fenced was given.
func FenceOf(err error) Fence {
	switch {
	case errors.Is(err, kerr.FencedInstanceID):
		return FenceMember
	case errors.Is(err, kerr.ProducerFenced):
		return FenceProducer
	default:
		return FenceEpoch
	}
}

// pause waits for d and returns true, or false as soon as ctx ends.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
