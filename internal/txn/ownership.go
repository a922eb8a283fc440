package txn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// This file is a lane's view of the partitions it owns: what the client tells about them on its own
// goroutine, and the suspects that are written for batches taken from a new partition.

// tenure is the time in which a lane has one session. What a session's client still tells after the
// session was closed, which does not wait for the group, is about partitions of nobody's.
type tenure struct{ lane *lane }

var _ watcher = (*tenure)(nil)

// begin makes what is told to the returned tenure count.
func (l *lane) begin() *tenure {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tenure, l.expelled = &tenure{l}, false
	return l.tenure
}

// lock returns false, with nothing locked, when the session is gone.
func (t *tenure) lock() bool {
	t.lane.mu.Lock()
	if t.lane.tenure != t {
		t.lane.mu.Unlock()
		return false
	}
	return true
}

func (t *tenure) assigned(partitions map[string][]int32) {
	l := t.lane
	if !t.lock() {
		return
	}
	l.state.Joined = true
	for topic, added := range partitions {
		owned := slices.Concat(l.state.Partitions[topic], added)
		slices.Sort(owned)
		l.state.Partitions[topic] = slices.Compact(owned)
	}
	l.mu.Unlock()
	hook2(l.config.Hooks.Assigned, l.number, partitions)
}

// settled takes note of where each new partition begins and looks up whether somebody died there.
func (t *tenure) settled(ctx context.Context, committed map[place]int64, ids map[string][16]byte, halted map[place]error) error {
	l := t.lane
	if l.config.Pauses != nil {
		// A pause that was ordered before we came is known before we read the first record.
		if err := l.config.Pauses.Refresh(ctx); err != nil {
			return err
		}
	}
	past, err := l.memory.read(ctx)
	if err != nil {
		return err
	}
	if !t.lock() {
		return errGone
	}
	maps.Copy(l.ids, ids)
	for at, offset := range committed {
		was := past[suspectKey(ids[at.topic], at.partition)].at(offset)
		l.fresh[at] = fresh{offset: offset, past: was}
	}
	l.mu.Unlock()
	for at, err := range halted {
		l.halted(at, err)
	}
	return nil
}

// errGone is for a client that no longer has anybody to settle for.
var errGone = errors.New("the session is closed")

func (t *tenure) gone(partitions map[string][]int32, lost bool) {
	l := t.lane
	if !t.lock() {
		return
	}
	if lost {
		l.state.Joined, l.expelled = false, true
	}
	l.lost = append(l.lost, partitions)
	for topic, gone := range partitions {
		owned := slices.DeleteFunc(l.state.Partitions[topic], func(p int32) bool { return slices.Contains(gone, p) })
		if len(owned) == 0 {
			delete(l.state.Partitions, topic)
		} else {
			l.state.Partitions[topic] = owned
		}
		l.state.Halted = slices.DeleteFunc(l.state.Halted, func(h HaltedPartition) bool {
			return h.Topic == topic && slices.Contains(gone, h.Partition)
		})
		for _, partition := range gone {
			delete(l.fresh, place{topic, partition})
		}
	}
	l.mu.Unlock()
	if lost {
		hook2(l.config.Hooks.Lost, l.number, partitions)
	} else {
		hook2(l.config.Hooks.Revoked, l.number, partitions)
	}
}

func (t *tenure) found(places map[place]int64, pause func(map[string][]int32)) {
	l := t.lane
	l.pausing.Lock()
	defer l.pausing.Unlock()
	held := map[string][]int32{}
	for at := range places {
		if l.isPaused(at) {
			held[at.topic] = append(held[at.topic], at.partition)
		}
	}
	if len(held) > 0 {
		pause(held)
		l.unsure = true
	}
}

func (t *tenure) retrying(err error) { hook2(t.lane.config.Hooks.Retrying, t.lane.number, err) }

// handleLost does on the lane's goroutine what the loss of partitions asks for.
func (l *lane) handleLost() {
	l.mu.Lock()
	lost := l.lost
	l.lost = nil
	l.mu.Unlock()
	for _, partitions := range lost {
		l.bisect.drop(partitions)
		l.unmark(partitions)
	}
}

