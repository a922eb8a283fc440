package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// hangingAge is how long a producer must have been silent before its open transaction, which no
// coordinator knows, counts as hanging: the brokers' default of transaction.max.timeout.ms, beyond
// which every transaction that is known would have been aborted.
const hangingAge = 15 * time.Minute

// Transaction is one transaction that has not ended.
type Transaction struct {
	TransactionalID string    `json:"transactional_id"`
	State           string    `json:"state"` // Ongoing, PrepareCommit, PrepareAbort or PrepareEpochFence
	ProducerID      int64     `json:"producer_id"`
	Epoch           int16     `json:"epoch"`
	Coordinator     int32     `json:"coordinator"` // broker
	Started         time.Time `json:"started,omitzero"`
	TimeoutSeconds  float64   `json:"timeout_seconds"`
	Partitions      []string  `json:"partitions"` // topic/partition, those we may see
}

// openStates are the states of transactions that hold readers back.
var openStates = [...]string{"Ongoing", "PrepareCommit", "PrepareAbort", "PrepareEpochFence"}

// OpenTransactions lists the transactions that have not ended, oldest first, of transactional ids
// that begin with prefix. An empty prefix lists all that we may describe.
func OpenTransactions(ctx context.Context, admin *kadm.Client, prefix string) ([]Transaction, error) {
	listed, err := admin.ListTransactions(ctx, nil, openStates[:])
	if err != nil {
		return nil, fmt.Errorf("list transactions: %w", err)
	}
	var ids []string
	for id, one := range listed {
		// A broker before Kafka 3.0 does not know the filter and lists all.
		if strings.HasPrefix(id, prefix) && slices.Contains(openStates[:], one.State) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	described, err := admin.DescribeTransactions(ctx, ids...)
	if err != nil {
		return nil, fmt.Errorf("describe transactions: %w", err)
	}
	var open []Transaction
	for _, one := range described {
		if one.Err != nil {
			if errors.Is(one.Err, kerr.TransactionalIDNotFound) {
				continue // it has ended and expired meanwhile
			}
			return nil, fmt.Errorf("describe transaction %s: %w", one.TxnID, one.Err)
		}
		if slices.Contains(openStates[:], one.State) {
			open = append(open, newTransaction(one))
		}
	}
	slices.SortFunc(open, func(a, b Transaction) int {
		if byAge := a.Started.Compare(b.Started); byAge != 0 {
			return byAge
		}
		return strings.Compare(a.TransactionalID, b.TransactionalID)
	})
	return open, nil
}

func newTransaction(from kadm.DescribedTransaction) Transaction {
	to := Transaction{
		TransactionalID: from.TxnID,
		State:           from.State,
		ProducerID:      from.ProducerID,
		Epoch:           from.ProducerEpoch,
		Coordinator:     from.Coordinator,
		TimeoutSeconds:  (time.Duration(from.TimeoutMillis) * time.Millisecond).Seconds(),
		Partitions:      []string{},
	}
	if from.StartTimestamp > 0 {
		to.Started = time.UnixMilli(from.StartTimestamp)
	}
	for _, topic := range from.Topics.Sorted() {
		for _, partition := range topic.Partitions {
			to.Partitions = append(to.Partitions, partitionName(topic.Topic, partition))
		}
	}
	return to
}

func partitionName(topic string, partition int32) string {
	return fmt.Sprintf("%s/%d", topic, partition)
}

// HeldPartition is a partition whose readers of committed records cannot get to its end.
type HeldPartition struct {
	Topic     string   `json:"topic"`
	Partition int32    `json:"partition"`
	Stable    int64    `json:"stable"`  // the last stable offset
	End       int64    `json:"end"`     // the high watermark
	Held      int64    `json:"held"`    // End minus Stable
	Holders   []Holder `json:"holders"` // the first one is in the way, the others would be next
	// Hidden is true where we may not see the holders: that needs the right to Read the topic.
	Hidden bool `json:"hidden,omitempty"`
}

// Holder is a producer with an open transaction in a partition.
type Holder struct {
	ProducerID       int64     `json:"producer_id"`
	Epoch            int16     `json:"epoch"`
	CoordinatorEpoch int32     `json:"coordinator_epoch"`
	FirstOffset      int64     `json:"first_offset"` // of its transaction in the partition
	LastWrite        time.Time `json:"last_write,omitzero"`
	TransactionalID  string    `json:"transactional_id,omitempty"` // empty where no coordinator tells us
	// Hanging is true where no coordinator knows the transaction and the producer has been silent
	// for so long that nothing will end it any more.
	Hanging bool `json:"hanging,omitempty"`
}

// HeldPartitions finds the partitions of topics that an open transaction holds back, and who does,
// ordered by topic and partition. No topics means all. A transaction that runs as it should appears
// too: what holds for long is for the reader to judge.
func HeldPartitions(ctx context.Context, admin *kadm.Client, topics ...string) ([]HeldPartition, error) {
	stables, stablesErr := admin.ListCommittedOffsets(ctx, topics...)
	ends, endsErr := admin.ListEndOffsets(ctx, topics...)
	if err := errors.Join(fatal(stablesErr), fatal(endsErr)); err != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	var held []HeldPartition
	set := make(kadm.TopicsSet)
	ends.Each(func(end kadm.ListedOffset) {
		stable, found := stables.Lookup(end.Topic, end.Partition)
		if !found || end.Err != nil || stable.Err != nil || stable.Offset >= end.Offset {
			return
		}
		held = append(held, HeldPartition{
			Topic: end.Topic, Partition: end.Partition,
			Stable: stable.Offset, End: end.Offset, Held: end.Offset - stable.Offset,
			Holders: []Holder{},
		})
		set.Add(end.Topic, end.Partition)
	})
	if len(held) == 0 {
		return nil, nil
	}
	slices.SortFunc(held, func(a, b HeldPartition) int {
		if byTopic := strings.Compare(a.Topic, b.Topic); byTopic != 0 {
			return byTopic
		}
		return int(a.Partition) - int(b.Partition)
	})
	producers, err := admin.DescribeProducers(ctx, set)
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		for i := range held {
			held[i].Hidden = true
		}
		return held, nil
	}
	if err != nil {
		return nil, fmt.Errorf("describe producers: %w", err)
	}
	owners, err := transactionOwners(ctx, admin)
	if err != nil {
		return nil, err
	}
	for i := range held {
		one := &held[i]
		described := producers[one.Topic].Partitions[one.Partition]
		if described.Err != nil {
			return nil, fmt.Errorf("describe producers of %s: %w", partitionName(one.Topic, one.Partition), described.Err)
		}
		for _, producer := range described.ActiveProducers {
			if producer.CurrentTxnStartOffset >= 0 {
				one.Holders = append(one.Holders, newHolder(producer, owners))
			}
		}
		slices.SortFunc(one.Holders, func(a, b Holder) int { return cmp.Compare(a.FirstOffset, b.FirstOffset) })
	}
	return held, nil
}

