package txn

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/transact"
)

// End implements Session. It is what kgo.GroupTransactSession.End does, without its forced heartbeat (DESIGN.md).
func (k *kgoSession) End(commit bool) ending {
	var e ending
	if commit {
		e.produce = k.flush()
	} else {
		e.produce = k.failed()
	}
	e.refused = isRefusal(e.produce)
	// A topic was deleted, and maybe made anew. The client keeps to the id that it knows, on purpose.
	e.stale = errors.Is(e.produce, kerr.UnknownTopicID)
	e.wanted = commit && e.produce == nil // rule 1

	if begin, ok := errors.AsType[*beginError](e.produce); ok {
		e.err = begin
		return e
	}
	ctx, cancel := context.WithTimeout(context.Background(), k.config.endTimeout())
	defer cancel()
	e.committed, e.err = k.finish(ctx, e.wanted)
	if e.wanted && !e.committed && e.err == nil {
		// Rule 3. What cannot be compared is not equal.
		ctx, cancel := context.WithTimeout(context.Background(), k.config.endTimeout())
		defer cancel()
		equal, err := offsetsEqual(ctx, k.client, k.config.Group, k.topicID, k.believes())
		e.offsetsEqual = equal && err == nil
	}
	return e
}

// flush waits for the promises and returns the first failure.
func (k *kgoSession) flush() error {
	ctx, cancel := context.WithTimeout(context.Background(), k.config.flushTimeout())
	defer cancel()
	err := k.client.Flush(ctx)
	if failure := k.failed(); failure != nil {
		return failure
	}
	if err != nil {
		return fmt.Errorf("flush: no answer within %s: %w", k.config.flushTimeout(), err)
	}
	return nil
}

func (k *kgoSession) failed() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failure
}

// finish commits what was handed out and produced, or aborts it and goes back to what is committed. Where nothing was
// produced there is no transaction, and the offsets are committed as such.
func (k *kgoSession) finish(ctx context.Context, commit bool) (committed bool, err error) {
	var offsets map[place]kgo.EpochOffset
	var unstored error
	stored := false
	if !commit {
		if err := k.client.AbortBufferedRecords(ctx); err != nil {
			return false, fmt.Errorf("abort buffered records: %w", err)
		}
	} else if offsets = k.due(); k.begun {
		stored, unstored = k.store(ctx, offsets)
	}
	k.deciding <- struct{}{}
	defer func() { <-k.deciding }()
	commit = commit && !k.gaveAway()
	if k.begun {
		committed, err = k.endTransaction(ctx, commit && stored)
	} else if commit {
		committed, err = answer(commitOffsets(ctx, k.client, k.config.Group, k.member, offsets, k.topicID))
	}
	k.begun = false
	k.mu.Lock()
	k.failure, k.given = nil, false
	if committed {
		k.moved(offsets)
	}
	k.sieve.ended(committed)
	k.mu.Unlock()
	if err == nil {
		err = unstored
	}
	if !committed && err == nil {
		k.rewind()
	}
	return committed, err
}

// due is how far the group may commit, of what is not committed so far.
func (k *kgoSession) due() map[place]kgo.EpochOffset {
	polled := k.client.UncommittedOffsets()
	k.mu.Lock()
	defer k.mu.Unlock()
	due := map[place]kgo.EpochOffset{}
	for topic, partitions := range polled {
		for partition, to := range partitions {
			at := place{topic, partition}
			to.Offset = k.sieve.position(at, to.Offset)
			if from, owned := k.believed[at]; owned && from.Offset != to.Offset {
				due[at] = to
			}
		}
	}
	return due
}

// moved takes note of a commit, but for what was given away meanwhile. The caller holds k.mu.
func (k *kgoSession) moved(offsets map[place]kgo.EpochOffset) {
	for at, offset := range offsets {
		if _, owned := k.believed[at]; owned {
			k.believed[at] = offset
		}
	}
}

// storeBackoff is the pause before offsets are sent once more.
const storeBackoff = 5 * time.Millisecond

// store adds offsets to the transaction. A refusal that passes with a rebalance, or with the end of the transaction before
// this one, is no answer while nothing was given away.
func (k *kgoSession) store(ctx context.Context, offsets map[place]kgo.EpochOffset) (stored bool, err error) {
	for {
		err := k.commitInTransaction(ctx, offsets)
		if !passes(err) || k.gaveAway() || !pause(ctx, storeBackoff) {
			return answer(err)
		}
	}
}

// answer tells whether offsets were stored. An error means that nobody knows, or that somebody else has our name.
func answer(err error) (stored bool, unknown error) {
	if err == nil || passes(err) || refused(err) {
		return err == nil, nil
	}
	return false, err
}

func (k *kgoSession) gaveAway() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.given
}

// passes tells refusals of offsets that a member in good standing meets: a rebalance is under way, and the client will know
// the new generation in a moment, or the coordinator is not done with the transaction before.
func passes(err error) bool {
	return anyOf(err, kerr.IllegalGeneration, kerr.StaleMemberEpoch, kerr.RebalanceInProgress, kerr.ConcurrentTransactions)
}

// refused tells answers to offsets after which they are not stored and the session is as good as before.
func refused(err error) bool {
	return anyOf(err, kerr.UnknownMemberID, kerr.GroupIDNotFound, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress,
		kerr.NotCoordinator, kerr.UnknownServerError, kerr.TransactionAbortable, errOtherProducer)
}

// endTries bounds how often a transaction that is not committed is aborted anew.
const endTries = 10

// endTransaction sends EndTxn. What the client did not send as a commit, or had no clear answer to, is aborted; whether an
// unclear one was committed after all is for rule 3 to find out.
func (k *kgoSession) endTransaction(ctx context.Context, commit bool) (committed bool, err error) {
	for range endTries {
		err = transact.End(ctx, k.client, kgo.TransactionEndTry(commit), k.wrote.at.topic, k.wrote.at.partition)
		if !anyOf(err, kerr.OperationNotAttempted, kerr.TransactionAbortable, kerr.UnknownServerError) {
			break
		}
		if errors.Is(err, kerr.UnknownTopicID) { // a topic that it produced to was made anew
			return false, errors.Join(err, k.client.EndTransaction(ctx, kgo.TryAbort))
		}
		commit = false
	}
	return commit && err == nil, err
}

// rewindIfAsked goes back to what is committed where the sieve wants to read again and nothing is in hand.
func (k *kgoSession) rewindIfAsked() {
	k.deciding <- struct{}{}
	defer func() { <-k.deciding }()
	k.mu.Lock()
	asked := k.sieve.rewinds()
	if asked {
		k.sieve.ended(false)
	}
	k.mu.Unlock()
	if asked {
		k.rewind()
	}
}

// rewind lets the client go on from what is committed. The caller holds k.deciding, so that nothing which is set
// back is given away meanwhile.
func (k *kgoSession) rewind() {
	k.mu.Lock()
	to := byTopic(k.believed)
	k.mu.Unlock()
	k.client.SetOffsets(to)
}

// believes is a copy of believed without epochs.
func (k *kgoSession) believes() map[place]int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	offsets := make(map[place]int64, len(k.believed))
	for at, offset := range k.believed {
		offsets[at] = offset.Offset
	}
	return offsets
}