// forget clears what belonged to a session that is gone.
func (l *lane) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tenure = nil
	clear(l.fresh)
	l.lost = nil
	l.paused, l.unsure = nil, false
	l.state.Joined = false
	l.state.Partitions = map[string][]int32{}
	l.state.Halted = nil
}

func (l *lane) topicID(topic string) [16]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ids[topic]
}

// halt stops a partition. Nobody reads it any more, so it is not waited for in a hunt either: that would
// keep the limit small for all others, or keep them from being read at all.
func (l *lane) halt(session Session, at place, err error) {
	l.bisect.drop(map[string][]int32{at.topic: {at.partition}})
	l.halted(at, err)
	l.holdBack(session)
}

// holdBack pauses what must not be read now: halted partitions, what an operator paused and, while deaths are
// being hunted, all but the suspects. With one record in flight at a time a busy neighbour would keep the suspects
// from ever getting their turn, and the hunt from ending.
func (l *lane) holdBack(session Session) {
	l.pausing.Lock()
	defer l.pausing.Unlock()
	paused := map[place]bool{}
	l.mu.Lock()
	l.obey(paused)
	for _, h := range l.state.Halted {
		paused[place{h.Topic, h.Partition}] = true
	}
	if l.bisect.crashed {
		for topic, partitions := range l.state.Partitions {
			for _, partition := range partitions {
				at := place{topic, partition}
				if _, suspected := l.bisect.until[at]; !suspected {
					paused[at] = true
				}
			}
		}
	}
	l.mu.Unlock()
	if l.unsure || !maps.Equal(paused, l.paused) {
		session.Pause(paused)
		l.paused, l.unsure = paused, false
	}
}

// obey adds what an operator paused of the partitions that are owned, or are about to be. They are not waited for in a
// hunt, as halted ones are not; their suspicion stays, and the hunt begins anew when they are read again. It
// must be called under the lock.
func (l *lane) obey(paused map[place]bool) {
	owned := pausedOf(l.config.Pauses, l.state.Partitions)
	for topic, partitions := range owned {
		for _, partition := range partitions {
			paused[place{topic, partition}] = true
		}
	}
	for at := range l.fresh { // the client may not have said yet that we own it
		if l.isPaused(at) {
			paused[at] = true
		}
	}
	if len(owned) > 0 {
		l.bisect.drop(owned)
	}
}

func (l *lane) isPaused(at place) bool {
	return l.config.Pauses != nil && l.config.Pauses.Paused(at.topic, at.partition)
}

// pausedOf gives those of the partitions that an operator paused, nil where there are none.
func pausedOf(pauses Pauses, owned map[string][]int32) (paused map[string][]int32) {
	if pauses == nil {
		return nil
	}
	for topic, partitions := range owned {
		for _, partition := range partitions {
			if pauses.Paused(topic, partition) {
				if paused == nil {
					paused = map[string][]int32{}
				}
				paused[topic] = append(paused[topic], partition)
			}
		}
	}
	return paused
}

func (l *lane) halted(at place, err error) {
	l.mu.Lock()
	known := slices.ContainsFunc(l.state.Halted, func(h HaltedPartition) bool {
		return h.Topic == at.topic && h.Partition == at.partition
	})
	delete(l.fresh, at) // it begins nothing any more, no hunt either
	if !known {
		l.state.Halted = append(l.state.Halted, HaltedPartition{at.topic, at.partition, err.Error()})
	}
	l.mu.Unlock()
	if !known {
		hook(l.config.Hooks.Halted, Halted{Lane: l.number, Topic: at.topic, Partition: at.partition, Err: err})
	}
}

// mark writes down, before the handlers see it, that this batch is the first from its partitions.
// If the process dies with it, the next owner of a partition finds the note and counts (rule 7). A
// batch from partitions that have been committed from needs no note, unless deaths are being hunted.
func (l *lane) mark() error {
	marks := map[string]suspect{}
	l.mu.Lock()
	for at, end := range l.batch.ends {
		now, ok := l.fresh[at]
		if !ok {
			continue
		}
		if old, ok := l.marks[at]; ok && (old.note.Offset == now.offset || old.note.Hunting) && old.note.Until >= end {
			continue // a redo, or the next record of a hunt: the note is there
		}
		note := suspect{Offset: now.offset, Until: max(end, now.past.Until), Crashes: now.past.Crashes + 1, Alone: now.past.Alone}
		if len(l.batch.records) == 1 && now.past.Crashes >= crashesMax {
			note.Alone++
			note.Hunting = true
		}
		past := now.past
		past.Offset = now.offset
		l.marks[at] = marked{note, past}
		marks[suspectKey(l.ids[at.topic], at.partition)] = note
	}
	l.mu.Unlock()
	if len(marks) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), controlWriteMax)
	defer cancel()
	return l.memory.write(ctx, marks)
}

