package verify

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"slices"
	"sync"
)

// groups brings together the facts that have one key, however many there are: they are spread over
// buckets by a hash of the key, a bucket goes to a file when memory is short, and each is sorted out by
// itself. So memory is bounded by the budget and the largest bucket, which is split again where it
// would not fit.
type groups struct {
	budget  *budget
	level   int // of splitting: another part of the hash is used on each
	buckets [bucketCount]bucket
}

const (
	bucketBits  = 7
	bucketCount = 1 << bucketBits
	levelMax    = 3
)

type bucket struct {
	memory []byte
	file   *os.File
	size   int64 // in the file
}

// budget is what all groups of a checker have together.
type budget struct {
	dir     string
	max     int
	used    int
	facts   int64
	spilled int64
}

func newGroups(b *budget, level int) *groups { return &groups{budget: b, level: level} }

// hash mixes the bits of a key: the high ones choose its bucket, the low ones its place in there.
func (k key) hash() uint64 {
	a, b := k.pair()
	hash := (a ^ bits.RotateLeft64(b, 29)) * 0x9e3779b97f4a7c15
	hash = (hash ^ hash>>32) * 0xd6e8feb86659fd93
	return hash ^ hash>>32
}

// bucketOf takes bits that no other level takes.
func bucketOf(k key, level int) uint64 {
	return k.hash() >> (64 - bucketBits*(level+1)) & (bucketCount - 1)
}

func (g *groups) add(k key, f *fact) error {
	at := &g.buckets[bucketOf(k, g.level)]
	before := len(at.memory)
	at.memory = append(at.memory, k[:]...)
	at.memory = f.appendTo(at.memory)
	g.budget.used += len(at.memory) - before
	g.budget.facts++
	if g.budget.used > g.budget.max {
		return g.spill()
	}
	return nil
}

// spill brings everything that is in memory to files.
func (g *groups) spill() error {
	for i := range g.buckets {
		if err := g.buckets[i].spill(g.budget); err != nil {
			return fmt.Errorf("spill to %s: %w: name another directory with more room", cmp.Or(g.budget.dir, os.TempDir()), err)
		}
	}
	return nil
}

func (b *bucket) spill(budget *budget) error {
	if len(b.memory) == 0 {
		return nil
	}
	if b.file == nil {
		file, err := os.CreateTemp(budget.dir, "pawl-verify-*")
		if err != nil {
			return err
		}
		b.file = file
		if err := os.Remove(file.Name()); err != nil { // its room is free again when we end, however we do
			return errors.Join(err, b.close())
		}
	}
	n, err := b.file.Write(b.memory)
	b.size += int64(n)
	budget.spilled += int64(n)
	budget.used -= len(b.memory)
	b.memory = b.memory[:0]
	return err
}

func (b *bucket) close() error {
	if b.file == nil {
		return nil
	}
	err := b.file.Close()
	b.file = nil
	return err
}

func (g *groups) close() error {
	var errs error
	for i := range g.buckets {
		errs = errors.Join(errs, g.buckets[i].close())
		g.budget.used -= len(g.buckets[i].memory)
		g.buckets[i].memory = nil
	}
	return errs
}

// each visits the groups, in no order, and empties them. Facts of one group come in the order in which
// they were added; they live until visit returns. While one bucket is visited the next is read and sorted
// out on a goroutine of its own; visit may add to other groups.
func (g *groups) each(visit func(k key, facts []fact) error) error {
	var work [2]workspace
	var large [2]bool
	ready := [2]chan error{make(chan error, 1), make(chan error, 1)}
	var ahead sync.WaitGroup
	defer ahead.Wait()
	prepare := func(i int) error {
		b, turn := &g.buckets[i], i%2
		if b.file != nil {
			if err := b.spill(g.budget); err != nil {
				return err
			}
		}
		if large[turn] = b.size > int64(g.budget.max) && g.level < levelMax; !large[turn] {
			ahead.Go(func() { ready[turn] <- work[turn].prepare(b) })
		}
		return nil
	}
	if err := prepare(0); err != nil {
		return err
	}
	for i := range g.buckets {
		b, turn := &g.buckets[i], i%2
		if i+1 < len(g.buckets) {
			if err := prepare(i + 1); err != nil {
				return err
			}
		}
		if large[turn] {
			if err := g.split(b, visit); err != nil {
				return err
			}
			continue
		}
		if err := <-ready[turn]; err != nil {
			return err
		}
		if err := work[turn].each(visit); err != nil {
			return err
		}
		g.budget.used -= len(b.memory)
		b.memory = nil
	}
	return nil
}

