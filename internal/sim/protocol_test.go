package sim

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/testkit"
)

// What the simulation stands on is a fake. These questions are put to the fake and, under the build tag
// integration, to a broker: where the answers differ, both stand in the table, and DESIGN.md says what
// the simulator does about it.
var questions = []struct {
	name   string
	ask    func(*protocol) string
	kfake  string
	broker string // "" where it is the same
}{
	{"produce of a fenced transactional id", (*protocol).fencedProduce, "INVALID_PRODUCER_EPOCH", ""},
	{"end of a fenced transactional id", (*protocol).fencedEnd, "INVALID_TXN_STATE", "PRODUCER_FENCED"},
	{"the same commit twice", (*protocol).commitTwice, "none, none, epoch moved by 1", ""},
	{"abort of what is committed", (*protocol).abortAfterCommit, "INVALID_TXN_STATE", ""},
	{"end of a transaction that was never begun", (*protocol).endNothing, "INVALID_TXN_STATE", ""},
	{"stable offsets while a transaction holds them", (*protocol).unstable, "group GROUP_ID_NOT_FOUND, then none at 5", "UNSTABLE_OFFSET_COMMIT, then none at 5"},
	{"stable offsets of a group that has some, while a transaction holds them", (*protocol).unstableAgain, "UNSTABLE_OFFSET_COMMIT, then none at 5", ""},
	{"offsets while a transaction holds earlier ones that are committed then", (*protocol).laterOffsets, "none, then none at 5", "none, then none at 3"},
	{"committed readers while a transaction is open", (*protocol).visibility, "open 0, aborted 0, committed 1", ""},
	{"offsets of a member that is not there", (*protocol).strangersOffsets, "UNKNOWN_MEMBER_ID", ""},
	{"offsets of a transaction without a member", (*protocol).memberlessOffsets, "none", ""},
	{"offsets of a transaction under an old generation", (*protocol).oldTxnOffsets, "ILLEGAL_GENERATION", ""},
	{"offsets under an old generation", (*protocol).oldOffsets, "ILLEGAL_GENERATION", ""},
	{"offsets of a transaction under an old epoch of a member (KIP-848)", (*protocol).oldTxnEpoch, "STALE_MEMBER_EPOCH", "ILLEGAL_GENERATION"},
	{"offsets under an old epoch of a member (KIP-848)", (*protocol).oldEpoch, "STALE_MEMBER_EPOCH", ""},
	{"a static name that is taken over", (*protocol).staticTakeover, "FENCED_INSTANCE_ID", ""},
}

// protocol asks one cluster.
type protocol struct {
	t      *testing.T
	reach  []kgo.Opt
	client *kgo.Client
	topic  string
	group  string
}

func newProtocol(t *testing.T, reach ...kgo.Opt) *protocol {
	t.Helper()
	p := &protocol{t: t, reach: reach, topic: testkit.Name(t, "topic"), group: testkit.Name(t, "group")}
	p.client = p.connect()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	made, err := kadm.NewClient(p.client).CreateTopic(ctx, 1, 1, nil, p.topic)
	p.must(errors.Join(err, made.Err))
	testkit.WaitFor(t, 30*time.Second, "leader of the topic", func() bool {
		details, err := kadm.NewClient(p.client).ListTopics(ctx, p.topic)
		return err == nil && details.Error() == nil && len(details[p.topic].Partitions) == 1
	})
	return p
}

func (p *protocol) connect(opts ...kgo.Opt) *kgo.Client {
	p.t.Helper()
	client, err := kgo.NewClient(append(append([]kgo.Opt{kgo.MetadataMinAge(50 * time.Millisecond), kgo.DefaultProduceTopic(p.topic)}, p.reach...), opts...)...)
	p.must(err)
	p.t.Cleanup(client.Close)
	return client
}

func (p *protocol) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// producer is a transactional producer in a transaction of one record.
func (p *protocol) producer(id string) (client *kgo.Client, producer int64, epoch int16) {
	p.t.Helper()
	client = p.connect(kgo.TransactionalID(id), kgo.RequestRetries(2), kgo.RecordRetries(2))
	p.must(client.BeginTransaction())
	p.must(client.ProduceSync(p.t.Context(), kgo.StringRecord("v")).FirstErr())
	producer, epoch, err := client.ProducerID(p.t.Context())
	p.must(err)
	return client, producer, epoch
}

// end asks for the end of a transaction until it gets an answer that is more than "later".
func (p *protocol) end(id string, producer int64, epoch int16, commit bool) *kmsg.EndTxnResponse {
	p.t.Helper()
	request := kmsg.NewPtrEndTxnRequest()
	request.TransactionalID, request.ProducerID, request.ProducerEpoch, request.Commit = id, producer, epoch, commit
	var response *kmsg.EndTxnResponse
	testkit.WaitFor(p.t, 30*time.Second, "an answer to EndTxn", func() bool {
		var err error
		response, err = request.RequestWith(p.t.Context(), p.client)
		return err == nil && response.ErrorCode != kerr.ConcurrentTransactions.Code
	})
	return response
}

