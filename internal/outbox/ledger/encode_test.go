package ledger

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"pawl/internal/outbox"
)

func drawOutcomes(t *rapid.T) []outbox.Outcome {
	var outcomes []outbox.Outcome
	offset := int64(-1)
	for range rapid.IntRange(0, 20).Draw(t, "outcomes") {
		offset += rapid.Int64Range(1, 1<<40).Draw(t, "step")
		o := outbox.Outcome{
			Offset: offset, Status: rapid.SampledFrom(statuses[1:]).Draw(t, "status"), Attempts: rapid.IntRange(0, 1000).Draw(t, "attempts"),
			HTTPStatus: rapid.SampledFrom([]int{0, 200, 204, 503, 599}).Draw(t, "http"), Error: rapid.String().Draw(t, "error"),
		}
		if rapid.Bool().Draw(t, "response") {
			o.Response = &outbox.Response{
				ContentType: rapid.String().Draw(t, "type"), Body: append([]byte{}, rapid.SliceOf(rapid.Byte()).Draw(t, "body")...),
				Truncated: rapid.Bool().Draw(t, "truncated"),
			}
		}
		outcomes = append(outcomes, o)
	}
	return outcomes
}

func TestResultsAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := drawOutcomes(t)
		b, err := writeResults(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readResults(b)
		if err != nil || !cmp.Equal(got, want) {
			t.Fatalf("%v\n%s", err, cmp.Diff(want, got))
		}
		// Whatever is cut off is missed, and so is what is added.
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if got, err := readResults(b[:cut]); err == nil {
			t.Fatalf("%d of %d bytes were read as %v", cut, len(b), got)
		}
		if _, err := readResults(append(b, 0)); err == nil {
			t.Fatal("a byte too many was read over")
		}
	})
}

func TestTheCommonestOutcomeIsTwoBytes(t *testing.T) {
	t.Parallel()
	var outcomes []outbox.Outcome
	for offset := range int64(100) {
		outcomes = append(outcomes, outbox.Outcome{Offset: offset, Status: outbox.Done, Attempts: 1, HTTPStatus: 200})
	}
	if b, err := writeResults(outcomes); err != nil || len(b) != 2+2*len(outcomes) {
		t.Errorf("%d outcomes take %d bytes, %v", len(outcomes), len(b), err)
	}
}

func TestUnsoundOutcomesAreNotWritten(t *testing.T) {
	t.Parallel()
	for name, outcomes := range map[string][]outbox.Outcome{
		"no status":      {{Offset: 1}},
		"unknown status": {{Offset: 1, Status: "lost"}},
		"twice":          {{Offset: 1, Status: outbox.Done}, {Offset: 1, Status: outbox.Done}},
		"descending":     {{Offset: 2, Status: outbox.Done}, {Offset: 1, Status: outbox.Done}},
	} {
		if _, err := writeResults(outcomes); err == nil {
			t.Errorf("%s: was written", name)
		}
	}
}

// A release that meets what a newer one wrote must stop, and say so.
func TestAnUnknownFormatIsAnError(t *testing.T) {
	t.Parallel()
	results, err := writeResults([]outbox.Outcome{{Offset: 1, Status: outbox.Done}})
	if err != nil {
		t.Fatal(err)
	}
	results[0]++
	if _, err := readResults(results); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("results of another format gave %v", err)
	}
	marks := writeMarks(map[outbox.Origin]outbox.Mark{{}: {}})
	marks[0]++
	if err := readMarks(marks, func(outbox.Origin, outbox.Mark) {}); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("marks of another format gave %v", err)
	}
	if _, err := readResults(nil); err == nil {
		t.Error("nothing was read as results")
	}
	results[0], results[3] = resultsFormat, statusBits
	if got, err := readResults(results); err == nil {
		t.Errorf("an unknown status was read as %v", got)
	}
}

func TestMarksAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := map[outbox.Origin]outbox.Mark{}
		for range rapid.IntRange(0, 10).Draw(t, "marks") {
			origin := outbox.Origin{Partition: rapid.Int32().Draw(t, "partition"), Generation: rapid.Int().Draw(t, "generation")}
			copy(origin.TopicID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "topic"))
			want[origin] = outbox.Mark{Offset: rapid.Int64().Draw(t, "offset"), Index: rapid.Int().Draw(t, "index")}
		}
		b := writeMarks(want)
		got := map[outbox.Origin]outbox.Mark{}
		if err := readMarks(b, func(origin outbox.Origin, mark outbox.Mark) { got[origin] = mark }); err != nil || !maps.Equal(got, want) {
			t.Fatalf("%v, want %v: %v", got, want, err)
		}
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if err := readMarks(b[:cut], func(outbox.Origin, outbox.Mark) {}); err == nil {
			t.Fatal("marks that are cut short were read")
		}
	})
}

// What is in the table may be anything, for instance after a mistaken repair by hand.
func FuzzReadResults(f *testing.F) {
	whole, err := writeResults([]outbox.Outcome{
		{Offset: 5, Status: outbox.Done, Attempts: 1, HTTPStatus: 200},
		{Offset: 9, Status: outbox.Dead, Attempts: 3, HTTPStatus: 422, Error: "no", Response: &outbox.Response{ContentType: "a/b", Body: []byte("x"), Truncated: true}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		outcomes, err := readResults(b)
		if err != nil || !slices.IsSortedFunc(outcomes, func(a, b outbox.Outcome) int { return int(min(1, max(-1, a.Offset-b.Offset))) }) {
			return
		}
		again, err := writeResults(outcomes)
		if err != nil {
			return // what no writer writes
		}
		got, err := readResults(again)
		if err != nil || !cmp.Equal(got, outcomes) {
			t.Errorf("%v: %s", err, cmp.Diff(outcomes, got))
		}
	})
}

func TestAnyTextCanBeStored(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "payments", "ü", "a\x00b", "\xff\xfe", `\x`, `\x61`, "\\x\x00"} {
		stored := storable(text)
		if strings.Contains(stored, "\x00") || strings.ToValidUTF8(stored, "?") != stored {
			t.Errorf("%q is stored as %q, which Postgres refuses", text, stored)
		}
		if got := original(stored); got != text {
			t.Errorf("%q is stored as %q and read as %q", text, stored, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOf(rapid.Byte()).Draw(t, "text"))
		if got := original(storable(text)); got != text {
			t.Fatalf("%q is read as %q", text, got)
		}
	})
}

func TestMultirangesAreWrittenForPostgres(t *testing.T) {
	t.Parallel()
	for want, ranges := range map[string]outbox.Ranges{
		"{}": nil, "{[0,1)}": {{From: 0, To: 1}}, "{[0,1),[5,12)}": {{From: 0, To: 1}, {From: 5, To: 12}},
	} {
		if got := multirange(ranges); got != want {
			t.Errorf("%v is written %s, want %s", ranges, got, want)
		}
	}
}

func TestOffsetsAreFoundInTheirGeneration(t *testing.T) {
	t.Parallel()
	spans := []span{{generation: 4, first: 10}, {generation: 5, first: 20}, {generation: 7, first: 20}}
	want := map[int][]int64{0: {9}, 4: {10, 19}, 7: {20, 1000}} // nothing came while 5 was open
	if got := byGeneration(spans, []int64{9, 10, 19, 20, 1000}); !cmp.Equal(got, want) {
		t.Error(cmp.Diff(want, got))
	}
}

// The marks of a chain row, as whatever bytes: an error, or marks that are written and read back the same.
func FuzzReadMarks(f *testing.F) {
	f.Add(writeMarks(map[outbox.Origin]outbox.Mark{{TopicID: [16]byte{1}, Partition: 3, Generation: 2}: {Offset: 77, Index: 1}, {}: {}}))
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		read := func(b []byte) (map[outbox.Origin]outbox.Mark, error) {
			marks := map[outbox.Origin]outbox.Mark{}
			err := readMarks(b, func(origin outbox.Origin, mark outbox.Mark) { marks[origin] = mark })
			return marks, err
		}
		marks, err := read(b)
		if err != nil {
			return
		}
		if again, err := read(writeMarks(marks)); err != nil || !cmp.Equal(marks, again) {
			t.Errorf("%v: %s", err, cmp.Diff(marks, again))
		}
	})
}
