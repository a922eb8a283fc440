package verify

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"slices"
)

// groups brings together the facts that have one key, however many there are: they are spread over
// buckets by a hash of the key, a bucket goes to a file when memory is short, and each is sorted by
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

// bucketOf takes bits that no other level takes.
func bucketOf(k key, level int) uint64 {
	a, b := k.pair()
	hash := (a ^ bits.RotateLeft64(b, 29)) * 0x9e3779b97f4a7c15
	hash = (hash ^ hash>>32) * 0xd6e8feb86659fd93
	return hash >> (64 - bucketBits*(level+1)) & (bucketCount - 1)
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
// they were added; they live until visit returns.
func (g *groups) each(visit func(k key, facts []fact) error) error {
	var work workspace
	for i := range g.buckets {
		if err := g.eachOf(&g.buckets[i], &work, visit); err != nil {
			return err
		}
	}
	return nil
}

func (g *groups) eachOf(b *bucket, work *workspace, visit func(key, []fact) error) error {
	if b.file == nil {
		err := work.each(b.memory, visit)
		g.budget.used -= len(b.memory)
		b.memory = nil
		return err
	}
	if err := b.spill(g.budget); err != nil {
		return err
	}
	b.memory = nil
	if _, err := b.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read facts back: %w", err)
	}
	if b.size > int64(g.budget.max) && g.level < levelMax {
		return g.split(b, visit)
	}
	work.loaded = slices.Grow(work.loaded[:0], int(b.size))[:b.size]
	if _, err := io.ReadFull(b.file, work.loaded); err != nil {
		return fmt.Errorf("read facts back: %w", err)
	}
	if err := b.close(); err != nil {
		return err
	}
	return work.each(work.loaded, visit)
}

// split brings a bucket that is too large into groups of its own.
func (g *groups) split(b *bucket, visit func(key, []fact) error) (err error) {
	finer := newGroups(g.budget, g.level+1)
	defer func() { err = errors.Join(err, finer.close()) }()
	var one fact
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

// splitChunk holds the longest fact, whose text has less than 64 KiB, several times.
const splitChunk = 1 << 20

// whole tells whether b begins with a whole key and fact.
func whole(b []byte) bool {
	const head = len(key{}) + factSize
	return len(b) >= head && len(b) >= head+int(binary.LittleEndian.Uint16(b[head-2:]))
}

// workspace is the memory of each, used again for every bucket.
type workspace struct {
	loaded []byte
	spots  []spot
	facts  []fact
}

// spot is where a fact begins.
type spot struct {
	high, low uint64 // key
	at        int
}

func (w *workspace) each(b []byte, visit func(key, []fact) error) error {
	w.spots = w.spots[:0]
	for at := 0; at < len(b); {
		high, low := key(b[at:]).pair()
		w.spots = append(w.spots, spot{high, low, at})
		at += len(key{})
		at += factSize + int(binary.LittleEndian.Uint16(b[at+factSize-2:]))
	}
	slices.SortFunc(w.spots, func(a, b spot) int {
		switch {
		case a.high != b.high:
			return cmp.Compare(a.high, b.high)
		case a.low != b.low:
			return cmp.Compare(a.low, b.low)
		default:
			return a.at - b.at
		}
	})
	for from := 0; from < len(w.spots); {
		to, k := from, key(b[w.spots[from].at:])
		w.facts = w.facts[:0]
		for to < len(w.spots) && w.spots[to].high == w.spots[from].high && w.spots[to].low == w.spots[from].low {
			w.facts = append(w.facts, fact{})
			w.facts[len(w.facts)-1].readFrom(b[w.spots[to].at+len(k):])
			to++
		}
		if err := visit(k, w.facts); err != nil {
			return err
		}
		from = to
	}
	return nil
}
