package yardstick

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Copied is how fast processes copied a backlog.
type Copied struct {
	Rate    float64       `json:"records_per_second"` // between the first and the last commit
	StartUp time.Duration `json:"start_up_ns"`        // from the start of the processes to the first commit
	Took    time.Duration `json:"took_ns"`            // from the first to the last commit
}

// Copy waits until a group has committed count records and all that it wrote can be read. The processes
// were started at began; progress is told how many records are committed.
func (s *Stage) Copy(ctx context.Context, task Task, count int64, began time.Time, processes []*Process, progress func(records int64)) (Copied, error) {
	var first, last time.Time
	var atFirst int64
	err := s.Poll(ctx, processes, func() (bool, error) {
		records, settled, err := s.committed(ctx, task)
		now := time.Now()
		if err == nil && records > 0 && first.IsZero() {
			first, atFirst = now, records
		}
		last = now
		progress(records)
		return records >= count && settled, err
	})
	if err != nil {
		return Copied{}, err
	}
	result := Copied{StartUp: first.Sub(began), Took: last.Sub(first)}
	if result.Took > 0 {
		result.Rate = float64(count-atFirst) / result.Took.Seconds()
	}
	return result, nil
}

// Markers is how many offsets of a topic hold no record of the count that was written to it. In a topic
// that only transactions wrote to, and of which none aborted, these are the markers of their commits.
func (s *Stage) Markers(ctx context.Context, topic string, count int64) (int64, error) {
	ends, err := s.ends(ctx, topic)
	if err != nil {
		return 0, err
	}
	markers := -count
	ends.Each(func(end kadm.ListedOffset) { markers += end.Offset })
	return markers, nil
}

// Transactions is how many transactions the producers with these ids have ended, none of which had another
// owner before. Where transaction.version is 2 each has an epoch of its own, and the brokers tell the last
// one; where it is not, there is no telling and the answer is 0.
func (s *Stage) Transactions(ctx context.Context, ids ...string) (int64, error) {
	described, err := s.Admin.DescribeTransactions(ctx, ids...)
	if err != nil {
		return 0, fmt.Errorf("describe transactions: %w", err)
	}
	ended := int64(0)
	for _, one := range described {
		if one.Err != nil && !errors.Is(one.Err, kerr.TransactionalIDNotFound) { // one that had nothing to do
			return 0, fmt.Errorf("describe the transactions of %s: %w", one.TxnID, one.Err)
		}
		ended += max(0, int64(one.ProducerEpoch))
	}
	return ended, nil
}
