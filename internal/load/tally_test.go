package load

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each kind of fault is seen as that kind and no other.
func TestTallySeesEachFault(t *testing.T) {
	t.Parallel()
	const count = 100
	tests := map[string]struct {
		order func([]int64) []int64
		want  Tallied
	}{
		"all once, in order": {
			func(n []int64) []int64 { return n },
			Tallied{Seen: 100},
		},
		"two missing": {
			func(n []int64) []int64 { return append(n[:40:40], n[42:]...) },
			Tallied{Seen: 98, Missing: 2},
		},
		"one twice": {
			func(n []int64) []int64 { return append(n, 17) },
			Tallied{Seen: 100, Duplicates: 1},
		},
		"keys interleaved otherwise is no fault": {
			func(n []int64) []int64 { n[10], n[11] = n[11], n[10]; return n },
			Tallied{Seen: 100},
		},
		"one key backwards": {
			// numbers 10 and 15 have one key, as there are five
			func(n []int64) []int64 { n[10], n[15] = n[15], n[10]; return n },
			Tallied{Seen: 100, Disordered: 1},
		},
		"beyond the count": {
			func(n []int64) []int64 { return append(n, 100) },
			Tallied{Seen: 100, Foreign: 1},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			numbers := make([]int64, count)
			for i := range numbers {
				numbers[i] = int64(i)
			}
			tally := NewTally(7, count)
			for _, n := range test.order(numbers) {
				record := fillPlain(t, PlainConfig{Run: 7, Bytes: 60, Keys: 5}, n)
				tally.Add(record.Key, record.Value)
			}
			got := tally.Result()
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("tally (-want +got):\n%s", diff)
			}
			clean := test.want == Tallied{Seen: 100}
			if got.Clean() != clean {
				t.Errorf("clean = %v, want %v", got.Clean(), clean)
			}
		})
	}
}

// A record of another run, and one that is none of ours, are foreign and not counted as seen.
func TestTallyKeepsRunsApart(t *testing.T) {
	t.Parallel()
	tally := NewTally(7, 10)
	other := fillPlain(t, PlainConfig{Run: 8, Bytes: 60}, 1)
	tally.Add(other.Key, other.Value)
	tally.Add(nil, []byte("hello"))
	if got := tally.Result(); got != (Tallied{Missing: 10, Foreign: 2}) {
		t.Errorf("tally = %+v, want 10 missing and 2 foreign", got)
	}
}
