package verify

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

// Verdict names a kind of violation.
type Verdict string

// The verdicts.
const (
	// About inputs and what was made of them.
	Lost      Verdict = "LOST"      // processed, and an outcome is missing
	Duplicate Verdict = "DUPLICATE" // an outcome is committed twice
	Phantom   Verdict = "PHANTOM"   // an outcome that no committed input can have made
	Corrupt   Verdict = "CORRUPT"   // an outcome with other content, or under another id, than the input makes
	Reordered Verdict = "REORDERED" // an outcome stands behind that of a later input of its partition

	// About transactions.
	Torn          Verdict = "TORN"           // committed in part
	Hanging       Verdict = "HANGING"        // open after everything has ended
	Undrained     Verdict = "UNDRAINED"      // inputs that nobody has processed after everything has ended
	LostCommit    Verdict = "LOST-COMMIT"    // a worker was told committed, the log says aborted
	GhostCommit   Verdict = "GHOST-COMMIT"   // a worker was told aborted, the log says committed
	DoubleProcess Verdict = "DOUBLE-PROCESS" // two committed transactions took one input
	Skip          Verdict = "SKIP"           // no committed transaction took an input between others

	// About readers.
	AbortedRead  Verdict = "ABORTED-READ" // a read_committed reader got what is not committed
	Skipped      Verdict = "SKIPPED"      // a reader did not get what is committed and lies between what it got
	Inconsistent Verdict = "INCONSISTENT" // two values at one offset
	Nonmonotonic Verdict = "NONMONOTONIC" // a reader went back

	// About the ledger.
	PGLost    Verdict = "PG-LOST"
	PGDup     Verdict = "PG-DUP"
	PGPhantom Verdict = "PG-PHANTOM"
	PGCorrupt Verdict = "PG-CORRUPT"

	// About calls.
	PhantomCall    Verdict = "PHANTOM-CALL"    // of what is no committed effect
	EarlyCall      Verdict = "EARLY-CALL"      // before the commit was decided
	Mutated        Verdict = "MUTATED"         // with another key or body than the effect's
	LostCall       Verdict = "LOST-CALL"       // settled as done and never executed
	UnexplainedDup Verdict = "UNEXPLAINED-DUP" // executed again without a reason
	AMOViolation   Verdict = "AMO-VIOLATION"   // an at-most-once effect sent more than once
	CallReorder    Verdict = "CALL-REORDER"    // executed before an earlier effect of its key

	// About result events.
	ResultMissing Verdict = "RESULT-MISSING"
	ResultTwice   Verdict = "RESULT-TWICE"
	ResultStatus  Verdict = "RESULT-STATUS" // tells another fate, or another effect, than the ledger has
	ResultPhantom Verdict = "RESULT-PHANTOM"
	ResultOrder   Verdict = "RESULT-ORDER" // told before an earlier effect of its key

	// About sums and about the check itself.
	Unbalanced Verdict = "UNBALANCED" // an account that must be even is not
	Sanity     Verdict = "SANITY"     // too little happened for the history to prove anything
)

// Verdicts lists all of them, for metrics and tests.
func Verdicts() []Verdict {
	return []Verdict{
		Lost, Duplicate, Phantom, Corrupt, Reordered,
		Torn, Hanging, Undrained, LostCommit, GhostCommit, DoubleProcess, Skip,
		AbortedRead, Skipped, Inconsistent, Nonmonotonic,
		PGLost, PGDup, PGPhantom, PGCorrupt,
		PhantomCall, EarlyCall, Mutated, LostCall, UnexplainedDup, AMOViolation, CallReorder,
		ResultMissing, ResultTwice, ResultStatus, ResultPhantom, ResultOrder,
		Unbalanced, Sanity,
	}
}

// Place is a record's.
type Place struct {
	Topic     string
	Partition int32
	Offset    int64
}

// String gives topic/partition/offset.
func (p Place) String() string {
	return p.Topic + "/" + strconv.Itoa(int(p.Partition)) + "/" + strconv.FormatInt(p.Offset, 10)
}

