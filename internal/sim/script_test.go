//go:build synctests

package sim

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/txn"
)

// Script is one history as it was planned. The same script gives the same faults at the same virtual
// times; what they meet depends on the scheduler of the runtime, so that a script is played many times.
type Script struct {
	Seed     uint64        `json:"seed"`
	Replicas int           `json:"replicas"`
	Lanes    int           `json:"lanes"` // of each engine
	Protocol string        `json:"protocol"`
	Start    txn.Start     `json:"start,omitempty"` // as input.start; earliest where nothing is said
	Inputs   int           `json:"inputs"`
	Wave     int           `json:"wave"`   // so many at once
	Spread   time.Duration `json:"spread"` // over which they are written
	Faults   []Fault       `json:"faults"`
}

// Fault is one decision of the nemesis.
type Fault struct {
	At      time.Duration `json:"at"`
	Kind    string        `json:"kind"`
	Replica int           `json:"replica"`
	For     time.Duration `json:"for,omitempty"`     // how long it lasts, or how long a process is away
	Request string        `json:"request,omitempty"` // that it waits for
	Code    string        `json:"code,omitempty"`    // that is answered
	Count   int           `json:"count,omitempty"`
	Share   int           `json:"share,omitempty"` // of calls, in percent
	Node    int           `json:"node,omitempty"`
	Topic   string        `json:"topic,omitempty"`
	Late    time.Duration `json:"late,omitempty"`
}

// name is what a fault is counted under.
func (f Fault) name() string {
	parts := []string{f.Kind, f.Request, f.Topic, f.Code}
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), ":")
}

func (f Fault) String() string {
	return fmt.Sprintf("%s replica=%d for=%s count=%d share=%d node=%d", f.name(), f.Replica, f.For, f.Count, f.Share, f.Node)
}

const (
	troubleFrom = 2 * time.Second // the first fault
	troubleTo   = 70 * time.Second
)

// codes are the errors that brokers may answer, by request. None of them asks for an operator.
var codes = map[kmsg.Key][]*kerr.Error{
	kmsg.EndTxn: {
		kerr.UnknownServerError, kerr.ConcurrentTransactions, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress,
		kerr.CoordinatorNotAvailable, kerr.TransactionAbortable, kerr.InvalidTxnState, kerr.ProducerFenced, kerr.InvalidProducerEpoch,
	},
	kmsg.Produce: {
		kerr.NotLeaderForPartition, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut, kerr.UnknownProducerID,
		kerr.OutOfOrderSequenceNumber, kerr.InvalidProducerEpoch, kerr.ConcurrentTransactions, kerr.TransactionAbortable,
		kerr.MessageTooLarge, kerr.InvalidTxnState, kerr.UnknownServerError, kerr.KafkaStorageError,
	},
	kmsg.TxnOffsetCommit: {
		kerr.UnknownServerError, kerr.ConcurrentTransactions, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.IllegalGeneration,
		kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.RequestTimedOut, kerr.FencedInstanceID,
	},
	kmsg.InitProducerID:  {kerr.ConcurrentTransactions, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.ProducerFenced},
	kmsg.JoinGroup:       {kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.UnknownMemberID, kerr.RebalanceInProgress},
	kmsg.SyncGroup:       {kerr.RebalanceInProgress, kerr.UnknownMemberID, kerr.NotCoordinator},
	kmsg.Heartbeat:       {kerr.RebalanceInProgress, kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.NotCoordinator, kerr.FencedInstanceID},
	kmsg.OffsetFetch:     {kerr.UnstableOffsetCommit, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress},
	kmsg.OffsetCommit:    {kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.NotCoordinator, kerr.RequestTimedOut},
	kmsg.Fetch:           {kerr.NotLeaderForPartition, kerr.KafkaStorageError, kerr.UnknownLeaderEpoch, kerr.FencedLeaderEpoch},
	kmsg.FindCoordinator: {kerr.CoordinatorNotAvailable},
	kmsg.Metadata:        {kerr.LeaderNotAvailable},
}

// lies are the errors that a broker may answer although it has done what it was asked: its answer was
// lost on the way through the cluster.
var lies = map[kmsg.Key][]*kerr.Error{
	kmsg.EndTxn:          {kerr.UnknownServerError, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.RequestTimedOut},
	kmsg.Produce:         {kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotLeaderForPartition, kerr.UnknownServerError},
	kmsg.TxnOffsetCommit: {kerr.UnknownServerError, kerr.RequestTimedOut, kerr.NotCoordinator},
	kmsg.InitProducerID:  {kerr.NotCoordinator, kerr.CoordinatorNotAvailable},
}

