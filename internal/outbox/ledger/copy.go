package ledger

import (
	"context"
	"encoding/binary"
	"io"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"pawl/internal/outbox"
)

// copySQL takes a copyStream. Its columns are in the order of appendRow.
const copySQL = `COPY @schema.effect_g@gen (` + effectColumns + `) FROM STDIN (FORMAT binary)`

// The binary format of COPY (PostgreSQL manual, COPY, File Formats): a header of signature, flags and length
// of extension, both 0; rows; a field count of -1. A row is its field count and its fields; a field is its
// length and its value in network byte order, or the length -1 for NULL.
const (
	copyHeader  = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"
	copyTrailer = "\xff\xff"
	copyFields  = 21
	copyNull    = "\xff\xff\xff\xff"
)

// copyEpoch is 2000-01-01, from which Postgres counts time, in Unix microseconds.
const copyEpoch = 946_684_800 * 1_000_000

// copyMax bounds the rows of one COPY. The server keeps a slot for each row, up to a thousand, and the cost of
// its slots grows with the square of their number: a thousand rows at once take a sixth more CPU of the
// server than three COPYs one after the other.
const copyMax = 350

func (l *Ledger) copyEffects(ctx context.Context, connection *pgconn.PgConn, intents []outbox.Intent, generation int) error {
	parts := (len(intents) + copyMax - 1) / copyMax
	for part := range slices.Chunk(intents, (len(intents)+parts-1)/parts) {
		if _, err := connection.CopyFrom(ctx, newCopyStream(part, generation), l.sql(copySQL, generation)); err != nil {
			return err
		}
	}
	return nil
}

// copyStream is intents as COPY reads them, made as they are read. It is written by hand because the driver
// looks up how to encode for every value anew, which is more work than all else that is done to append.
type copyStream struct {
	intents    []outbox.Intent // what is left
	generation int
	row        []byte // reused
	unread     []byte // of row
	ended      bool
}

func newCopyStream(intents []outbox.Intent, generation int) *copyStream {
	s := &copyStream{intents: intents, generation: generation, row: []byte(copyHeader)}
	s.unread = s.row
	return s
}

// Read implements io.Reader. It fills p as long as there is something to give.
func (s *copyStream) Read(p []byte) (n int, err error) {
	for {
		copied := copy(p[n:], s.unread)
		n, s.unread = n+copied, s.unread[copied:]
		switch {
		case n == len(p):
			return n, nil
		case len(s.intents) > 0:
			s.row = appendRow(s.row[:0], &s.intents[0], s.generation)
			s.intents = s.intents[1:]
		case !s.ended:
			s.row, s.ended = append(s.row[:0], copyTrailer...), true
		default:
			return n, io.EOF
		}
		s.unread = s.row
	}
}

// appendRow appends the columns of effectColumns. The numbers fit: see checkBatch.
func appendRow(b []byte, i *outbox.Intent, generation int) []byte {
	b = binary.BigEndian.AppendUint16(b, copyFields)
	b = appendInt64(b, i.Offset)
	b = appendInt64(b, i.Source.Offset)
	b = appendInt64(b, i.At.UnixMicro()-copyEpoch)
	b = appendInt32(b, generation)
	b = appendInt32(b, int(i.Lane))
	b = appendInt32(b, int(i.Source.Partition))
	b = appendInt32(b, i.Source.ReplayGeneration)
	b = appendInt32(b, i.Index)
	b = append(b, 0, 0, 0, 2)
	b = binary.BigEndian.AppendUint16(b, uint16(classNumber(i.Class))) //nolint:gosec // a small number
	b = appendField(b, i.ID[:])
	b = appendField(b, i.Source.TopicID[:])
	b = appendField(b, storable(i.Source.Topic))
	b = appendField(b, storable(i.Endpoint))
	b = appendField(b, storable(i.ContentType))
	b = appendField(b, storable(i.BusinessKey))
	b = appendField(b, storable(i.Trace))
	if i.Key == nil {
		b = append(b, copyNull...)
	} else {
		b = appendField(b, i.Key)
	}
	b = appendField(b, i.Body)
	twin := i.Twin
	if twin == nil {
		return append(b, copyNull+copyNull+copyNull...)
	}
	b = appendInt64(b, twin.Offset)
	b = appendInt32(b, int(twin.Lane))
	b = append(b, 0, 0, 0, 1, 0)
	if twin.Same {
		b[len(b)-1] = 1
	}
	return b
}

func appendInt64(b []byte, value int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 0, 0, 0, 8), uint64(value)) //nolint:gosec // two's complement
}

func appendInt32(b []byte, value int) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 4), uint32(value)) //nolint:gosec // likewise
}

func appendField[T string | []byte](b []byte, value T) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(value))), value...) //nolint:gosec // of a record
}
