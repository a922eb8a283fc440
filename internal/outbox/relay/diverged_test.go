package relay

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"pawl/internal/outbox"
)

// restore takes the ledger back to a backup, and the world's own view of it.
func (w *world) restore(lane int32, backup interface{ restore() }) {
	backup.restore()
	w.tenure(lane)
}

type backupFunc func()

func (f backupFunc) restore() { f() }

// backup remembers the ledger as it is now.
func (w *world) backup() backupFunc {
	saved := w.ledger.Clone()
	return func() { w.ledger.Restore(saved) }
}

// The ledger is restored from a backup of before 60 of 100 effects had their fates. They are ingested and sent
// again, and come in other flushes than the first time, under the same numbers.
func TestRestoredLedgerTellsNothingTwice(t *testing.T) {
	t.Parallel()
	for name, running := range map[string]bool{"while the relay runs": true, "while no relay runs": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				w.settle(0, 40, 5, outbox.Done)
				backup := w.backup()
				p := w.run([]int32{0})
				p.told(40)
				w.settle(0, 60, 5, outbox.Done)
				p.relay.Wake(0)
				p.told(60)
				if !running {
					p.end()
				}

				w.restore(0, backup)
				w.settle(0, 60, 3, outbox.Done) // the same effects again
				w.settle(0, 30, 5, outbox.Done) // and new ones
				if !running {
					p = w.run([]int32{0})
				}
				if sum := p.told(30); sum.Skipped != 60 {
					w.t.Errorf("%d outcomes were skipped, want 60", sum.Skipped)
				}
				d := next(w.t, p.diverged, "divergence")
				if d.Told != 60 || d.Seq != 20 || d.Common != 8 || d.Why == "" || d.Until == 0 {
					w.t.Errorf("the divergence is told as %+v, want flush 8 in common, flush 20 before, and 60 events between", d)
				}
				w.wantOnce(outbox.Done, map[int32]int64{0: 130})
				if len(p.diverged) != 0 {
					w.t.Errorf("the lane diverged %d times more", len(p.diverged))
				}
				if !p.relay.Status().Lanes[0].Diverged {
					w.t.Error("the status does not show that the lane has diverged")
				}
			})
		})
	}
}

// toldSinceBackup runs a relay that has told of ten effects, which the backup has as done, and then of ten
// late ones, which it has as waiting.
func (w *world) toldSinceBackup() (p *process, backup backupFunc, late []int64) {
	late = w.ask(0, 10)
	w.settle(0, 10, 5, outbox.Done)
	backup = w.backup()
	p = w.run([]int32{0})
	p.told(10)
	w.flush(0, fates(outbox.Done, late...)...)
	p.relay.Wake(0)
	p.told(10)
	return p, backup, late
}

// Some effects that the backup knows as waiting are settled a second time only long after the restore, when the
// relay has been restarted on a progress record that fits the ledger again.
func TestRestoredLedgerTellsNothingTwiceAfterRestart(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		p, backup, late := w.toldSinceBackup()

		w.restore(0, backup)
		w.settle(0, 10, 5, outbox.Done)
		p.relay.Wake(0)
		p.told(10)
		p.end()
		p = w.run([]int32{0})
		next(w.t, p.opened, "opening")
		w.flush(0, fates(outbox.Done, late...)...)
		w.settle(0, 5, 5, outbox.Done)
		p.relay.Wake(0)
		p.told(5)
		if len(p.diverged) != 0 {
			w.t.Error("the lane diverged again")
		}
		w.wantOnce(outbox.Done, map[int32]int64{0: 35})
	})
}

// The ledger is restored a second time, from a backup that was made after the first restore. What was told before the
// first is still not told again.
func TestSecondRestoreForgetsNothingOfTheFirst(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		p, backup, late := w.toldSinceBackup()
		w.restore(0, backup)
		for range 3 {
			w.settle(0, 10, 5, outbox.Done)
			p.relay.Wake(0)
			p.told(10)
		}
		backup = w.backup()
		w.settle(0, 10, 5, outbox.Done)
		p.relay.Wake(0)
		p.told(10)
		w.restore(0, backup)
		w.flush(0, fates(outbox.Done, late...)...)
		w.settle(0, 20, 5, outbox.Done)
		p.relay.Wake(0)
		p.told(10)
		if n := len(p.diverged); n != 2 {
			w.t.Errorf("the lane diverged %d times, want 2", n)
		}
		w.wantOnce(outbox.Done, map[int32]int64{0: 70})
	})
}