func newHolder(from kadm.DescribedProducer, owners map[int64]string) Holder {
	to := Holder{
		ProducerID:       from.ProducerID,
		Epoch:            from.ProducerEpoch,
		CoordinatorEpoch: from.CoordinatorEpoch,
		FirstOffset:      from.CurrentTxnStartOffset,
		TransactionalID:  owners[from.ProducerID],
	}
	if from.LastTimestamp > 0 {
		to.LastWrite = time.UnixMilli(from.LastTimestamp)
		to.Hanging = to.TransactionalID == "" && time.Since(to.LastWrite) > hangingAge
	}
	return to
}

// transactionOwners maps producer ids to transactional ids. It is asked after DescribeProducers: a
// coordinator knows a transaction before the first record of it is written, so that a transaction
// missing here is hidden from us or hanging, and not merely new.
func transactionOwners(ctx context.Context, admin *kadm.Client) (map[int64]string, error) {
	listed, err := admin.ListTransactions(ctx, nil, openStates[:])
	if err != nil {
		return nil, fmt.Errorf("list transactions: %w", err)
	}
	owners := make(map[int64]string, len(listed))
	for id, one := range listed {
		owners[one.ProducerID] = id
	}
	return owners, nil
}

// FindTransaction describes the transaction of one transactional id that may be aborted. The error
// tells where the id does not exist, has nothing open, or where the outcome is decided already.
func FindTransaction(ctx context.Context, admin *kadm.Client, id string) (Transaction, error) {
	answer, err := admin.DescribeTransactions(ctx, id)
	if err != nil {
		return Transaction{}, fmt.Errorf("describe transaction %s: %w", id, err)
	}
	described := answer[id]
	if errors.Is(described.Err, kerr.TransactionalIDNotFound) {
		return Transaction{}, fmt.Errorf("transactional id %s does not exist: see `processor txn ls --all`", id)
	}
	if described.Err != nil {
		return Transaction{}, fmt.Errorf("describe transaction %s: %w", id, described.Err)
	}
	switch found := newTransaction(described); found.State {
	case "Ongoing":
		return found, nil
	case "PrepareCommit", "PrepareAbort", "PrepareEpochFence":
		return found, fmt.Errorf("transaction %s is in state %s: its outcome is decided and its coordinator, broker %d, is writing the markers; if it stays so, restart that broker", id, found.State, found.Coordinator)
	default:
		return found, fmt.Errorf("transactional id %s has no open transaction, its state is %s", id, found.State)
	}
}

