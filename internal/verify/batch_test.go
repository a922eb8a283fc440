package verify

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pawl/internal/message"
)

// encodeBatch writes a batch as a broker has it. All records are of one producer and follow each other.
func encodeBatch(records []*Record, attributes uint16) []byte {
	first := records[0]
	b := make([]byte, batchRecords)
	be := binary.BigEndian
	be.PutUint64(b[batchBase:], uint64(first.Offset))
	b[batchMagic] = batchFormat
	if first.Transactional {
		attributes |= attributeTransactional
	}
	be.PutUint16(b[batchAttributes:], attributes)
	be.PutUint32(b[batchLastDelta:], uint32(records[len(records)-1].Offset-first.Offset))
	be.PutUint64(b[batchBaseTime:], uint64(first.Timestamp.UnixMilli()))
	be.PutUint64(b[batchMaxTime:], uint64(records[len(records)-1].Timestamp.UnixMilli()))
	be.PutUint64(b[batchProducer:], uint64(first.Producer))
	be.PutUint16(b[batchEpoch:], uint16(first.Epoch))
	be.PutUint32(b[batchCount:], uint32(len(records)))
	for _, r := range records {
		body := []byte{0}
		body = binary.AppendVarint(body, r.Timestamp.Sub(first.Timestamp).Milliseconds())
		body = binary.AppendVarint(body, r.Offset-first.Offset)
		body = appendBytes(body, r.Key)
		body = appendBytes(body, r.Value)
		body = binary.AppendVarint(body, int64(len(r.Headers)))
		for _, h := range r.Headers {
			body = appendBytes(body, []byte(h.Key))
			body = appendBytes(body, h.Value)
		}
		b = append(binary.AppendVarint(b, int64(len(body))), body...)
	}
	be.PutUint32(b[batchLength:], uint32(len(b)-batchPrefix))
	be.PutUint32(b[batchCRC:], crc32.Checksum(b[batchAttributes:], castagnoli))
	return b
}

func appendBytes(b, part []byte) []byte {
	if part == nil {
		return binary.AppendVarint(b, -1)
	}
	return append(binary.AppendVarint(b, int64(len(part))), part...)
}

func sampleBatch() []*Record {
	return []*Record{
		{Topic: "t", Partition: 3, Offset: 100, Timestamp: noon, Key: []byte("k"), Value: []byte("v"), Transactional: true, Producer: 9, Epoch: 2},
		{Topic: "t", Partition: 3, Offset: 101, Timestamp: noon.Add(time.Second), Value: []byte{}, Transactional: true, Producer: 9, Epoch: 2, Headers: []message.Header{
			{Key: "a", Value: []byte("1")}, {Key: "a", Value: nil}, {Key: "", Value: []byte{}},
		}},
		{Topic: "t", Partition: 3, Offset: 107, Timestamp: noon.Add(-time.Hour), Key: bytes.Repeat([]byte("x"), 300), Transactional: true, Producer: 9, Epoch: 2},
	}
}