// unmark takes notes back that were not followed by a death: the process is alive and gives the
// partitions up. nil means all. A note that can't be taken back counts one death too many, which
// makes a batch small for a while and does no harm.
func (l *lane) unmark(partitions map[string][]int32) {
	notes := map[string]suspect{}
	l.mu.Lock()
	for at, mark := range l.marks {
		if partitions != nil && !slices.Contains(partitions[at.topic], at.partition) {
			continue
		}
		delete(l.marks, at)
		notes[suspectKey(l.ids[at.topic], at.partition)] = mark.past
	}
	l.mu.Unlock()
	if len(notes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), controlWriteMax)
	defer cancel()
	if err := l.memory.write(ctx, notes); err != nil {
		hook2(l.config.Hooks.Retrying, l.number, err)
	}
}

// hunt looks at the notes that newly assigned partitions came with. It reports whether there are new
// suspects.
func (l *lane) hunt() bool {
	var suspected []Suspected
	l.mu.Lock()
	for at, now := range l.fresh {
		if now.past.Crashes < crashesMax || l.bisect.until[at] >= now.past.Until || l.isPaused(at) {
			continue
		}
		l.bisect.died(at, now.past.Until)
		suspected = append(suspected, Suspected{Lane: l.number, Records: l.bisect.limit, Crashes: now.past.Crashes, Why: ReasonHandler})
	}
	l.mu.Unlock()
	for _, s := range suspected {
		hook(l.config.Hooks.Suspected, s)
	}
	return len(suspected) > 0
}

// convictDead finds the record guilty that was alone in flight when processes died.
func (l *lane) convictDead() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for at, now := range l.fresh {
		if now.past.Alone < aloneMax {
			continue
		}
		for _, r := range l.batch.records {
			if r.Topic == at.topic && r.Partition == at.partition {
				l.bisect.convict(spot{at, r.Offset}, fmt.Errorf("%d processes ended while this record was alone in flight", now.past.Alone))
				break
			}
		}
	}
}

// settle takes note of a commit: notes about what is behind us have no meaning any more. While deaths
// are being hunted, the place where the next record begins is a fresh one again.
func (l *lane) settle(ends map[place]int64, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.LastCommit = now
	for at, end := range ends {
		mark, marked := l.marks[at]
		delete(l.marks, at)
		was, ok := l.fresh[at]
		delete(l.fresh, at)
		if !ok || was.past.Crashes < crashesMax || end >= was.past.Until {
			continue
		}
		past := suspect{Offset: end, Until: was.past.Until, Crashes: was.past.Crashes}
		l.fresh[at] = fresh{offset: end, past: past}
		if marked && mark.note.Hunting {
			mark.past = past // to be put back if we give the partition up alive
			l.marks[at] = mark
		}
	}
}

func (l *lane) phase(phase Phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.state.Phase, l.state.Since = phase, now
	switch phase {
	case PhaseWorking:
		l.state.Begun = now
	case PhaseEnding: // of the same transaction
	case PhaseOpening, PhasePolling, PhaseBackoff, PhaseStopped:
		l.state.Begun = time.Time{}
	}
}

// status is safe to call from any goroutine.
func (l *lane) status() LaneStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.state
	s.Partitions = make(map[string][]int32, len(l.state.Partitions))
	for topic, owned := range l.state.Partitions {
		s.Partitions[topic] = slices.Clone(owned)
	}
	s.Paused = pausedOf(l.config.Pauses, l.state.Partitions)
	s.Halted = append([]HaltedPartition{}, l.state.Halted...) // [] in JSON where there are none
	return s
}