// The owner of the lane changed after the backup was made. The owner after the restore has the epoch of the one that
// was lost: the backup went to another server, and its clock is behind.
func TestRestoredLedgerIsNoticedUnderTheSameEpoch(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		saved := w.ledger.Clone()
		w.settle(0, 40, 5, outbox.Done)
		p := w.run([]int32{0})
		p.told(40)
		p.end()
		epoch := w.tenures[0].Epoch
		w.ledger = saved
		w.tenure(0)
		if w.tenures[0].Epoch != epoch {
			w.t.Fatalf("the epoch is %d, want %d again", w.tenures[0].Epoch, epoch)
		}
		w.settle(0, 50, 3, outbox.Done)
		w.run([]int32{0}).told(10)
		w.wantOnce(outbox.Done, map[int32]int64{0: 50})
	})
}

// The relay dies in the middle of going through a restored ledger.
func TestDivergedLaneGoesOnAfterDeath(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]bool{"before EndTxn": false, "after EndTxn": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				w.settle(0, 10, 1, outbox.Done)
				backup := w.backup()
				p := w.run([]int32{0})
				p.told(10)
				w.settle(0, 50, 1, outbox.Done)
				p.relay.Wake(0)
				p.told(50)
				p.end()
				w.restore(0, backup)
				w.settle(0, 70, 1, outbox.Done)

				p = w.run(nil)
				p.wire.arm(fault{key: kmsg.EndTxn, after: after, kill: true, then: p.stop})
				p.relay.Assign(0)
				<-p.ended
				if p.wire.struck() != 1 {
					w.t.Fatal("the relay did not die")
				}
				w.run([]int32{0}).told(20)
				w.wantOnce(outbox.Done, map[int32]int64{0: 80})
			})
		})
	}
}

// What was done stays done: the second call of an effect, by a ledger that has forgotten the first, failed.
func TestRestoredLedgerDoesNotTakeDoneBack(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		offsets := w.ask(0, 3)
		w.tenure(0)
		backup := w.backup()
		w.flush(0, append(fates(outbox.Done, offsets[0]), fates(outbox.Dead, offsets[1:]...)...)...)
		p := w.run([]int32{0})
		p.told(3)
		w.restore(0, backup)
		w.flush(0, append(fates(outbox.Dead, offsets[:2]...), fates(outbox.Done, offsets[2])...)...)
		p.relay.Wake(0)
		p.told(1)
		var got []string
		for _, e := range w.events() {
			got = append(got, string(e.Status))
		}
		if text := strings.Join(got, " "); text != "done dead dead done" {
			w.t.Errorf("the events tell %s, want only the last effect's fate to change, from dead to done", text)
		}
	})
}

// `ledger rebuild` starts with an empty ledger.
func TestRebuiltLedgerTellsNothingTwice(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		empty := w.backup()
		w.settle(0, 40, 5, outbox.Done)
		p := w.run([]int32{0})
		p.told(40)
		w.restore(0, empty)
		time.Sleep(time.Hour) //nolint:forbidigo // virtual time
		w.settle(0, 50, 20, outbox.Done)
		p.told(10)
		w.wantOnce(outbox.Done, map[int32]int64{0: 50})
	})
}

// The progress topic was deleted. The results topic still says how far the lane was.
func TestLostProgressTellsNothingTwice(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.settle(0, 40, 5, outbox.Done)
		p := w.run([]int32{0})
		p.told(40)
		p.end()
		if err := w.client.ProduceSync(w.t.Context(), &kgo.Record{Topic: progressTopic, Key: []byte("0")}).FirstErr(); err != nil {
			w.t.Fatal(err)
		}
		w.settle(0, 10, 5, outbox.Done)
		p = w.run([]int32{0})
		p.told(10)
		next(w.t, p.diverged, "divergence")
		w.wantOnce(outbox.Done, map[int32]int64{0: 50})
	})
}

// trimmedLedger is a ledger of which retention has dropped the flushes up to a number.
type trimmedLedger struct {
	Store

	dropped int64
}

func (s *trimmedLedger) Results(ctx context.Context, lane int32, after int64, limit int) ([]outbox.Result, error) {
	return s.Store.Results(ctx, lane, max(after, s.dropped), limit)
}

func (s *trimmedLedger) FlushAt(ctx context.Context, lane int32, seq int64) (int64, int64, bool, error) {
	if seq <= s.dropped {
		return 0, 0, false, nil
	}
	return s.Store.FlushAt(ctx, lane, seq)
}

