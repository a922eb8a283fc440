package postgres

import (
	"bytes"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
)

func TestByteArraysAreWhatPgxWrites(t *testing.T) {
	t.Parallel()
	types, plain := pgtype.NewMap(), pgtype.NewMap()
	registerByteArrays(types)
	for name, parts := range map[string][][]byte{
		"nil": nil, "empty": {}, "nil inside": {[]byte("a"), nil, {}}, "large": {make([]byte, 100_000), []byte("b")},
	} {
		for _, format := range []int16{pgtype.BinaryFormatCode, pgtype.TextFormatCode} {
			got, err := types.Encode(pgtype.ByteaArrayOID, format, parts, []byte("before"))
			want, wantErr := plain.Encode(pgtype.ByteaArrayOID, format, parts, []byte("before"))
			if err != nil || wantErr != nil || !bytes.Equal(got, want) || (got == nil) != (want == nil) {
				t.Errorf("%s, format %d: %d bytes, %v; want %d bytes, %v", name, format, len(got), err, len(want), wantErr)
			}
			var back [][]byte
			if err := types.Scan(pgtype.ByteaArrayOID, format, bytes.TrimPrefix(got, []byte("before")), &back); err != nil || len(back) != len(parts) {
				t.Errorf("%s, format %d: read back %d of %d parts, %v", name, format, len(back), len(parts), err)
			}
		}
	}
}

// Of a statement with megabytes of effects, what the driver makes of them is made once, and not grown step by step.
func TestByteArraysAreMadeInOnePiece(t *testing.T) {
	parts := make([][]byte, 30)
	for i := range parts {
		parts[i] = make([]byte, 8000)
	}
	space := make([]byte, 0, 128) // what pgx begins with
	pieces := func(types *pgtype.Map) float64 {
		return testing.AllocsPerRun(10, func() {
			if _, err := types.Encode(pgtype.ByteaArrayOID, pgtype.BinaryFormatCode, parts, space); err != nil {
				t.Fatal(err)
			}
		})
	}
	types := pgtype.NewMap()
	grown := pieces(types)
	registerByteArrays(types)
	if made := pieces(types); made > grown-5 {
		t.Errorf("%g pieces of memory were made, and %g without our codec", made, grown)
	}
}
