//go:build chaos && linux

package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// TestCheckFindsWhatIsWrong gives the check histories that are broken in one way each. Without it a
// check that sees nothing would make every other test of this package pass.
func TestCheckFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	const topic = "in"
	input := func(partition int32, offset int64) *kgo.Record {
		return &kgo.Record{Partition: partition, Offset: offset, Value: fmt.Appendf(nil, "value %d/%d", partition, offset)}
	}
	output := func(to, from int32, offset int64) *kgo.Record {
		source := topic + "/" + strconv.Itoa(int(from)) + "/" + strconv.FormatInt(offset, 10)
		return &kgo.Record{
			Partition: to, Value: input(from, offset).Value,
			Headers: []kgo.RecordHeader{{Key: message.HeaderSource, Value: []byte(source)}},
		}
	}
	inputs := []*kgo.Record{input(0, 0), input(0, 1), input(1, 0), input(1, 1)}
	right := func() []*kgo.Record {
		return []*kgo.Record{output(0, 0, 0), output(0, 1, 0), output(0, 0, 1), output(1, 1, 1)}
	}
	for name, test := range map[string]struct {
		inputs  []*kgo.Record
		outputs func() []*kgo.Record
		want    []string
	}{
		"all is well":      {inputs, right, nil},
		"input not unique": {[]*kgo.Record{input(0, 0), {Offset: 1, Value: input(0, 0).Value}}, func() []*kgo.Record { return []*kgo.Record{output(0, 0, 0)} }, []string{"input not unique", "missing"}},
		"missing":          {inputs, func() []*kgo.Record { return right()[1:] }, []string{"missing"}},
		"duplicate":        {inputs, func() []*kgo.Record { return append(right(), output(1, 1, 1)) }, []string{"duplicate"}},
		"duplicate elsewhere": {
			inputs, func() []*kgo.Record { return append(right(), output(2, 1, 1)) }, []string{"duplicate"},
		},
		"out of order": {
			inputs, func() []*kgo.Record { return []*kgo.Record{right()[2], right()[0], right()[1], right()[3]} }, []string{"out of order"},
		},
		"changed": {inputs, func() []*kgo.Record {
			outputs := right()
			outputs[0].Value = outputs[1].Value
			return outputs
		}, []string{"changed"}},
		"of no input": {inputs, func() []*kgo.Record { return append(right(), output(0, 0, 2)) }, []string{"of no input"}},
		"of unknown source": {inputs, func() []*kgo.Record {
			return append(right(), &kgo.Record{Value: []byte("who am I")})
		}, []string{"of unknown source"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCheck(topic)
			for _, r := range test.inputs {
				c.in(r)
			}
			for _, r := range test.outputs() {
				c.out(r)
			}
			c.missing()
			slices.Sort(c.kinds)
			if !slices.Equal(c.kinds, test.want) {
				t.Errorf("got %q, want %q", c.kinds, test.want)
			}
		})
	}
}
