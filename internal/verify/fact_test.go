package verify

import "testing"

// A fact is read as it was written, whichever of its fields it has.
func TestFactsAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	fields := []func(*fact){
		func(f *fact) { f.flags = 3 }, func(f *fact) { f.topic = 4 }, func(f *fact) { f.partition = -5 }, func(f *fact) { f.offset = 6 },
		func(f *fact) { f.index = noIndex }, func(f *fact) { f.id[15] = 7 }, func(f *fact) { f.digest = 1 << 63 }, func(f *fact) { f.number = -8 },
		func(f *fact) { f.producer = -1 }, func(f *fact) { f.epoch = -9 }, func(f *fact) { f.time = 1 << 41 }, func(f *fact) { f.extra = 10 },
		func(f *fact) { f.text = "eleven" },
	}
	var written []byte
	var want []fact
	for chosen := range 1 << len(fields) {
		one := fact{kind: factSeen}
		for i, set := range fields {
			if chosen&(1<<i) != 0 {
				set(&one)
			}
		}
		written = one.appendTo(written)
		want = append(want, one)
	}
	for i := range want {
		var got fact
		written = written[got.readFrom(written):]
		if got != want[i] {
			t.Fatalf("read %+v, want %+v", got, want[i])
		}
	}
	if len(written) != 0 {
		t.Errorf("%d bytes are left", len(written))
	}
}
