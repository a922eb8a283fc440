package kafka

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// settledTimeout is how long an open transaction may take to end before offsets are called pending.
	settledTimeout = 3 * time.Second
	settledPause   = 100 * time.Millisecond
)

// Position is where `offsets set` is to move a group: a place in the log, an offset or a time.
type Position struct {
	kind   positionKind
	offset int64
	time   time.Time
}

type positionKind int

const (
	atEarliest positionKind = iota + 1
	atLatest
	atOffset
	atTime
)

// ParsePosition reads earliest, latest, an offset, or a time as RFC 3339 has it.
func ParsePosition(text string) (Position, error) {
	switch text {
	case "earliest":
		return Position{kind: atEarliest}, nil
	case "latest":
		return Position{kind: atLatest}, nil
	}
	if offset, err := strconv.ParseInt(text, 10, 64); err == nil {
		if offset < 0 {
			return Position{}, fmt.Errorf("offset %d is negative: want earliest, latest, an offset from 0 on, or a time", offset)
		}
		return Position{kind: atOffset, offset: offset}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return Position{}, fmt.Errorf("%q is no position: want earliest, latest, an offset such as 4711, or a time such as 2026-11-23T08:00:00Z", text)
	}
	return Position{kind: atTime, time: at}, nil
}

// OffsetMove is one planned change of a committed offset.
type OffsetMove struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"` // NoOffset where nothing is committed
	To        int64  `json:"to"`
	Start     int64  `json:"start"` // of the log
	End       int64  `json:"end"`

	topicID [16]byte
}

// Again counts the offsets that would be processed a second time.
func (m OffsetMove) Again() int64 {
	if m.From == NoOffset {
		return 0
	}
	return max(m.From-m.To, 0)
}

// Skipped counts the offsets that would never be processed.
func (m OffsetMove) Skipped() int64 { return max(m.To-max(m.From, m.Start), 0) }

// Member is one member of a living group.
type Member struct {
	ID       string `json:"id"`
	Instance string `json:"instance,omitempty"` // of a static member
	Client   string `json:"client"`
	Host     string `json:"host"`

	Owns kadm.TopicsSet `json:"-"` // the partitions that are assigned to it
}

// LiveGroupError says that a group has members, so that its offsets are not ours to move.
type LiveGroupError struct {
	Group   string
	State   string
	Members []Member
}

func (e *LiveGroupError) Error() string {
	names := make([]string, len(e.Members))
	static := false
	for i, member := range e.Members {
		names[i] = member.Client + " at " + member.Host
		if member.Instance != "" {
			names[i] = member.Instance + " at " + member.Host
			static = true
		}
	}
	text := fmt.Sprintf("group %s is %s with %d members (%s): stop all instances first", e.Group, e.State, len(e.Members), strings.Join(names, ", "))
	if static {
		text += "; a static member that was stopped counts until its session times out (kafka.session_timeout), or leaves at once with `processor drain --leave`"
	}
	return text
}

// PendingOffsetsError says that a transaction that is still open would move the offsets again when
// it commits.
type PendingOffsetsError struct {
	Group      string
	Partitions []string // topic/partition
}

func (e *PendingOffsetsError) Error() string {
	return fmt.Sprintf("group %s has an open transaction with offsets of %s: wait until it ends (txn.timeout), or end it with `processor txn ls` and `processor txn abort`",
		e.Group, strings.Join(e.Partitions, ", "))
}

