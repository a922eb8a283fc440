package load

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// Every value falls into a bucket that holds it, and no bucket is wider than 1/128 of its values.
func TestHistogramBucketsCoverEveryDuration(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	values := []uint64{0, 1, 126, 127, 128, 129, 255, 256, 257, 511, 512, math.MaxInt64 - 1, math.MaxInt64}
	for range 100_000 {
		values = append(values, random.Uint64()>>(1+random.UintN(62)))
	}
	for _, value := range values {
		index := bucket(value)
		if index < 0 || index >= bucketCount {
			t.Fatalf("bucket(%d) = %d, want 0..%d", value, index, bucketCount-1)
		}
		top := bucketTop(index)
		if top < value {
			t.Fatalf("value %d lies above the top %d of its bucket %d", value, top, index)
		}
		if index > 0 && bucketTop(index-1) >= value {
			t.Fatalf("value %d belongs into a bucket below %d", value, index)
		}
		if float64(top-value) > float64(value)/128 {
			t.Fatalf("bucket %d reports %d as %d, more than 1/128 off", index, value, top)
		}
	}
}

// Quantiles agree with those of the sorted values within the width of a bucket.
func TestHistogramQuantilesMatchSortedValues(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	var h Histogram
	values := make([]time.Duration, 10_001)
	for i := range values {
		values[i] = time.Duration(math.Exp(random.Float64()*20)) * time.Microsecond
		h.Record(values[i])
	}
	slices.Sort(values)
	for _, q := range []float64{0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1} {
		rank := max(int(math.Ceil(q*float64(len(values)))), 1)
		exact := values[rank-1]
		got := h.Quantile(q)
		if got < exact || float64(got-exact) > float64(exact)/128 {
			t.Errorf("quantile %v = %v, want %v within 1/128", q, got, exact)
		}
	}
	if h.Max() != values[len(values)-1] || h.Quantile(1) != h.Max() {
		t.Errorf("max = %v, quantile 1 = %v, want %v", h.Max(), h.Quantile(1), values[len(values)-1])
	}
}

// An empty histogram answers 0, and a clock that was set back counts as 0.
func TestHistogramAnswersZeroWithoutValues(t *testing.T) {
	t.Parallel()
	var h Histogram
	if h.Quantile(0.99) != 0 || h.Mean() != 0 || h.Max() != 0 || h.Count() != 0 {
		t.Errorf("empty histogram = %+v, want zeros", h.Summary())
	}
	h.Record(-time.Second)
	if h.Count() != 1 || h.Quantile(1) != 0 || h.Mean() != 0 {
		t.Errorf("after a negative duration = %+v, want one count of 0", h.Summary())
	}
}

// Two histograms merged are what one that saw everything is, also when written from many goroutines.
func TestHistogramMergesWithoutLoss(t *testing.T) {
	t.Parallel()
	var whole, left, right Histogram
	var group sync.WaitGroup
	for i, part := range []*Histogram{&left, &right} {
		for worker := range 4 {
			group.Go(func() {
				for n := range 1000 {
					d := time.Duration(i*4000+worker*1000+n) * time.Microsecond
					part.Record(d)
					whole.Record(d)
				}
			})
		}
	}
	group.Wait()
	left.Merge(&right)
	if left.Summary() != whole.Summary() {
		t.Errorf("merged = %+v, want %+v", left.Summary(), whole.Summary())
	}
	if left.Count() != 8000 || left.Mean() != 3999500*time.Nanosecond {
		t.Errorf("count %d mean %v, want 8000 and 3.9995ms", left.Count(), left.Mean())
	}
}

// Reports carry the unit in their names: no reader has to guess it.
func TestSummarySurvivesItsJSON(t *testing.T) {
	t.Parallel()
	want := Summary{Count: 3, Mean: 1234567, P50: 1, P90: time.Millisecond, P99: time.Second, P999: 1500 * time.Microsecond, Max: time.Hour}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Summary
	if err := json.Unmarshal(text, &got); err != nil || got != want {
		t.Errorf("read back %+v, %v, want %+v", got, err, want)
	}
	if err := json.Unmarshal([]byte(`{"count": "three"}`), &got); err == nil {
		t.Error("a wrong summary was read")
	}
}

func TestSummaryIsWrittenInMilliseconds(t *testing.T) {
	t.Parallel()
	var h Histogram
	h.Record(1500 * time.Microsecond)
	text, err := json.Marshal(h.Summary())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"count":1,"mean_ms":1.5,"p50_ms":1.5,"p90_ms":1.5,"p99_ms":1.5,"p999_ms":1.5,"max_ms":1.5}`
	if string(text) != want {
		t.Errorf("json = %s, want %s", text, want)
	}
	if got := h.Summary().String(); got != "p50 1.5 ms, p90 1.5 ms, p99 1.5 ms, p99.9 1.5 ms, max 1.5 ms" {
		t.Errorf("text = %q", got)
	}
}
