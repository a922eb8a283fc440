package verify

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"pawl/internal/message"
)

// Ledger reads the effect ledger out of its tables, as its migrations lay them down, and writes nothing.
type Ledger struct {
	pool   *pgxpool.Pool
	schema string
}

// NewLedger reads a schema through a pool, which stays the caller's.
func NewLedger(pool *pgxpool.Pool, schema string) *Ledger { return &Ledger{pool: pool, schema: schema} }

func (l *Ledger) sql(text string) string {
	return strings.ReplaceAll(text, "@schema", pgx.Identifier{l.schema}.Sanitize())
}

// snapshot lets work see the ledger as it is at one moment.
func (l *Ledger) snapshot(ctx context.Context, work func(tx pgx.Tx) error) error {
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, l.pool, options, work)
	if problem, is := errors.AsType[*pgconn.PgError](err); is && problem.Code == undefinedTable {
		return fmt.Errorf("read ledger %s: %w: bring its schema up to date with `processor migrate up`", l.schema, err)
	}
	if err != nil {
		return fmt.Errorf("read ledger %s: %w", l.schema, err)
	}
	return nil
}

const undefinedTable = "42P01" // SQLSTATE

// Told gives by lane the flush up to which every outcome has been told on the results topic.
func (l *Ledger) Told(ctx context.Context) (map[int32]int64, error) {
	told := map[int32]int64{}
	err := l.snapshot(ctx, func(tx pgx.Tx) error {
		var lane int32
		var seq int64
		return forEach(ctx, tx, l.sql(`SELECT lane, told FROM @schema.progress`), []any{&lane, &seq}, func() error {
			told[lane] = seq
			return nil
		})
	})
	return told, err
}

// Start gives where the effects of a lane can be read from so that it is known which of them are repeats: a
// position of the chain at or before offset, and where each origin stood there.
func (l *Ledger) Start(ctx context.Context, lane int32, offset int64) (from int64, marks map[Origin]SourceMark, err error) {
	marks = map[Origin]SourceMark{}
	first := true
	err = l.snapshot(ctx, func(tx pgx.Tx) error {
		var next int64
		var whole bool
		var encoded []byte
		err := forEach(ctx, tx, l.sql(`
SELECT next_off, whole, marks FROM @schema.ingest WHERE lane = $1 AND next_off <= $2 ORDER BY base_off DESC LIMIT 1000`),
			[]any{&next, &whole, &encoded}, func() error {
				if first {
					from, first = next, false
				}
				if err := readMarks(encoded, func(origin Origin, mark SourceMark) {
					if _, newer := marks[origin]; !newer {
						marks[origin] = mark
					}
				}); err != nil {
					return fmt.Errorf("lane %d at %d: %w", lane, next, err)
				}
				if whole {
					return errDone
				}
				return nil
			}, lane, offset)
		if errors.Is(err, errDone) {
			return nil
		}
		return err
	})
	if first {
		from, marks = offset, nil
	}
	return from, marks, err
}

var errDone = errors.New("that was enough")

// Scope is which effects are read: by lane, offsets from From on and below To.
type Scope map[int32]Stretch

// Stretch is offsets from From on and below To.
type Stretch struct{ From, To int64 }

// Feed brings what the ledger has of a scope to a checker: all of it as of one moment. told is what Told gave before
// the results were read.
func (l *Ledger) Feed(ctx context.Context, scope Scope, told map[int32]int64, c *Checker) error {
	return l.snapshot(ctx, func(tx pgx.Tx) error {
		for lane, stretch := range scope {
			if err := l.feedLane(ctx, tx, lane, told[lane], c); err != nil {
				return err
			}
			if err := l.feedRows(ctx, tx, lane, stretch, c); err != nil {
				return err
			}
			if err := l.feedOutcomes(ctx, tx, lane, stretch, c); err != nil {
				return err
			}
		}
		return nil
	})
}

// The chain's newest row ends where the lane will be ingested next; the oldest generation that is kept begins where
// its first effect of the lane stands.
const laneSQL = `
SELECT c.next_off, coalesce((SELECT min(s.first_off) FROM @schema.lane_gen s WHERE s.lane = c.lane), c.next_off)
FROM @schema.ingest c WHERE c.lane = $1 ORDER BY c.base_off DESC LIMIT 1`

func (l *Ledger) feedLane(ctx context.Context, tx pgx.Tx, lane int32, told int64, c *Checker) error {
	one := Lane{Lane: lane, Told: told}
	err := tx.QueryRow(ctx, l.sql(laneSQL), lane).Scan(&one.Next, &one.Floor)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // never ingested
	}
	if err != nil {
		return fmt.Errorf("lane %d: %w", lane, err)
	}
	return c.Lane(&one)
}

const rowsSQL = `
SELECT off, source_off, source_part, replay, index, class, id, topic_id, topic, endpoint, content_type, business_key, key, body
FROM @schema.effect WHERE lane = $1 AND last_off >= $2 AND first_off < $3 AND off >= $2 AND off < $3`

