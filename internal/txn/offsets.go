package txn

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const metadataPrefix = "pawl1 topic="

// OffsetMetadata is the text kept with every committed offset. It names the incarnation of the
// topic that the offset belongs to, so that a topic which was deleted and made again is noticed.
func OffsetMetadata(topicID [16]byte) string {
	return metadataPrefix + hex.EncodeToString(topicID[:])
}

// ParseOffsetMetadata reads the topic id back. ok is false for offsets that something else committed.
func ParseOffsetMetadata(metadata string) (topicID [16]byte, ok bool) {
	text, ok := strings.CutPrefix(metadata, metadataPrefix)
	if !ok || len(text) != 2*len(topicID) {
		return topicID, false
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		return topicID, false
	}
	copy(topicID[:], raw)
	return topicID, true
}

// settle gives every newly assigned partition a committed offset to start from, before anything is
// read from it (rule 9). Without it a partition that has none would be rewound to 0 by the first
// abort: dead on a trimmed log, a replay of history under latest.
//
// committed holds the answer of the group's OffsetFetch, offsets what the client would use: a negative
// one where it knows of none. Both are brought up to date. Partitions that must not be read are returned
// in halted. An error means that the brokers could not be asked; the caller tries again, with the same
// maps, so that a start is resolved only once.
func (c Config) settle(
	ctx context.Context, cl *kgo.Client, member string,
	committed map[place]committedOffset, ids map[string][16]byte, offsets map[string]map[int32]kgo.Offset,
) (halted map[place]error, err error) {
	halted = map[place]error{}
	missing := map[place]int64{}
	for topic, partitions := range offsets {
		for partition, offset := range partitions {
			at := place{topic, partition}
			have := committed[at]
			switch {
			case offset.EpochOffset().Offset < 0:
				missing[at] = -1
			case have.known && have.topicID != ids[topic]:
				halted[at] = fmt.Errorf("%s/%d: the topic was deleted and made again since offset %d was committed; decide where to go on, then run: processor offsets set --topic %s --partition %d --to earliest --reason WHY",
					topic, partition, have.offset, topic, partition)
			}
		}
	}
	if len(missing) > 0 && c.Start == StartFail {
		for at := range missing {
			halted[at] = fmt.Errorf("%s/%d has no committed offset and input.start is fail; run: processor offsets set --topic %s --partition %d --to earliest|latest --reason WHY",
				at.topic, at.partition, at.topic, at.partition)
		}
		clear(missing)
	}
	if len(missing) > 0 {
		if err := c.resolve(ctx, cl, missing); err != nil {
			return nil, err
		}
		if err := commitStart(ctx, cl, c.Group, member, missing, ids); err != nil {
			return nil, err
		}
		for at, offset := range missing {
			offsets[at.topic][at.partition] = kgo.NewOffset().At(offset)
			committed[at] = committedOffset{offset: offset, topicID: ids[at.topic], known: true}
		}
	}
	return halted, nil
}

// committedOffset is one partition's answer of OffsetFetch.
type committedOffset struct {
	offset  int64
	topicID [16]byte
	known   bool // topicID is ours to believe
}

// resolve asks the brokers where the start policy points to.
func (c Config) resolve(ctx context.Context, cl *kgo.Client, missing map[place]int64) error {
	var topics []string
	seen := map[string]bool{}
	for at := range missing {
		if !seen[at.topic] {
			seen[at.topic] = true
			topics = append(topics, at.topic)
		}
	}
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(ctx, topics...)
	if err != nil {
		return fmt.Errorf("resolve start offsets: %w", err)
	}
	latest := starts
	if c.Start == StartLatest {
		// The last stable offset: what an open transaction holds back was not yet there to be skipped.
		if latest, err = adm.ListCommittedOffsets(ctx, topics...); err != nil {
			return fmt.Errorf("resolve start offsets: %w", err)
		}
	}
	for at := range missing {
		listed := latest
		if c.added(at) {
			listed = starts
		}
		offset, ok := listed.Lookup(at.topic, at.partition)
		if !ok {
			return fmt.Errorf("resolve start offsets: no answer for %s/%d", at.topic, at.partition)
		}
		if offset.Err != nil {
			return fmt.Errorf("resolve start offsets: %s/%d: %w", at.topic, at.partition, offset.Err)
		}
		missing[at] = offset.Offset
	}
	return nil
}

// added reports whether a partition was added to its topic while the engine ran. All that is in it was written
// since: latest is about what was there when the group began, and would skip what came before anybody knew of
// the partition.
func (c Config) added(at place) bool {
	known, ok := c.known[at.topic]
	return ok && int(at.partition) >= known
}

// commitStart commits where reading begins.
func commitStart(ctx context.Context, cl *kgo.Client, group, instance string, starts map[place]int64, ids map[string][16]byte) error {
	offsets := make(map[place]kgo.EpochOffset, len(starts))
	for at, offset := range starts {
		offsets[at] = kgo.EpochOffset{Epoch: -1, Offset: offset}
	}
	if err := commitOffsets(ctx, cl, group, instance, offsets, func(topic string) [16]byte { return ids[topic] }); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return nil
}

