package ingest

import (
	"encoding/hex"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// Whatever stands on the effects topic is an intent or an error. An intent says again what its record said, in
// the one way that Pawl writes it, and shares no memory with it.
func FuzzDecode(f *testing.F) {
	source := message.Source{Application: "app", Topic: "orders", Partition: 3, Offset: 9}
	id := source.ID(0).String()
	f.Add(id, source.String(), "0", "07070700000000000000000000000000", "0", "payments", "at-least-once", "application/json", "charge:7", "pawl-trace", "x", []byte("key"), []byte("body"))
	f.Add(id, "orders/-1/9", "-1", "07", "1e3", "", "often", "a\r\nb", "", "pawl-id", id, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, id, from, index, topicID, generation, endpoint, class, content, business, name, value string, key, body []byte) {
		r := &kgo.Record{Partition: 2, Offset: 5, Key: key, Value: body, Headers: []kgo.RecordHeader{
			{Key: message.HeaderFormat, Value: []byte(message.EffectFormat)},
			{Key: message.HeaderID, Value: []byte(id)},
			{Key: message.HeaderSource, Value: []byte(from)},
			{Key: message.HeaderIndex, Value: []byte(index)},
			{Key: message.HeaderTopicID, Value: []byte(topicID)},
			{Key: message.HeaderGeneration, Value: []byte(generation)},
			{Key: message.HeaderEndpoint, Value: []byte(endpoint)},
			{Key: message.HeaderClass, Value: []byte(class)},
			{Key: message.HeaderContentType, Value: []byte(content)},
			{Key: name, Value: []byte(value)},
		}}
		if business != "" {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: message.HeaderBusinessKey, Value: []byte(business)})
		}
		intent, err := Decode(r)
		if err != nil {
			return
		}
		switch {
		case intent.ID.String() != id, intent.Source.String() != from, hex.EncodeToString(intent.Source.TopicID[:]) != topicID:
			t.Errorf("id %s, source %s, topic id %x of %q, %q, %q", intent.ID, intent.Source, intent.Source.TopicID, id, from, topicID)
		case intent.Index < 0, intent.Source.ReplayGeneration < 0, intent.Endpoint != endpoint || endpoint == "":
			t.Errorf("index %d, generation %d, endpoint %q", intent.Index, intent.Source.ReplayGeneration, intent.Endpoint)
		case string(intent.Class) != class, string(intent.Key) != string(key), string(intent.Body) != string(body):
			t.Errorf("class %q, key %q, body %q", intent.Class, intent.Key, intent.Body)
		}
		if name == message.HeaderPrefix+"unknown" {
			t.Error("a header of a later release was passed over")
		}
		if len(body) > 0 {
			if body[0]++; intent.Body[0] == body[0] {
				t.Error("the intent has memory of the record")
			}
		}
	})
}
