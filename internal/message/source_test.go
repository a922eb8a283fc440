package message_test

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"pawl/internal/message"
)

var topicID = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// The ids were computed by another implementation from the documented layout. They are in topics and
// ledgers: a release that changes one makes every receiver see the same effect twice.
func TestIDsAreWhatTheyAlwaysWere(t *testing.T) {
	t.Parallel()
	base := message.Source{Application: "orders", TopicID: topicID, Partition: 3, Offset: 42}
	repeated := base
	repeated.ReplayGeneration = 1
	for _, c := range []struct {
		source message.Source
		index  int
		want   string
	}{
		{base, 0, "8311c4e6-f809-574f-a86e-e6b6217689c4"},
		{base, 1, "f6a852fb-061a-565a-9af0-b88ef1402072"},
		{repeated, 0, "d5cff6dc-e7e5-5717-b740-2f4b2428cf4d"},
		{base, -1, "e8f12148-d261-53ea-95cd-2359e4b52d6f"},
		{message.Source{Application: "orders"}, 0, "a3258fa9-e6fe-5cd1-8281-023fa49064f3"},
		{
			message.Source{Application: strings.Repeat("a", 200), TopicID: topicID, Partition: math.MaxInt32, Offset: math.MaxInt64},
			9999, "6eb570b3-bb76-53ce-8ab1-dd3ddcd529f7",
		},
	} {
		if got := c.source.ID(c.index).String(); got != c.want {
			t.Errorf("id of %+v at %d is %s, want %s", c.source, c.index, got, c.want)
		}
	}
	for key, want := range map[string]string{
		"charge:17": "55160fcc-9806-57c8-b61d-f684e4b980ba",
		"":          "47fab131-7cb7-5481-b4e0-de09417d7048",
	} {
		if got := message.BusinessID("orders", "payments", key).String(); got != want {
			t.Errorf("business id of %q is %s, want %s", key, got, want)
		}
	}
}

// The name of a topic is no part of an id: the topic's id is, which tells a topic from its successor.
func TestIDsDifferWhereverTheirInputsDo(t *testing.T) {
	t.Parallel()
	type made struct {
		application string
		generation  int
		topic       [16]byte
		partition   int32
		offset      int64
		index       int
	}
	name := rapid.StringMatching(`[a-z._-]{1,5}`)
	rapid.Check(t, func(t *rapid.T) {
		seen := map[message.ID]made{}
		for range 50 {
			var topic [16]byte
			topic[rapid.IntRange(0, 15).Draw(t, "byte")] = rapid.Byte().Draw(t, "topic")
			m := made{
				name.Draw(t, "application"), rapid.IntRange(0, 3).Draw(t, "generation"), topic,
				rapid.Int32Range(0, 300).Draw(t, "partition"), rapid.Int64Range(0, 300).Draw(t, "offset"), rapid.IntRange(-1, 300).Draw(t, "index"),
			}
			s := message.Source{
				Application: m.application, ReplayGeneration: m.generation, Topic: name.Draw(t, "name"),
				TopicID: m.topic, Partition: m.partition, Offset: m.offset,
			}
			id := s.ID(m.index)
			if id[6]>>4 != 5 || id[8]>>6 != 0b10 {
				t.Fatalf("%s is not of version 5 and variant 10 (RFC 9562)", id)
			}
			if other, taken := seen[id]; taken && other != m {
				t.Fatalf("%+v and %+v have one id", other, m)
			}
			seen[id] = m
			if business := message.BusinessID(m.application, "", ""); business == id {
				t.Fatalf("%+v has the id of a business key", m)
			}
		}
	})
}

