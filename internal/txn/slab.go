package txn

// slabChunk is the number of elements in a chunk: for records 160 KB, for bytes see bytesChunk.
const (
	slabChunk  = 1024
	bytesChunk = 64 << 10
)

// slab hands out slices whose memory is used again after reset. Elements never move: a pointer into
// a slice stays good until reset. It exists because a batch makes thousands of small things that
// all die together, at the end of the transaction.
type slab[T any] struct {
	chunks [][]T
	chunk  int // the chunk in use
	used   int // elements used in it
	size   int // elements of a chunk
}

// take returns n zero elements, with no capacity beyond them. What is larger than a chunk gets memory
// of its own, which is not used again.
func (s *slab[T]) take(n int) []T {
	if n > s.size {
		return make([]T, n)
	}
	if s.chunk < len(s.chunks) && s.size-s.used < n {
		s.chunk++
		s.used = 0
	}
	if s.chunk == len(s.chunks) {
		s.chunks = append(s.chunks, make([]T, s.size))
	}
	part := s.chunks[s.chunk][s.used : s.used+n : s.used+n]
	s.used += n
	return part
}

// giveBack returns the last n elements of what was taken last, which nobody has written to.
func (s *slab[T]) giveBack(n int) { s.used -= n }

// reset takes everything back and forgets what it pointed to.
func (s *slab[T]) reset() {
	for i := 0; i <= s.chunk && i < len(s.chunks); i++ {
		clear(s.chunks[i])
	}
	s.chunk, s.used = 0, 0
}
