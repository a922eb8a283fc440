package yardstick

import "testing"

func TestSpreadIsMedianWithExtremes(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		values []float64
		want   Spread
	}{
		"none": {nil, Spread{}},
		"one":  {[]float64{7}, Spread{7, 7, 7}},
		"odd":  {[]float64{9, 1, 5}, Spread{5, 1, 9}},
		"even": {[]float64{4, 8, 1, 2}, Spread{3, 1, 8}},
	}
	for name, test := range tests {
		if got := SpreadOf(test.values); got != test.want {
			t.Errorf("%s: spread of %v is %+v, want %+v", name, test.values, got, test.want)
		}
	}
}
