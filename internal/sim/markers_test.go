//go:build synctests

package sim

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// markers is the state of a coordinator that kfake does not have: it has decided how a transaction ends and
// has said so, and the markers are still to be written. Until they are, readers of what is committed see
// nothing, offsets are unstable, and whatever is asked under the transactional id is answered
// CONCURRENT_TRANSACTIONS.
//
// The answer is made up here, and the same EndTxn is sent to kfake later.
type markers struct {
	world *world

	mu        sync.Mutex
	late      []lateness
	preparing map[string]bool // by transactional id
}

// lateness is a fault that waits for ends of transactions.
type lateness struct {
	kind  string
	left  int
	until time.Time
	late  time.Duration
}

// watch must be called once, before any client asks anything.
func (m *markers) watch() {
	m.preparing = map[string]bool{}
	m.world.cluster.ControlKey(kmsg.EndTxn.Int16(), func(asked kmsg.Request) (kmsg.Response, error, bool) {
		response := m.answer(asked.(*kmsg.EndTxnRequest))
		if response == nil {
			return nil, nil, false // kfake knows what to say
		}
		m.world.cluster.KeepControl()
		return response, nil, true
	})
}

func (m *markers) add(one lateness) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.late = append(m.late, one)
}

// take takes a unit of the first fault that still waits.
func (m *markers) take(id string) (lateness, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.late = slices.DeleteFunc(m.late, func(l lateness) bool { return l.left == 0 || now.After(l.until) })
	if len(m.late) == 0 || m.preparing[id] {
		return lateness{}, false
	}
	m.late[0].left--
	m.preparing[id] = true
	return m.late[0], true
}

func (m *markers) over(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.preparing, id)
}

// answer gives what a coordinator says that has decided and not written yet; nil where no fault waits or the
// transaction can't end as it is asked to. It runs on kfake's goroutine.
func (m *markers) answer(request *kmsg.EndTxnRequest) *kmsg.EndTxnResponse {
	if request.Version < 5 {
		return nil
	}
	one, is := m.take(request.TransactionalID)
	if !is {
		return nil
	}
	hold := m.hold(request.TransactionalID)
	ongoing := false
	m.world.cluster.SleepControl(func() { ongoing = m.ongoing(request, one.late) })
	if !ongoing {
		hold.Remove()
		m.over(request.TransactionalID)
		return nil
	}
	m.world.bit(one.kind)
	m.world.running.Go(func() { m.write(*request, one.late, hold) })
	response := request.ResponseKind().(*kmsg.EndTxnResponse)
	response.ProducerID, response.ProducerEpoch = request.ProducerID, request.ProducerEpoch+1
	return response
}

// hold refuses what is asked under a transactional id, as long as its markers are not written.
func (m *markers) hold(id string) *kfake.FaultHandle {
	ofIt := func(request kmsg.Request) bool {
		switch r := request.(type) {
		case *kmsg.InitProducerIDRequest:
			return r.TransactionalID != nil && *r.TransactionalID == id
		case *kmsg.ProduceRequest:
			return r.TransactionID != nil && *r.TransactionID == id
		case *kmsg.TxnOffsetCommitRequest:
			return r.TransactionalID == id
		default:
			return false
		}
	}
	all := kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID, kmsg.Produce, kmsg.TxnOffsetCommit}, Err: kerr.ConcurrentTransactions, Count: -1, When: ofIt}
	top := all
	top.TopLevel = true
	return m.world.cluster.Fault(all, top)
}

// ongoing asks whether a transaction can end as its client wants it, late.
func (m *markers) ongoing(request *kmsg.EndTxnRequest, late time.Duration) bool {
	ctx, cancel := context.WithTimeout(m.world.ctx, time.Second)
	defer cancel()
	described, err := kadm.NewClient(m.world.client).DescribeTransactions(ctx, request.TransactionalID)
	one := described[request.TransactionalID]
	begun := time.UnixMilli(one.StartTimestamp)
	return err == nil && one.Err == nil && one.State == "Ongoing" && one.ProducerID == request.ProducerID && one.ProducerEpoch == request.ProducerEpoch &&
		time.Until(begun.Add(txnTimeout)) > late+markersMargin
}

// markersMargin is for what keeps the EndTxn that writes the markers from its coordinator.
const markersMargin = 4 * time.Second

// write ends a transaction in kfake, as was said.
func (m *markers) write(request kmsg.EndTxnRequest, late time.Duration, hold *kfake.FaultHandle) {
	w := m.world
	defer m.over(request.TransactionalID)
	defer hold.Remove()
	w.sleep(late)
	for !w.closing() {
		again := kmsg.NewPtrEndTxnRequest()
		again.TransactionalID, again.ProducerID, again.ProducerEpoch, again.Commit = request.TransactionalID, request.ProducerID, request.ProducerEpoch, request.Commit
		response, err := again.RequestWith(w.ctx, w.client)
		if err == nil && response.ErrorCode == 0 {
			return
		}
		if err == nil && !kerr.IsRetriable(kerr.ErrorForCode(response.ErrorCode)) && response.ErrorCode != kerr.UnknownServerError.Code {
			w.void("the markers of %s are not written: %v", request.TransactionalID, kerr.ErrorForCode(response.ErrorCode))
			return
		}
		w.sleep(latency)
	}
}