func (l *Ledger) feedRows(ctx context.Context, tx pgx.Tx, lane int32, stretch Stretch, c *Checker) error {
	row := Row{Lane: lane}
	var class int16
	s := &row.Source
	err := forEach(ctx, tx, l.sql(rowsSQL), []any{
		&row.Offset, &s.Offset, &s.Partition, &s.ReplayGeneration, &row.Index, &class, (*[16]byte)(&row.ID), &s.TopicID, &s.Topic,
		&row.Endpoint, &row.ContentType, &row.BusinessKey, &row.Key, &row.Body,
	}, func() error {
		row.Class = map[int16]message.Class{1: message.AtLeastOnce, 2: message.AtMostOnce}[class]
		for _, text := range []*string{&s.Topic, &row.Endpoint, &row.ContentType, &row.BusinessKey} {
			*text = original(*text)
		}
		return c.Row(&row)
	}, lane, stretch.From, stretch.To)
	if err != nil {
		return fmt.Errorf("effects of lane %d: %w", lane, err)
	}
	return nil
}

func (l *Ledger) feedOutcomes(ctx context.Context, tx pgx.Tx, lane int32, stretch Stretch, c *Checker) error {
	var seq int64
	var results []byte
	err := forEach(ctx, tx, l.sql(`SELECT seq, results FROM @schema.flush WHERE lane = $1 AND hi >= $2`), []any{&seq, &results}, func() error {
		return readResults(results, func(o Outcome) error {
			if o.Offset < stretch.From || o.Offset >= stretch.To {
				return nil
			}
			o.Lane, o.Seq = lane, seq
			return c.Outcome(&o)
		})
	}, lane, stretch.From)
	if err != nil {
		return fmt.Errorf("outcomes of lane %d: %w", lane, err)
	}
	return nil
}

// forEach scans one row after the other into the same memory.
func forEach(ctx context.Context, tx pgx.Tx, sql string, into []any, visit func() error, args ...any) error {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, into, visit)
	return err
}

// hexPrefix begins a text that Postgres could not hold as it is.
const hexPrefix = `\x`

func original(stored string) string {
	digits, is := strings.CutPrefix(stored, hexPrefix)
	if !is {
		return stored
	}
	text, err := hex.DecodeString(digits)
	if err != nil {
		return stored
	}
	return string(text)
}

// The formats of what is packed into bytea.
const (
	marksFormat   = 1
	resultsFormat = 1
)

// readMarks: format, count, and for each topic id (16 bytes), partition, generation, offset, index.
func readMarks(b []byte, visit func(Origin, SourceMark)) error {
	p := packed{rest: b}
	if format := p.byte(); p.err == nil && format != marksFormat {
		return fmt.Errorf("marks have format %d, this release knows %d: run a newer one", format, marksFormat)
	}
	for range p.uvarint() {
		var origin Origin
		copy(origin.TopicID[:], p.bytes(uint64(len(origin.TopicID))))
		origin.Partition, origin.Generation = int32(p.varint()), int(p.varint()) //nolint:gosec // as they were written
		mark := SourceMark{p.varint(), int(p.varint())}
		if p.err != nil {
			break
		}
		visit(origin, mark)
	}
	return p.end("marks")
}

// The byte before each outcome: a status in the low bits, and which fields follow.
const (
	statusBits  = 0x07
	hasAttempts = 1 << 3
	hasHTTP     = 1 << 4
	hasError    = 1 << 5
	hasResponse = 1 << 6
)

var statuses = [...]string{1: "done", 2: "dead", 3: "unknown", 4: "duplicate", 5: "conflict"}

// readResults: format, count, and for each the step from the offset before it, the byte above, and its fields.
func readResults(b []byte, visit func(Outcome) error) error {
	p := packed{rest: b}
	if format := p.byte(); p.err == nil && format != resultsFormat {
		return fmt.Errorf("results have format %d, this release knows %d: run a newer one", format, resultsFormat)
	}
	last := int64(-1)
	for range p.uvarint() {
		last += int64(p.uvarint()) //nolint:gosec // as it was written
		head := p.byte()
		o := Outcome{Offset: last, Attempts: 1}
		status := int(head & statusBits)
		if status == 0 || status >= len(statuses) {
			return errors.Join(p.err, fmt.Errorf("outcome of %d has status %d", last, status))
		}
		o.Status = statuses[status]
		if head&hasAttempts != 0 {
			o.Attempts = int(p.varint())
		}
		if head&hasHTTP != 0 {
			p.varint()
		}
		if head&hasError != 0 {
			p.bytes(p.uvarint())
		}
		if head&hasResponse != 0 {
			p.bytes(p.uvarint())
			p.bytes(p.uvarint())
		}
		if p.err != nil {
			break
		}
		if err := visit(o); err != nil {
			return err
		}
	}
	return p.end("results")
}

// packed reads from a slice; after the first error it gives zeros.
type packed struct {
	rest []byte
	err  error
}

func (p *packed) bytes(n uint64) []byte {
	if p.err != nil || n > uint64(len(p.rest)) {
		p.err = errCut
		return nil
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *packed) byte() byte {
	if b := p.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (p *packed) uvarint() uint64 {
	value, n := binary.Uvarint(p.rest)
	if p.bytes(uint64(max(n, 0))); n <= 0 {
		p.err = errCut
	}
	if p.err != nil {
		return 0
	}
	return value
}

func (p *packed) varint() int64 {
	value := p.uvarint()
	return int64(value>>1) ^ -int64(value&1)
}

func (p *packed) end(what string) error {
	if p.err == nil && len(p.rest) > 0 {
		p.err = errCut
	}
	if p.err != nil {
		return fmt.Errorf("read %s: %w", what, p.err)
	}
	return nil
}

// Attempt is a failed attempt, or any of an effect that did not end at once, as the ledger keeps it.
type Attempt struct {
	At      time.Time `json:"at"`
	Attempt int       `json:"attempt"`
	Status  int       `json:"http_status,omitempty"`
	Error   string    `json:"error,omitempty"`
}
