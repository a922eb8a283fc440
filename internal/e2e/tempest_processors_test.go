//go:build chaos && linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// A worker that has been killed is given so long to have its work resumed, by itself or by others.
	takeoverTimeout = 60 * time.Second
	awayFor         = 8 * time.Second // above the session timeout: its partitions move
	shortPauses     = 3
)

// worker is a processor of a tempest. Whoever does something to it holds the lock; the keeper, which
// starts what has died, waits for it.
type worker struct {
	*processor
	mu     sync.Mutex
	wanted bool // to run
}

// processorTroubles are those of the processes under test.
func processorTroubles() []trouble {
	onOne := func(name string, least, most float64, strike func(context.Context, *tempest, *worker) (string, error)) trouble {
		return trouble{name: name, seat: onProcessors, least: least, most: most, strike: func(ctx context.Context, w *tempest, a act) (string, error) {
			victim := w.steady[a.random().IntN(len(w.steady))]
			victim.mu.Lock()
			defer victim.mu.Unlock()
			if !victim.alive() {
				return "", nil // it has just died by itself; the keeper sees to it
			}
			return strike(ctx, w, victim)
		}}
	}
	return []trouble{
		onOne("processor killed, back at once", 2, 5, func(ctx context.Context, w *tempest, v *worker) (string, error) {
			return w.killOne(ctx, v, 0)
		}),
		onOne("processor killed, back after its session", 9, 12, func(ctx context.Context, w *tempest, v *worker) (string, error) {
			return w.killOne(ctx, v, awayFor)
		}),
		{name: "all processors killed", seat: onProcessors, least: 2, most: 4, strike: killAll},
		onOne("processor frozen beyond its session", 8, 12, freezeOne),
		onOne("processor frozen beyond its lease", 17, 20, freezeOne),
		onOne("processor's clock leaps", 4, 8, leap),
		onOne("processor restarted in good order", 2, 4, restartOne),
		{name: "rolling restart", seat: onProcessors, least: 4, most: 8, strike: rollOver},
		{name: "scale up and down by drain", seat: onProcessors, least: 6, most: 12, strike: func(ctx context.Context, w *tempest, _ act) (string, error) {
			return visit(ctx, w, true)
		}},
		{name: "scale up, and gone without leave", seat: onProcessors, least: 6, most: 12, strike: func(ctx context.Context, w *tempest, _ act) (string, error) {
			return visit(ctx, w, false)
		}},
		onOne("twin of the same name", 4, 9, twin),
	}
}

// owned is rig.owned for either protocol.
func (w *tempest) owned(instance string) (partitions []int32, member, ok bool) {
	if w.protocol == protocolClassic {
		return w.rig.owned(instance)
	}
	ctx, cancel := context.WithTimeout(w.ctx, lookTimeout)
	defer cancel()
	groups, err := w.admin.DescribeConsumerGroups(ctx, w.application)
	if err != nil || groups.Error() != nil {
		return nil, false, false
	}
	for _, m := range groups[w.application].Members {
		if m.InstanceID != nil && strings.HasPrefix(*m.InstanceID, w.application+"."+instance+".") {
			member = true
			for partition := range m.Assignment[w.input] {
				partitions = append(partitions, partition)
			}
		}
	}
	return partitions, member, true
}

// killOne kills a worker (SIGKILL) and starts it again under its name, at once or after a while. It
// measures from the death until every partition that it had is committed further.
func (w *tempest) killOne(ctx context.Context, v *worker, away time.Duration) (string, error) {
	owned, _, _ := w.owned(v.name)
	before := w.monitor.offsets()
	v.kill()
	died := time.Now()
	if v.alive() {
		return "", errors.New("it lives on after SIGKILL")
	}
	var watch sync.WaitGroup
	watch.Go(func() { w.awaitTakeover(died, before, owned) })
	defer watch.Wait()
	waitOr(w.ctx.Done(), away)
	v.start(w.t)
	<-ctx.Done()
	return fmt.Sprintf("%s died with partitions %v", v.name, owned), nil
}

