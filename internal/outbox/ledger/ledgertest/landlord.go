package ledgertest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pawl/internal/outbox"
)

// Leases holds the leases of a ledger against a model: whatever owners do in whatever order, at most one of them has
// a lane, epochs only grow, whoever was overtaken writes nothing, and nobody loses a lane that is his. The store
// must have no lane with a number from 1000 on. rounds bounds how many histories are tried: a database is slow.
//
// A lease that is over is one that was taken for less than no time: nobody has to wait, in a database either.
func Leases(t *testing.T, store Store, rounds int32) {
	t.Helper()
	var lanes atomic.Int32
	var failed atomic.Bool // then the history is made smaller, in as many rounds as that takes
	rapid.Check(t, func(t *rapid.T) {
		n := lanes.Add(1)
		if n > rounds && !failed.Load() {
			return
		}
		defer func() { failed.CompareAndSwap(false, t.Failed()) }()
		m := &landlord{store: store, ctx: context.Background(), lane: 1000 + n}
		if err := store.Seed(m.ctx, m.lane, [16]byte{1}, 0); err != nil {
			t.Fatal(err)
		}
		t.Repeat(map[string]func(*rapid.T){
			"acquire": m.acquire, "renew": m.renew, "release": m.release, "flush": m.flush, "note": m.note, "recover": m.recover, "": m.check,
		})
	})
}

// landlord is the model of one lane.
type landlord struct {
	store Store
	ctx   context.Context
	lane  int32

	owner   string // "" where nobody has it
	over    bool   // the lease has run out
	epoch   int64
	seq     int64 // of the last flush
	tenures []outbox.Tenure
}

const past, long = -time.Minute, time.Hour

// term draws whether a lease lasts or is over as soon as it is taken.
func term(t *rapid.T) time.Duration {
	if rapid.IntRange(0, 3).Draw(t, "over") == 0 {
		return past
	}
	return long
}

func (m *landlord) acquire(t *rapid.T) {
	owner, ttl := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "owner"), term(t)
	tenure, err := m.store.Acquire(m.ctx, m.lane, owner, ttl)
	if m.owner != "" && m.owner != owner && !m.over {
		if !errors.Is(err, outbox.ErrHeld) {
			t.Fatalf("%s got the lane of %s: %+v, %v", owner, m.owner, tenure, err)
		}
		return
	}
	if err != nil || tenure.Epoch <= m.epoch || tenure.After != m.epoch || tenure.Lane != m.lane {
		t.Fatalf("%s got %+v, %v; the epoch before is %d", owner, tenure, err, m.epoch)
	}
	m.owner, m.over, m.epoch = owner, ttl == past, tenure.Epoch
	m.tenures = append(m.tenures, tenure)
}

// one draws a tenure that there was, the newest more often than the others.
func (m *landlord) one(t *rapid.T) outbox.Tenure {
	if len(m.tenures) == 0 {
		t.Skip("nobody has had the lane")
	}
	if rapid.Bool().Draw(t, "newest") {
		return m.tenures[len(m.tenures)-1]
	}
	return rapid.SampledFrom(m.tenures).Draw(t, "tenure")
}

// expect checks that an act of a tenure is refused exactly where it must be.
func (m *landlord) expect(t *rapid.T, what string, err error, right bool) {
	if right && err != nil || !right && !errors.Is(err, outbox.ErrFenced) {
		t.Fatalf("%s gave %v; the tenure has the right to it: %t", what, err, right)
	}
}

func (m *landlord) renew(t *rapid.T) {
	tenure, ttl := m.one(t), term(t)
	renewed, _, err := m.store.Renew(m.ctx, tenure, ttl)
	right := tenure.Epoch == m.epoch && m.owner != "" && !m.over
	m.expect(t, "renew", err, right)
	if right {
		if renewed.Epoch != tenure.Epoch || renewed.Seq != m.seq {
			t.Fatalf("renewed is %+v after flush %d", renewed, m.seq)
		}
		m.over = ttl == past
	}
}

func (m *landlord) release(t *rapid.T) {
	tenure := m.one(t)
	right := tenure.Epoch == m.epoch
	m.expect(t, "release", m.store.Release(m.ctx, tenure), right)
	if right {
		m.owner = ""
	}
}

func (m *landlord) flush(t *rapid.T) {
	tenure := m.one(t)
	right := tenure.Epoch == m.epoch
	m.expect(t, "flush", m.store.Flush(m.ctx, outbox.Flush{Tenure: tenure, Seq: m.seq + 1}), right)
	if right {
		m.seq++
	}
}

func (m *landlord) note(t *rapid.T) {
	tenure := m.one(t)
	m.expect(t, "note", m.store.Begin(m.ctx, tenure, []outbox.Sending{{Offset: 0, Attempt: 1}}), tenure.Epoch == m.epoch)
}

func (m *landlord) recover(t *rapid.T) {
	tenure := m.one(t)
	recovery, err := m.store.Recover(m.ctx, tenure)
	right := tenure.Epoch == m.epoch
	m.expect(t, "recover", err, right)
	if right && recovery.Seq != m.seq {
		t.Fatalf("recovered flush %d, want %d", recovery.Seq, m.seq)
	}
}

// check asks whose the lane is.
func (m *landlord) check(t *rapid.T) {
	want := m.owner
	if m.over {
		want = ""
	}
	if owner, err := m.store.Owner(m.ctx, m.lane); err != nil || owner != want {
		t.Fatalf("the lane is %q's, %v, want %q", owner, err, want)
	}
}
