package ledgertest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"pawl/internal/outbox"
)

// Memory is a ledger in memory. Its clock is time.Now, so that leases run out in virtual time where a
// test has that. It refuses flushes that no sound dispatcher writes, such as a second outcome of one
// intent, and says why. The zero value is empty and ready for use, by any number of goroutines.
type Memory struct {
	// Fail is asked before a method does anything (after is false) and when it has done what it does
	// (after is true). An error that it gives is what the method returns: with after, what was changed
	// stays changed, as when the answer to a commit is lost. Set it before the ledger is used. It is
	// called from many goroutines at once.
	Fail func(method string, after bool) error

	// RecoveredMax replaces outbox.RecoveredMax where it is not 0. Set it before the ledger is used.
	RecoveredMax int

	mu     sync.Mutex
	lanes  map[int32]*lane
	first  map[businessKey]firstUse
	audit  []outbox.Audit  // order number n is at n-1
	epochs map[int32]int64 // the highest that lanes were given, which no restore takes back
}

var _ Store = (*Memory)(nil)

type businessKey struct{ endpoint, key string }

type firstUse struct {
	lane   int32
	offset int64
	hash   [sha256.Size]byte
}

// lane is all that the ledger knows of one.
type lane struct {
	known   bool
	topicID [16]byte
	next    int64
	seen    map[outbox.Origin]outbox.Mark
	intents []outbox.Intent
	appends int
	reach   int64 // how far it had been ingested before a restore

	owner string
	epoch int64
	until time.Time

	low     int64
	flushes []flush // flush number n is at n-1
	settled outbox.Ranges
	parked  map[int64]parked
	sending map[int64]outbox.Sending
	dead    map[int64]bool
	holds   map[int64]outbox.Hold
	orders  []outbox.Order
	told    int64
}

type flush struct {
	epoch    int64
	outcomes []outbox.Outcome
}

// parked keeps times instead of durations.
type parked struct {
	outbox.Parked

	due, first time.Time
}

func newLane() *lane {
	return &lane{
		seen: map[outbox.Origin]outbox.Mark{}, parked: map[int64]parked{},
		sending: map[int64]outbox.Sending{}, dead: map[int64]bool{}, holds: map[int64]outbox.Hold{},
	}
}

// do runs a method under the lock and the failures of the test.
func (m *Memory) do(ctx context.Context, method string, work func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	if m.Fail != nil {
		if err := m.Fail(method, false); err != nil {
			return err
		}
	}
	if err := m.locked(work); err != nil {
		return err
	}
	if m.Fail != nil {
		return m.Fail(method, true)
	}
	return nil
}

func (m *Memory) locked(work func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lanes == nil {
		m.lanes, m.first = map[int32]*lane{}, map[businessKey]firstUse{}
	}
	if m.epochs == nil {
		m.epochs = map[int32]int64{}
	}
	return work()
}

// lane must be called under the lock.
func (m *Memory) lane(number int32) *lane {
	l := m.lanes[number]
	if l == nil {
		l = newLane()
		m.lanes[number] = l
	}
	return l
}

// Head implements Store.
func (m *Memory) Head(ctx context.Context, number int32) (outbox.Head, error) {
	head := outbox.Head{Lane: number}
	err := m.do(ctx, "Head", func() error {
		if l := m.lane(number); l.known {
			head = outbox.Head{Lane: number, Known: true, TopicID: l.topicID, Next: l.next, Seen: maps.Clone(l.seen)}
		}
		return nil
	})
	return head, err
}

// Seed implements Store.
func (m *Memory) Seed(ctx context.Context, number int32, topicID [16]byte, next int64) error {
	return m.do(ctx, "Seed", func() error {
		l := m.lane(number)
		if l.known {
			return fmt.Errorf("seed lane %d: it stands at %d: %w", number, l.next, outbox.ErrOvertaken)
		}
		l.known, l.topicID, l.next = true, topicID, next
		return nil
	})
}