// awaitTakeover waits until each of the partitions is committed further or has nothing left, and notes
// how long that took.
func (w *tempest) awaitTakeover(died time.Time, before map[int32]int64, owned []int32) {
	if len(owned) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(w.ctx, takeoverTimeout)
	defer cancel()
	if until(ctx, func() bool { return len(w.monitor.waiting(before, owned)) == 0 }) {
		w.note(func() { w.takeovers = append(w.takeovers, time.Since(died)) })
	} else if w.ctx.Err() == nil {
		w.note(func() { w.takeovers = append(w.takeovers, takeoverTimeout) }) // at least; other faults go on
	}
}

// until asks until the answer is yes; false when ctx ends first.
func until(ctx context.Context, done func() bool) bool {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
	return true
}

// killAll kills everything that works at once, as the loss of a machine does.
func killAll(ctx context.Context, w *tempest, _ act) (string, error) {
	before := w.monitor.offsets()
	var owned []int32
	died := time.Now()
	for _, v := range w.steady {
		v.mu.Lock()
		defer v.mu.Unlock()
		partitions, _, _ := w.owned(v.name)
		owned = append(owned, partitions...)
	}
	for _, v := range w.steady {
		_ = v.signal(syscall.SIGKILL)
	}
	for _, v := range w.steady {
		v.kill() // waits
	}
	var watch sync.WaitGroup
	watch.Go(func() { w.awaitTakeover(died, before, owned) })
	defer watch.Wait()
	for _, v := range w.steady {
		v.start(w.t)
	}
	<-ctx.Done()
	return fmt.Sprintf("%d died at once", len(w.steady)), nil
}

// freezeOne stops a worker (SIGSTOP) for so long that others have its work, and lets it go on as a zombie.
func freezeOne(ctx context.Context, w *tempest, v *worker) (string, error) {
	if err := v.signal(syscall.SIGSTOP); err != nil {
		return "", fmt.Errorf("freeze %s: %w", v.name, err)
	}
	gone := until(ctx, func() bool {
		_, member, ok := w.owned(v.name)
		return ok && !member
	})
	stopped := stateOf(v.pid()) == "T"
	<-ctx.Done()
	if err := v.signal(syscall.SIGCONT); err != nil {
		return "", fmt.Errorf("thaw %s: %w", v.name, err)
	}
	if !gone || !stopped {
		return "", nil
	}
	return v.name + " stood while the group threw it out", nil
}

// stateOf reads the state of a process: T is stopped by a signal.
func stateOf(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) == 0 {
		return ""
	}
	return fields[0]
}

// leap stops a worker again and again for a second or so, less than its session: for the process its clock
// leaps ahead, in the midst of whatever it does.
func leap(ctx context.Context, w *tempest, v *worker) (string, error) {
	leaps := 0
	for range shortPauses {
		if err := v.signal(syscall.SIGSTOP); err != nil {
			return "", fmt.Errorf("freeze %s: %w", v.name, err)
		}
		waitOr(w.ctx.Done(), time.Second)
		if stateOf(v.pid()) == "T" {
			leaps++
		}
		if err := v.signal(syscall.SIGCONT); err != nil {
			return "", fmt.Errorf("thaw %s: %w", v.name, err)
		}
		waitOr(ctx.Done(), time.Second/2)
	}
	<-ctx.Done()
	return proofOf(int64(leaps), "leaps of a second of "+v.name), nil
}

// restartOne ends a worker by SIGTERM and starts it again under its name.
func restartOne(ctx context.Context, w *tempest, v *worker) (string, error) {
	if err := w.endOne(v); err != nil {
		return "", err
	}
	v.start(w.t)
	<-ctx.Done()
	return v.name + " ended with exit code 0 and is back", nil
}

