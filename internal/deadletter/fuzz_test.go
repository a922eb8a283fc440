package deadletter

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// Whatever stands on the dead-letter topic, be it headers in any order and number, is a letter with a story, or one
// that says that it has none. What goes back is the refused record, byte for byte.
func FuzzParse(f *testing.F) {
	f.Add("trace", "7", "orders/1/2", "id", "bad_json", "text", []byte("k"), []byte("v"))
	f.Add(message.HeaderSource, "orders/0/0", "orders/-1/2", "", "", "", []byte(nil), []byte(nil))
	f.Add(message.HeaderRedrive, "99999999999999999999", "orders/1/2", "id", "poison", "", []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, name, value, source, id, reason, text string, key, body []byte) {
		l := parse(&kgo.Record{Partition: 1, Offset: 2, Key: key, Value: body, Headers: []kgo.RecordHeader{
			{Key: name, Value: []byte(value)},
			{Key: message.HeaderSource, Value: []byte(source)},
			{Key: message.HeaderID, Value: []byte(id)},
			{Key: message.HeaderReason, Value: []byte(reason)},
			{Key: message.HeaderError, Value: []byte(text)},
		}})
		if l.Unreadable != nil {
			return
		}
		if l.Source.String() != source || l.ID != id || l.Reason != reason || l.Error != text || l.Redrives < 0 {
			t.Errorf("the letter is %+v", l)
		}
		back := l.restore(false)
		if back.Topic != l.Source.Topic || string(back.Key) != string(key) || string(back.Value) != string(body) {
			t.Errorf("%+v goes back as %+v", l, back)
		}
		if h := back.Headers; name != message.HeaderRedrive && (len(h) != 2 || h[0].Key != name || string(h[0].Value) != value) {
			t.Errorf("its headers are %v", h)
		}
	})
}

// Whatever stands on the control topic beside our markers is passed over, and what has our prefix is a marker or an error.
func FuzzApplyMarker(f *testing.F) {
	topicID := kadm.TopicID{1, 2, 3}
	fresh := func() *markers {
		return &markers{topicID: topicID, start: map[int32]int64{}, words: map[int32]map[int64]*word{}}
	}
	f.Add(string(fresh().key(Position{Partition: 3, Offset: 130})), []byte(`{"format":1,"state":"redriven"}`), false)
	f.Add(string(fresh().key(Position{Partition: 0, Offset: 0})), []byte(nil), true)
	f.Add("redrive/00/1/2", []byte(`{}`), false)
	f.Add("suspect/x", []byte(`{}`), false)
	f.Fuzz(func(t *testing.T, key string, value []byte, gone bool) {
		m, strange := fresh(), map[string]bool{}
		if gone {
			value = nil
		}
		err := m.apply(&kgo.Record{Key: []byte(key), Value: value}, strange)
		if !strings.HasPrefix(key, markerPrefix) && (err != nil || len(m.words)+len(strange) > 0) {
			t.Errorf("%q was taken for a marker: %v", key, err)
		}
		for partition, words := range m.words {
			for index, w := range words {
				if partition < 0 || index < 0 || w.redriven&w.discarded != 0 {
					t.Errorf("%q marks %d in partition %d: %+v", key, index, partition, w)
				}
			}
		}
	})
}