// Append implements Store.
func (m *Memory) Append(ctx context.Context, batch *outbox.Batch) error {
	return m.do(ctx, "Append", func() error {
		if err := checkBatch(batch); err != nil {
			return fmt.Errorf("append to lane %d: %w", batch.Lane, err)
		}
		l := m.lane(batch.Lane)
		if !l.known || l.next != batch.Base || l.topicID != batch.TopicID {
			return fmt.Errorf("append to lane %d at %d: %w", batch.Lane, batch.Base, outbox.ErrOvertaken)
		}
		for i := range batch.Intents {
			intent := &batch.Intents[i]
			intent.Twin = m.twin(intent)
			l.intents = append(l.intents, *intent)
		}
		maps.Copy(l.seen, batch.Seen)
		l.next = batch.Next
		l.appends++
		return nil
	})
}

func checkBatch(batch *outbox.Batch) error {
	if batch.Next <= batch.Base {
		return fmt.Errorf("the batch ends at %d and begins at %d", batch.Next, batch.Base)
	}
	from := batch.Base
	for _, intent := range batch.Intents {
		if intent.Lane != batch.Lane || intent.Offset < from || intent.Offset >= batch.Next {
			return fmt.Errorf("intent %d:%d is out of place", intent.Lane, intent.Offset)
		}
		from = intent.Offset + 1
	}
	return nil
}

// twin finds the intent that was first with a business key, or makes this one the first.
func (m *Memory) twin(intent *outbox.Intent) *outbox.Twin {
	if intent.BusinessKey == "" {
		return nil
	}
	key := businessKey{intent.Endpoint, intent.BusinessKey}
	hash := sha256.Sum256(slices.Concat([]byte(intent.ContentType), []byte{0}, intent.Body))
	if first, taken := m.first[key]; taken {
		return &outbox.Twin{Lane: first.lane, Offset: first.offset, Same: first.hash == hash}
	}
	m.first[key] = firstUse{intent.Lane, intent.Offset, hash}
	return nil
}

// Acquire implements Store.
func (m *Memory) Acquire(ctx context.Context, number int32, owner string, ttl time.Duration) (outbox.Tenure, error) {
	var tenure outbox.Tenure
	err := m.do(ctx, "Acquire", func() error {
		l, now := m.lane(number), time.Now()
		if l.owner != owner && now.Before(l.until) {
			return fmt.Errorf("acquire lane %d: %s has it: %w", number, l.owner, outbox.ErrHeld)
		}
		tenure = outbox.Tenure{Lane: number, After: l.epoch}
		l.epoch = max(l.epoch, m.epochs[number]) + 1
		m.epochs[number] = l.epoch
		l.owner, l.until = owner, now.Add(ttl)
		tenure.Epoch, tenure.Until = l.epoch, l.until
		return nil
	})
	return tenure, err
}

// fenced must be called under the lock.
func (m *Memory) fenced(tenure outbox.Tenure) (*lane, error) {
	l := m.lane(tenure.Lane)
	if l.epoch != tenure.Epoch {
		return nil, fmt.Errorf("lane %d is at epoch %d, not %d: %w", tenure.Lane, l.epoch, tenure.Epoch, outbox.ErrFenced)
	}
	return l, nil
}

// Renew implements Store.
func (m *Memory) Renew(ctx context.Context, tenure outbox.Tenure, ttl time.Duration) (outbox.Tenure, []outbox.Order, error) {
	var orders []outbox.Order
	err := m.do(ctx, "Renew", func() error {
		l, err := m.fenced(tenure)
		if err != nil {
			return err
		}
		now := time.Now()
		if !now.Before(l.until) {
			return fmt.Errorf("the lease of lane %d ran out: %w", tenure.Lane, outbox.ErrFenced)
		}
		l.until = now.Add(ttl)
		m.conclude(l, now, func(o outbox.Order) outbox.OrderResult {
			if _, parked := l.parked[o.Offset]; o.Action == outbox.RetryNow && l.settled.Contains(o.Offset) && !l.dead[o.Offset] && !parked {
				return outbox.Late
			}
			return outbox.Open
		})
		tenure.Until, tenure.Seq, orders = l.until, int64(len(l.flushes)), slices.Clone(l.orders)
		return nil
	})
	return tenure, orders, err
}