// lossy are the requests that are lost, or whose answers are. Those of transactions come up more often.
var lossy = []kmsg.Key{
	kmsg.EndTxn, kmsg.EndTxn, kmsg.EndTxn, kmsg.TxnOffsetCommit, kmsg.TxnOffsetCommit, kmsg.Produce, kmsg.Produce,
	kmsg.InitProducerID, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat, kmsg.OffsetFetch, kmsg.OffsetCommit, kmsg.Fetch, kmsg.Metadata, kmsg.FindCoordinator,
}

// refusable are the topics that a transaction writes to beside the dead letters, and refusals the errors after which the
// client gives a batch up and goes on with the transaction.
var (
	refusable = []string{outA, outB, outSettled, effectsTopic}
	refusals  = []*kerr.Error{kerr.InvalidTxnState, kerr.InvalidTxnState, kerr.MessageTooLarge, kerr.InvalidRecord}
)

// deadly are the requests at which a process dies.
var deadly = []kmsg.Key{kmsg.EndTxn, kmsg.EndTxn, kmsg.TxnOffsetCommit, kmsg.Produce, kmsg.InitProducerID, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.OffsetCommit}

// makers draw the particulars of a fault, by kind.
var makers = map[string]func(r *rand.Rand, f *Fault){
	"crash":          func(r *rand.Rand, f *Fault) { f.For = between(r, 0, 8*time.Second) },
	"crash-for-good": func(*rand.Rand, *Fault) {},
	"restart":        func(r *rand.Rand, f *Fault) { f.For = between(r, 0, 3*time.Second) },
	"leave":          func(r *rand.Rand, f *Fault) { f.For = between(r, time.Second, 10*time.Second) },
	"pause":          func(r *rand.Rand, f *Fault) { f.For = between(r, time.Second, 25*time.Second) },
	"twin":           func(r *rand.Rand, f *Fault) { f.For = between(r, time.Second, 8*time.Second) },

	"cut":          func(*rand.Rand, *Fault) {},
	"network-held": func(r *rand.Rand, f *Fault) { f.For = between(r, 500*time.Millisecond, 20*time.Second) },
	"broker-held": func(r *rand.Rand, f *Fault) {
		f.For, f.Node = between(r, 500*time.Millisecond, 20*time.Second), r.IntN(brokers)
	},
	"request-lost": func(r *rand.Rand, f *Fault) { f.Request = pick(r, lossy).Name(); f.burst(r) },
	"answer-lost":  func(r *rand.Rand, f *Fault) { f.Request = pick(r, lossy).Name(); f.burst(r) },
	"answer-late":  func(r *rand.Rand, f *Fault) { f.Request = pick(r, lossy).Name(); f.burst(r) },
	"answer-lies":  func(r *rand.Rand, f *Fault) { f.answer(r, lies); f.burst(r) },
	// Of all lies this is the one that the client takes for an abort, see rule 3 of internal/txn: (false, nil).
	"commit-denied": func(r *rand.Rand, f *Fault) {
		f.Request, f.Code, f.Count, f.For = kmsg.EndTxn.Name(), kerr.UnknownServerError.Message, 1+r.IntN(2), 10*time.Second
	},
	"crash-sending":  func(r *rand.Rand, f *Fault) { f.Request, f.Count, f.For = pick(r, deadly).Name(), 1, 10*time.Second },
	"crash-executed": func(r *rand.Rand, f *Fault) { f.Request, f.Count, f.For = pick(r, deadly).Name(), 1, 10*time.Second },

	"error": func(r *rand.Rand, f *Fault) {
		f.answer(r, codes)
		f.burst(r)
		if f.Code == kerr.MessageTooLarge.Message { // where dead letters are refused, too, an operator is asked
			f.Count = 1 + r.IntN(2)
		}
	},
	// One partition refuses what a transaction writes, the others take theirs.
	"produce-refused": func(r *rand.Rand, f *Fault) {
		f.Topic, f.Node, f.Count, f.For = pick(r, refusable), r.IntN(partitions), 1+r.IntN(2), 15*time.Second
		f.Code = pick(r, refusals).Message
	},
	"markers-late": func(r *rand.Rand, f *Fault) {
		f.Count, f.For, f.Late = 1+r.IntN(8), 15*time.Second, between(r, 20*time.Millisecond, 3*time.Second)
	},
	"offsets-expired":  func(r *rand.Rand, f *Fault) { f.For, f.Node = between(r, 0, 10*time.Second), r.IntN(partitions) },
	"coordinator-move": func(*rand.Rand, *Fault) {},
	"leader-move":      func(*rand.Rand, *Fault) {},
	"broker-down":      func(r *rand.Rand, f *Fault) { f.For, f.Node = between(r, time.Second, 10*time.Second), r.IntN(brokers) },

	"slow-handler":    func(r *rand.Rand, f *Fault) { f.For = between(r, time.Second, 6*time.Second) },
	"stuck-handler":   func(*rand.Rand, *Fault) {},
	"failing-handler": func(r *rand.Rand, f *Fault) { f.Count = 1 + r.IntN(3) },

	"ledger-down": func(r *rand.Rand, f *Fault) {
		f.For, f.Share = between(r, 500*time.Millisecond, 15*time.Second), shares(r)
	},
	"ledger-lost-commit": func(r *rand.Rand, f *Fault) {
		f.For, f.Share = between(r, 500*time.Millisecond, 15*time.Second), shares(r)
	},
	"ledger-slow": func(r *rand.Rand, f *Fault) {
		f.For, f.Share = between(r, 500*time.Millisecond, 15*time.Second), shares(r)
	},
	"ledger-restore": func(r *rand.Rand, f *Fault) { f.For = between(r, 500*time.Millisecond, 20*time.Second) },

	"endpoint-refuses":     weatherMaker,
	"endpoint-answer-lost": weatherMaker,
	"endpoint-slow":        weatherMaker,
	"endpoint-503":         weatherMaker,
	"endpoint-429":         weatherMaker,
}

