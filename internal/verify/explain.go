package verify

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/message"
)

// Lineage is the story of one input: where it went, in which transactions, and what became of its effects.
type Lineage struct {
	Asked     Place     `json:"asked"` // whose story was asked for
	Input     Place     `json:"input"`
	Present   bool      `json:"present"` // the input still stands in its log
	Key       []byte    `json:"key,omitempty"`
	Timestamp time.Time `json:"timestamp,omitzero"`
	Committed int64     `json:"committed_offset"` // of the input's partition; -1 where there is none
	Processed bool      `json:"processed"`

	Transactions []Involved `json:"transactions"` // those that wrote something of it, in the order of their first record
	Effects      []Errand   `json:"effects"`
}

// Involved is a transaction that wrote something that was made of the input.
type Involved struct {
	Producer        int64  `json:"producer"`
	Epoch           int16  `json:"epoch"`
	TransactionalID string `json:"transactional_id,omitempty"` // as far as the brokers still know it
	Fate            string `json:"fate"`                       // committed, aborted or open
	Made            []Made `json:"made"`
}

// Made is a record that was made of the input.
type Made struct {
	At     Place  `json:"at"`
	Role   string `json:"role"` // output, dead-letter or effect
	ID     string `json:"id"`
	Reason string `json:"reason,omitempty"` // of a dead letter
	Error  string `json:"error,omitempty"`

	producer int64
	epoch    int16
	fate     string
}

// Errand is a committed effect and what became of it.
type Errand struct {
	At       Place       `json:"at"`
	ID       string      `json:"id"`
	Endpoint string      `json:"endpoint"`
	Business string      `json:"business_key,omitempty"`
	Ledger   LedgerState `json:"ledger"`
	Events   []ToldAt    `json:"results"`
}

// LedgerState is what the ledger knows of an effect.
type LedgerState struct {
	State    string    `json:"state"` // not looked at, not ingested, left out, pending, parked, sending, or a fate
	Flush    int64     `json:"flush,omitempty"`
	Calls    int       `json:"calls,omitempty"`
	Attempts []Attempt `json:"attempts"`
}

// ToldAt is a result event.
type ToldAt struct {
	At     Place  `json:"at"`
	Status string `json:"status"`
}

// explainMargin is by how much what is made of an input may be older, by its own time, than the input.
const explainMargin = time.Hour

var (
	errNoRecord = errors.New("no record stands there")
	errGone     = errors.New("no record stands there any more")
)

// Explain tells the story of the record at a place: an input, or anything that was made of one.
func (s *System) Explain(ctx context.Context, at Place) (Lineage, error) {
	l := Lineage{Asked: at, Committed: -1, Transactions: []Involved{}, Effects: []Errand{}}
	var err error
	if l.Input, err = s.inputOf(ctx, at); err != nil {
		return l, err
	}
	since := time.Time{}
	err = s.one(ctx, l.Input, func(r *Record) {
		l.Present, l.Key, l.Timestamp = true, bytes.Clone(r.Key), r.Timestamp.UTC()
		since = r.Timestamp.Add(-explainMargin)
	})
	if err != nil && !errors.Is(err, errGone) { // what was made of it may still be there
		return l, err
	}
	offsets, err := s.stableOffsets(ctx)
	if err != nil {
		return l, err
	}
	if committed, known := offsets.at(l.Input.Topic, l.Input.Partition); known {
		l.Committed, l.Processed = committed, l.Input.Offset < committed
	}
	made, told, err := s.search(ctx, l.Input, since)
	if err == nil && len(made) == 0 && !since.IsZero() {
		made, told, err = s.search(ctx, l.Input, time.Time{}) // a handler may set any time
	}
	if err != nil {
		return l, err
	}
	if err := s.involve(ctx, &l, made); err != nil {
		return l, err
	}
	return l, s.errands(ctx, &l, made, told)
}

