package verify

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"
)

// What the ledger packs into bytea is read by its documented layout, written here by hand.
func TestPackedResultsAreRead(t *testing.T) {
	t.Parallel()
	b := []byte{resultsFormat, 3}
	b = append(b, 6, 1)                                  // offset 5, done by 200 at the first attempt
	b = append(b, 2, 2|hasAttempts|hasHTTP|hasError, 20) // offset 7, dead after 10 attempts
	b = binary.AppendVarint(b, 503)                      // the last answer
	b = append(append(b, 4), "busy"...)                  // the error
	b = append(append(b, 1, 5|hasResponse, 1), "t"...)   // offset 8, conflict
	b = append(append(b, 3), "no."...)                   // and a response
	var got []Outcome
	if err := readResults(b, func(o Outcome) error { got = append(got, o); return nil }); err != nil {
		t.Fatal(err)
	}
	want := []Outcome{{Offset: 5, Status: "done", Attempts: 1}, {Offset: 7, Status: "dead", Attempts: 10}, {Offset: 8, Status: "conflict", Attempts: 1}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for name, broken := range map[string][]byte{
		"cut short":      b[:len(b)-1],
		"too long":       append(bytes.Clone(b), 0),
		"unknown status": {resultsFormat, 1, 1, 7},
		"another format": {9, 0},
		"empty":          {},
	} {
		if err := readResults(broken, func(Outcome) error { return nil }); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestPackedMarksAreRead(t *testing.T) {
	t.Parallel()
	id := [16]byte{7, 7, 7}
	b := append([]byte{marksFormat, 1}, id[:]...)
	for _, n := range []int64{3, 1, 70_000, 2} { // partition, generation, offset, index
		b = binary.AppendVarint(b, n)
	}
	got := map[Origin]SourceMark{}
	if err := readMarks(b, func(o Origin, m SourceMark) { got[o] = m }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[Origin{id, 3, 1}] != (SourceMark{70_000, 2}) {
		t.Errorf("got %+v", got)
	}
	for _, broken := range [][]byte{b[:len(b)-1], append(bytes.Clone(b), 1), {2, 0}, nil} {
		if err := readMarks(broken, func(Origin, SourceMark) {}); err == nil {
			t.Errorf("%v: no error", broken)
		}
	}
}

func FuzzPacked(f *testing.F) {
	f.Add([]byte{resultsFormat, 1, 1, 1})
	f.Add([]byte{resultsFormat, 1, 1, 0xff, 1, 1, 1, 1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = readResults(b, func(o Outcome) error {
			if o.Status == "" {
				t.Error("an outcome without a status")
			}
			return nil
		})
		_ = readMarks(b, func(Origin, SourceMark) {})
	})
}

func TestTextsThatPostgresCannotHoldAreReadBack(t *testing.T) {
	t.Parallel()
	for stored, want := range map[string]string{"plain": "plain", `\x00ff41`: "\x00\xffA", `\xnot hex`: `\xnot hex`, "": ""} {
		if got := original(stored); got != want {
			t.Errorf("%q is %q, want %q", stored, got, want)
		}
	}
}

func TestJournalIsWrittenAndRead(t *testing.T) {
	t.Parallel()
	want := []Call{
		{At: time.Date(2026, 11, 23, 8, 0, 0, 5000, time.UTC), ID: "some id", Lane: 3, Offset: 42, Attempt: 2, Fence: 1 << 40, Body: [32]byte{1, 2}, Executed: true, Lost: true},
		{At: time.Date(2026, 11, 23, 8, 0, 1, 0, time.UTC), ID: "other", Refused: true, Late: true},
	}
	var journal []byte
	for i := range want {
		var err error
		if journal, err = AppendJournal(journal, &want[i]); err != nil {
			t.Fatal(err)
		}
	}
	read := func(text []byte) (got []Call, err error) {
		err = ReadJournal(bytes.NewReader(text), func(c *Call) error { got = append(got, *c); return nil })
		return got, err
	}
	if got, err := read(journal); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := read(journal[:len(journal)-9]); err != nil || !slices.Equal(got, want[:1]) {
		t.Errorf("of a journal whose last line is cut came %+v, %v", got, err)
	}
	for _, bad := range []string{"{\n", `{"order":"3"}` + "\n", `{"order":"3:4","body":"00"}` + "\n", `{"order":"-1:4"}` + "\n"} {
		if _, err := read(append([]byte(bad), journal...)); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}