func weatherMaker(r *rand.Rand, f *Fault) {
	f.For, f.Share = between(r, time.Second, 15*time.Second), shares(r)
}

// answer picks a request and what it is answered.
func (f *Fault) answer(r *rand.Rand, from map[kmsg.Key][]*kerr.Error) {
	keys := make([]kmsg.Key, 0, len(from))
	for key := range from {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	keys = append(keys, kmsg.EndTxn, kmsg.EndTxn, kmsg.TxnOffsetCommit, kmsg.Produce)
	key := pick(r, keys)
	f.Request, f.Code = key.Name(), pick(r, from[key]).Message
}

// burst makes a fault strike once, some times in a row, or for a while whatever is retried.
func (f *Fault) burst(r *rand.Rand) {
	switch r.IntN(3) {
	case 0:
		f.Count, f.For = 1, 10*time.Second
	case 1:
		f.Count, f.For = 2+r.IntN(4), 5*time.Second
	default:
		f.Count, f.For = 1000, between(r, 500*time.Millisecond, 8*time.Second)
	}
}

func shares(r *rand.Rand) int { return []int{10, 30, 60, 100}[r.IntN(4)] }

func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return (from + time.Duration(r.Int64N(int64(to-from)))).Round(time.Millisecond)
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// kinds are all that a script may have, in a fixed order.
func kinds() []string {
	all := make([]string, 0, len(makers))
	for kind := range makers {
		all = append(all, kind)
	}
	slices.Sort(all)
	return all
}

// kindsMost is how many kinds of faults a script has at most.
const kindsMost = 6

// draw makes the script of a seed. Each has a few kinds of faults of its own, so that some histories have
// much of one and none of another, and faults come in bursts, since one alone is rarely enough. all are the kinds to
// choose from.
func draw(seed uint64, all []string) Script {
	r := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	s := Script{
		Seed: seed, Replicas: 3, Lanes: 1 + r.IntN(2), Protocol: []string{"classic", "classic", "classic", "consumer"}[r.IntN(4)],
		Inputs: 80 + r.IntN(120), Wave: 3 + r.IntN(25), Spread: between(r, 40*time.Second, 70*time.Second),
	}
	all = slices.Clone(all)
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	mine := all[:min(len(all), 1+r.IntN(kindsMost))]
	at := troubleFrom
	gone, expired := 0, 0
	for range 2 + r.IntN(12) {
		if r.IntN(3) > 0 {
			at += between(r, time.Second, 8*time.Second)
		} else {
			at += between(r, 0, 500*time.Millisecond)
		}
		if at > troubleTo {
			break
		}
		f := Fault{At: at, Kind: pick(r, mine), Replica: r.IntN(s.Replicas)}
		makers[f.Kind](r, &f)
		if f.Kind == "crash-for-good" { // one replica at most; under KIP-848 kfake waits for ever for a name that does not come back
			if gone++; gone > 1 || s.Protocol == "consumer" {
				f.Kind, f.For = "crash", time.Second
			}
		}
		if f.Kind == "offsets-expired" { // once is enough; under KIP-848 kfake's group is never empty again
			if expired++; expired > 1 || s.Protocol == "consumer" {
				f = Fault{At: at, Kind: "crash", Replica: f.Replica, For: time.Second}
			} else {
				s.Start = pick(r, []txn.Start{txn.StartEarliest, txn.StartFail})
			}
		}
		s.Faults = append(s.Faults, f)
	}
	return s
}

// save writes a script so that a person can read and cut it: a fault a line.
func (s Script) save(path string) error {
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

func load(path string) (s Script, err error) {
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return s, fmt.Errorf("read script %s: %w", path, err)
	}
	return s, nil
}
