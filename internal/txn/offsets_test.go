package txn

import (
	"context"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

func TestOffsetMetadataIsReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		if got, ok := ParseOffsetMetadata(OffsetMetadata(id)); !ok || got != id {
			t.Fatalf("read %x, %t; want %x", got, ok, id)
		}
	})
}

func FuzzParseOffsetMetadata(f *testing.F) {
	f.Add(OffsetMetadata([16]byte{1, 2, 3}))
	f.Add("")
	f.Add("app.one.0")
	f.Add(metadataPrefix)
	f.Add(metadataPrefix + "zz")
	f.Add(OffsetMetadata([16]byte{}) + "0")
	f.Fuzz(func(t *testing.T, text string) {
		id, ok := ParseOffsetMetadata(text)
		if ok && !strings.EqualFold(OffsetMetadata(id), text) {
			t.Errorf("%q was read as %x", text, id)
		}
		if !ok && id != ([16]byte{}) {
			t.Errorf("%q was refused and gave %x", text, id)
		}
	})
}

// commitPlain commits offsets of the input topic for the application's group.
func (w *world) commitPlain(offsets map[int32]int64) {
	w.t.Helper()
	all := kadm.Offsets{}
	for partition, at := range offsets {
		all.Add(kadm.Offset{Topic: inTopic, Partition: partition, At: at, LeaderEpoch: -1})
	}
	if err := kadm.NewClient(w.client).CommitAllOffsets(context.Background(), w.config.Group, all); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) topicID(topic string) [16]byte { return w.cluster.TopicInfo(topic).TopicID }

// Rule 3. What the broker has is compared with what the session believes, partition by partition.
func TestRule3OffsetsAreComparedForOwnedPartitions(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 3)
		w.commitPlain(map[int32]int64{0: 5, 1: 7})
		for name, c := range map[string]struct {
			believed map[int32]int64
			want     bool
		}{
			"both equal":               {map[int32]int64{0: 5, 1: 7}, true},
			"one differs":              {map[int32]int64{0: 5, 1: 8}, false},
			"broker is ahead":          {map[int32]int64{0: 4}, false},
			"only owned are looked at": {map[int32]int64{0: 5}, true},
			"none equals none":         {map[int32]int64{2: -1}, true},
			"none is any below zero":   {map[int32]int64{2: -2}, true}, // the client's "from the start"
			"none there, one here":     {map[int32]int64{2: 0}, false},
			"one there, none here":     {map[int32]int64{0: -1}, false},
			"a partition that is not":  {map[int32]int64{9: 1}, false},
			"nothing owned":            {nil, true},
		} {
			believed := map[place]int64{}
			for partition, at := range c.believed {
				believed[place{inTopic, partition}] = at
			}
			got, err := offsetsEqual(context.Background(), w.client, w.config.Group, w.topicID, believed)
			if got != c.want {
				t.Errorf("%s: equal is %t (%v), want %t", name, got, err, c.want)
			}
		}
	})
}

// Rule 3. The answer is looked at for what is owned, all of it and nothing else.
func TestRule3OnlyAFullAnswerIsEqual(t *testing.T) {
	t.Parallel()
	answer := func(offsets map[int32]int64) *kmsg.OffsetFetchResponse {
		topic := kmsg.NewOffsetFetchResponseGroupTopic()
		topic.Topic = inTopic
		for partition, at := range offsets {
			one := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			one.Partition, one.Offset = partition, at
			topic.Partitions = append(topic.Partitions, one)
		}
		group := kmsg.NewOffsetFetchResponseGroup()
		group.Topics = append(group.Topics, topic)
		resp := kmsg.NewPtrOffsetFetchResponse()
		resp.Groups = append(resp.Groups, group)
		return resp
	}
	believed := map[place]int64{{inTopic, 0}: 5, {inTopic, 1}: 7}
	for name, c := range map[string]struct {
		resp *kmsg.OffsetFetchResponse
		want bool
	}{
		"both":             {answer(map[int32]int64{0: 5, 1: 7}), true},
		"one is not owned": {answer(map[int32]int64{0: 5, 1: 7, 2: 9}), true},
		"one is missing":   {answer(map[int32]int64{0: 5}), false},
		"one for another":  {answer(map[int32]int64{0: 5, 2: 7}), false},
		"nothing":          {kmsg.NewPtrOffsetFetchResponse(), false},
	} {
		if equal, stable, err := compareOffsets(c.resp, believed); equal != c.want || !stable || err != nil {
			t.Errorf("%s: equal is %t, stable %t, %v; want %t and stable", name, equal, stable, err, c.want)
		}
	}
}

// Rule 3. What the group has committed is believed of the owned partitions only: others commit for the rest.
func TestRule3WhatIsGivenAwayIsNotBelieved(t *testing.T) {
	t.Parallel()
	l := &lane{}
	at := func(offset int64) kgo.EpochOffset { return kgo.EpochOffset{Epoch: 1, Offset: offset} }
	k := &kgoSession{deciding: make(chan struct{}, 1), believed: map[place]kgo.EpochOffset{{inTopic, 0}: at(3), {inTopic, 1}: at(4), {outTopic, 0}: at(5)}}
	k.gone(&tenure{lane: l}, false)(t.Context(), nil, map[string][]int32{inTopic: {0, 2}})
	k.moved(map[place]kgo.EpochOffset{{inTopic, 0}: at(7), {inTopic, 1}: at(8)})
	if want := (map[place]kgo.EpochOffset{{inTopic, 1}: at(8), {outTopic, 0}: at(5)}); !maps.Equal(k.believed, want) {
		t.Errorf("%v is believed, want %v", k.believed, want)
	}
}