// AbortTransaction ends the open transaction that FindTransaction finds by taking its transactional
// id over for a moment: the coordinator fences whoever holds it and aborts. A living lane of this
// service notices, and builds a new session.
func AbortTransaction(ctx context.Context, conf Config, id string) (Transaction, error) {
	client, err := conf.Open(ctx, kgo.TransactionalID(id))
	if err != nil {
		return Transaction{}, err
	}
	defer client.Close()
	// An unknown id must not be taken over: that would make it known.
	found, err := FindTransaction(ctx, kadm.NewClient(client), id)
	if err != nil {
		return found, err
	}
	if _, _, err := client.ProducerID(ctx); err != nil {
		return found, fmt.Errorf("take over transactional id %s: %w", id, err)
	}
	return found, nil
}

// FindHanging finds the open transaction in one partition that AbortHanging is to end. Where several
// producers hold the partition, producerID chooses; 0 means the only one. A transaction that is not
// Hanging is an error unless force is given.
func FindHanging(ctx context.Context, admin *kadm.Client, topic string, partition int32, producerID int64, force bool) (Holder, error) {
	held, err := HeldPartitions(ctx, admin, topic)
	if err != nil {
		return Holder{}, err
	}
	name := partitionName(topic, partition)
	at := slices.IndexFunc(held, func(h HeldPartition) bool { return h.Partition == partition })
	if at >= 0 && held[at].Hidden {
		return Holder{}, fmt.Errorf("we may not see who holds %s back: that needs the right to Read the topic", name)
	}
	if at < 0 || len(held[at].Holders) == 0 {
		if err := requirePartition(ctx, admin, topic, partition); err != nil {
			return Holder{}, err
		}
		return Holder{}, fmt.Errorf("no open transaction holds %s back", name)
	}
	holders := held[at].Holders
	if producerID != 0 {
		holders = slices.DeleteFunc(holders, func(h Holder) bool { return h.ProducerID != producerID })
	}
	if len(holders) != 1 {
		return Holder{}, fmt.Errorf("%d open transactions of %s match: choose one with --producer-id, see `processor txn ls --all`", len(holders), name)
	}
	holder := holders[0]
	switch {
	case holder.Hanging, force:
		return holder, nil
	case holder.TransactionalID != "":
		return holder, fmt.Errorf("the transaction in %s belongs to %s and is not hanging: run `processor txn abort %s --reason WHY`", name, holder.TransactionalID, holder.TransactionalID)
	default:
		return holder, fmt.Errorf("the transaction in %s is not known to hang: its producer wrote at %s and its transactional id may be hidden from us; use --force if you know better", name, holder.LastWrite.UTC().Format(time.RFC3339))
	}
}

// requirePartition returns an error unless the partition exists: a slip in its name must not read as
// if all were well with it.
func requirePartition(ctx context.Context, admin *kadm.Client, topic string, partition int32) error {
	details, err := admin.ListTopics(ctx, topic)
	if err == nil {
		err = details[topic].Err
	}
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return fmt.Errorf("topic %s does not exist", topic)
	case err != nil:
		return fmt.Errorf("describe topic %s: %w", topic, err)
	}
	if _, found := details[topic].Partitions[partition]; !found {
		return fmt.Errorf("topic %s has no partition %d, but 0 to %d", topic, partition, len(details[topic].Partitions)-1)
	}
	return nil
}

// AbortHanging writes the abort marker of the holder's transaction straight into one partition
// (KIP-664): its records there are aborted, whatever becomes of those in other partitions. It needs
// the right Alter or ClusterAction on the cluster.
func AbortHanging(ctx context.Context, admin *kadm.Client, topic string, partition int32, holder Holder) error {
	topics := make(kadm.TopicsSet)
	topics.Add(topic, partition)
	answer, err := admin.WriteTxnMarkers(ctx, kadm.TxnMarkers{
		ProducerID:       holder.ProducerID,
		ProducerEpoch:    holder.Epoch,
		CoordinatorEpoch: max(holder.CoordinatorEpoch, 0),
		Topics:           topics,
	})
	if err != nil {
		return fmt.Errorf("write abort marker into %s: %w", partitionName(topic, partition), err)
	}
	var errs []error
	answer.EachPartition(func(written kadm.TxnMarkersPartitionResponse) {
		if written.Err != nil {
			errs = append(errs, fmt.Errorf("write abort marker into %s: %w", partitionName(topic, partition), written.Err))
		}
	})
	return errors.Join(errs...)
}