// MarshalText writes what String gives, and nothing for no place.
func (p Place) MarshalText() ([]byte, error) {
	if p.Topic == "" {
		return nil, nil
	}
	return []byte(p.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (p *Place) UnmarshalText(text []byte) (err error) {
	if *p = (Place{}); len(text) > 0 {
		*p, err = ParsePlace(string(text))
	}
	return err
}

func (p Place) compare(q Place) int {
	return cmp.Or(cmp.Compare(p.Offset, q.Offset), cmp.Compare(p.Topic, q.Topic), cmp.Compare(p.Partition, q.Partition))
}

// Finding is one violation.
type Finding struct {
	Verdict Verdict `json:"verdict"`
	At      Place   `json:"at"`    // the record it is about; empty where it is about none
	Story   string  `json:"story"` // in words: what should be, what is, and where it shows
}

// String is for logs and tests.
func (f Finding) String() string { return fmt.Sprintf("%s at %s: %s", f.Verdict, f.At, f.Story) }

// shownMax bounds the findings of one verdict that a report keeps: those that come first.
const shownMax = 10

// findings keeps the first of each verdict and counts the others.
type findings struct {
	counts  map[Verdict]int64
	first   map[Verdict][]Finding
	byTopic map[string]map[Verdict]int64
}

// blame counts a finding as one of a topic.
func (f *findings) blame(topic string, verdict Verdict) {
	if f.byTopic == nil {
		f.byTopic = map[string]map[Verdict]int64{}
	}
	if f.byTopic[topic] == nil {
		f.byTopic[topic] = map[Verdict]int64{}
	}
	f.byTopic[topic][verdict]++
}

func (f *findings) add(verdict Verdict, at Place, format string, args ...any) {
	if f.counts == nil {
		f.counts, f.first = map[Verdict]int64{}, map[Verdict][]Finding{}
	}
	f.counts[verdict]++
	if verdict != Lost { // which is about a topic that has nothing to show, see judgement.compare
		f.blame(at.Topic, verdict)
	}
	kept := f.first[verdict]
	if len(kept) == shownMax && at.compare(kept[shownMax-1].At) >= 0 {
		return
	}
	found := Finding{verdict, at, fmt.Sprintf(format, args...)}
	i, _ := slices.BinarySearchFunc(kept, found, func(a, b Finding) int {
		return cmp.Or(a.At.compare(b.At), cmp.Compare(a.Story, b.Story))
	})
	kept = slices.Insert(kept, i, found)
	f.first[verdict] = kept[:min(len(kept), shownMax)]
}

// Report is what a check came to.
type Report struct {
	Findings []Finding         `json:"findings"` // the first of each verdict, in the order of Verdicts
	Counts   map[Verdict]int64 `json:"counts"`   // of all findings
	Saw      Saw               `json:"saw"`
	Topics   []TopicSaw        `json:"topics"`       // of the plan, by name
	Reasons  map[string]int64  `json:"dead_letters"` // committed dead letters by their reason
	Fates    map[string]int64  `json:"results"`      // committed result events by their status
}

// TopicSaw is what a check saw of one topic.
type TopicSaw struct {
	Topic    string            `json:"topic"`
	Inputs   int64             `json:"inputs,omitempty"`   // committed, where it is an input
	Expected int64             `json:"expected,omitempty"` // by the model of the inputs that were judged; by the ledger for results
	Seen     int64             `json:"seen"`               // committed, where it is written by Pawl
	Aborted  int64             `json:"aborted"`
	Findings map[Verdict]int64 `json:"findings,omitempty"`
}

// Clean tells whether nothing was found.
func (r *Report) Clean() bool { return len(r.Counts) == 0 }

// Total counts the findings.
func (r *Report) Total() (n int64) {
	for _, count := range r.Counts {
		n += count
	}
	return n
}

// Saw counts what a check looked at. Whoever reads a clean report should look here, too.
type Saw struct {
	Inputs      int64 `json:"inputs"`       // committed and fed
	Judged      int64 `json:"judged"`       // of them, processed and in the range
	Modelled    int64 `json:"modelled"`     // of those judged, compared with what the handler makes of them
	Silent      int64 `json:"silent"`       // judged, led to nothing, and no model says whether they should
	Rejected    int64 `json:"rejected"`     // by the engine, which no model foresees: poison, panic, too large
	Outputs     int64 `json:"outputs"`      // committed
	DeadLetters int64 `json:"dead_letters"` // committed
	Effects     int64 `json:"effects"`      // committed
	Aborted     int64 `json:"aborted"`      // records of aborted transactions
	Open        int64 `json:"open"`         // records of transactions without an end
	Foreign     int64 `json:"foreign"`      // records of others on shared topics
	Outside     int64 `json:"outside"`      // outcomes of inputs outside the range
	Expired     int64 `json:"expired"`      // outcomes that are missing where the log has lost its beginning

	Commits             int64 `json:"commits"`              // transactions by their markers: ends in each partition
	Aborts              int64 `json:"aborts"`               // likewise
	TransactionsAborted int64 `json:"transactions_aborted"` // of Pawl that wrote something and were aborted, each once

	Rows       int64 `json:"rows"`       // effects in the ledger
	Suppressed int64 `json:"suppressed"` // committed effects that the ledger left out as repeats, rightly
	Outcomes   int64 `json:"outcomes"`
	Results    int64 `json:"results"` // events
	Waiting    int64 `json:"waiting"` // effects whose outcome or event is still to come

	Calls     int64 `json:"calls"`
	Executed  int64 `json:"executed"`
	Explained int64 `json:"explained"` // executed again, for a reason
	Stale     int64 `json:"stale"`     // calls with a smaller fence than their lane had before
	Reads     int64 `json:"reads"`
	Spans     int64 `json:"spans"`
	Facts     int64 `json:"facts"`         // compared
	Spilled   int64 `json:"spilled_bytes"` // of them, to files
}
