package txn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// undertaker ends the transactions of lanes that are gone and that nobody starts again. The group throws a member out
// when its session ends, and its partitions move; but the offsets that its last transaction wrote stay unstable
// (KIP-447), so that the new owner can't begin, and readers of what it wrote are held back, until the coordinator
// ends that transaction at its timeout. Whoever takes the transactional id over ends it at once (KIP-98).
//
// That is safe whoever the member is and whatever it does: the coordinator decides between its EndTxn and our fence, so
// that its transaction is committed or aborted as a whole, and to the loser the outcome is unknown (rule 2). A lane that
// was only away, frozen or cut off, comes back to a new session, as it would have anyway. That only lanes which are no
// members are fenced is no question of safety, but of work done in vain.
type undertaker struct {
	config Config
	plain  *kgo.Client
	own    []string        // our lanes: their sessions see to themselves
	known  map[string]bool // lanes of others that have been members, and are not known to be buried
}

// openState is what a coordinator calls a transaction that nobody has ended yet.
const openState = "Ongoing"

// run looks after every heartbeat: so often members hear of a change. What can't be looked at is asked for less and less
// often, as by a lane: brokers that are away are not to be kept busy.
func (u *undertaker) run(ctx context.Context) {
	ticker := time.NewTicker(u.config.Heartbeat)
	defer ticker.Stop()
	failures := 0 // in a row
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := u.look(ctx)
		switch {
		case stopping(ctx):
			return
		case err == nil:
			failures = 0
		default:
			failures++
			hook(u.config.Hooks.Buried, Buried{Err: err})
			pause(ctx, jitter(failures))
		}
	}
}

// look ends what lanes have left open that were members once and are none any more.
func (u *undertaker) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	gone, err := u.missing(ctx, slices.Collect(maps.Keys(u.known)))
	if err != nil || len(gone) == 0 {
		return err
	}
	open, err := u.open(ctx, gone)
	if err != nil {
		return err
	}
	// Asked again: who came back meanwhile may have begun the transaction that we saw.
	if gone, err = u.missing(ctx, gone); err != nil {
		return err
	}
	for _, lane := range gone {
		if slices.Contains(open, lane) {
			if err := fence(ctx, u.plain, lane, u.config.Timeout); err != nil {
				return err
			}
			hook(u.config.Hooks.Buried, Buried{Member: lane})
		}
		delete(u.known, lane)
	}
	return nil
}

// missing finds those of the lanes that are no members, and takes note of the members there are. A group without any
// of our own lanes tells nothing: we are not in it, or a broker answers as the coordinator that it was.
func (u *undertaker) missing(ctx context.Context, lanes []string) (missing []string, err error) {
	members, err := u.config.roster(ctx, u.plain)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(u.own, func(lane string) bool { return members[lane] != "" }) {
		return nil, nil
	}
	for _, lane := range lanes {
		if members[lane] == "" {
			missing = append(missing, lane)
		}
	}
	for lane := range members {
		// Who else is in our group is none of our business.
		if strings.HasPrefix(lane, u.config.Application+".") && !slices.Contains(u.own, lane) {
			u.known[lane] = true
		}
	}
	return missing, nil
}

// open finds those of the lanes that have an open transaction.
func (u *undertaker) open(ctx context.Context, lanes []string) (open []string, err error) {
	described, err := kadm.NewClient(u.plain).DescribeTransactions(ctx, lanes...)
	if err != nil {
		return nil, fmt.Errorf("describe transactions: %w", err)
	}
	for _, one := range described {
		switch {
		case errors.Is(one.Err, kerr.TransactionalIDNotFound):
		case one.Err != nil:
			return nil, fmt.Errorf("describe transaction of %s: %w", one.TxnID, one.Err)
		case one.State == openState:
			open = append(open, one.TxnID)
		}
	}
	return open, nil
}
