package verify

import (
	"errors"
	"time"

	"pawl/internal/message"
)

// Record is one data record of a topic's log, committed or not.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	Timestamp time.Time
	Key       []byte
	Value     []byte
	Headers   []message.Header

	Transactional bool
	Producer      int64 // id of the producer that wrote it, -1 where it has none
	Epoch         int16
}

// Marker is the control record that ends a producer's transaction in one partition.
type Marker struct {
	Topic     string
	Partition int32
	Offset    int64
	Timestamp time.Time // of the broker that wrote it
	Producer  int64
	Epoch     int16 // the transaction's own under transaction.version 1, a larger one under 2 and after fencing
	Commit    bool
}

// Entry is what stands at one offset of a log: exactly one of the two is set.
type Entry struct {
	Record *Record
	Marker *Marker
}

// Offsets is how far an input partition has been processed.
type Offsets struct {
	Topic     string
	Partition int32
	From      int64 // inputs below are not judged
	Committed int64 // committed offset when the reading of the logs began; inputs from here on may be under way
	After     int64 // committed offset when the reading was over; 0 means Committed
	End       int64 // of the log; looked at where Plan.Drained
}

// Begin is where the log of a partition begins: what stood below is gone, if anything did.
type Begin struct {
	Topic     string
	Partition int32
	Offset    int64
}

// Read is a record as one read_committed reader got it. The reads of one reader and partition come in
// the order in which it got them; a reader that was restarted, or that was given the partition anew,
// is another reader.
type Read struct {
	Reader string
	Record *Record
}

// Span is what one transaction took from one input partition, as its worker says: the inputs in
// [From, To).
type Span struct {
	Producer  int64
	Epoch     int16
	Topic     string
	Partition int32
	From, To  int64
	Claim     Claim
}

// Claim is what a worker was told about the end of its transaction.
type Claim uint8

// The claims.
const (
	ClaimUnknown Claim = iota
	ClaimCommitted
	ClaimAborted
)

// Lane is how far the ledger has ingested a lane of the effects topic.
type Lane struct {
	Lane  int32
	Next  int64                 // offset of the effects topic that is ingested next
	Floor int64                 // offsets below it may have been dropped by the ledger's retention
	Told  int64                 // outcomes of flushes up to this one have their result events
	Marks map[Origin]SourceMark // where the lane stood before the first effect that is fed; nil: it was empty
}

// Origin is a partition of an input topic under one replay generation.
type Origin struct {
	TopicID    [16]byte
	Partition  int32
	Generation int
}

// SourceMark is a place among what one origin asked for.
type SourceMark struct {
	Offset int64 // of the input
	Index  int
}

// Above tells whether m comes after n.
func (m SourceMark) Above(n SourceMark) bool {
	return m.Offset > n.Offset || m.Offset == n.Offset && m.Index > n.Index
}

// Row is an effect as the ledger has it.
type Row struct {
	Lane        int32
	Offset      int64
	ID          message.ID
	Source      message.Source
	Index       int
	Endpoint    string
	Class       message.Class
	ContentType string
	BusinessKey string
	Key         []byte
	Body        []byte
}

// Outcome is a fate that the ledger has written down. Those of one effect come in the order of Seq.
type Outcome struct {
	Lane     int32
	Offset   int64
	Seq      int64  // of the flush that has it
	Status   string // done, dead, unknown, duplicate or conflict
	Attempts int
}

// Call is one transmission of an effect, as an endpoint saw it. Calls come in the order in which the
// endpoint took them.
type Call struct {
	At       time.Time
	ID       string // Idempotency-Key
	Lane     int32  // Pawl-Order
	Offset   int64
	Attempt  int   // Pawl-Attempt
	Fence    int64 // Pawl-Fence
	Body     [32]byte
	Executed bool // the endpoint did what was asked, or would have if it had not been done before
	Refused  bool // the endpoint said no for good; like Executed, this settles the effect
	Lost     bool // no usable answer reached the caller, as far as the endpoint knows
	Late     bool // its connection was cut before it was read, after the call that its caller made in its place
}

// History is everything that was recorded of a run, in memory.
type History struct {
	Lanes    []Lane
	Begins   []Begin
	Log      []Entry // of all topics; those of one partition in the order of offsets
	Offsets  []Offsets
	Reads    []Read
	Spans    []Span
	Rows     []Row
	Outcomes []Outcome
	Calls    []Call
}

// Check feeds a whole history to a Checker. An error says that the history could not be judged, which
// is no verdict about it.
func Check(plan Plan, history History) (report Report, err error) {
	c, err := New(plan)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.feed(&history); err != nil {
		return Report{}, err
	}
	return c.Report()
}

func (c *Checker) feed(h *History) error {
	return firstError(
		func() error { return each(h.Lanes, c.Lane) },
		func() error { return each(h.Begins, c.Begin) },
		func() error { return each(h.Log, c.Entry) },
		func() error { return each(h.Offsets, c.Offsets) },
		func() error { return each(h.Reads, c.Read) },
		func() error { return each(h.Spans, c.Span) },
		func() error { return each(h.Rows, c.Row) },
		func() error { return each(h.Outcomes, c.Outcome) },
		func() error { return each(h.Calls, c.Call) },
	)
}

func each[T any](all []T, feed func(*T) error) error {
	for i := range all {
		if err := feed(&all[i]); err != nil {
			return err
		}
	}
	return nil
}

func firstError(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