// endOne ends a worker by SIGTERM. One that does not end within its time is killed, as an orchestrator
// does; whatever else it ends with but 0 is an error.
func (w *tempest) endOne(v *worker) error {
	if err := v.signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("end %s: %w", v.name, err)
	}
	waitOr(v.gone, endTimeout)
	if v.alive() {
		v.kill()
		return fmt.Errorf("%s has not ended %s after SIGTERM", v.name, endTimeout)
	}
	return v.err
}

func rollOver(ctx context.Context, w *tempest, _ act) (string, error) {
	for _, v := range w.steady {
		v.mu.Lock()
		err := w.endOne(v)
		v.start(w.t)
		v.mu.Unlock()
		if err != nil {
			return "", err
		}
		w.awaitReady(v)
	}
	<-ctx.Done()
	return fmt.Sprintf("%d restarted one after the other", len(w.steady)), nil
}

// awaitReady waits for a worker to be ready, for as long as a rollout would before it goes on all the same.
func (w *tempest) awaitReady(v *worker) {
	ctx, cancel := context.WithTimeout(w.ctx, startTimeout)
	defer cancel()
	until(ctx, func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.isReady()
	})
}

// visit lets two more processors come, and go again.
func visit(ctx context.Context, w *tempest, leave bool) (string, error) {
	for _, v := range w.extra {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.start(w.t)
	}
	joined := 0
	for _, v := range w.extra {
		if until(ctx, func() bool { owned, _, _ := w.owned(v.name); return len(owned) > 0 }) {
			joined++
		}
	}
	<-ctx.Done()
	var errs []error
	left := 0
	for _, v := range w.extra {
		if leave && w.drain(v) {
			left++
		}
		if v.alive() {
			errs = append(errs, w.endOne(v))
		}
	}
	if joined == 0 || leave && left == 0 {
		return "", errors.Join(errs...)
	}
	return fmt.Sprintf("%d came and had partitions, %d left by drain", joined, left), errors.Join(errs...)
}

// drain makes a worker leave by the program's own command, and tells whether the group knows it no more.
// It ends the work, not the process.
func (w *tempest) drain(v *worker) bool {
	if !v.learnAdmin() {
		return false
	}
	ctx, cancel := context.WithTimeout(w.ctx, endTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, build(w.t), "drain", "--leave", "--yes", "--reason", "scale-down", "--url", "http://"+v.admin, "--token-file", w.token, "-c", w.config)
	cmd.Env = environment()
	return cmd.Run() == nil && until(ctx, func() bool {
		_, member, ok := w.owned(v.name)
		return ok && !member
	})
}

// twin starts another process with the name of a worker. They fence each other, and one of them has to give up
// with a message; the twin is killed in the end, and the worker started again if it was the one: it would
// stay without work for admin.linger, for whoever scrapes it, and end with an error.
func twin(ctx context.Context, w *tempest, v *worker) (string, error) {
	other := w.processor(v.name)
	other.arguments, other.starts = v.arguments, twinStarts+w.twins
	w.twins++
	other.start(w.t)
	gaveUp := func(p *processor) bool { return !p.alive() || strings.Contains(tail(p.log, twinLines), twinSign) }
	until(ctx, func() bool { return gaveUp(v.processor) || gaveUp(other) })
	<-ctx.Done()
	gone := gaveUp(v.processor)
	both := !gone && !gaveUp(other)
	fenced := strings.Contains(tail(other.log, twinLines)+tail(v.log, twinLines), "lane fenced")
	other.kill()
	if gone {
		v.kill()
		v.start(w.t)
	}
	switch {
	case !both:
		return "one of the two " + v.name + " gave up", nil
	case fenced:
		return "the two " + v.name + " fenced each other", nil
	default:
		return "", nil
	}
}

const (
	twinStarts = 1000 // keeps the logs of twins apart from those of whom they double
	twinLines  = 200  // of these logs, to look for fences in
	twinSign   = "another process has our name"
)