func TestBatchesAreReadAsTheyStand(t *testing.T) {
	t.Parallel()
	want := sampleBatch()
	encoded := append(encodeBatch(want, 0), encodeBatch(want, 0)[:70]...) // the second is cut, as in an answer
	batch, rest, err := cutBatch(encoded)
	if err != nil || batch == nil {
		t.Fatalf("got %v, %v", batch, err)
	}
	if second, _, err := cutBatch(rest); second != nil || err != nil {
		t.Errorf("of a batch that is cut came %v, %v", second, err)
	}
	if batch.next() != 108 {
		t.Errorf("behind it is %d, want 108", batch.next())
	}
	var got []Record
	if err := newDecoder().decode("t", 3, batch, 0, 1000, func(e *Entry) error {
		one := *e.Record
		one.Headers = append([]message.Header(nil), one.Headers...)
		got = append(got, one)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("got %d records, want %d", len(got), len(want))
	}
	for i := range want {
		if diff := cmp.Diff(*want[i], got[i]); diff != "" {
			t.Errorf("record %d: %s", i, diff)
		}
	}
	n := 0
	if err := newDecoder().decode("t", 3, batch, 101, 107, func(*Entry) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("of offsets 101 to 106 came %d records, %v; want 1", n, err)
	}
}

func TestLogAppendTimeIsTheBatchs(t *testing.T) {
	t.Parallel()
	records := sampleBatch()[:2]
	batch, _, err := cutBatch(encodeBatch(records, attributeLogAppend))
	if err != nil {
		t.Fatal(err)
	}
	if err := newDecoder().decode("t", 3, batch, 0, 1000, func(e *Entry) error {
		if !e.Record.Timestamp.Equal(records[1].Timestamp) {
			t.Errorf("record %d has the time %v", e.Record.Offset, e.Record.Timestamp)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestMarkersAreReadAndOtherControlRecordsPassedOver(t *testing.T) {
	t.Parallel()
	for kind, want := range map[uint16]*bool{0: new(bool), 1: func() *bool { is := true; return &is }(), 2: nil} {
		key := binary.BigEndian.AppendUint16([]byte{0, 0}, kind)
		batch, _, err := cutBatch(encodeBatch([]*Record{{Offset: 5, Timestamp: noon, Key: key, Value: []byte{0, 0}, Transactional: true, Producer: 4, Epoch: 7}}, attributeControl))
		if err != nil {
			t.Fatal(err)
		}
		var got *Marker
		if err := newDecoder().decode("t", 3, batch, 0, 1000, func(e *Entry) error {
			one := *e.Marker
			got = &one
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		switch {
		case want == nil && got != nil:
			t.Errorf("a control record of type %d is a marker: %+v", kind, got)
		case want != nil && (got == nil || *got != Marker{Topic: "t", Partition: 3, Offset: 5, Timestamp: time.UnixMilli(noon.UnixMilli()), Producer: 4, Epoch: 7, Commit: *want}):
			t.Errorf("a control record of type %d is %+v", kind, got)
		}
	}
}

func TestDamagedBatchesAreErrors(t *testing.T) {
	t.Parallel()
	whole := encodeBatch(sampleBatch(), 0)
	for name, test := range map[string]struct {
		damage func([]byte)
		want   string
	}{
		"a bit of a record":  {func(b []byte) { b[len(b)-1] ^= 1 }, "checksum"},
		"a bit of the epoch": {func(b []byte) { b[batchEpoch] ^= 1 }, "checksum"},
		"the format":         {func(b []byte) { b[batchMagic] = 1 }, "format 1"},
		"the length":         {func(b []byte) { binary.BigEndian.PutUint32(b[batchLength:], 3) }, "none"},
	} {
		b := bytes.Clone(whole)
		test.damage(b)
		if _, _, err := cutBatch(b); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

// Whatever the bytes are, with a right checksum or not: an error, or entries within the batch.
func FuzzBatch(f *testing.F) {
	f.Add(encodeBatch(sampleBatch(), 0), true)
	f.Add(encodeBatch(sampleBatch(), attributeLogAppend|1), true)
	f.Add(encodeBatch([]*Record{{Timestamp: noon, Key: []byte{0, 0, 0, 1}}}, attributeControl), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		if mend && len(b) > batchRecords {
			b = bytes.Clone(b)
			binary.BigEndian.PutUint32(b[batchLength:], uint32(len(b)-batchPrefix))
			b[batchMagic] = batchFormat
			binary.BigEndian.PutUint32(b[batchCRC:], crc32.Checksum(b[batchAttributes:], castagnoli))
		}
		batch, _, err := cutBatch(b)
		if err != nil || batch == nil {
			return
		}
		_ = newDecoder().decode("t", 0, batch, 0, 1<<40, func(e *Entry) error {
			if (e.Record == nil) == (e.Marker == nil) {
				t.Error("an entry is both or neither")
			}
			return nil
		})
	})
}