// split brings a bucket that is too large into groups of its own.
func (g *groups) split(b *bucket, visit func(key, []fact) error) (err error) {
	finer := newGroups(g.budget, g.level+1)
	defer func() { err = errors.Join(err, finer.close()) }()
	if _, err := b.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read facts back: %w", err)
	}
	chunk, kept := make([]byte, splitChunk), 0
	for {
		n, err := io.ReadFull(b.file, chunk[kept:])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("read facts back: %w", err)
		}
		end := kept + n
		if end == 0 {
			break
		}
		at := 0
		for whole(chunk[at:end]) {
			k := key(chunk[at:])
			at += len(k)
			var one fact
			at += one.readFrom(chunk[at:end])
			if err := finer.add(k, &one); err != nil {
				return err
			}
			g.budget.facts-- // it was counted when it came
		}
		kept = copy(chunk, chunk[at:end])
	}
	if err := b.close(); err != nil {
		return err
	}
	return finer.each(visit)
}

// splitChunk holds the longest fact, whose text is a header or two, several times.
const splitChunk = 1 << 20

// whole tells whether b begins with a whole key and fact.
func whole(b []byte) bool {
	const head = len(key{}) + factHead
	return len(b) >= head && len(b) >= len(key{})+factSize(b[len(key{}):])
}

// workspace is the memory of each, used again for every other bucket.
type workspace struct {
	bytes  []byte // of the bucket
	loaded []byte // the same, where it was in a file
	spots  []spot
	heads  []chain // one of each key, in the order in which they came
	table  []int32 // finds them by hash, one more than their index
	facts  []fact
}

// spot is where a fact begins, and which one of the same key is next; 0: it is the last.
type spot struct {
	at   int
	next int32
}

// chain is all facts of one key, by their indexes among spots.
type chain struct{ first, last int32 }

// prepare reads a bucket back, if it is in a file, and sorts out what is in it.
func (w *workspace) prepare(b *bucket) error {
	w.bytes = b.memory
	if b.file != nil {
		w.loaded = slices.Grow(w.loaded[:0], int(b.size))[:b.size]
		if _, err := b.file.ReadAt(w.loaded, 0); err != nil {
			return fmt.Errorf("read facts back: %w", err)
		}
		if err := b.close(); err != nil {
			return err
		}
		w.bytes = w.loaded
	}
	w.chain()
	return nil
}

// chain links the facts of each key.
func (w *workspace) chain() {
	w.spots, w.heads = w.spots[:0], w.heads[:0]
	for at := 0; at < len(w.bytes); {
		w.spots = append(w.spots, spot{at: at})
		at += len(key{})
		at += factSize(w.bytes[at:])
	}
	size := 1 << bits.Len(uint(2*len(w.spots)))
	w.table = slices.Grow(w.table[:0], size)[:size]
	clear(w.table)
	for i := range int32(len(w.spots)) { //nolint:gosec // two thousand million facts would take more room than a bucket has
		k := w.key(i)
		at := int(k.hash() & uint64(size-1)) //nolint:gosec // below size
		for w.table[at] != 0 && w.key(w.heads[w.table[at]-1].first) != k {
			at = (at + 1) & (size - 1)
		}
		if w.table[at] == 0 {
			w.heads = append(w.heads, chain{i, i})
			w.table[at] = int32(len(w.heads)) //nolint:gosec // likewise
			continue
		}
		head := &w.heads[w.table[at]-1]
		w.spots[head.last].next = i
		head.last = i
	}
}

func (w *workspace) key(spot int32) key { return key(w.bytes[w.spots[spot].at:]) }

func (w *workspace) each(visit func(key, []fact) error) error {
	for _, head := range w.heads {
		k := w.key(head.first)
		w.facts = w.facts[:0]
		for i := head.first; ; i = w.spots[i].next {
			w.facts = append(w.facts, fact{})
			w.facts[len(w.facts)-1].readFrom(w.bytes[w.spots[i].at+len(k):])
			if i == head.last {
				break
			}
		}
		if err := visit(k, w.facts); err != nil {
			return err
		}
	}
	return nil
}
