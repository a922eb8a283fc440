package dispatch

// A sieve's size: with a million keys in it, two of a hundred others are taken for one of them.
const (
	sieveBits   = 1 << 23
	sieveProbes = 6
)

// sieve knows the keys of what a lane has left to the ledger, in memory of a fixed size: a Bloom filter. It never
// misses a key. One that it takes for another has to wait without need.
type sieve struct {
	bits  []uint64     // nil before the first key
	heads map[*end]int // of those that wait for nothing but their endpoint, how many for which; nil: one unknown here
	n     int          // how many are left to the ledger
}

// places gives a key's bits, by double hashing.
func places(hash uint64) (bits [sieveProbes]uint64) {
	step := hash>>32 | 1
	for i := range bits {
		bits[i] = (hash + uint64(i)*step) % sieveBits
	}
	return bits
}

func (s *sieve) has(hash uint64) bool {
	if s.bits == nil {
		return false
	}
	for _, bit := range places(hash) {
		if s.bits[bit/64]&(1<<(bit%64)) == 0 {
			return false
		}
	}
	return true
}

// add takes one in. What comes behind another of its key waits for that one, and not for an endpoint.
func (s *sieve) add(key uint64, waitsFor *end) {
	s.n++
	if s.has(key) {
		return
	}
	if s.bits == nil {
		s.bits, s.heads = make([]uint64, sieveBits/64), map[*end]int{}
	}
	for _, bit := range places(key) {
		s.bits[bit/64] |= 1 << (bit % 64)
	}
	s.heads[waitsFor]++
}

// join takes in all that is in another one.
func (s *sieve) join(other *sieve) {
	s.n += other.n
	if s.bits == nil {
		s.bits, s.heads = other.bits, other.heads
		return
	}
	for i, bits := range other.bits {
		s.bits[i] |= bits
	}
	for n, heads := range other.heads {
		s.heads[n] += heads
	}
}