// PlanOffsets works out what moving partitions of topic to the position means; nil partitions means
// all. It changes nothing. It refuses a group with members (*LiveGroupError) or with offsets in an
// open transaction (*PendingOffsetsError), and offsets outside the log.
func PlanOffsets(ctx context.Context, client *kgo.Client, group, topic string, partitions []int32, to Position) ([]OffsetMove, error) {
	admin := kadm.NewClient(client)
	if err := requireIdle(ctx, admin, group); err != nil {
		return nil, err
	}
	details, err := admin.ListTopics(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("describe topic %s: %w", topic, err)
	}
	detail := details[topic]
	if detail.Err != nil {
		return nil, fmt.Errorf("describe topic %s: %w", topic, detail.Err)
	}
	if partitions == nil {
		partitions = detail.Partitions.Numbers()
	}
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("list start offsets of %s: %w", topic, err)
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("list end offsets of %s: %w", topic, err)
	}
	targets, err := to.resolve(ctx, admin, topic, starts, ends)
	if err != nil {
		return nil, err
	}
	committed, err := requireSettled(ctx, client, group, detail)
	if err != nil {
		return nil, err
	}
	slices.Sort(partitions)
	moves := make([]OffsetMove, 0, len(partitions))
	var errs []error
	for _, partition := range slices.Compact(partitions) {
		start, okStart := starts.Lookup(topic, partition)
		end, okEnd := ends.Lookup(topic, partition)
		if !okStart || !okEnd {
			errs = append(errs, fmt.Errorf("topic %s has no partition %d, but 0 to %d", topic, partition, len(detail.Partitions)-1))
			continue
		}
		if err := errors.Join(start.Err, end.Err); err != nil {
			errs = append(errs, fmt.Errorf("list offsets of %s/%d: %w", topic, partition, err))
			continue
		}
		move := OffsetMove{Topic: topic, Partition: partition, From: NoOffset, To: targets(partition), Start: start.Offset, End: end.Offset, topicID: detail.ID}
		if offset, found := committed[partition]; found {
			move.From = offset.at
		}
		if move.To < move.Start || move.To > move.End {
			errs = append(errs, fmt.Errorf("offset %d is outside of %s/%d, which has %d to %d", move.To, topic, partition, move.Start, move.End))
			continue
		}
		moves = append(moves, move)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return moves, nil
}

// resolve gives the offset that the position means in each partition.
func (p Position) resolve(ctx context.Context, admin *kadm.Client, topic string, starts, ends kadm.ListedOffsets) (func(partition int32) int64, error) {
	lookup := func(list kadm.ListedOffsets) func(int32) int64 {
		return func(partition int32) int64 {
			offset, _ := list.Lookup(topic, partition)
			return offset.Offset
		}
	}
	switch p.kind {
	case atEarliest:
		return lookup(starts), nil
	case atLatest:
		return lookup(ends), nil
	case atOffset:
		return func(int32) int64 { return p.offset }, nil
	case atTime:
		// The first record at or after the time; the end where there is none.
		list, err := admin.ListOffsetsAfterMilli(ctx, p.time.UnixMilli(), topic)
		if err != nil {
			return nil, fmt.Errorf("list offsets of %s at %s: %w", topic, p.time.Format(time.RFC3339), err)
		}
		return lookup(list), nil
	default:
		return nil, errors.New("no position given")
	}
}

// SetOffsets carries the moves out. metadata makes a committed offset's metadata out of the topic's
// id; nil leaves it empty. The broker itself refuses the commit should a member have joined since
// the plan was made.
func SetOffsets(ctx context.Context, admin *kadm.Client, group string, moves []OffsetMove, metadata func(topicID [16]byte) string) error {
	offsets := make(kadm.Offsets)
	for _, move := range moves {
		text := ""
		if metadata != nil {
			text = metadata(move.topicID)
		}
		offsets.Add(kadm.Offset{
			Topic:       move.Topic,
			TopicID:     move.topicID,
			Partition:   move.Partition,
			At:          move.To,
			LeaderEpoch: -1,
			Metadata:    text,
		})
	}
	answer, err := admin.CommitOffsets(ctx, group, offsets)
	if err != nil {
		return fmt.Errorf("commit offsets of group %s: %w", group, err)
	}
	var errs []error
	answer.EachError(func(offset kadm.OffsetResponse) {
		err := offset.Err
		if errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.StaleMemberEpoch) || errors.Is(err, kerr.RebalanceInProgress) {
			err = fmt.Errorf("a member has joined the group meanwhile, stop all instances: %w", err)
		}
		errs = append(errs, fmt.Errorf("commit offset of %s/%d: %w", offset.Topic, offset.Partition, err))
	})
	return errors.Join(errs...)
}