// Retention has dropped the last flush that was told, and others came since. That is no divergence.
func TestDroppedFlushIsNoDivergence(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.settle(0, 20, 5, outbox.Done)
		p := w.run([]int32{0})
		p.told(20)
		p.end()
		w.settle(0, 20, 5, outbox.Done)
		p = w.run([]int32{0}, func(c *Config) { c.Store = &trimmedLedger{Store: w.ledger, dropped: 4} })
		p.told(20)
		if len(p.diverged) != 0 {
			w.t.Errorf("the lane diverged: %+v", <-p.diverged)
		}
		w.wantOnce(outbox.Done, map[int32]int64{0: 40})
	})
}

// agedLedger cannot give its oldest outcomes any more: the effects that they are about have been dropped.
type agedLedger struct {
	Store

	from int64
}

func (s *agedLedger) Results(ctx context.Context, lane int32, after int64, limit int) ([]outbox.Result, error) {
	if after < s.from {
		return nil, errors.New("there is no such effect")
	}
	return s.Store.Results(ctx, lane, after, limit)
}

// A ledger with a long history is restored. Only what came after the backup is looked at again.
func TestRestoredLedgerGoesOnFromWhatIsInCommon(t *testing.T) {
	t.Parallel()
	for name, running := range map[string]bool{"while the relay runs": true, "while no relay runs": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				aged := func(c *Config) { c.Store = &agedLedger{Store: w.ledger, from: 800} }
				w.settle(0, 500, 1, outbox.Done)
				p := w.run([]int32{0})
				p.told(500)
				for range 100 {
					w.settle(0, 5, 1, outbox.Done)
					p.relay.Wake(0)
					p.told(5)
				}
				p.end()
				backup := w.backup()
				p = w.run([]int32{0}, aged)
				w.settle(0, 30, 1, outbox.Done)
				p.relay.Wake(0)
				p.told(30)
				if !running {
					p.end()
				}
				w.restore(0, backup)
				w.settle(0, 40, 3, outbox.Done)
				if !running {
					p = w.run([]int32{0}, aged)
				}
				p.told(10)
				if d := next(w.t, p.diverged, "divergence"); d.Common < 900 || d.Common > 1000 {
					w.t.Errorf("the divergence is told as %+v, want one of the last flushes before 1000 in common", d)
				}
				w.wantOnce(outbox.Done, map[int32]int64{0: 1040})
			})
		})
	}
}

// However long ago a backup was made, the trail has a flush that is not much older.
func TestTrailIsShortAndReachesBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var trail []anchor
		var all []int64
		seq := int64(1)
		for range rapid.IntRange(1, 2000).Draw(t, "records") {
			now := seq + rapid.Int64Range(1, 64).Draw(t, "step")
			trail = extend(trail, anchor{seq, 1, seq * 10, seq * 20}, now)
			all = append(all, seq)
			seq = now
		}
		if len(trail) > 2*trailTwins*10 {
			t.Fatalf("the trail has %d anchors at flush %d", len(trail), seq)
		}
		for i, a := range trail {
			if i > 0 && a.seq() >= trail[i-1].seq() {
				t.Fatalf("the trail is out of order: %v", trail)
			}
		}
		if trail[0].seq() != all[len(all)-1] || trail[len(trail)-1].seq() != all[0] {
			t.Fatalf("the trail %v does not go from the newest, %d, to the oldest, %d", trail, all[len(all)-1], all[0])
		}
		restored := all[rapid.IntRange(0, len(all)-1).Draw(t, "restored")]
		i := slices.IndexFunc(trail, func(a anchor) bool { return a.seq() <= restored })
		if age, found := seq-restored, seq-trail[i].seq(); found > 64*(age+64) {
			t.Fatalf("a backup is %d flushes old, the next in the trail %v is %d old", age, trail, found)
		}
	})
}

// When retention has dropped the events of the earlier ledger, there is nothing left to leave out.
func TestDivergenceEndsWithTheEventsOfTheEarlierLedger(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.tenure(0)
		backup := w.backup()
		w.settle(0, 10, 5, outbox.Done)
		p := w.run([]int32{0})
		p.told(10)
		w.restore(0, backup)
		w.settle(0, 15, 5, outbox.Done)
		p.relay.Wake(0)
		p.told(5)
		next(w.t, p.diverged, "divergence")
		p.end()
		if err := w.cluster.DeleteRecords(resultsTopic, 0, w.cluster.PartitionInfo(resultsTopic, 0).HighWatermark); err != nil {
			w.t.Fatal(err)
		}
		p = w.run([]int32{0})
		next(w.t, p.opened, "opening")
		if p.relay.Status().Lanes[0].Diverged {
			w.t.Error("the lane is still diverged")
		}
		w.settle(0, 5, 5, outbox.Done)
		p.told(5)
		if n := len(w.events()); n != 5 {
			w.t.Errorf("there are %d events, want 5", n)
		}
	})
}