// commitOffsets commits offsets as the member that cl is, in no transaction.
func commitOffsets(ctx context.Context, cl *kgo.Client, group, instance string, offsets map[place]kgo.EpochOffset, ids func(topic string) [16]byte) error {
	if len(offsets) == 0 {
		return nil
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.InstanceID = group, &instance
	req.MemberID, req.Generation = cl.GroupMetadata()
	for topic, partitions := range byTopic(offsets) {
		one := kmsg.NewOffsetCommitRequestTopic()
		one.Topic, one.TopicID = topic, ids(topic)
		metadata := OffsetMetadata(one.TopicID)
		for number, offset := range partitions {
			p := kmsg.NewOffsetCommitRequestTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = number, offset.Offset, offset.Epoch, &metadata
			one.Partitions = append(one.Partitions, p)
		}
		req.Topics = append(req.Topics, one)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return fmt.Errorf("commit offsets: %w", err)
	}
	var errs []error
	for _, topic := range resp.Topics {
		for _, p := range topic.Partitions {
			errs = append(errs, offsetError(offsets, ids, topic.TopicID, topic.Topic, p.Partition, p.ErrorCode))
		}
	}
	return errors.Join(errs...)
}

// offsetError is what an answer says about one partition's offset. Newer answers name topics by their ids only.
func offsetError(offsets map[place]kgo.EpochOffset, ids func(topic string) [16]byte, id [16]byte, topic string, partition int32, code int16) error {
	err := kerr.ErrorForCode(code)
	if err == nil {
		return nil
	}
	for at := range offsets {
		if topic == "" && ids(at.topic) == id {
			topic = at.topic
		}
	}
	return fmt.Errorf("commit offset of %s/%d: %w", topic, partition, err)
}

// commitInTransaction adds offsets to the open transaction, as the member that the client is (KIP-447). With transactions
// v2 that adds the group to the transaction too (KIP-890).
func (k *kgoSession) commitInTransaction(ctx context.Context, offsets map[place]kgo.EpochOffset) error {
	if len(offsets) == 0 {
		return nil
	}
	id, epoch, err := k.client.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("commit offsets: load producer id: %w", err)
	}
	if !k.wrote.is(id, epoch) {
		return errOtherProducer
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = k.member, id, epoch
	req.Group, req.InstanceID = k.config.Group, &k.member
	req.MemberID, req.Generation = k.client.GroupMetadata()
	for topic, partitions := range byTopic(offsets) {
		one := kmsg.NewTxnOffsetCommitRequestTopic()
		one.Topic, one.TopicID = topic, k.topicID(topic)
		metadata := OffsetMetadata(one.TopicID)
		for number, offset := range partitions {
			p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = number, offset.Offset, offset.Epoch, &metadata
			one.Partitions = append(one.Partitions, p)
		}
		req.Topics = append(req.Topics, one)
	}
	resp, err := req.RequestWith(ctx, k.client)
	if err != nil {
		return fmt.Errorf("commit offsets: %w", err)
	}
	var errs []error
	for _, topic := range resp.Topics {
		for _, p := range topic.Partitions {
			errs = append(errs, offsetError(offsets, k.topicID, topic.TopicID, topic.Topic, p.Partition, p.ErrorCode))
		}
	}
	return errors.Join(errs...)
}

func byTopic(offsets map[place]kgo.EpochOffset) map[string]map[int32]kgo.EpochOffset {
	topics := map[string]map[int32]kgo.EpochOffset{}
	for at, offset := range offsets {
		if topics[at.topic] == nil {
			topics[at.topic] = map[int32]kgo.EpochOffset{}
		}
		topics[at.topic][at.partition] = offset
	}
	return topics
}

// unstableBackoff is the pause between two looks at offsets that a transaction still holds.
const unstableBackoff = 20 * time.Millisecond

// offsetsEqual compares what the session believes to be committed with what the broker says, for
// the partitions still owned (rule 3). It asks until no offset is unstable or ctx ends. No offset
// equals no offset. The partitions are asked for by name: to a question for all of them a broker does
// not mention one whose first commit is still pending (seen on Kafka 4.3.1).
func offsetsEqual(ctx context.Context, cl *kgo.Client, group string, ids func(string) [16]byte, believed map[place]int64) (bool, error) {
	owned := map[string][]int32{}
	for at := range believed {
		owned[at.topic] = append(owned[at.topic], at.partition)
	}
	ask := kmsg.NewOffsetFetchRequestGroup()
	ask.Group = group
	for topic, partitions := range owned {
		one := kmsg.NewOffsetFetchRequestGroupTopic()
		one.Topic, one.TopicID, one.Partitions = topic, ids(topic), partitions
		ask.Topics = append(ask.Topics, one)
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = true
	req.Groups = append(req.Groups, ask)
	for {
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return false, fmt.Errorf("fetch committed offsets: %w", err)
		}
		equal, stable, err := compareOffsets(resp, believed)
		if err != nil || stable {
			return equal, err
		}
		if !pause(ctx, unstableBackoff) {
			return false, fmt.Errorf("fetch committed offsets: still unstable: %w", ctx.Err())
		}
	}
}

// compareOffsets looks for each believed offset in the answer. stable is false where an open transaction
// still holds one of them.
func compareOffsets(resp *kmsg.OffsetFetchResponse, believed map[place]int64) (equal, stable bool, err error) {
	found := 0
	equal, stable = true, true
	for _, group := range resp.Groups {
		if err := kerr.ErrorForCode(group.ErrorCode); err != nil {
			return false, true, fmt.Errorf("fetch committed offsets: %w", err)
		}
		for _, topic := range group.Topics {
			for _, p := range topic.Partitions {
				mine, owned := believed[place{topic.Topic, p.Partition}]
				err := kerr.ErrorForCode(p.ErrorCode)
				switch {
				case !owned:
				case errors.Is(err, kerr.UnstableOffsetCommit):
					stable = false
				case err != nil:
					return false, true, fmt.Errorf("fetch committed offsets: %s/%d: %w", topic.Topic, p.Partition, err)
				case p.Offset < 0 && mine < 0, p.Offset == mine:
				default:
					equal = false
				}
				if owned {
					found++
				}
			}
		}
	}
	return equal && found == len(believed), stable, nil
}
