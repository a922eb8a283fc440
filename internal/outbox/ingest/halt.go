package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/outbox"
)

// haltError says that no waiting will mend a lane, and what to do.
type haltError struct{ err error }

func (e *haltError) Error() string { return e.err.Error() }
func (e *haltError) Unwrap() error { return e.err }

func halt(format string, args ...any) error { return &haltError{fmt.Errorf(format, args...)} }

// brokerTimeout bounds a question to the brokers.
const brokerTimeout = 10 * time.Second

// facts is what the brokers say of a lane.
type facts struct {
	topicID    [16]byte
	partitions int
	start, end int64 // end counts what is not committed yet
	lost       bool  // the ledger that knew the lane; asked only of one that this ledger does not know
}

func ask(ctx context.Context, client *kgo.Client, topic string, lane int32) (facts, error) {
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	admin := kadm.NewClient(client)
	details, err := admin.ListTopics(ctx, topic)
	if err == nil {
		err = details[topic].Err
	}
	if err != nil {
		return facts{}, fmt.Errorf("describe topic %s: %w", topic, err)
	}
	f := facts{topicID: details[topic].ID, partitions: len(details[topic].Partitions)}
	if int(lane) >= f.partitions {
		return f, nil
	}
	starts, err := admin.ListStartOffsets(ctx, topic)
	if f.start, err = offsetOf(starts, err, topic, lane); err != nil {
		return facts{}, fmt.Errorf("find the start of %s/%d: %w", topic, lane, err)
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if f.end, err = offsetOf(ends, err, topic, lane); err != nil {
		return facts{}, fmt.Errorf("find the end of %s/%d: %w", topic, lane, err)
	}
	return f, nil
}

// toldOf tells whether results of a lane were ever told, and whether those of any lane were.
func toldOf(ctx context.Context, client *kgo.Client, topic string, lane int32) (own, others bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if _, asked := ends.Lookup(topic, lane); err == nil && !asked {
		err = errors.New("it has too few partitions: run `processor topics plan`")
	}
	if err != nil {
		return false, false, fmt.Errorf("find the ends of %s: %w", topic, err)
	}
	ends.Each(func(end kadm.ListedOffset) {
		own = own || end.Offset > 0 && end.Partition == lane
		others = others || end.Offset > 0
	})
	return own, others, nil
}

// offsetOf picks a lane's answer: other lanes may have failed without harm to this one.
func offsetOf(listed kadm.ListedOffsets, err error, topic string, lane int32) (int64, error) {
	if o, ok := listed.Lookup(topic, lane); ok {
		return o.Offset, o.Err
	}
	if err == nil {
		err = errors.New("the brokers do not say")
	}
	return 0, err
}

// judge halts a lane where ledger and topic do not fit together. Going on from anywhere else would
// lose effects or repeat them without a word.
func judge(topic string, lanes int, head outbox.Head, f facts) error {
	place := fmt.Sprintf("%s/%d", topic, head.Lane)
	switch {
	case f.partitions != lanes:
		return halt("%s has %d partitions and effects.lanes is %d: with another number of lanes, effects overtake each other; set effects.lanes back to what it was, or begin with another application name",
			topic, f.partitions, lanes)
	case !head.Known && f.start > 0:
		return halt("the ledger does not know %s, which begins at %d, so that effects from before are gone: is postgres.dsn the right database? if so, run `processor ledger rebuild`, which begins with the oldest effect that is left",
			place, f.start)
	case !head.Known && f.lost:
		return halt("the ledger does not know %s, but results of effects were told, so that another ledger did: is postgres.dsn the right database? if the ledger is lost, `processor ledger rebuild` makes a new one that calls nothing again of which a result was told",
			place)
	case !head.Known:
		return nil
	case head.TopicID != f.topicID:
		return halt("the ledger has read %s from the topic with id %x, but its id is %x now: the topic was deleted and made again, or this is another cluster; if kafka.brokers and postgres.dsn are right, begin a new ledger with the topic as it is: `processor ledger rebuild --help` says how",
			place, head.TopicID, f.topicID)
	case head.Next > f.end:
		return halt("the ledger has read %s up to %d, but it ends at %d: the topic has lost its tail, or this is another cluster; if kafka.brokers and postgres.dsn are right, begin a new ledger with the topic as it is: `processor ledger rebuild --help` says how",
			place, head.Next, f.end)
	case head.Next < f.start:
		return halt("the ledger has read %s up to %d, but it begins at %d: the effects between are gone, by retention or by hand; restore the ledger from a later backup, or give them up and begin a new ledger: `processor ledger rebuild --help` says how",
			place, head.Next, f.start)
	}
	return nil
}
