// Package transact commits transactions of a kgo.Client that ends them itself.
//
// Client.EndTransaction (franz-go v1.22.3) looks among the partitions that the client knows for one that has acknowledged a
// record. Where there is none it aborts, whatever it was asked for, and reports no error. A topic that is written to for the
// first time gets among what is known only after its records are on their way (storePartitionsUpdate stores last), so that brokers
// may be quicker: a transaction whose records were all acknowledged is aborted, and its producer takes it for committed.
// A kgo.GroupTransactSession is not concerned: the client remembers that it has added offsets.
package transact

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Commit commits the transaction of a client, of whose records all are acknowledged, one of them by this partition. Its
// errors are those of Client.EndTransaction, but for the end of ctx before anything was sent.
func Commit(ctx context.Context, client *kgo.Client, topic string, partition int32) error {
	for !knows(client, topic, partition) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("commit: the client does not know %s/%d, of which it has an answer: %w", topic, partition, context.Cause(ctx))
		case <-time.After(lookAgain):
		}
	}
	return client.EndTransaction(ctx, kgo.TryCommit)
}

// End ends the transaction of a client: it commits as Commit does, or aborts, which needs no record and no partition.
func End(ctx context.Context, client *kgo.Client, end kgo.TransactionEndTry, topic string, partition int32) error {
	if end == kgo.TryCommit {
		return Commit(ctx, client, topic, partition)
	}
	return client.EndTransaction(ctx, kgo.TryAbort)
}

// lookAgain is how soon the client is asked again, which takes a few microseconds to store what it knows.
const lookAgain = time.Millisecond

// knows reports that the client has entered a partition. One without a leader has an epoch.
func knows(client *kgo.Client, topic string, partition int32) bool {
	leader, epoch, _ := client.PartitionLeader(topic, partition) // the error is about the leader
	return leader >= 0 || epoch >= 0
}
