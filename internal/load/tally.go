package load

// Tally checks plain records as they are delivered: each number of a run once, and the sequence of
// each key rising. It is not safe for concurrent use; Reader.Delivered calls from one goroutine.
type Tally struct {
	run     uint64
	seen    []uint64 // one bit per number
	count   int64
	highest map[string]int64
	result  Tallied
}

// Tallied is what a Tally found.
type Tallied struct {
	Seen       int64 `json:"seen"`       // numbers that came at least once
	Missing    int64 `json:"missing"`    // numbers that did not come
	Duplicates int64 `json:"duplicates"` // deliveries of a number that had come before
	Disordered int64 `json:"disordered"` // deliveries of a key's record after one with a higher sequence
	Foreign    int64 `json:"foreign"`    // records of another run, or beyond the count, or not plain
}

// Clean tells whether every number came once and in order.
func (t Tallied) Clean() bool {
	return t.Missing == 0 && t.Duplicates == 0 && t.Disordered == 0 && t.Foreign == 0
}

// NewTally expects the numbers 0 to count-1 of a run.
func NewTally(run uint64, count int64) *Tally {
	return &Tally{run: run, seen: make([]uint64, (count+63)/64), count: count, highest: make(map[string]int64)}
}

// Add takes one delivered record.
func (t *Tally) Add(key, value []byte) {
	head, err := ParsePlain(value)
	if err != nil || head.Run != t.run || head.N < 0 || head.N >= t.count {
		t.result.Foreign++
		return
	}
	word, bit := head.N/64, uint64(1)<<(head.N%64)
	if t.seen[word]&bit != 0 {
		t.result.Duplicates++
		return
	}
	t.seen[word] |= bit
	t.result.Seen++
	if key == nil {
		return // no key, no order
	}
	highest, known := t.highest[string(key)]
	if known && head.Sequence < highest {
		t.result.Disordered++
		return
	}
	t.highest[string(key)] = head.Sequence
}

// Result tells what was found so far.
func (t *Tally) Result() Tallied {
	result := t.result
	result.Missing = t.count - result.Seen
	return result
}