// Owner implements Store.
func (m *Memory) Owner(ctx context.Context, number int32) (owner string, err error) {
	err = m.do(ctx, "Owner", func() error {
		if l := m.lane(number); time.Now().Before(l.until) {
			owner = l.owner
		}
		return nil
	})
	return owner, err
}

// Release implements Store.
func (m *Memory) Release(ctx context.Context, tenure outbox.Tenure) error {
	return m.do(ctx, "Release", func() error {
		l, err := m.fenced(tenure)
		if err != nil {
			return err
		}
		l.owner, l.until = "", time.Time{}
		return nil
	})
}

// Recover implements Store.
func (m *Memory) Recover(ctx context.Context, tenure outbox.Tenure) (outbox.Recovery, error) {
	var r outbox.Recovery
	err := m.do(ctx, "Recover", func() error {
		l, err := m.fenced(tenure)
		if err != nil {
			return err
		}
		r.Low, r.Seq = l.low, int64(len(l.flushes))
		for _, settled := range l.settled {
			r.Settled = r.Settled.Add(max(settled.From, l.low), settled.To)
		}
		r.Rest = l.low
		all := l.waiting(0)
		below, _ := slices.BinarySearchFunc(all, l.low, func(p outbox.Parked, at int64) int { return cmp.Compare(p.Offset, at) })
		if most := cmp.Or(m.RecoveredMax, outbox.RecoveredMax); below >= most {
			r.Rest = all[most-1].Offset + 1
			all = slices.Delete(all, most, below)
		}
		r.Parked = all
		r.Holds = slices.SortedFunc(maps.Values(l.holds), func(a, b outbox.Hold) int { return cmp.Compare(a.Offset, b.Offset) })
		r.Sending = slices.SortedFunc(maps.Values(l.sending), func(a, b outbox.Sending) int { return cmp.Compare(a.Offset, b.Offset) })
		return nil
	})
	return r, err
}

// waiting gives the parked ones from an offset on.
func (l *lane) waiting(from int64) []outbox.Parked {
	now := time.Now()
	var all []outbox.Parked
	for _, p := range l.parked {
		if p.Offset >= from {
			p.In, p.Since = max(0, p.due.Sub(now)), now.Sub(p.first)
			all = append(all, p.Parked)
		}
	}
	slices.SortFunc(all, func(a, b outbox.Parked) int { return cmp.Compare(a.Offset, b.Offset) })
	return all
}

// Waiting implements Store.
func (m *Memory) Waiting(ctx context.Context, number int32, from int64, limit int) ([]outbox.Parked, error) {
	var all []outbox.Parked
	err := m.do(ctx, "Waiting", func() error {
		all = m.lane(number).waiting(from)
		all = all[:min(limit, len(all))]
		return nil
	})
	return all, err
}

// find gives the index of the first intent at or above an offset.
func (l *lane) find(offset int64) (int, bool) {
	return slices.BinarySearchFunc(l.intents, offset, func(intent outbox.Intent, at int64) int { return cmp.Compare(intent.Offset, at) })
}

// Page implements Store.
func (m *Memory) Page(ctx context.Context, number int32, from int64, limit int) (intents []outbox.Intent, next int64, err error) {
	err = m.do(ctx, "Page", func() error {
		l := m.lane(number)
		begin, _ := l.find(from)
		end := min(len(l.intents), begin+limit)
		intents, next = slices.Clone(l.intents[begin:end]), l.next
		if end < len(l.intents) {
			next = from
			if end > begin {
				next = l.intents[end-1].Offset + 1
			}
		}
		return nil
	})
	return intents, next, err
}

// Get implements Store.
func (m *Memory) Get(ctx context.Context, number int32, offsets []int64) ([]outbox.Intent, error) {
	var intents []outbox.Intent
	err := m.do(ctx, "Get", func() error {
		l := m.lane(number)
		for _, offset := range slices.Sorted(slices.Values(offsets)) {
			i, found := l.find(offset)
			if !found {
				return fmt.Errorf("lane %d has no intent at %d", number, offset)
			}
			intents = append(intents, l.intents[i])
		}
		return nil
	})
	return intents, err
}