func named(err error) string {
	if ke, is := errors.AsType[*kerr.Error](err); is {
		return ke.Message
	}
	if err != nil {
		return err.Error()
	}
	return "none"
}

func code(code int16) string { return named(kerr.ErrorForCode(code)) }

func (p *protocol) fence(id string) {
	p.t.Helper()
	successor := p.connect(kgo.TransactionalID(id))
	_, _, err := successor.ProducerID(p.t.Context())
	p.must(err)
}

func (p *protocol) fencedProduce() string {
	id := testkit.Name(p.t, "id")
	client, _, _ := p.producer(id)
	p.fence(id)
	return named(client.ProduceSync(p.t.Context(), kgo.StringRecord("late")).FirstErr())
}

func (p *protocol) fencedEnd() string {
	id := testkit.Name(p.t, "id")
	_, producer, epoch := p.producer(id)
	p.fence(id)
	return code(p.end(id, producer, epoch, true).ErrorCode)
}

func (p *protocol) commitTwice() string {
	id := testkit.Name(p.t, "id")
	_, producer, epoch := p.producer(id)
	first, second := p.end(id, producer, epoch, true), p.end(id, producer, epoch, true)
	return fmt.Sprintf("%s, %s, epoch moved by %d", code(first.ErrorCode), code(second.ErrorCode), second.ProducerEpoch-epoch)
}

func (p *protocol) abortAfterCommit() string {
	id := testkit.Name(p.t, "id")
	_, producer, epoch := p.producer(id)
	p.end(id, producer, epoch, true)
	return code(p.end(id, producer, epoch, false).ErrorCode)
}

func (p *protocol) endNothing() string {
	id := testkit.Name(p.t, "id")
	producer, epoch, err := p.connect(kgo.TransactionalID(id)).ProducerID(p.t.Context())
	p.must(err)
	return code(p.end(id, producer, epoch, true).ErrorCode)
}

func (p *protocol) topicID() [16]byte {
	p.t.Helper()
	details, err := kadm.NewClient(p.client).ListTopics(p.t.Context(), p.topic)
	p.must(err)
	return details[p.topic].ID
}

// txnOffsets commits offset 5 in a transaction.
func (p *protocol) txnOffsets(id string, producer int64, epoch int16, member string, generation int32) string {
	p.t.Helper()
	request := kmsg.NewPtrTxnOffsetCommitRequest()
	request.TransactionalID, request.Group, request.ProducerID, request.ProducerEpoch = id, p.group, producer, epoch
	request.MemberID, request.Generation = member, generation
	topic := kmsg.NewTxnOffsetCommitRequestTopic()
	topic.Topic = p.topic
	topic.TopicID = p.topicID()
	partition := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	partition.Offset = 5
	topic.Partitions = append(topic.Partitions, partition)
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(p.t.Context(), p.client)
	p.must(err)
	return code(response.Topics[0].Partitions[0].ErrorCode)
}

// offsets commits offset 3 without a transaction.
func (p *protocol) offsets(member string, generation int32) string {
	p.t.Helper()
	request := kmsg.NewPtrOffsetCommitRequest()
	request.Group, request.MemberID, request.Generation = p.group, member, generation
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic = p.topic
	topic.TopicID = p.topicID()
	partition := kmsg.NewOffsetCommitRequestTopicPartition()
	partition.Offset = 3
	topic.Partitions = append(topic.Partitions, partition)
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(p.t.Context(), p.client)
	p.must(err)
	return code(response.Topics[0].Partitions[0].ErrorCode)
}

// The group knows an offset, so that the answer is about that partition.
func (p *protocol) unstableAgain() string {
	if answer := p.offsets("", -1); answer != "none" {
		return "the first offset was refused: " + answer
	}
	return p.unstable()
}

// What a member asks that has missed a rebalance.
func (p *protocol) oldTxnOffsets() string {
	id := testkit.Name(p.t, "id")
	memberID, generation := p.join().GroupMetadata()
	_, producer, epoch := p.producer(id)
	return p.txnOffsets(id, producer, epoch, memberID, generation-1)
}

func (p *protocol) oldOffsets() string {
	memberID, generation := p.join().GroupMetadata()
	return p.offsets(memberID, generation-1)
}

// The newer protocol has epochs of members in the place of generations.
func (p *protocol) oldTxnEpoch() string {
	id := testkit.Name(p.t, "id")
	memberID, generation := p.join(kgo.ServerSideBalancer()).GroupMetadata()
	_, producer, epoch := p.producer(id)
	return p.txnOffsets(id, producer, epoch, memberID, generation-1)
}

func (p *protocol) oldEpoch() string {
	memberID, generation := p.join(kgo.ServerSideBalancer()).GroupMetadata()
	return p.offsets(memberID, generation-1)
}

func (p *protocol) unstable() string {
	id := testkit.Name(p.t, "id")
	_, producer, epoch := p.producer(id)
	if answer := p.txnOffsets(id, producer, epoch, "", -1); answer != "none" {
		return "the offsets were refused: " + answer
	}
	held, _ := p.stable()
	p.end(id, producer, epoch, true)
	then, at := p.waitStable()
	return fmt.Sprintf("%s, then %s at %d", held, then, at)
}

