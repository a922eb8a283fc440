package load

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

func fillPlain(t *testing.T, config PlainConfig, n int64) *kgo.Record {
	t.Helper()
	plain, err := NewPlain(config)
	if err != nil {
		t.Fatal(err)
	}
	var record kgo.Record
	plain.Fill(&record, Stamp{N: n, Scheduled: time.Unix(0, 10+n), Called: time.Unix(0, 20+n)})
	return &record
}

// What a plain record says of itself is what it was made from, whatever its size and filler.
func TestPlainRecordCarriesItsHead(t *testing.T) {
	t.Parallel()
	for _, filler := range []Filler{FillerRandom, FillerWords} {
		for _, size := range []int{PlainBytesMin, PlainBytesMin + 1, 100, 500, 513} {
			record := fillPlain(t, PlainConfig{Run: 7, Bytes: size, Keys: 3, Filler: filler}, 10)
			head, err := ParsePlain(record.Value)
			if err != nil {
				t.Fatal(err)
			}
			want := PlainHead{Run: 7, N: 10, Sequence: 3, Scheduled: time.Unix(0, 20), Called: time.Unix(0, 30)}
			if head != want || len(record.Value) != size || string(record.Key) != "key-00000001" {
				t.Errorf("%s of %d bytes: head %+v key %q size %d, want %+v key-00000001", filler, size, head, record.Key, len(record.Value), want)
			}
		}
	}
}

// The same run and number give the same bytes, on a reused record too; another number gives others.
func TestPlainRecordIsAFunctionOfItsNumber(t *testing.T) {
	t.Parallel()
	config := PlainConfig{Run: 7, Bytes: 500, Keys: 3}
	plain, err := NewPlain(config)
	if err != nil {
		t.Fatal(err)
	}
	var reused kgo.Record
	var previous []byte
	for n := range int64(50) {
		stamp := Stamp{N: n, Scheduled: time.Unix(0, 10+n), Called: time.Unix(0, 20+n)}
		plain.Fill(&reused, stamp)
		alone := fillPlain(t, config, n)
		if !bytes.Equal(alone.Value, reused.Value) || !bytes.Equal(alone.Key, reused.Key) {
			t.Fatalf("record %d differs when made alone", n)
		}
		if bytes.Equal(alone.Value[PlainBytesMin:], previous) {
			t.Fatalf("records %d and %d have the same filler", n-1, n)
		}
		previous = alone.Value[PlainBytesMin:]
	}
}

// Each record has a trace of its own, of which every third is sampled; and none where none is asked for.
func TestPlainRecordCarriesItsTrace(t *testing.T) {
	t.Parallel()
	plain, err := NewPlain(PlainConfig{Run: 0xab, Bytes: 100, SampledEvery: 3})
	if err != nil {
		t.Fatal(err)
	}
	var reused kgo.Record
	for n, want := range []string{
		"00-00000000000000ab0000000000000001-0000000000000001-01", "00-00000000000000ab0000000000000002-0000000000000002-00",
		"00-00000000000000ab0000000000000003-0000000000000003-00", "00-00000000000000ab0000000000000004-0000000000000004-01",
	} {
		plain.Fill(&reused, Stamp{N: int64(n)})
		trace := message.TraceOf(reused.Headers)
		if string(trace.Parent) != want || trace.Sampled() != (n%3 == 0) || len(reused.Headers) != 1 {
			t.Errorf("record %d: headers %q, want the traceparent %s", n, reused.Headers, want)
		}
	}
	if without := fillPlain(t, PlainConfig{Bytes: 100}, 0); len(without.Headers) != 0 {
		t.Errorf("headers %q, want none", without.Headers)
	}
}

// Random filler does not compress, words do: what a bench says of compression holds.
func TestPlainFillersCompressAsTheyClaim(t *testing.T) {
	t.Parallel()
	compressed := func(filler Filler) float64 {
		record := fillPlain(t, PlainConfig{Bytes: 100_000, Filler: filler}, 1)
		var out bytes.Buffer
		w, err := flate.NewWriter(&out, flate.BestSpeed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(record.Value); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return float64(out.Len()) / float64(len(record.Value))
	}
	if share := compressed(FillerRandom); share < 0.99 {
		t.Errorf("random filler compresses to %.2f, want 1", share)
	}
	if share := compressed(FillerWords); share > 0.25 {
		t.Errorf("words compress to %.2f, want at most 0.25", share)
	}
}

// Records without key have none at all, not an empty one: they spread over the partitions.
func TestPlainRecordWithoutKeys(t *testing.T) {
	t.Parallel()
	record := fillPlain(t, PlainConfig{Bytes: 100}, 9)
	head, err := ParsePlain(record.Value)
	if err != nil {
		t.Fatal(err)
	}
	if record.Key != nil || head.Sequence != 9 {
		t.Errorf("key %q sequence %d, want none and 9", record.Key, head.Sequence)
	}
}

func TestParsePlainRefusesOtherValues(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"", "PLN1", strings.Repeat("x", 100)} {
		if _, err := ParsePlain([]byte(value)); !errors.Is(err, ErrNotPlain) {
			t.Errorf("ParsePlain(%q) = %v, want ErrNotPlain", value, err)
		}
	}
}

// All problems come at once.
func TestNewPlainNamesEveryProblem(t *testing.T) {
	t.Parallel()
	_, err := NewPlain(PlainConfig{Bytes: 1, Keys: -1, Filler: "fog", SampledEvery: -1})
	for _, want := range []string{"bytes is 1", "keys is -1", `filler is "fog"`, "sampled every is -1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}

func TestKeysAreHexadecimalOfAnySize(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{0, 9, 10, 255, 1 << 31, 1<<32 - 1, 1 << 32, 1<<63 - 1} {
		if got, want := string(appendKey(nil, n)), fmt.Sprintf("key-%08x", n); got != want {
			t.Errorf("key of %d = %q, want %q", n, got, want)
		}
	}
}
