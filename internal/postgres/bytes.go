package postgres

import (
	"slices"

	"github.com/jackc/pgx/v5/pgtype"
)

// byteArrays is how [][]byte becomes an array of bytea: as pgx does it, but in memory that is made once. The arguments of
// one statement may be megabytes, for which the driver's buffer grows step by step from 256 bytes: several times their
// size was made and copied, and collected.
type byteArrays struct{ *pgtype.ArrayCodec }

// roomFor are the bytes around each element of an array, and around the whole.
const roomFor = 20

func registerByteArrays(types *pgtype.Map) {
	element, _ := types.TypeForOID(pgtype.ByteaOID) // known to each map of pgx
	types.RegisterType(&pgtype.Type{
		Name: "_bytea", OID: pgtype.ByteaArrayOID, Codec: byteArrays{&pgtype.ArrayCodec{ElementType: element}},
	})
}

// PlanEncode is called by pgx.
func (c byteArrays) PlanEncode(types *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if _, is := value.([][]byte); !is || format != pgtype.BinaryFormatCode {
		return c.ArrayCodec.PlanEncode(types, oid, format, value)
	}
	return roomy{c.ArrayCodec.PlanEncode(types, oid, format, pgtype.FlatArray[[]byte](nil))}
}

// roomy makes room for all of [][]byte before the next plan writes it.
type roomy struct{ next pgtype.EncodePlan }

// Encode is called by pgx.
func (r roomy) Encode(value any, buf []byte) ([]byte, error) {
	parts := value.([][]byte)
	size := roomFor
	for _, part := range parts {
		size += len(part) + roomFor
	}
	return r.next.Encode(pgtype.FlatArray[[]byte](parts), slices.Grow(buf, size))
}