// Begin implements Store.
func (m *Memory) Begin(ctx context.Context, tenure outbox.Tenure, sending []outbox.Sending) error {
	return m.do(ctx, "Begin", func() error {
		l, err := m.fenced(tenure)
		if err != nil {
			return err
		}
		for _, s := range sending {
			l.sending[s.Offset] = s
		}
		return nil
	})
}

// Flush implements Store.
func (m *Memory) Flush(ctx context.Context, f outbox.Flush) error {
	return m.do(ctx, "Flush", func() error {
		l, err := m.fenced(f.Tenure)
		if err != nil {
			return err
		}
		if err := l.check(f); err != nil {
			return fmt.Errorf("flush %d of lane %d: %w", f.Seq, f.Tenure.Lane, err)
		}
		l.apply(f)
		m.conclude(l, time.Now(), func(o outbox.Order) outbox.OrderResult {
			_, parked := l.parked[o.Offset]
			switch {
			case !slices.Contains(f.Obeyed, o.Number):
				return outbox.Open
			case o.Action == outbox.Cancel && l.dead[o.Offset], o.Action == outbox.RetryNow && (parked || f.Covered.Contains(o.Offset)):
				return outbox.Obeyed
			default:
				return outbox.Late
			}
		})
		return nil
	})
}

// had tells whether a dispatcher may know of an intent. The ledger in Postgres does not look for it: whoever owned the
// lane before a restore, and still does, writes down how effects have ended that are yet to be ingested again.
func (l *lane) had(offset int64) bool {
	_, found := l.find(offset)
	return found || offset >= l.next && offset < l.reach
}

// check refuses what a dispatcher must never write.
func (l *lane) check(f outbox.Flush) error {
	switch want := int64(len(l.flushes)) + 1; {
	case f.Seq > want:
		return fmt.Errorf("the next one is %d, those before it are not there any more: %w", want, outbox.ErrFenced)
	case f.Seq < want:
		return fmt.Errorf("the next one is %d", want)
	}
	if f.Low < l.low {
		return fmt.Errorf("the low mark goes back from %d to %d", l.low, f.Low)
	}
	given, last := map[int64]bool{}, int64(-1)
	for _, o := range f.Settled {
		if o.Offset <= last {
			return errors.New("the outcomes do not ascend")
		}
		last, given[o.Offset] = o.Offset, true
		if !l.had(o.Offset) {
			return fmt.Errorf("the outcome of %d has no intent", o.Offset)
		}
		if _, again := l.parked[o.Offset]; l.settled.Contains(o.Offset) && !again {
			return fmt.Errorf("%d has an outcome already", o.Offset)
		}
		if !f.Covered.Contains(o.Offset) {
			return fmt.Errorf("%d is settled and not covered", o.Offset)
		}
	}
	for _, h := range f.Holds {
		if !given[h.Offset] || len(h.Key) == 0 {
			return fmt.Errorf("%d holds no key, or is not settled by this flush", h.Offset)
		}
	}
	waiting := map[int64]bool{}
	for _, p := range f.Parked {
		if !l.had(p.Offset) || given[p.Offset] {
			return fmt.Errorf("%d is parked and has no intent, or is settled by the same flush", p.Offset)
		}
		waiting[p.Offset] = true
	}
	for _, covered := range f.Covered {
		for i, _ := l.find(covered.From); i < len(l.intents) && l.intents[i].Offset < covered.To; i++ {
			if !given[l.intents[i].Offset] {
				return fmt.Errorf("%d is covered without an outcome", l.intents[i].Offset)
			}
		}
	}
	for i, _ := l.find(l.low); i < len(l.intents) && l.intents[i].Offset < f.Low; i++ {
		offset := l.intents[i].Offset
		if _, is := l.parked[offset]; !is && !waiting[offset] && !given[offset] && !l.settled.Contains(offset) {
			return fmt.Errorf("the low mark %d passes %d, which is neither settled nor parked", f.Low, offset)
		}
	}
	return nil
}

