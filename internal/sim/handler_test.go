//go:build synctests

package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"sync/atomic"
	"time"

	"pawl/internal/message"
)

// The names of the application under test.
const (
	application   = "sim"
	inTopic       = "in"
	outA, outB    = "out-a", "out-b"
	outSettled    = "out-settled"
	effectsTopic  = "sim.effects"
	resultsTopic  = "sim.effect-results"
	progressTopic = "sim.relay-progress"
	deadTopic     = "sim.dead-letter"
	controlTopic  = "sim.control"
	group         = "sim"
	ledgerGroup   = "sim.ledger" // of those who ingest
	endpointName  = "shop"

	partitions = 4 // of inputs and outputs
	lanes      = 3
)

// input is the value of an input record. What is to be made of it follows from its number, so that the
// check can say it without asking the handler.
type input struct {
	ID  int    `json:"id"`
	Key string `json:"key"`
	N   int    `json:"n"` // of its key, from 1
}

// asks is what an input asks for.
type asks struct {
	reject  string // reason of the dead letter, "" for none
	outs    []string
	effects []effect
}

// effect is the body of a call.
type effect struct {
	ID       int    `json:"id"`
	Index    int    `json:"index"`
	Business string `json:"business,omitempty"`
	Refuse   bool   `json:"refuse,omitempty"` // by the endpoint, for good
	Depth    int    `json:"depth,omitempty"`  // 1 for the compensation of a refused one
	Once     bool   `json:"once,omitempty"`
}

func dice(id int, what string) int {
	h := fnv.New32a()
	fmt.Fprintf(h, "%d/%s", id, what)
	return int(h.Sum32()>>3) % 100
}

// expect is the model of the handler.
func expect(in input) asks {
	var a asks
	switch d := dice(in.ID, "fate"); {
	case d < 2:
		return asks{reject: "refused"}
	case d < 4:
		return asks{reject: "panic"}
	}
	for range []int{1, 1, 1, 2, 0}[dice(in.ID, "a")%5] {
		a.outs = append(a.outs, "a")
	}
	for range dice(in.ID, "b") % 2 {
		a.outs = append(a.outs, "b")
	}
	for i := range []int{0, 1, 1, 2}[dice(in.ID, "effects")%4] {
		e := effect{ID: in.ID, Index: i}
		switch d := dice(in.ID, fmt.Sprint("effect", i)); {
		case d < 10:
			e.Business = fmt.Sprintf("order-%d", in.ID/20)
		case d < 18:
			e.Refuse = true
		case d < 30:
			e.Once = true
		}
		a.effects = append(a.effects, e)
	}
	return a
}

func (e effect) message() message.Effect {
	m := message.Effect{Endpoint: endpointName, BusinessKey: e.Business}
	if e.Business != "" { // the same body for all that share the key
		e.ID, e.Index = 0, 0
	}
	if e.Once {
		m.Class = message.AtMostOnce
	}
	m.Body, _ = json.Marshal(e)
	return m
}

// refusal is a reject.
type refusal struct{}

func (refusal) Error() string  { return "refused on purpose" }
func (refusal) Reason() string { return "refused" }

// work makes what an input asks for.
type work struct {
	trouble *trouble
}

var errTransient = errors.New("the handler has a bad moment")

func (w work) Handle(in message.In, out *message.Batch) error {
	if err := w.trouble.strike(); err != nil {
		return err
	}
	var i input
	if err := json.Unmarshal(in.Value, &i); err != nil {
		return err
	}
	a := expect(i)
	switch a.reject {
	case "refused":
		return refusal{}
	case "panic":
		panic("on purpose")
	}
	for _, output := range a.outs {
		out.Emit(message.Out{Output: output, Key: in.Key, Value: in.Value})
	}
	for _, e := range a.effects {
		out.Call(e.message())
	}
	return nil
}

// settle turns each result into an output, and into a compensating call where the first was refused.
type settle struct{}

// told is what it reads of a result event.
type told struct {
	EffectID string `json:"effect_id"`
	Status   string `json:"status"`
	Request  struct {
		Body []byte `json:"body"`
	} `json:"request"`
}

// compensates says what a result asks for beside its output.
func (t told) compensates() (effect, bool) {
	var e effect
	if err := json.Unmarshal(t.Request.Body, &e); err != nil || t.Status != "dead" || e.Depth > 0 {
		return effect{}, false
	}
	return effect{ID: e.ID, Index: e.Index, Depth: 1}, true
}

func (settle) Handle(in message.In, out *message.Batch) error {
	var t told
	if err := json.Unmarshal(in.Value, &t); err != nil {
		return err
	}
	out.Emit(message.Out{Output: "settled", Key: in.Key, Value: fmt.Appendf(nil, "%s %s", t.EffectID, t.Status)})
	if e, yes := t.compensates(); yes {
		out.Call(e.message())
	}
	return nil
}

// trouble is what is wrong with the handlers of a process for a while.
type trouble struct {
	slowUntil atomic.Int64 // each call takes slowCall
	stuck     atomic.Int64 // so many calls do not return
	failing   atomic.Int64 // so many calls fail without a reason
	bit       func(kind string)
}

const (
	slowCall  = 400 * time.Millisecond
	stuckCall = 20 * time.Second
)

func take(n *atomic.Int64) bool {
	for {
		left := n.Load()
		if left <= 0 {
			return false
		}
		if n.CompareAndSwap(left, left-1) {
			return true
		}
	}
}

func (t *trouble) strike() error {
	switch {
	case take(&t.stuck):
		t.bit("stuck-handler")
		time.Sleep(stuckCall) //nolint:forbidigo // virtual time
	case take(&t.failing):
		t.bit("failing-handler")
		return errTransient
	case time.Now().UnixNano() < t.slowUntil.Load():
		t.bit("slow-handler")
		time.Sleep(slowCall) //nolint:forbidigo // virtual time
	}
	return nil
}

func (t *trouble) end() {
	t.slowUntil.Store(0)
	t.stuck.Store(0)
	t.failing.Store(0)
}

// keyOf spreads inputs over keys, one of them hot.
func keyOf(id int) string {
	if dice(id, "hot") < 30 {
		return "hot"
	}
	return fmt.Sprintf("key-%d", dice(id, "key")%12)
}