// stable is the answer about partition 0 to who wants stable offsets.
func (p *protocol) stable() (answer string, offset int64) {
	p.t.Helper()
	request := kmsg.NewPtrOffsetFetchRequest()
	request.RequireStable = true
	group := kmsg.NewOffsetFetchRequestGroup()
	group.Group = p.group
	topic := kmsg.NewOffsetFetchRequestGroupTopic()
	topic.Topic, topic.Partitions = p.topic, []int32{0}
	topic.TopicID = p.topicID()
	group.Topics = append(group.Topics, topic)
	request.Groups = append(request.Groups, group)
	response, err := request.RequestWith(p.t.Context(), p.client)
	p.must(err)
	if len(response.Groups[0].Topics) == 0 {
		return "group " + code(response.Groups[0].ErrorCode), -1
	}
	found := response.Groups[0].Topics[0].Partitions[0]
	return code(found.ErrorCode), found.Offset
}

// waitStable is that answer once no transaction holds it.
func (p *protocol) waitStable() (answer string, offset int64) {
	p.t.Helper()
	testkit.WaitFor(p.t, 30*time.Second, "stable offsets", func() bool {
		answer, offset = p.stable()
		return answer != "UNSTABLE_OFFSET_COMMIT"
	})
	return answer, offset
}

// laterOffsets are committed while a transaction that came before holds others, and before it ends.
func (p *protocol) laterOffsets() string {
	id := testkit.Name(p.t, "id")
	_, producer, epoch := p.producer(id)
	if answer := p.txnOffsets(id, producer, epoch, "", -1); answer != "none" {
		return "the offsets were refused: " + answer
	}
	later := p.offsets("", -1)
	p.end(id, producer, epoch, true)
	then, at := p.waitStable()
	return fmt.Sprintf("%s, then %s at %d", later, then, at)
}

// visible is how many records committed readers may see, markers not counted.
func (p *protocol) visible(want int64) int64 {
	p.t.Helper()
	reader := p.connect(kgo.ConsumeTopics(p.topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer reader.Close()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Second)
	defer cancel()
	seen := int64(0)
	for ctx.Err() == nil && (want == 0 || seen < want) {
		seen += int64(reader.PollFetches(ctx).NumRecords())
	}
	return seen
}

func (p *protocol) visibility() string {
	id := testkit.Name(p.t, "id")
	_, producer, epoch := p.producer(id)
	open := p.visible(0)
	p.end(id, producer, epoch, false)
	aborted := p.visible(0)
	id = testkit.Name(p.t, "id")
	_, producer, epoch = p.producer(id)
	p.end(id, producer, epoch, true)
	return fmt.Sprintf("open %d, aborted %d, committed %d", open, aborted, p.visible(1))
}

func (p *protocol) strangersOffsets() string {
	id := testkit.Name(p.t, "id")
	member := p.join()
	defer member.Close()
	_, producer, epoch := p.producer(id)
	return p.txnOffsets(id, producer, epoch, "stranger", 1)
}

func (p *protocol) memberlessOffsets() string {
	id := testkit.Name(p.t, "id")
	_, producer, epoch := p.producer(id)
	return p.txnOffsets(id, producer, epoch, "", -1)
}

// join makes a member and waits until it is one.
func (p *protocol) join(more ...kgo.Opt) *kgo.Client {
	p.t.Helper()
	assigned := make(chan struct{}, 10)
	opts := []kgo.Opt{
		kgo.ConsumerGroup(p.group), kgo.ConsumeTopics(p.topic), kgo.DisableAutoCommit(), kgo.HeartbeatInterval(200 * time.Millisecond),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { assigned <- struct{}{} }),
	}
	client := p.connect(append(opts, more...)...)
	select {
	case <-assigned:
	case <-time.After(30 * time.Second):
		p.t.Fatal("no assignment")
	}
	return client
}

func (p *protocol) staticTakeover() string {
	first := p.join(kgo.InstanceID("name"))
	memberID, generation := first.GroupMetadata()
	p.join(kgo.InstanceID("name"))
	request := kmsg.NewPtrHeartbeatRequest()
	request.Group, request.MemberID, request.Generation, request.InstanceID = p.group, memberID, generation, new("name")
	response, err := request.RequestWith(p.t.Context(), p.client)
	p.must(err)
	return code(response.ErrorCode)
}

func ask(t *testing.T, want func(kfake, broker string) string, reach ...kgo.Opt) {
	t.Helper()
	for _, q := range questions {
		t.Run(q.name, func(t *testing.T) {
			t.Parallel()
			if got, want := q.ask(newProtocol(t, reach...)), want(q.kfake, q.broker); got != want {
				t.Errorf("the answer is %q, want %q", got, want)
			}
		})
	}
}

func TestProtocolOnTheFake(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	t.Run("kfake", func(t *testing.T) {
		ask(t, func(kfake, _ string) string { return kfake }, kgo.SeedBrokers(cluster.ListenAddrs()...))
	})
}