// requireIdle returns a *LiveGroupError where group has members, whichever protocol they use.
func requireIdle(ctx context.Context, admin *kadm.Client, group string) error {
	state, members, err := Members(ctx, admin, group)
	if err != nil {
		return err
	}
	if len(members) == 0 {
		return nil
	}
	return &LiveGroupError{Group: group, State: strings.ToLower(state), Members: members}
}

// Members gives the state and the members of a group. It asks under both protocols: the classic request does not know a group
// of the new one (KIP-848), and the new request knows no other.
func Members(ctx context.Context, admin *kadm.Client, group string) (state string, members []Member, err error) {
	classic, err := admin.DescribeGroups(ctx, group)
	if err != nil {
		return "", nil, fmt.Errorf("describe group %s: %w", group, err)
	}
	described := classic[group]
	if described.Err != nil && !errors.Is(described.Err, kerr.GroupIDNotFound) {
		return "", nil, fmt.Errorf("describe group %s: %w", group, described.Err)
	}
	for i := range described.Members {
		from := &described.Members[i]
		owns := kadm.TopicsSet{}
		if assigned, is := from.Assigned.AsConsumer(); is {
			for _, one := range assigned.Topics {
				owns.Add(one.Topic, one.Partitions...)
			}
		}
		members = append(members, Member{ID: from.MemberID, Instance: text(from.InstanceID), Client: from.ClientID, Host: from.ClientHost, Owns: owns})
	}
	if len(members) > 0 {
		return described.State, members, nil
	}
	consumer, err := admin.DescribeConsumerGroups(ctx, group)
	if err != nil {
		return "", nil, fmt.Errorf("describe group %s: %w", group, err)
	}
	modern := consumer[group]
	switch {
	case errors.Is(modern.Err, kerr.GroupIDNotFound), errors.Is(modern.Err, kerr.UnsupportedVersion):
		return described.State, nil, nil
	case modern.Err != nil:
		return "", nil, fmt.Errorf("describe group %s: %w", group, modern.Err)
	}
	for i := range modern.Members {
		from := &modern.Members[i]
		members = append(members, Member{ID: from.MemberID, Instance: text(from.InstanceID), Client: from.ClientID, Host: from.ClientHost, Owns: from.Assignment})
	}
	return modern.State, members, nil
}

// requireSettled reads the committed offsets of one topic, and returns a *PendingOffsetsError where
// an open transaction holds others back. It names the partitions: asked for all offsets of a group, a
// broker leaves out a partition whose first offset ever is pending.
func requireSettled(ctx context.Context, client *kgo.Client, group string, detail kadm.TopicDetail) (map[int32]committedOffset, error) {
	ctx, cancel := context.WithTimeout(ctx, settledTimeout)
	defer cancel()
	var pending []string
	for { // ended by the brokers' answer or by ctx
		offsets, now, err := fetchStable(ctx, client, group, detail)
		switch {
		case err != nil && ctx.Err() != nil && len(pending) > 0:
			return nil, &PendingOffsetsError{Group: group, Partitions: pending} // the answer before this one was the last
		case err != nil || len(now) == 0:
			return offsets, err
		}
		pending = now
		timer := time.NewTimer(settledPause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, &PendingOffsetsError{Group: group, Partitions: pending}
		case <-timer.C:
		}
	}
}