// Rule 3. While a transaction that moves the offset is being ended, the offset before it is no answer:
// it would be that of an abort, and then the transaction commits.
func TestRule3OffsetsHeldByATransactionAreNotCompared(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		held, let := make(chan struct{}), make(chan struct{})
		w.cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
			close(held)
			w.cluster.SleepControl(func() { <-let })
			return nil, nil, false
		})
		w.produce(0, numbers(0, 10)...)
		r := w.run()
		next(t, held, "EndTxn")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		before := map[place]int64{{inTopic, 0}: 0}
		if equal, err := offsetsEqual(ctx, w.client, w.config.Group, w.topicID, before); equal || err == nil {
			t.Errorf("equal is %t, %v; want no answer", equal, err)
		}
		close(let)
		until(t, w.hooks.ended, "10 committed records", committed(10))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, numbers(0, 10))
	})
}

// Rule 3. An offset that a transaction still holds is neither equal nor different: it is asked for
// again, until it is decided or time is up. What cannot be asked is not equal.
func TestRule3UnstableOffsetsAreAskedForAgain(t *testing.T) {
	believed := map[place]int64{{inTopic, 0}: 5}
	for name, c := range map[string]struct {
		fault *kerr.Error
		count int
		equal bool
		fails bool
	}{
		"unstable for a while": {kerr.UnstableOffsetCommit, 7, true, false},
		"unstable for ever":    {kerr.UnstableOffsetCommit, -1, false, true},
		"not allowed":          {kerr.TopicAuthorizationFailed, -1, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newVirtualWorld(t, 1)
				w.commitPlain(map[int32]int64{0: 5})
				fault := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Topic: inTopic, Err: c.fault, Count: c.count})
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				equal, err := offsetsEqual(ctx, w.client, w.config.Group, w.topicID, believed)
				if equal != c.equal || (err != nil) != c.fails {
					t.Errorf("equal is %t, %v; want %t and an error: %t", equal, err, c.equal, c.fails)
				}
				if c.count > 0 && fault.Hits() != c.count {
					t.Errorf("%d answers were unstable, want %d", fault.Hits(), c.count)
				}
				if most := 1 + int(10*time.Second/unstableBackoff); fault.Hits() > most {
					t.Errorf("asked %d times within 10s, want at most %d", fault.Hits(), most)
				}
			})
		})
	}
}

// Rule 9. What the client was told is committed is never overwritten by a start, even where the answer
// in which it came can't be found again.
func TestRule9KnownOffsetsAreNeverOverwritten(t *testing.T) {
	t.Parallel()
	offsets := map[string]map[int32]kgo.Offset{inTopic: {0: kgo.NewOffset().At(5)}}
	halted, err := validConfig().settle(context.Background(), nil, "app.one.0", map[place]committedOffset{}, map[string][16]byte{inTopic: {1}}, offsets)
	if err != nil || len(halted) != 0 || offsets[inTopic][0] != kgo.NewOffset().At(5) {
		t.Errorf("settled to %v, halted %v, %v; want offset 5 as it was", offsets, halted, err)
	}
}

// Rule 9. A start that was resolved and committed stands, though settling failed afterwards and is
// tried again; what was written in between is read.
func TestRule9LatestIsResolvedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 1)
		w.config.Start = StartLatest
		w.produce(0, numbers(0, 10)...)
		blind := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: controlTopic, Err: kerr.TopicAuthorizationFailed, Count: -1})
		r := w.run()
		synctest.Wait()
		time.Sleep(2 * time.Second) //nolint:forbidigo // virtual time
		if blind.Hits() == 0 || w.committedOffset(0) != 10 {
			t.Fatalf("the control topic failed %d times, offset %d is committed; want some and 10", blind.Hits(), w.committedOffset(0))
		}
		w.produce(0, numbers(10, 20)...)
		time.Sleep(2 * time.Second) //nolint:forbidigo // virtual time
		blind.Remove()
		until(t, w.hooks.ended, "10 committed records", committed(10))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		w.wantOnce(outTopic, numbers(10, 20))
	})
}

// Rule 9. A partition without a start is reported as halted, though settling failed afterwards and is
// tried again: a partition that silently does not move is the worst of all.
func TestRule9HaltedPartitionIsReportedAfterRetries(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newVirtualWorld(t, 2)
		w.config.Start = StartFail
		w.commitPlain(map[int32]int64{1: 0})
		w.produce(0, numbers(0, 10)...)
		w.produce(1, numbers(10, 20)...)
		blind := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: controlTopic, Err: kerr.TopicAuthorizationFailed, Count: 3})
		r := w.run()
		halted := next(t, w.hooks.haltedAt, "halted partition")
		if halted.Partition != 0 || blind.Hits() != 3 {
			t.Errorf("halted %+v after %d failures, want partition 0 after 3", halted, blind.Hits())
		}
		until(t, w.hooks.ended, "10 committed records", committed(10))
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if w.committedOffset(0) != -1 {
			t.Errorf("offset %d was committed for the halted partition", w.committedOffset(0))
		}
		w.wantOnce(outTopic, numbers(10, 20))
	})
}
