package load

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// The buckets of a Histogram: each power of two is cut into 2^bucketBits equal parts, so that a
// bucket is never wider than 1/128 of the values in it. Values below 2^bucketBits have a bucket each.
const (
	bucketBits  = 7
	bucketCount = (64 - bucketBits) << bucketBits
)

// Histogram counts durations in buckets whose width grows with the value: what it reports is at
// most 0.8% above what was recorded, from one nanosecond to centuries, in 57 KiB. The zero value is
// ready for use. All methods may be called from any goroutine; a reader that runs beside writers
// sees some of the newest values and not others.
type Histogram struct {
	counts [bucketCount]atomic.Uint64
	count  atomic.Uint64
	sum    atomic.Int64 // nanoseconds
	max    atomic.Int64 // nanoseconds, exact
}

// Record counts one duration. A negative one, which a clock that was set back may give, counts as 0.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(uint64(d))].Add(1)
	h.count.Add(1)
	h.sum.Add(int64(d))
	for {
		old := h.max.Load()
		if int64(d) <= old || h.max.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// Merge adds what other has counted.
func (h *Histogram) Merge(other *Histogram) {
	for i := range other.counts {
		if n := other.counts[i].Load(); n > 0 {
			h.counts[i].Add(n)
		}
	}
	h.count.Add(other.count.Load())
	h.sum.Add(other.sum.Load())
	for {
		old, candidate := h.max.Load(), other.max.Load()
		if candidate <= old || h.max.CompareAndSwap(old, candidate) {
			return
		}
	}
}

// Count tells how many durations were recorded.
func (h *Histogram) Count() int64 { return int64(h.count.Load()) } //nolint:gosec // a count of events in one run

// Max is the longest duration recorded, exactly; 0 without any.
func (h *Histogram) Max() time.Duration { return time.Duration(h.max.Load()) }

// Mean is the mean of the recorded durations, exactly; 0 without any.
func (h *Histogram) Mean() time.Duration {
	n := h.count.Load()
	if n == 0 {
		return 0
	}
	return time.Duration(h.sum.Load() / int64(n)) //nolint:gosec // as in Count
}

// Quantile is the duration that a share q (0..1) of the recorded ones does not exceed, rounded up
// to the upper end of its bucket but never above Max; 0 without any.
func (h *Histogram) Quantile(q float64) time.Duration {
	total := h.count.Load()
	if total == 0 {
		return 0
	}
	q = min(max(q, 0), 1)
	rank := uint64(q * float64(total))
	if float64(rank) < q*float64(total) {
		rank++
	}
	rank = max(rank, 1)
	var seen uint64
	for i := range h.counts {
		seen += h.counts[i].Load()
		if seen >= rank {
			return min(time.Duration(bucketTop(i)), h.Max()) //nolint:gosec // a recorded duration fits
		}
	}
	return h.Max()
}

// Summary is a histogram in the numbers that people compare.
type Summary struct {
	Count int64
	Mean  time.Duration
	P50   time.Duration
	P90   time.Duration
	P99   time.Duration
	P999  time.Duration
	Max   time.Duration
}

// Summary reads the histogram once.
func (h *Histogram) Summary() Summary {
	return Summary{
		Count: h.Count(),
		Mean:  h.Mean(),
		P50:   h.Quantile(0.50),
		P90:   h.Quantile(0.90),
		P99:   h.Quantile(0.99),
		P999:  h.Quantile(0.999),
		Max:   h.Max(),
	}
}

// String gives the numbers in milliseconds on one line.
func (s Summary) String() string {
	return fmt.Sprintf("p50 %.1f ms, p90 %.1f ms, p99 %.1f ms, p99.9 %.1f ms, max %.1f ms",
		milliseconds(s.P50), milliseconds(s.P90), milliseconds(s.P99), milliseconds(s.P999), milliseconds(s.Max))
}

// summaryJSON is a summary as a file has it: in milliseconds, with the unit in the name.
type summaryJSON struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean_ms"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p999_ms"`
	Max   float64 `json:"max_ms"`
}

// MarshalJSON writes durations in milliseconds, with the unit in the name.
func (s Summary) MarshalJSON() ([]byte, error) {
	return json.Marshal(summaryJSON{
		s.Count, milliseconds(s.Mean), milliseconds(s.P50), milliseconds(s.P90),
		milliseconds(s.P99), milliseconds(s.P999), milliseconds(s.Max),
	})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *Summary) UnmarshalJSON(text []byte) error {
	var ms summaryJSON
	if err := json.Unmarshal(text, &ms); err != nil {
		return fmt.Errorf("read a summary of latency: %w", err)
	}
	duration := func(ms float64) time.Duration { return time.Duration(math.Round(ms * float64(time.Millisecond))) }
	*s = Summary{ms.Count, duration(ms.Mean), duration(ms.P50), duration(ms.P90), duration(ms.P99), duration(ms.P999), duration(ms.Max)}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// bucket finds the bucket of a value: the position of its highest bit picks a row, the bucketBits
// below that bit the place in it.
func bucket(value uint64) int {
	if value < 1<<bucketBits {
		return int(value)
	}
	shift := bits.Len64(value) - 1 - bucketBits
	return shift<<bucketBits + int(value>>shift) //nolint:gosec // value>>shift is below 256
}

// bucketTop is the greatest value that falls into a bucket.
func bucketTop(index int) uint64 {
	if index < 1<<bucketBits {
		return uint64(index) //nolint:gosec // an index is not negative
	}
	shift := index>>bucketBits - 1
	place := uint64(index - shift<<bucketBits) //nolint:gosec // 128..255
	return (place+1)<<shift - 1
}