func (l *lane) apply(f outbox.Flush) {
	now := time.Now()
	for _, o := range f.Settled {
		delete(l.parked, o.Offset)
		delete(l.sending, o.Offset)
		delete(l.dead, o.Offset)
		if o.Status == outbox.Dead {
			l.dead[o.Offset] = true
		}
	}
	for _, p := range f.Parked {
		delete(l.dead, p.Offset)
		delete(l.sending, p.Offset)
		l.parked[p.Offset] = parked{p, now.Add(p.In), now.Add(-p.Since)}
	}
	for _, offset := range f.Freed {
		delete(l.holds, offset)
	}
	for _, h := range f.Holds {
		l.holds[h.Offset] = h
	}
	for _, covered := range f.Covered {
		l.settled = l.settled.Add(covered.From, covered.To)
	}
	l.low = f.Low
	l.flushes = append(l.flushes, flush{f.Tenure.Epoch, slices.Clone(f.Settled)})
}

// conclude takes orders that are done with out of a lane and notes what became of them.
func (m *Memory) conclude(l *lane, now time.Time, judge func(outbox.Order) outbox.OrderResult) {
	l.orders = slices.DeleteFunc(l.orders, func(o outbox.Order) bool {
		result := judge(o)
		if result == outbox.Open {
			return false
		}
		a := &m.audit[o.Number-1]
		a.Result, a.Owner, a.Ended = result, l.owner, now
		return true
	})
}

// Results implements Store.
func (m *Memory) Results(ctx context.Context, number int32, after int64, limit int) ([]outbox.Result, error) {
	var results []outbox.Result
	err := m.do(ctx, "Results", func() error {
		l := m.lane(number)
		for seq := after + 1; seq <= int64(len(l.flushes)) && limit > 0; seq++ {
			f := l.flushes[seq-1]
			for _, outcome := range f.outcomes {
				i, found := l.find(outcome.Offset)
				if !found {
					return fmt.Errorf("lane %d has no intent at %d", number, outcome.Offset)
				}
				results = append(results, outbox.Result{Seq: seq, Epoch: f.epoch, Outcome: outcome, Intent: l.intents[i]})
			}
			if len(f.outcomes) > 0 {
				limit--
			}
		}
		return nil
	})
	return results, err
}

// FlushAt implements Store.
func (m *Memory) FlushAt(ctx context.Context, number int32, seq int64) (epoch, lastOffset int64, found bool, err error) {
	err = m.do(ctx, "FlushAt", func() error {
		l := m.lane(number)
		if seq < 1 || seq > int64(len(l.flushes)) {
			return nil
		}
		f := l.flushes[seq-1]
		epoch, lastOffset, found = f.epoch, -1, true
		if n := len(f.outcomes); n > 0 {
			lastOffset = f.outcomes[n-1].Offset
		}
		return nil
	})
	return epoch, lastOffset, found, err
}

// Told implements Store.
func (m *Memory) Told(ctx context.Context, tenure outbox.Tenure, seq int64) error {
	return m.do(ctx, "Told", func() error {
		l, err := m.fenced(tenure)
		if err != nil {
			return err
		}
		l.told = max(l.told, seq)
		return nil
	})
}

// Order implements Store.
func (m *Memory) Order(ctx context.Context, order outbox.Order, actor string) error {
	return m.do(ctx, "Order", func() error {
		order.Number = int64(len(m.audit)) + 1
		m.audit = append(m.audit, outbox.Audit{Order: order, Actor: actor, At: time.Now(), Result: outbox.Open})
		l := m.lane(order.Lane)
		l.orders = append(l.orders, order)
		return nil
	})
}

// Audit implements Store.
func (m *Memory) Audit(ctx context.Context, filter outbox.AuditFilter) ([]outbox.Audit, error) {
	return m.audits(ctx, "Audit", func(a outbox.Audit) bool {
		return !a.At.Before(filter.Since) && (filter.Actor == "" || a.Actor == filter.Actor)
	}, func(found []outbox.Audit) []outbox.Audit {
		slices.Reverse(found)
		return found[:min(len(found), cmp.Or(filter.Limit, auditLimit))]
	})
}

const auditLimit = 100