// fetchStable asks once. pending names the partitions with offsets in an open transaction.
func fetchStable(ctx context.Context, client *kgo.Client, group string, detail kadm.TopicDetail) (offsets map[int32]committedOffset, pending []string, err error) {
	topic := kmsg.NewOffsetFetchRequestGroupTopic()
	topic.Topic, topic.TopicID, topic.Partitions = detail.Topic, detail.ID, detail.Partitions.Numbers()
	one := kmsg.NewOffsetFetchRequestGroup()
	one.Group = group
	one.Topics = append(one.Topics, topic)
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Groups = append(req.Groups, one)
	req.RequireStable = true
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return nil, nil, fmt.Errorf("fetch offsets of group %s: %w", group, err)
	}
	offsets = make(map[int32]committedOffset)
	for _, answered := range resp.Groups {
		switch err := kerr.ErrorForCode(answered.ErrorCode); {
		case errors.Is(err, kerr.GroupIDNotFound):
			return offsets, nil, nil
		case err != nil:
			return nil, nil, fmt.Errorf("fetch offsets of group %s: %w", group, err)
		}
		for _, topic := range answered.Topics {
			for _, partition := range topic.Partitions {
				switch err := kerr.ErrorForCode(partition.ErrorCode); {
				case errors.Is(err, kerr.UnstableOffsetCommit):
					pending = append(pending, partitionName(detail.Topic, partition.Partition))
				case err != nil:
					return nil, nil, fmt.Errorf("fetch offset of %s: %w", partitionName(detail.Topic, partition.Partition), err)
				case partition.Offset >= 0:
					offsets[partition.Partition] = committedOffset{at: partition.Offset, metadata: text(partition.Metadata)}
				}
			}
		}
	}
	slices.Sort(pending)
	return offsets, pending, nil
}

// CommittedOffset is one line of `offsets show`.
type CommittedOffset struct {
	PartitionLag

	Metadata string `json:"metadata,omitempty"` // as committed
	TopicID  string `json:"topic_id"`           // of the topic as it is now, in hex
	// Stale is true where the offset was committed for a predecessor of the topic.
	Stale bool `json:"stale,omitempty"`
}

// CommittedOffsets shows the group's offsets in topics with what they were committed for.
// parseMetadata is Spec.ParseMetadata and may be nil.
func CommittedOffsets(ctx context.Context, admin *kadm.Client, group string, topics []string, parseMetadata func(string) ([16]byte, bool)) ([]CommittedOffset, error) {
	lags, err := Lag(ctx, admin, group, topics)
	if err != nil {
		return nil, err
	}
	committed, err := fetchOffsets(ctx, admin, group, topics)
	if err != nil {
		return nil, err
	}
	details, err := admin.ListTopics(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	offsets := make([]CommittedOffset, len(lags))
	for i, lag := range lags {
		id := [16]byte(details[lag.Topic].ID)
		offset := CommittedOffset{PartitionLag: lag, Metadata: committed[lag.Topic][lag.Partition].metadata, TopicID: hex.EncodeToString(id[:])}
		if parseMetadata != nil && lag.Committed != NoOffset {
			before, ok := parseMetadata(offset.Metadata)
			offset.Stale = ok && before != id
		}
		offsets[i] = offset
	}
	return offsets, nil
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// ParsePartitions reads a list of partitions such as 0,3,7-9.
func ParsePartitions(list string) ([]int32, error) {
	var partitions []int32
	for part := range strings.SplitSeq(list, ",") {
		first, last, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			last = first
		}
		from, errFrom := strconv.ParseInt(first, 10, 32)
		to, errTo := strconv.ParseInt(last, 10, 32)
		if errFrom != nil || errTo != nil || from < 0 || to < from || to-from > math.MaxInt16 {
			return nil, fmt.Errorf("%q is no list of partitions: want numbers and ranges such as 0,3,7-9", list)
		}
		for partition := from; partition <= to; partition++ {
			partitions = append(partitions, int32(partition)) //nolint:gosec // parsed with 32 bits
		}
	}
	slices.Sort(partitions)
	return slices.Compact(partitions), nil
}
