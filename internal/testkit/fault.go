package testkit

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Fault picks exchanges of a request and an answer, and says what happens to them. The actions may be
// combined; they take place in the order of the fields.
type Fault struct {
	Key   kmsg.Key                // of the request
	Match func(kmsg.Request) bool // nil: every request of that key. Called on the proxy's goroutines
	Skip  int                     // let so many matching requests pass first
	Times int                     // strike at most so often; 0: until Remove

	DropRequest bool                // cut the connection instead of passing the request on
	HoldRequest <-chan struct{}     // pass the request on only when this is closed
	LoseAnswer  bool                // pass the request on, wait for the answer, then cut the connection
	Rewrite     func(kmsg.Response) // change the answer
	HoldAnswer  <-chan struct{}     // pass the answer on only when this is closed

	// Strike, if set, is called whenever the fault has taken hold of a request (DropRequest,
	// HoldRequest) or of an answer, before the client can notice: the place to kill somebody at that
	// very moment.
	Strike func()
}

// Injection is a fault at work.
type Injection struct {
	Fault
	faults *faults
	seen   int // matching requests so far; guarded by faults.mu
	struck int // of these, picked; guarded by faults.mu
	hits   atomic.Int64
}

// Hits returns how often the fault has happened.
func (i *Injection) Hits() int { return int(i.hits.Load()) }

// AwaitHits waits until the fault has happened so often.
func (i *Injection) AwaitHits(tb testing.TB, timeout time.Duration, hits int) {
	tb.Helper()
	WaitFor(tb, timeout, fmt.Sprintf("%d hits of the fault on %s", hits, i.Key.Name()), func() bool { return i.Hits() >= hits })
}

// Remove ends the fault. Requests that it has picked already are still struck.
func (i *Injection) Remove() {
	i.faults.mu.Lock()
	defer i.faults.mu.Unlock()
	i.Times = -1
}

func (i *Injection) wantsAnswer() bool {
	return i.LoseAnswer || i.Rewrite != nil || i.HoldAnswer != nil
}

func (i *Injection) hit() {
	i.hits.Add(1)
	if i.Strike != nil {
		i.Strike()
	}
}

// faults are those at work on a set of proxies.
type faults struct {
	mu   sync.Mutex
	list []*Injection
}

func (f *faults) begin(fault Fault) *Injection {
	i := &Injection{Fault: fault, faults: f}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = slices.DeleteFunc(f.list, func(old *Injection) bool { return old.Times < 0 }) // removed, nobody falls to it
	f.list = append(f.list, i)
	return i
}

func (f *faults) add(tb testing.TB, fault Fault) *Injection {
	tb.Helper()
	i := f.begin(fault)
	if !fault.DropRequest && fault.HoldRequest == nil && !i.wantsAnswer() {
		tb.Fatalf("fault on %s does nothing", fault.Key.Name())
	}
	tb.Cleanup(func() {
		i.Remove()
		if i.Hits() == 0 && !tb.Failed() {
			tb.Errorf("the fault on %s never happened", fault.Key.Name())
		}
	})
	return i
}

// strike returns the fault that a request of the given key falls to, nil if none does. decode is
// called only where a fault wants to look into the request; false means it cannot be read.
func (f *faults) strike(key int16, decode func() (kmsg.Request, bool)) *Injection {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.list {
		if i.Times < 0 || i.Times > 0 && i.struck >= i.Times || int16(i.Key) != key {
			continue
		}
		if i.Match != nil {
			if request, ok := decode(); !ok || !i.Match(request) {
				continue
			}
		}
		if i.seen++; i.seen <= i.Skip {
			continue
		}
		i.struck++
		return i
	}
	return nil
}

// ErrorCode makes a Rewrite that puts an error into the answer as a whole. It panics for answers that
// have errors only further down, such as those of Produce.
func ErrorCode(err *kerr.Error) func(kmsg.Response) {
	return func(response kmsg.Response) {
		reflect.ValueOf(response).Elem().FieldByName("ErrorCode").SetInt(int64(err.Code))
	}
}
