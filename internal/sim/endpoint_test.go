//go:build synctests

package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"sync"
	"time"

	"pawl/internal/outbox"
)

// transmission is one call as the endpoint saw it.
type transmission struct {
	outbox.Call

	process  string
	at       time.Time
	executed bool
	status   int
	heard    bool // the caller was told
	late     bool // its process stood still while it was on its way, and meanwhile gave it up or lost the lane
}

// weather is how an endpoint feels for a while.
type weather struct {
	kind  string
	until time.Time
	share int // of calls, in percent
}

// journal is the endpoint of all processes. What it does about a call follows from the call, the seed
// and the weather; what it did it writes down.
type journal struct {
	seed uint64
	bit  func(kind string)

	mu      sync.Mutex
	calls   []transmission
	weather []weather
	epochs  map[int32]int64 // of the last tenure of each lane, as the ledger gave them out
	stale   []string        // calls that began although their tenure had ended
}

func (j *journal) cloud(w weather) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.weather = append(j.weather, w)
}

func (j *journal) clear() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.weather = nil
}

// acquired is told of each tenure.
func (j *journal) acquired(tenure outbox.Tenure) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.epochs[tenure.Lane] = max(j.epochs[tenure.Lane], tenure.Epoch)
}

// fate picks the weather that a call meets, "" for none.
func (j *journal) fate(call outbox.Call) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%d/%d/%d/%d", j.seed, call.Intent.Lane, call.Intent.Offset, call.Attempt)
	dice := int(h.Sum32()>>3) % 100
	now := time.Now()
	for _, w := range j.weather {
		if now.Before(w.until) && dice < w.share {
			return w.kind
		}
	}
	return ""
}

// receive is the endpoint's side of a call. It returns what it would answer and how long that takes.
func (j *journal) receive(call outbox.Call, process string, late bool) (answer outbox.Answer, takes time.Duration, index int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	kind := j.fate(call)
	if kind != "" {
		j.bit(kind)
	}
	t := transmission{Call: call, process: process, at: time.Now(), late: late}
	answer, takes = outbox.Answer{Sent: true}, time.Millisecond
	switch kind {
	case "endpoint-refuses":
		return outbox.Answer{Err: errRefused}, takes, -1
	case "endpoint-503":
		answer.Status = http.StatusServiceUnavailable
	case "endpoint-429":
		answer.Status, answer.RetryAfter = http.StatusTooManyRequests, 2*time.Second
	default:
		var body effect
		if err := json.Unmarshal(call.Intent.Body, &body); err != nil {
			panic(err) // no such body was ever made
		}
		answer.Status = http.StatusOK
		t.executed = !body.Refuse
		if body.Refuse {
			answer.Status = http.StatusUnprocessableEntity
		}
		if kind == "endpoint-answer-lost" {
			answer = outbox.Answer{Err: errAnswerLost, Sent: true}
		}
		if kind == "endpoint-slow" {
			takes = 2 * callTimeout
		}
	}
	t.status = answer.Status
	j.calls = append(j.calls, t)
	return answer, takes, len(j.calls) - 1
}

func (j *journal) heard(index int) {
	if index < 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.calls[index].heard = true
}

var (
	errRefused    = errors.New("connection refused")
	errAnswerLost = errors.New("connection reset")
)

const callTimeout = 3 * time.Second

// line is the way of one process to the endpoint.
type line struct {
	journal *journal
	process *process
}

// Send implements dispatch.Target.
func (l line) Send(ctx context.Context, call outbox.Call) outbox.Answer {
	power := l.process.power
	late := power.blocked() != nil
	if err := power.wait(ctx); err != nil {
		if ctx.Err() != nil && !power.over() && late {
			go l.arriveLate(call) //nolint:contextcheck // its caller has given up
		}
		return outbox.Answer{Err: err, Sent: true}
	}
	stale := l.journal.epoch(call.Intent.Lane) != call.Fence
	excused := late || l.process.world.outlived(call)
	if stale && !excused {
		l.journal.accuse(call, l.process.name)
	}
	answer, takes, index := l.journal.receive(call, l.process.name, stale && (excused || l.process.world.hasTwins()))
	timer := time.NewTimer(takes)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return outbox.Answer{Err: ctx.Err(), Sent: true}
	}
	if err := power.wait(ctx); err != nil {
		return outbox.Answer{Err: err, Sent: true}
	}
	if answer.Err == nil {
		l.journal.heard(index)
	}
	return answer
}

// arriveLate makes a call of which its process, once it runs again, thinks that it has timed out: the
// bytes were on their way.
func (l line) arriveLate(call outbox.Call) {
	if l.process.power.wait(context.Background()) == nil {
		l.journal.bit("late-call")
		l.journal.receive(call, l.process.name, true)
	}
}

func (j *journal) epoch(lane int32) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.epochs[lane]
}

// accuse notes a call that a process begins whose tenure has ended, while nothing keeps the process from
// knowing.
func (j *journal) accuse(call outbox.Call, process string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stale = append(j.stale, fmt.Sprintf("%s calls %d:%d under epoch %d, the lane is at %d", process, call.Intent.Lane, call.Intent.Offset, call.Fence, j.epochs[call.Intent.Lane]))
}