// Whatever is another in a source makes another id, one part at a time. Chance finds that only now and then:
// two sources of which all but one part agree are rare.
func TestEachPartOfASourceMakesAnotherID(t *testing.T) {
	t.Parallel()
	sources := rapid.Custom(func(t *rapid.T) message.Source {
		return message.Source{
			Application: rapid.StringMatching(`[a-z]{1,9}`).Draw(t, "application"), ReplayGeneration: rapid.IntRange(0, 9).Draw(t, "generation"),
			TopicID: [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "topic")), Partition: rapid.Int32Range(0, 300).Draw(t, "partition"),
			Offset: rapid.Int64Min(0).Draw(t, "offset"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		s, index := sources.Draw(t, "source"), rapid.IntRange(-1, 300).Draw(t, "index")
		was, octet := s.ID(index), rapid.IntRange(0, 15).Draw(t, "octet")
		for part, change := range map[string]func(*message.Source, *int){
			"application": func(s *message.Source, _ *int) { s.Application += "x" },
			"generation":  func(s *message.Source, _ *int) { s.ReplayGeneration++ },
			"topic id":    func(s *message.Source, _ *int) { s.TopicID[octet]++ },
			"partition":   func(s *message.Source, _ *int) { s.Partition++ },
			"offset":      func(s *message.Source, _ *int) { s.Offset ^= 1 },
			"index":       func(_ *message.Source, index *int) { *index++ },
		} {
			other, at := s, index
			change(&other, &at)
			if other.ID(at) == was {
				t.Fatalf("another %s makes the same id %s", part, was)
			}
		}
		same := s
		same.Topic = "renamed"
		if same.ID(index) != was {
			t.Fatal("the name of the topic is part of the id, which its topic id tells already")
		}
	})
}

// Application, endpoint and key are kept apart: a boundary that moves makes another id.
func TestBusinessIDsKeepTheirPartsApart(t *testing.T) {
	t.Parallel()
	seen := map[message.ID][]string{}
	for _, parts := range [][]string{
		{"a", "b", "c"}, {"ab", "", "c"}, {"a", "bc", ""}, {"", "ab", "c"}, {"a", "b", "cc"}, {"b", "a", "c"}, {"a", "", "bc"},
	} {
		id := message.BusinessID(parts[0], parts[1], parts[2])
		if other, taken := seen[id]; taken {
			t.Errorf("%q and %q have one id", other, parts)
		}
		seen[id] = parts
		if id[6]>>4 != 5 || id[8]>>6 != 0b10 {
			t.Errorf("%s is not of version 5 and variant 10 (RFC 9562)", id)
		}
		if id != message.BusinessID(parts[0], parts[1], parts[2]) {
			t.Errorf("%q has two ids", parts)
		}
	}
}

func TestTextIsAppended(t *testing.T) {
	t.Parallel()
	s := message.Source{Topic: "orders", Partition: 3, Offset: 42}
	if got := string(s.AppendText([]byte("at "))); got != "at orders/3/42" {
		t.Errorf("got %q", got)
	}
	id := s.ID(0)
	if got := string(id.AppendText([]byte("id "))); got != "id "+id.String() || len(id.String()) != 36 {
		t.Errorf("got %q", got)
	}
}

func TestSourcesAreReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := message.Source{
			Topic:     rapid.StringMatching(`[a-zA-Z0-9._-]{1,249}`).Draw(t, "topic"),
			Partition: rapid.Int32Range(0, math.MaxInt32).Draw(t, "partition"),
			Offset:    rapid.Int64Range(0, math.MaxInt64).Draw(t, "offset"),
		}
		got, err := message.ParseSource(want.String())
		if err != nil || got != want {
			t.Fatalf("read %+v, %v; want %+v", got, err, want)
		}
	})
}

func TestSourcesThatPawlNeverWroteAreRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "/", "//", "a", "a/1", "/1/2", "a/1/2/3", "a/b/1/2", "a/x/2", "a/1/x", "a/1/", "a//2",
		"a/-1/2", "a/1/-2", "a/+1/2", "a/01/2", "a/1/02", "a/ 1/2", "a/1/2 ", "a/0x1/2", "a/1_0/2",
		"a/2147483648/2", "a/1/9223372036854775808",
	} {
		if got, err := message.ParseSource(text); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		} else if !strings.Contains(err.Error(), "parse source") {
			t.Errorf("%q: the error %q does not say what was being done", text, err)
		}
	}
}

func FuzzParseSource(f *testing.F) {
	for _, text := range []string{"orders/3/42", "a/0/0", "a/-1/2", "a/2147483647/9223372036854775807", "//", "a/1/2/3", "\x00/1/2", "\xff/1/2"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		source, err := message.ParseSource(string(text))
		if err != nil {
			if source != (message.Source{}) {
				t.Errorf("a refused text gave %+v", source)
			}
			return
		}
		if source.Topic == "" || source.Partition < 0 || source.Offset < 0 {
			t.Errorf("%q gave %+v, which is no place", text, source)
		}
		if !bytes.Equal(source.AppendText(nil), text) {
			t.Errorf("%q was read as %q", text, source)
		}
	})
}
