package relay

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Whatever stands on the results topic is an event or an error, and an event that is told again is the same.
func FuzzDecodeEvent(f *testing.F) {
	f.Add([]byte(`{"format":1,"effect_id":"6d3b0c5e-841f-5ad2-9e27-51c8b06f3d94","lane":3,"offset":7,"source":"orders/1/2","endpoint":"payments",`+
		`"business_key":"charge:7","status":"conflict","first":{"lane":0,"offset":4},"attempts":2,"http_status":422,"error":"no","request":{"body":"e30="},"response":{"body":"","truncated":true}}`), []byte("key"))
	f.Add([]byte(`{"format":2}`), []byte(nil))
	f.Add([]byte(`{"format":1,"lane":3,"effect_id":"6D3B0C5E841F5AD29E2751C8B06F3D94"}`), []byte("k"))
	f.Fuzz(func(t *testing.T, value, key []byte) {
		const lane = 3
		first, err := decodeEvent(&kgo.Record{Key: key, Value: value}, lane)
		if err != nil {
			return
		}
		made, _, err := record("results", 1<<30, first)
		if err != nil {
			t.Fatalf("an event that was read can't be told: %v", err)
		}
		second, err := decodeEvent(made, lane)
		if err != nil {
			t.Fatalf("what was told can't be read: %v\n%s", err, made.Value)
		}
		// What is shown to people is made short and plain on the way, so that the third is the second.
		again, _, err := record("results", 1<<30, second)
		if err != nil {
			t.Fatal(err)
		}
		third, err := decodeEvent(again, lane)
		if err != nil || !cmp.Equal(second, third) {
			t.Errorf("%v: %s", err, cmp.Diff(second, third))
		}
		if first.Outcome.Offset != second.Outcome.Offset || first.Outcome.Status != second.Outcome.Status || first.Intent.ID != second.Intent.ID {
			t.Errorf("%+v became %+v", first, second)
		}
	})
}

// The same of the progress record: the number of a flush that is read wrongly would lose events or repeat them.
func FuzzDecodeProgress(f *testing.F) {
	f.Add([]byte(`{"format":1,"seq":7,"epoch":9,"offset":41,"from":3,"until":8,"trail":[[6,9,40,2],[1,1,1,1]]}`))
	f.Add([]byte(`{"format":1,"trail":[[1,2,3,4,5]]}`))
	f.Add([]byte(`{"format":9}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		p, err := decodeProgress(&kgo.Record{Value: value}, 1)
		if err != nil || value == nil {
			return
		}
		made, err := p.record("progress", 1)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeProgress(made, 1)
		if len(p.Trail) == 0 {
			p.Trail, again.Trail = nil, nil
		}
		if err != nil || !cmp.Equal(p, again) {
			t.Errorf("%v: %s", err, cmp.Diff(p, again))
		}
	})
}