// AuditOf implements Store.
func (m *Memory) AuditOf(ctx context.Context, number int32, offset int64) ([]outbox.Audit, error) {
	return m.audits(ctx, "AuditOf", func(a outbox.Audit) bool { return a.Order.Lane == number && a.Order.Offset == offset },
		func(found []outbox.Audit) []outbox.Audit { return found })
}

func (m *Memory) audits(ctx context.Context, method string, fits func(outbox.Audit) bool, cut func([]outbox.Audit) []outbox.Audit) ([]outbox.Audit, error) {
	var found []outbox.Audit
	err := m.do(ctx, method, func() error {
		for _, a := range m.audit {
			if fits(a) {
				found = append(found, a)
			}
		}
		return nil
	})
	return cut(found), err
}

// Clone is a backup: what the ledger holds now, without its Fail.
func (m *Memory) Clone() *Memory {
	backup := &Memory{RecoveredMax: m.RecoveredMax}
	m.copyTo(backup)
	return backup
}

// Restore replaces what the ledger holds by a backup, under the feet of whoever uses it.
func (m *Memory) Restore(backup *Memory) {
	between := backup.Clone() // so that never two locks are held
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.lanes
	m.lanes, m.first, m.audit = between.lanes, between.first, between.audit
	for number, l := range before {
		m.lane(number).reach = max(l.reach, l.next)
	}
}

func (m *Memory) copyTo(to *Memory) {
	m.mu.Lock()
	defer m.mu.Unlock()
	to.lanes, to.first, to.audit = map[int32]*lane{}, map[businessKey]firstUse{}, slices.Clone(m.audit)
	maps.Copy(to.first, m.first)
	for number, l := range m.lanes {
		c := *l
		c.seen, c.parked, c.sending, c.dead = maps.Clone(l.seen), maps.Clone(l.parked), maps.Clone(l.sending), maps.Clone(l.dead)
		c.holds = maps.Clone(l.holds)
		c.intents, c.flushes, c.settled, c.orders = slices.Clone(l.intents), slices.Clone(l.flushes), slices.Clone(l.settled), slices.Clone(l.orders)
		to.lanes[number] = &c
	}
}

// Next is where a lane stands, 0 where it was never ingested. Unlike Head it never fails.
func (m *Memory) Next(number int32) (next int64) {
	_ = m.locked(func() error {
		next = m.lane(number).next
		return nil
	})
	return next
}

// Intents gives all that a lane holds.
func (m *Memory) Intents(number int32) (intents []outbox.Intent) {
	_ = m.locked(func() error {
		intents = slices.Clone(m.lane(number).intents)
		return nil
	})
	return intents
}

// Appends counts the batches that a lane took, its seed not included.
func (m *Memory) Appends(number int32) (n int) {
	_ = m.locked(func() error {
		n = m.lane(number).appends
		return nil
	})
	return n
}

// Dead gives the offsets of a lane's dead intents that nobody has retried.
func (m *Memory) Dead(number int32) (offsets []int64) {
	_ = m.locked(func() error {
		offsets = slices.Sorted(maps.Keys(m.lane(number).dead))
		return nil
	})
	return offsets
}

// Epoch gives the highest epoch that a lane was given.
func (m *Memory) Epoch(number int32) (epoch int64) {
	_ = m.locked(func() error {
		epoch = m.epochs[number]
		return nil
	})
	return epoch
}

// Settled gives what has an outcome of a lane.
func (m *Memory) Settled(number int32) (settled outbox.Ranges) {
	_ = m.locked(func() error {
		settled = slices.Clone(m.lane(number).settled)
		return nil
	})
	return settled
}

// Sending gives the at-most-once intents of a lane that were begun and have no outcome.
func (m *Memory) Sending(number int32) (offsets []int64) {
	_ = m.locked(func() error {
		offsets = slices.Sorted(maps.Keys(m.lane(number).sending))
		return nil
	})
	return offsets
}

// Relayed gives the last flush of a lane that Told was called for.
func (m *Memory) Relayed(number int32) (seq int64) {
	_ = m.locked(func() error {
		seq = m.lane(number).told
		return nil
	})
	return seq
}
