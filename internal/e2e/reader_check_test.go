//go:build chaos && linux

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
	"pawl/internal/testkit"
)

// made is a record that was made of an offset of the partition 0 of "in".
func made(offset, of int64) *kgo.Record {
	return &kgo.Record{
		Topic: "out", Offset: offset, Value: fmt.Appendf(nil, "value %d", of),
		Headers: []kgo.RecordHeader{{Key: message.HeaderSource, Value: fmt.Appendf(nil, "in/0/%d", of)}},
	}
}

// Readers that were given something wrong while faults happened: each of them in one way.
func TestWatcherFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	there := []*kgo.Record{made(0, 0), made(1, 1), made(3, 2)} // at 2 stands a marker
	for name, test := range map[string]struct {
		seen []*kgo.Record
		want []string // parts of what is found, in this order
	}{
		"all is well":        {there, nil},
		"nothing":            {nil, []string{"saw nothing", "3 were not given"}},
		"goes back":          {[]*kgo.Record{made(0, 0), made(1, 1), made(1, 1), made(3, 2)}, []string{"offset 1 after 1", "something else"}},
		"left out":           {[]*kgo.Record{made(0, 0), made(3, 2)}, []string{"1 were not given, from offsets [1] on"}},
		"aborted":            {[]*kgo.Record{made(0, 0), made(1, 1), made(2, 2), made(3, 2)}, []string{"1 records that are not, from offsets [2] on"}},
		"aborted and redone": {[]*kgo.Record{made(0, 1), made(1, 1), made(3, 0)}, []string{"after offset 1 of that", "something else"}},
		"another value":      {[]*kgo.Record{made(0, 0), made(1, 7), made(3, 8)}, []string{"something else"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newWatcher("reader", false, "out")
			for _, r := range test.seen {
				v.take(r)
			}
			chains, offsets, o := map[at]uint64{}, map[at]offsets{}, &outcome{}
			here := at{"out", 0}
			for _, r := range there {
				chains[here] = chain(chains[here], r)
				offsets[here] = offsets[here].with(r.Offset)
			}
			deceived := v.conclude(o, chains, offsets)
			if (len(deceived) > 0) != (len(test.want) > 0) || len(o.wrong) != len(test.want) {
				t.Fatalf("found %+v, want %q", o.wrong, test.want)
			}
			for i, want := range test.want {
				if !strings.Contains(o.wrong[i].text, want) {
					t.Errorf("found %q, want %q", o.wrong[i].text, want)
				}
			}
		})
	}
}

// A reader that was given an aborted transaction: by a broker that did not list it, by its client although the broker
// did, and so long ago that nobody knows.
func TestWatcherKnowsWhoGaveItAbortedRecords(t *testing.T) {
	t.Parallel()
	here := at{"out", 0}
	answer := func(aborted ...testkit.AbortedListed) []testkit.FetchAnswer {
		return []testkit.FetchAnswer{{Broker: "broker", Aborted: aborted, Batches: []testkit.BatchFetched{{First: 5, Last: 6, Producer: 9}}}}
	}
	before, own, another := testkit.AbortedListed{Producer: 9, First: 1}, testkit.AbortedListed{Producer: 9, First: 5}, testkit.AbortedListed{Producer: 8, First: 5}
	for name, test := range map[string]struct {
		answers []testkit.FetchAnswer
		want    string
		kind    string
	}{
		"broker": {answer(before, another), "the broker's list lacked it (broker at", kindBroker},
		"client": {answer(before, own), "the list had it and the client gave the records all the same", "reader"},
		"nobody": {nil, "the answers are not kept any more", "reader"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, o := newWatcher("reader", false, "out"), &outcome{}
			chains, there := map[at]uint64{}, map[at]offsets{}
			w := writing{here, 9}
			v.ended[w] = 4
			for offset := range int64(9) { // 4 is the marker of what was aborted before, 7 that of what follows
				if r := made(offset, offset); offset < 4 || offset == 8 {
					v.take(r)
					chains[here] = chain(chains[here], r)
					there[here] = there[here].with(offset)
				} else if offset == 5 || offset == 6 {
					v.take(r)
				}
			}
			v.judge(w, handed{first: 5, last: 6, count: 2}, 7, test.answers)
			deceived := v.conclude(o, chains, there)
			if len(o.wrong) != 2 || o.wrong[0].kind != test.kind || o.wrong[1].kind != test.kind || !strings.Contains(o.wrong[0].text, test.want) {
				t.Errorf("found %+v, want kind %s: %q", o.wrong, test.kind, test.want)
			}
			if (len(deceived) == 0) != (test.kind == kindBroker) || len(o.aborted) != 1 || len(o.aborted[0].Answers) != len(test.answers) {
				t.Errorf("replicas of %v are asked, %d transactions are kept", deceived, len(o.aborted))
			}
		})
	}
}

// Copies that are wrong, each in one way.
func TestCopiesFindWhatIsWrong(t *testing.T) {
	t.Parallel()
	const count = 4
	for name, test := range map[string]struct {
		out  []*kgo.Record
		want []string // kinds
	}{
		"all is well": {[]*kgo.Record{made(0, 0), made(1, 1), made(2, 2), made(3, 3)}, nil},
		"lost":        {[]*kgo.Record{made(0, 0), made(1, 1), made(3, 3)}, []string{"lost"}},
		"duplicate":   {[]*kgo.Record{made(0, 0), made(1, 1), made(2, 1), made(3, 2), made(4, 3)}, []string{"duplicate", "reordered"}},
		"reordered":   {[]*kgo.Record{made(0, 0), made(1, 2), made(2, 1), made(3, 3)}, []string{"reordered"}},
		"phantom":     {[]*kgo.Record{made(0, 0), made(1, 1), made(2, 2), made(3, 3), made(4, 4)}, []string{"phantom"}},
		"of nobody":   {[]*kgo.Record{made(0, 0), made(1, 1), made(2, 2), made(3, 3), {Topic: "out"}}, []string{"phantom"}},
		"corrupt": {[]*kgo.Record{made(0, 0), made(1, 1), made(2, 2), {
			Topic: "out", Value: []byte("value 4"), Headers: made(3, 3).Headers,
		}}, []string{"corrupt"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, o := newCopies("in"), &outcome{}
			for offset := range int64(count) {
				c.in(&kgo.Record{Topic: "in", Offset: offset, Value: made(0, offset).Value})
			}
			for _, r := range test.out {
				c.out(r)
			}
			c.conclude(o)
			var kinds []string
			for _, one := range o.wrong {
				kinds = append(kinds, one.kind)
			}
			slices.Sort(kinds)
			if !slices.Equal(kinds, test.want) {
				t.Errorf("found %+v, want %q", o.wrong, test.want)
			}
		})
	}
}