// inputOf finds the input that a record was made from.
func (s *System) inputOf(ctx context.Context, at Place) (Place, error) {
	if !slices.Contains(s.topics(), at.Topic) {
		return Place{}, fmt.Errorf("%s is neither read nor written by this application: its topics are %v", at.Topic, s.topics())
	}
	isInput := slices.ContainsFunc(s.plan.Inputs, func(input Input) bool { return input.Topic == at.Topic })
	if isInput {
		return at, nil
	}
	var from Place
	var broken error
	err := s.one(ctx, at, func(r *Record) {
		text := ""
		if at.Topic == s.plan.Results {
			var e event
			broken = json.Unmarshal(r.Value, &e)
			text = e.Source
		} else if o, ok := readOrigin(r.Headers); ok {
			text = string(o.source)
		}
		source, err := message.ParseSource(text)
		broken = errors.Join(broken, err)
		from = Place{source.Topic, source.Partition, source.Offset}
	})
	if broken != nil {
		return Place{}, fmt.Errorf("%s was not written by this application: %w", at, broken)
	}
	return from, err
}

// one reads the record at a place.
func (s *System) one(ctx context.Context, at Place, visit func(*Record)) error {
	starts, err := s.logs.Starts(ctx, at.Topic)
	if err != nil {
		return err
	}
	ends, err := s.logs.Ends(ctx, Uncommitted, at.Topic)
	if err != nil {
		return err
	}
	start, exists := starts[at.Topic][at.Partition]
	switch end := ends[at.Topic][at.Partition]; {
	case !exists:
		return fmt.Errorf("%s has no partition %d", at.Topic, at.Partition)
	case at.Offset < start:
		return fmt.Errorf("%s: %w: the log begins at %d", at, errGone, start)
	case at.Offset >= end:
		return fmt.Errorf("%s: %w: the log ends at %d", at, errNoRecord, end)
	}
	found := false
	err = s.logs.Read(ctx, Uncommitted, []Range{{at.Topic, at.Partition, at.Offset, at.Offset + 1}}, func(e *Entry) error {
		if e.Record != nil {
			found = true
			visit(e.Record)
		}
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("%s: %w: a transaction marker does, or compaction took it", at, errNoRecord)
	}
	return err
}

// search reads all that was written since a time for what was made of an input.
func (s *System) search(ctx context.Context, input Place, since time.Time) (made []Made, told map[string][]ToldAt, err error) {
	starts, err := s.logs.Starts(ctx, s.made()...)
	if err == nil && !since.IsZero() {
		starts, err = s.logs.Since(ctx, since, s.made()...)
	}
	if err != nil {
		return nil, nil, err
	}
	ends, err := s.logs.Ends(ctx, Uncommitted, s.made()...)
	if err != nil {
		return nil, nil, err
	}
	var ranges []Range
	for topic, partitions := range ends {
		for partition, end := range partitions {
			ranges = append(ranges, Range{topic, partition, starts[topic][partition], end})
		}
	}
	s.say("looking for what was made of %s", input)
	told = map[string][]ToldAt{}
	source := []byte(input.String())
	waiting := map[Place][]int{} // by partition, with the producer as offset: indexes of made
	err = s.logs.Read(ctx, Uncommitted, ranges, func(e *Entry) error {
		if m := e.Marker; m != nil {
			at := Place{m.Topic, m.Partition, m.Producer}
			for _, i := range waiting[at] {
				made[i].fate = map[bool]string{true: "committed", false: "aborted"}[m.Commit]
			}
			delete(waiting, at)
			return nil
		}
		r := e.Record
		if r.Topic == s.plan.Results {
			return s.telling(r, source, told)
		}
		o, ok := readOrigin(r.Headers)
		if !ok || !bytes.Equal(o.source, source) {
			return nil
		}
		one := Made{At: Place{r.Topic, r.Partition, r.Offset}, Role: "output", ID: o.id.String(), producer: r.Producer, epoch: r.Epoch, fate: "open"}
		switch r.Topic {
		case s.plan.Effects:
			one.Role = "effect"
		case s.plan.DeadLetters:
			one.Role, one.Reason = "dead-letter", string(o.reason)
			for _, h := range r.Headers {
				if h.Key == message.HeaderError {
					one.Error = string(h.Value)
				}
			}
		}
		made = append(made, one)
		at := Place{r.Topic, r.Partition, r.Producer}
		waiting[at] = append(waiting[at], len(made)-1)
		return nil
	})
	return made, told, err
}

// telling notes a result event of the input. Events of aborted attempts of the relay are among them.
func (s *System) telling(r *Record, source []byte, told map[string][]ToldAt) error {
	var e event
	if !bytes.Contains(r.Value, source) || json.Unmarshal(r.Value, &e) != nil || e.Source != string(source) {
		return nil //nolint:nilerr // what is no event of ours is not of this input
	}
	at := Place{s.plan.Effects, e.Lane, e.Offset}.String()
	told[at] = append(told[at], ToldAt{Place{r.Topic, r.Partition, r.Offset}, e.Status})
	return nil
}

// involve groups what was made by transactions and asks the brokers for their names.
func (s *System) involve(ctx context.Context, l *Lineage, made []Made) error {
	type attempt struct {
		producer int64
		epoch    int16
	}
	byAttempt := map[attempt]*Involved{}
	for _, one := range made {
		at := attempt{one.producer, one.epoch}
		if byAttempt[at] == nil {
			byAttempt[at] = &Involved{Producer: one.producer, Epoch: one.epoch, Fate: one.fate}
		}
		byAttempt[at].Made = append(byAttempt[at].Made, one)
	}
	names, err := s.transactionalIDs(ctx, slices.Collect(func(yield func(int64) bool) {
		for at := range byAttempt {
			if !yield(at.producer) {
				return
			}
		}
	}))
	if err != nil {
		return err
	}
	for _, one := range byAttempt {
		one.TransactionalID = names[one.Producer]
		slices.SortFunc(one.Made, func(a, b Made) int { return cmp.Or(cmp.Compare(a.At.Topic, b.At.Topic), a.At.compare(b.At)) })
		l.Transactions = append(l.Transactions, *one)
	}
	slices.SortFunc(l.Transactions, func(a, b Involved) int {
		return cmp.Or(cmp.Compare(a.Producer, b.Producer), cmp.Compare(a.Epoch, b.Epoch))
	})
	return nil
}

// transactionalIDs asks the brokers whose producers these are. What they have forgotten is missing.
func (s *System) transactionalIDs(ctx context.Context, producers []int64) (map[int64]string, error) {
	names := map[int64]string{}
	if len(producers) == 0 {
		return names, nil
	}
	request := kmsg.NewPtrListTransactionsRequest()
	request.ProducerIDFilters = producers
	for _, shard := range s.client.RequestSharded(ctx, request) {
		response, is := shard.Resp.(*kmsg.ListTransactionsResponse)
		if shard.Err != nil || !is {
			continue // a name is a help, not the story
		}
		if kerr.ErrorForCode(response.ErrorCode) != nil {
			continue
		}
		for _, one := range response.TransactionStates {
			names[one.ProducerID] = one.TransactionalID
		}
	}
	return names, ctx.Err()
}

// errands tells what became of the committed effects.
func (s *System) errands(ctx context.Context, l *Lineage, made []Made, told map[string][]ToldAt) error {
	for _, one := range made {
		if one.Role != "effect" || one.fate != "committed" {
			continue
		}
		e := Errand{At: one.At, ID: one.ID, Ledger: LedgerState{State: "not looked at", Attempts: []Attempt{}}, Events: told[one.At.String()]}
		if e.Events == nil {
			e.Events = []ToldAt{}
		}
		if err := s.one(ctx, one.At, func(r *Record) {
			o, _ := readOrigin(r.Headers)
			e.Endpoint, e.Business = string(o.endpoint), string(o.business)
		}); err != nil {
			return err
		}
		if s.ledger != nil {
			var err error
			if e.Ledger, err = s.ledger.state(ctx, one.At.Partition, one.At.Offset); err != nil {
				return err
			}
		}
		l.Effects = append(l.Effects, e)
	}
	slices.SortFunc(l.Effects, func(a, b Errand) int { return a.At.compare(b.At) })
	return nil
}

const stateSQL = `
SELECT
  coalesce((SELECT c.next_off FROM @schema.ingest c WHERE c.lane = $1 ORDER BY c.base_off DESC LIMIT 1), 0),
  EXISTS (SELECT FROM @schema.effect e WHERE e.lane = $1 AND e.last_off >= $2 AND e.first_off <= $2 AND e.off = $2) OR EXISTS (SELECT FROM @schema.kept k WHERE k.lane = $1 AND k.off = $2),
  EXISTS (SELECT FROM @schema.parked p WHERE p.lane = $1 AND p.off = $2),
  EXISTS (SELECT FROM @schema.sending s WHERE s.lane = $1 AND s.off = $2)`

// state tells how far an effect has come.
func (l *Ledger) state(ctx context.Context, lane int32, offset int64) (LedgerState, error) {
	found := LedgerState{Attempts: []Attempt{}}
	err := l.snapshot(ctx, func(tx pgx.Tx) error {
		var next int64
		var stored, parked, sending bool
		if err := tx.QueryRow(ctx, l.sql(stateSQL), lane, offset).Scan(&next, &stored, &parked, &sending); err != nil {
			return err
		}
		switch {
		case !stored && offset >= next:
			found.State = "not ingested"
		case !stored:
			found.State = "left out"
		case parked:
			found.State = "parked"
		case sending:
			found.State = "sending"
		default:
			found.State = "pending"
		}
		if err := l.fate(ctx, tx, lane, offset, &found); err != nil {
			return err
		}
		var a Attempt
		return forEach(ctx, tx, l.sql(`SELECT at, attempt, status, error FROM @schema.attempt WHERE lane = $1 AND off = $2 ORDER BY attempt, at`),
			[]any{&a.At, &a.Attempt, &a.Status, &a.Error}, func() error {
				a.At = a.At.UTC()
				found.Attempts = append(found.Attempts, a)
				return nil
			}, lane, offset)
	})
	return found, err
}

// fate finds the last outcome.
func (l *Ledger) fate(ctx context.Context, tx pgx.Tx, lane int32, offset int64, found *LedgerState) error {
	var seq int64
	var results []byte
	return forEach(ctx, tx, l.sql(`SELECT seq, results FROM @schema.flush WHERE lane = $1 AND hi >= $2 AND lo <= $2 ORDER BY seq`),
		[]any{&seq, &results}, func() error {
			return readResults(results, func(o Outcome) error {
				if o.Offset == offset {
					found.State, found.Flush, found.Calls = o.Status, seq, o.Attempts
				}
				return nil
			})
		}, lane, offset)
}

// ParsePlace reads topic/partition/offset.
func ParsePlace(text string) (Place, error) {
	source, err := message.ParseSource(text)
	if err != nil {
		return Place{}, fmt.Errorf("%q is no place: want topic/partition/offset, such as orders/3/42", text)
	}
	return Place{source.Topic, source.Partition, source.Offset}, nil
}

// Partitions lists the partitions of the inputs that a pass would judge, for whoever names a range.
func (s *System) Partitions(ctx context.Context) (Positions, error) {
	return s.logs.Starts(ctx, s.inputs()...)
}

// Since gives by input partition the first offset that is not older than a time.
func (s *System) Since(ctx context.Context, at time.Time) (Positions, error) {
	partitions, err := s.Partitions(ctx)
	if err != nil {
		return nil, err
	}
	return s.logs.Since(ctx, at, slices.Collect(maps.Keys(partitions))...)
}
