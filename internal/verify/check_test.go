package verify

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pawl/internal/message"
)

// good histories: whatever may happen to a correct Pawl and must not be taken for a fault.
var good = map[string]func() *world{
	"everything once": func() *world { return newWorld().run().finish() },
	"rejects and fan-out": func() *world {
		w := newWorld()
		w.input(0, "bad one")
		w.input(0, "two of them")
		w.input(1, "this makes it panic")
		w.input(1, "at most once")
		return w.run().finish()
	},
	"engine rejects what the handler takes": func() *world {
		w := newWorld()
		poison := w.input(0, "harmless")
		w.run()
		from := w.all(0)
		// the last batch again, by hand: the poison goes to the dead letters
		w.Log = slices.DeleteFunc(w.Log, func(e Entry) bool { return e.Record != nil && made(e.Record, poison.Offset) })
		w.letter(poison, message.Source{Application: application, Topic: inTopic, TopicID: inID, Offset: from[len(from)-1].Offset}, "poison")
		w.end(true)
		return w.finish()
	},
	"input rewound with a raised generation": func() *world {
		w := newWorld().run()
		w.plan.Generation = 1
		w.process(w.all(0)[2:6], 1, true)
		return w.finish()
	},
	"input set back by an operator": func() *world {
		w := newWorld().run()
		w.plan.Repeated = []Range{{Topic: inTopic, Partition: 0, From: 2, To: 6}}
		w.process(w.all(0)[2:6], 0, true)
		return w.finish()
	},
	"business key comes twice": func() *world {
		w := newWorld()
		w.input(0, "business 1")
		w.input(0, "business 1")
		return w.run().finish()
	},
	"answer lost and repeated": func() *world {
		w := newWorld().run().finish()
		w.Calls[0].Lost = true
		w.call(w.committed(effectTopic)[0], 2, 100, true)
		return w
	},
	"takeover repeats": func() *world {
		w := newWorld().run().finish()
		w.call(w.committed(effectTopic)[0], 1, 200, true)
		return w
	},
	"stale sender comes late": func() *world {
		w := newWorld().run().finish()
		effects := w.sameKey()
		stale := w.Calls[w.callOf(effects[0])]
		w.Calls = slices.DeleteFunc(w.Calls, func(c Call) bool { return c.Offset == stale.Offset && c.Lane == stale.Lane })
		w.Calls[w.callOf(effects[1])].Fence = 200
		w.Calls = append(w.Calls, stale)
		return w
	},
	"not at rest": func() *world {
		w := newWorld().run().finish()
		w.plan.Drained = false
		w.Offsets[0].Committed, w.Offsets[0].After = 5, 8
		w.Outcomes = w.Outcomes[:len(w.Outcomes)-1]
		event := w.committed(resultTopic)
		w.drop(func(e Entry) bool { return e.Record == event[len(event)-1] })
		w.plan.Readers, w.Reads = false, nil
		return w
	},
	"log has lost its beginning": func() *world {
		w := newWorld().run().finish()
		w.plan.Readers, w.Reads = false, nil
		w.Begins = []Begin{{outTopic, 0, 6}}
		w.Log = slices.DeleteFunc(w.Log, func(e Entry) bool {
			return e.Record != nil && e.Record.Topic == outTopic && e.Record.Partition == 0 && e.Record.Offset < 6
		})
		return w
	},
	"others write there, too": func() *world {
		w := newWorld().run()
		w.plan.Shared = true
		w.write(&Record{Topic: outTopic, Value: []byte("not ours"), Timestamp: noon})
		w.end(true)
		return w.finish()
	},
	"an only call comes again after a restore": func() *world {
		w := newWorld()
		w.input(0, "only once")
		w.run().finish()
		w.plan.Restored = true // the ledger has forgotten that it was begun
		effect := w.committed(effectTopic)[inputs]
		w.call(effect, 1, 1000, true)
		return w
	},
	"a call under a tenure that had ended": func() *world {
		w := newWorld().run().finish()
		w.plan.Overlaps = true
		w.call(w.committed(effectTopic)[0], 1, 1, true)
		return w
	},
	"calls whose connections had been cut are read after the one made in their place": func() *world {
		w := newWorld().run().finish()
		for range 2 {
			w.call(w.committed(effectTopic)[0], 1, 100, true).Late = true
		}
		return w
	},
	"another of a business key is the first after a restore": func() *world {
		w := newWorld()
		w.input(0, "business 1")
		w.input(0, "business 1")
		w.run().finish()
		w.plan.Restored = true
		w.call(w.committed(effectTopic)[inputs+1], 1, 1000, true)
		return w
	},
	"an earlier one of a key is called after a restore": func() *world {
		w := swapped()
		w.plan.Restored = true
		w.Calls[w.callOf(w.sameKey()[0])].Fence = 1000
		return w
	},
	"outputs go on with the trace of their input": func() *world {
		return traced(header(message.HeaderTrace, parent), header(message.HeaderState, "a=1"))
	},
	"outputs of releases that left the trace out": func() *world { return traced() },
	"repeats are left out by the ledger": func() *world {
		w := newWorld().run()
		// Only effects, so that no output is there twice: what the ledger is protected from.
		in := w.all(0)[0]
		source := message.Source{Application: application, Topic: inTopic, TopicID: inID}
		w.plan.Inputs[0].Handler = nil
		w.plan.Least = Least{}
		for _, r := range w.committed(effectTopic) {
			if o, _ := readOrigin(r.Headers); o.partition == 0 && o.offset == in.Offset {
				again := *r
				w.write(&again)
			}
		}
		_ = source
		w.end(true)
		return w.finish()
	},
}

// made tells whether a record was made from the input of partition 0 at an offset.
func made(r *Record, offset int64) bool {
	o, ok := readOrigin(r.Headers)
	return ok && o.partition == 0 && o.offset == offset
}

// sameKey gives the first two effects of one lane and key.
func (w *world) sameKey() []*Record {
	effects := w.committed(effectTopic)
	for i, a := range effects {
		for _, b := range effects[i+1:] {
			if a.Partition == b.Partition && string(a.Key) == string(b.Key) {
				return []*Record{a, b}
			}
		}
	}
	panic("no two effects have one key")
}

func (w *world) callOf(effect *Record) int {
	return slices.IndexFunc(w.Calls, func(c Call) bool { return c.Lane == effect.Partition && c.Offset == effect.Offset })
}

// swapped has the calls of two effects of one key in the wrong order.
func swapped() *world {
	w := newWorld().run().finish()
	effects := w.sameKey()
	a, b := w.callOf(effects[0]), w.callOf(effects[1])
	w.Calls[a], w.Calls[b] = w.Calls[b], w.Calls[a]
	return w
}

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// traced has an input with a trace, of which the output has these headers.
func traced(carried ...message.Header) *world {
	w := newWorld()
	in := w.all(0)[0]
	in.Headers = []message.Header{header("other", "x"), header(message.HeaderTrace, parent), header(message.HeaderState, "a=1")}
	w.run()
	found := 0
	for _, r := range w.committed(outTopic) {
		if o, _ := readOrigin(r.Headers); o.partition == 0 && o.offset == in.Offset {
			r.Headers = slices.Concat(carried, r.Headers)
			found++
		}
	}
	if found != 1 {
		panic("the traced input has not one output")
	}
	return w.finish()
}

func TestGoodHistoriesAreClean(t *testing.T) {
	t.Parallel()
	for name, history := range good {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := history()
			report := w.check(t)
			if name == "repeats are left out by the ledger" { // the topic has it twice, and that is told
				delete(report.Counts, Duplicate)
				if report.Saw.Suppressed != 1 {
					t.Errorf("%d effects were suppressed, want 1", report.Saw.Suppressed)
				}
			}
			if len(report.Counts) > 0 {
				t.Errorf("found %v:\n%v", report.Counts, report.Findings)
			}
			if report.Saw.Judged == 0 || report.Saw.Outputs == 0 || report.Saw.Rows == 0 || report.Saw.Calls == 0 {
				t.Errorf("too little was seen: %+v", report.Saw)
			}
		})
	}
}

// bad histories: one fault each, and the verdict it must have. Where the fault shows in another way,
// too, that is named.
var bad = map[Verdict][]struct {
	name string
	make func() *world
	also []Verdict
}{
	Lost: {
		{"an output is not there", func() *world {
			w := newWorld().run().finish()
			w.plan.Readers, w.Reads = false, nil
			w.drop(func(e Entry) bool { return e.Record != nil && e.Record == w.committed(outTopic)[3] })
			return w
		}, nil},
		{"nothing was made of an input", func() *world {
			w := newWorld()
			for partition := range int32(inputParts) {
				w.process(w.all(partition)[1:], 0, true)
			}
			return w.finish()
		}, nil},
		{"the dead letter is not there", func() *world {
			w := newWorld()
			w.input(0, "bad")
			w.run().finish()
			w.drop(func(e Entry) bool {
				return e.Record != nil && e.Record.Topic == deadTopic && e.Record == w.committed(deadTopic)[0]
			})
			return w
		}, nil},
	},
	Duplicate: {
		{"a batch is committed twice", func() *world {
			w := newWorld().run()
			w.process(w.all(1)[2:4], 0, true)
			return w.finish()
		}, nil},
		{"more came again than an operator had set back", func() *world {
			w := newWorld().run()
			w.plan.Repeated = []Range{{Topic: inTopic, Partition: 1, From: 3, To: 6}}
			w.process(w.all(1)[2:4], 0, true)
			return w.finish()
		}, nil},
		{"without a model", func() *world {
			w := newWorld().run()
			w.plan.Inputs[0].Handler = nil
			w.process(w.all(1)[2:4], 0, true)
			return w.finish()
		}, nil},
		{"rejected and processed, without a model", func() *world {
			w := newWorld().run()
			w.plan.Inputs[0].Handler = nil
			in := w.all(1)[2]
			w.letter(in, message.Source{Application: application, Topic: inTopic, TopicID: inID, Partition: 1, Offset: in.Offset}, "bad")
			w.end(true)
			return w.finish()
		}, []Verdict{Torn}},
	},
	Phantom: {
		{"of no record", func() *world {
			w := newWorld().run()
			w.input(0, "aborted")
			ghost := w.all(0)[inputs]
			w.process([]*Record{ghost}, 0, true)
			w.drop(func(e Entry) bool { return e.Record == ghost })
			w.input(0, "the last")
			w.process(w.all(0)[inputs:], 0, true)
			return w.finish()
		}, nil},
		{"no source", func() *world {
			w := newWorld().run()
			w.write(&Record{Topic: outTopic, Value: []byte("who am I"), Timestamp: noon})
			w.end(true)
			return w.finish()
		}, nil},
		{"of another topic", func() *world {
			w := newWorld().run()
			source := message.Source{Application: application, Topic: "elsewhere", TopicID: inID}
			w.write(&Record{Topic: outTopic, Timestamp: noon, Headers: []message.Header{header(message.HeaderSource, source.String()), header(message.HeaderID, source.ID(0).String())}})
			w.end(true)
			return w.finish()
		}, nil},
		{"under an id of another application", func() *world {
			w := newWorld()
			w.process(w.all(0), 0, true)
			w.process(w.all(1), 0, true)
			source := message.Source{Application: "another", Topic: inTopic, TopicID: inID, Offset: 3}
			w.write(&Record{Topic: outTopic, Timestamp: noon, Headers: []message.Header{header(message.HeaderSource, source.String()), header(message.HeaderID, source.ID(0).String())}})
			w.end(true)
			return w.finish()
		}, nil},
		{"that the handler does not ask for", func() *world {
			w := newWorld()
			w.process(w.all(0), 0, true)
			w.process(w.all(1)[:inputs-1], 0, true)
			in := w.all(1)[inputs-1]
			source := message.Source{Application: application, Topic: inTopic, TopicID: inID, Partition: 1, Offset: in.Offset}
			w.write(&Record{Topic: moreTopic, Partition: 1, Timestamp: noon, Headers: []message.Header{header(message.HeaderSource, source.String()), header(message.HeaderID, source.ID(5).String())}})
			w.process([]*Record{in}, 0, true)
			return w.finish()
		}, nil},
	},
	Corrupt: {
		{"the trace of another", func() *world {
			return traced(header(message.HeaderTrace, strings.Replace(parent, "b7", "b8", 1)), header(message.HeaderState, "a=1"))
		}, nil},
		{"half of its trace", func() *world { return traced(header(message.HeaderTrace, parent)) }, nil},
		{"another value", func() *world {
			w := newWorld().run()
			w.committed(outTopic)[2].Value = []byte("something else")
			return w.finish()
		}, nil},
		{"another time", func() *world {
			w := newWorld().run()
			w.committed(outTopic)[2].Timestamp = noon.Add(time.Minute)
			return w.finish()
		}, nil},
		{"another key", func() *world {
			w := newWorld().run()
			w.committed(outTopic)[2].Key = nil
			return w.finish()
		}, nil},
		{"dead letter with another reason", func() *world {
			w := newWorld()
			w.input(0, "bad")
			w.run()
			letter := w.committed(deadTopic)[0]
			letter.Headers[3].Value = []byte("worse")
			return w.finish()
		}, nil},
		{"dead letter with other bytes", func() *world {
			w := newWorld()
			w.input(0, "bad")
			w.run()
			w.committed(deadTopic)[0].Value = []byte("good")
			return w.finish()
		}, nil},
		{"effect with another body", func() *world {
			w := newWorld().run()
			w.committed(effectTopic)[2].Value = []byte("pay more")
			return w.finish()
		}, nil},
	},
	Reordered: {{"two of one partition change places", func() *world {
		w := newWorld()
		in := w.all(0)
		in[3], in[4] = in[4], in[3]
		w.process(in, 0, true)
		w.process(w.all(1), 0, true)
		return w.finish()
	}, []Verdict{PGLost}}},
	Torn: {
		{"outputs aborted, effects committed", func() *world {
			w := newWorld().run()
			for _, entry := range w.Log {
				if m := entry.Marker; m != nil && m.Topic == outTopic && m.Commit {
					m.Commit = false
					break
				}
			}
			return w.finish()
		}, []Verdict{Lost}},
		{"outputs of two attempts", func() *world {
			w := newWorld().run()
			other := w.committed(outTopic)[1]
			for _, entry := range w.Log {
				if r := entry.Record; r == other {
					r.Producer = producer + 1
					r.Transactional = false
				}
			}
			return w.finish()
		}, nil},
		{"offsets stayed behind", func() *world {
			w := newWorld().run().finish()
			w.plan.Drained = false
			w.Offsets[0].Committed = 5
			return w
		}, nil},
	},
	Hanging: {{"a transaction never ended", func() *world {
		w := newWorld().run().finish()
		w.write(&Record{Topic: outTopic, Timestamp: noon})
		return w
	}, nil}},
	Undrained: {
		{"inputs are left", func() *world {
			w := newWorld().run().finish()
			w.Offsets[1].End++
			return w
		}, nil},
		{"an effect has no outcome", func() *world {
			w := newWorld().run().finish()
			w.Outcomes = w.Outcomes[1:]
			return w
		}, []Verdict{ResultPhantom}},
	},
	LostCommit: {{"told committed, is aborted", func() *world {
		w := newWorld().run().finish()
		w.Spans[0].Claim = ClaimCommitted
		return w
	}, nil}},
	GhostCommit: {{"told aborted, is committed", func() *world {
		w := newWorld().run().finish()
		w.Spans[1].Claim = ClaimAborted
		return w
	}, nil}},
	DoubleProcess: {{"two transactions took an input", func() *world {
		w := newWorld().run().finish()
		w.Spans[3].From--
		return w
	}, nil}},
	Skip: {{"no transaction took an input", func() *world {
		w := newWorld().run().finish()
		w.Spans[3].From++
		return w
	}, nil}},
	AbortedRead: {
		{"of an aborted transaction", func() *world {
			w := newWorld().run().finish()
			for _, entry := range w.Log {
				if r := entry.Record; r != nil && r.Topic == outTopic {
					w.Reads = append([]Read{{"curious", r}}, w.Reads...)
					return w
				}
			}
			return w
		}, nil},
		{"of an open transaction", func() *world {
			w := newWorld().run().finish()
			w.plan.Drained = false
			w.Reads = append(w.Reads, Read{"curious", w.write(&Record{Topic: outTopic, Timestamp: noon})})
			return w
		}, nil},
	},
	Skipped: {{"a reader misses one", func() *world {
		w := newWorld().run().finish()
		missed := w.committed(outTopic)[2]
		w.dropRead(func(r Read) bool { return r.Record == missed })
		return w
	}, nil}},
	Inconsistent: {
		{"another value", func() *world {
			w := newWorld().run().finish()
			other := *w.Reads[20].Record
			other.Value = []byte("other")
			w.Reads[20].Record = &other
			return w
		}, nil},
		{"a record that is not there", func() *world {
			w := newWorld().run().finish()
			w.plan.Least = Least{}
			other := *w.committed(outTopic)[0]
			other.Offset = 3 // a marker stands there
			w.Reads = append(w.Reads, Read{"dreamer", &other})
			return w
		}, nil},
	},
	Nonmonotonic: {{"a reader goes back", func() *world {
		w := newWorld().run().finish()
		w.Reads = append(w.Reads, w.Reads[1])
		return w
	}, nil}},
	PGLost: {{"a row is missing", func() *world {
		w := newWorld().run().finish()
		w.Rows = w.Rows[1:]
		return w
	}, []Verdict{PGPhantom}}},
	PGDup: {
		{"a row is there twice", func() *world {
			w := newWorld().run().finish()
			w.Rows = append(w.Rows, w.Rows[2])
			return w
		}, nil},
		{"a repeat was taken", func() *world {
			w := newWorld().run()
			again := *w.committed(effectTopic)[0]
			w.write(&again)
			w.end(true)
			w.plan.Inputs[0].Handler = nil
			w.finish()
			row := w.Rows[0]
			row.Offset = again.Offset
			w.Rows = append(w.Rows, row)
			w.Outcomes = append(w.Outcomes, Outcome{Lane: row.Lane, Offset: row.Offset, Seq: 999, Status: "done"})
			w.call(&again, 1, 100, true)
			w.tell(&again, "done")
			w.end(true)
			return w
		}, []Verdict{Duplicate}},
	},
	PGPhantom: {
		{"of an aborted effect", func() *world {
			w := newWorld().run().finish()
			row := w.Rows[0]
			row.Offset = 0 // the first attempt, which was aborted
			row.Source.Offset = 99
			w.Rows = append(w.Rows, row)
			return w
		}, nil},
		{"of nothing", func() *world {
			w := newWorld().run().finish()
			row := w.Rows[0]
			row.Offset, row.Source.Offset = 5000, 99
			w.Rows = append(w.Rows, row)
			return w
		}, nil},
	},
	PGCorrupt: {
		{"another body", func() *world {
			w := newWorld().run().finish()
			w.Rows[1].Body = []byte("pay me")
			return w
		}, nil},
		{"another id", func() *world {
			w := newWorld().run().finish()
			w.Rows[1].ID[3]++
			return w
		}, nil},
		{"another source", func() *world {
			w := newWorld().run().finish()
			w.Rows[1].Source.Offset += 100
			return w
		}, nil},
		{"another endpoint", func() *world {
			w := newWorld().run().finish()
			w.Rows[1].Endpoint = "elsewhere"
			return w
		}, nil},
	},
	PhantomCall: {
		{"for an aborted effect", func() *world {
			w := newWorld().run().finish()
			for _, entry := range w.Log {
				if r := entry.Record; r != nil && r.Topic == effectTopic {
					w.call(r, 1, 100, true)
					return w
				}
			}
			return w
		}, nil},
		{"for nothing", func() *world {
			w := newWorld().run().finish()
			ghost := *w.committed(effectTopic)[0]
			ghost.Offset = 7777
			w.call(&ghost, 1, 100, true)
			return w
		}, nil},
	},
	EarlyCall: {{"before the marker", func() *world {
		w := newWorld().run().finish()
		w.Calls[2].At = noon.Add(999 * time.Millisecond)
		return w
	}, nil}},
	Mutated: {
		{"another body", func() *world {
			w := newWorld().run().finish()
			w.Calls[2].Body[0]++
			return w
		}, nil},
		{"another key", func() *world {
			w := newWorld().run().finish()
			w.Calls[2].ID = w.Calls[3].ID
			return w
		}, nil},
	},
	LostCall: {
		{"no call at all", func() *world {
			w := newWorld().run().finish()
			w.Calls = w.Calls[1:]
			return w
		}, nil},
		{"only failed ones", func() *world {
			w := newWorld().run().finish()
			w.Calls[3].Executed = false
			return w
		}, nil},
	},
	UnexplainedDup: {
		{"the same attempt again", func() *world {
			w := newWorld().run().finish()
			w.call(w.committed(effectTopic)[0], 1, 100, true)
			return w
		}, nil},
		{"the same attempt again after one whose connection had been cut", func() *world {
			w := newWorld().run().finish()
			effect := w.committed(effectTopic)[0]
			late := w.call(effect, 1, 100, true)
			late.Late, late.Lost = true, true
			w.call(effect, 1, 100, true)
			return w
		}, nil},
		{"under a tenure that had ended", func() *world {
			w := newWorld().run().finish()
			w.call(w.committed(effectTopic)[0], 1, 1, true)
			return w
		}, nil},
		{"the same attempt again where tenures overlap", func() *world {
			w := newWorld().run().finish()
			w.plan.Overlaps = true
			w.call(w.committed(effectTopic)[0], 1, 100, true)
			return w
		}, nil},
		{"both of a business key", func() *world {
			w := newWorld()
			w.input(0, "business 1")
			w.input(0, "business 1")
			w.run().finish()
			second := w.committed(effectTopic)[inputs+1]
			w.call(second, 1, 100, true)
			return w
		}, nil},
	},
	AMOViolation: {{"sent again", func() *world {
		w := newWorld()
		w.input(0, "only once")
		w.run().finish()
		effect := w.committed(effectTopic)[inputs]
		w.Calls[w.callOf(effect)].Lost = true
		w.call(effect, 2, 100, true)
		return w
	}, nil}, {"sent again by one owner after a restore", func() *world {
		w := newWorld()
		w.input(0, "only once")
		w.run().finish()
		w.plan.Restored = true
		effect := w.committed(effectTopic)[inputs]
		w.Calls[w.callOf(effect)].Lost = true
		w.call(effect, 2, 100, true)
		return w
	}, nil}},
	CallReorder: {{"the later one first", swapped, nil}, {"the later one first, by one owner after a restore", func() *world {
		w := swapped()
		w.plan.Restored = true
		return w
	}, nil}},
	ResultMissing: {
		{"after everything has ended", func() *world {
			w := newWorld().run().finish()
			event := w.committed(resultTopic)[0]
			w.plan.Readers, w.Reads = false, nil
			w.drop(func(e Entry) bool { return e.Record == event })
			return w
		}, nil},
		{"although later ones are told", func() *world {
			w := newWorld().run().finish()
			w.plan.Drained = false
			event := w.committed(resultTopic)[0]
			w.plan.Readers, w.Reads = false, nil
			w.Lanes[0].Told = 3
			w.drop(func(e Entry) bool { return e.Record == event })
			return w
		}, nil},
	},
	ResultTwice: {{"told again", func() *world {
		w := newWorld().run().finish()
		w.tell(w.committed(effectTopic)[0], "done")
		w.end(true)
		return w
	}, nil}},
	ResultStatus: {
		{"another fate", func() *world {
			w := newWorld().run().finish()
			w.Outcomes[4].Status = "dead"
			return w
		}, nil},
		{"another effect", func() *world {
			w := newWorld().run().finish()
			event := w.committed(resultTopic)[0]
			event.Key = []byte("another")
			return w
		}, nil},
		{"another request", func() *world {
			w := newWorld().run().finish()
			event := w.committed(resultTopic)[0]
			w.plan.Readers, w.Reads = false, nil
			event.Value = []byte(strings.Replace(string(event.Value), `"body":"`, `"body":"AAAA`, 1))
			return w
		}, nil},
	},
	ResultPhantom: {
		{"of no effect", func() *world {
			w := newWorld().run().finish()
			ghost := *w.committed(effectTopic)[0]
			ghost.Offset = 7777
			w.tell(&ghost, "done")
			w.end(true)
			return w
		}, nil},
		{"unreadable", func() *world {
			w := newWorld().run().finish()
			w.write(&Record{Topic: resultTopic, Value: []byte("{"), Timestamp: noon})
			w.end(true)
			return w
		}, nil},
	},
	ResultOrder: {{"the later one first", func() *world {
		w := newWorld().run().finish()
		w.plan.Readers, w.Reads = false, nil
		effects := w.sameKey()
		var events []*Record
		for _, r := range w.committed(resultTopic) {
			if r.Partition == effects[0].Partition && slices.ContainsFunc(effects, func(e *Record) bool {
				return strings.Contains(string(r.Value), `"effect_id":"`+string(e.Headers[1].Value))
			}) {
				events = append(events, r)
			}
		}
		events[0].Value, events[1].Value = events[1].Value, events[0].Value
		return w
	}, nil}},
	Sanity: {
		{"nothing happened", func() *world {
			w := &world{plan: plan(), ends: map[Place]int64{}}
			w.plan.Readers = false
			return w.finish()
		}, nil},
		{"nothing was aborted", func() *world {
			w := newWorld()
			w.process(w.all(0), 0, true)
			w.process(w.all(1), 0, true)
			w.plan.Least.Aborted = 1
			return w.finish()
		}, nil},
		{"a reader saw nothing", func() *world {
			w := newWorld().run().finish()
			w.plan.Least.Reads = 1000
			return w
		}, nil},
	},
}

// TestBadHistoriesAreFound gives the checker histories that are broken in one way each. Without it a
// check that sees nothing would make every other test of this project pass.
func TestBadHistoriesAreFound(t *testing.T) {
	t.Parallel()
	for _, verdict := range Verdicts() {
		if len(bad[verdict]) == 0 && verdict != Unbalanced {
			t.Errorf("no history shows %s", verdict)
		}
		for _, test := range bad[verdict] {
			t.Run(string(verdict)+" "+test.name, func(t *testing.T) {
				t.Parallel()
				w := test.make()
				report := w.check(t)
				if report.Counts[verdict] == 0 {
					t.Fatalf("%s was not found, but %v:\n%v", verdict, report.Counts, report.Findings)
				}
				for _, other := range slices.Sorted(maps.Keys(report.Counts)) {
					if other != verdict && !slices.Contains(test.also, other) {
						t.Errorf("%s was found, too: %v", other, report.Findings)
					}
				}
				for _, one := range report.Findings {
					if one.Story == "" || strings.Contains(one.Story, "%!") {
						t.Errorf("%s has no story: %q", one.Verdict, one.Story)
					}
				}
			})
		}
	}
}

// An input below the range that comes out a second time is found although it is not judged itself.
func TestOutcomeOfWhatWasJudgedBeforeIsADuplicate(t *testing.T) {
	t.Parallel()
	w := newWorld().run()
	old := w.ends[Place{Topic: outTopic, Partition: 0}]
	w.process(w.all(0)[2:3], 0, true)
	w.input(0, "a new one")
	w.process(w.all(0)[inputs:], 0, true)
	w.plan = Plan{Application: application, Inputs: w.plan.Inputs, Outputs: w.plan.Outputs, Effects: effectTopic, DeadLetters: deadTopic}
	for _, fresh := range []bool{false, true} {
		c := newChecker(t, w.plan)
		if fresh {
			for _, topic := range []string{outTopic, effectTopic} {
				if err := c.Fresh(&Begin{topic, 0, old}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i := range w.Log {
			r := w.Log[i].Record
			if r != nil && r.Topic == resultTopic {
				continue
			}
			if err := c.Entry(&w.Log[i]); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Offsets(&Offsets{Topic: inTopic, From: inputs, Committed: inputs + 1}); err != nil {
			t.Fatal(err)
		}
		report, err := c.Report()
		if err != nil {
			t.Fatal(err)
		}
		if got := report.Counts[Duplicate]; fresh && got != 2 || !fresh && got != 0 || report.Saw.Judged != 1 {
			t.Errorf("fresh %v: found %v in %+v: %v", fresh, report.Counts, report.Saw, report.Findings)
		}
	}
}

func newChecker(t testing.TB, p Plan) *Checker {
	t.Helper()
	c, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestAccountsMustBeEven(t *testing.T) {
	t.Parallel()
	c := newChecker(t, Plan{Application: application, Inputs: plan().Inputs, Least: Least{Idle: true}})
	for account, amounts := range map[string][]int64{"even": {100, -60, -40}, "odd": {100, -99}} {
		for _, amount := range amounts {
			c.Post(account, amount, Place{outTopic, 0, 5})
		}
	}
	report, err := c.Report()
	if err != nil {
		t.Fatal(err)
	}
	if report.Counts[Unbalanced] != 1 || report.Total() != 1 || !strings.Contains(report.Findings[0].Story, "odd is off by 1") {
		t.Errorf("found %v", report.Findings)
	}
}

// Records that come out of order would be taken for findings: that is the feeder's mistake, not the history's.
func TestFeedingOutOfOrderIsAnError(t *testing.T) {
	t.Parallel()
	w := newWorld()
	slices.Reverse(w.Log)
	if _, err := Check(w.plan, w.History); err == nil || !strings.Contains(err.Error(), "out of order") {
		t.Errorf("got %v", err)
	}
}

func TestImpossiblePlansAreRefused(t *testing.T) {
	t.Parallel()
	_, err := New(Plan{Generation: -1, Journal: true})
	for _, want := range []string{"no name", "no input", "generation", "journal"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell %q", err, want)
		}
	}
}

// However little memory there is, the same is found.
func TestSpillingChangesNothing(t *testing.T) {
	t.Parallel()
	history := func() *world {
		w := newWorld()
		for range 500 {
			w.input(1, "business like all others")
		}
		w.run()
		w.process(w.all(0)[1:3], 0, true)
		return w.finish()
	}
	in := history()
	want := in.check(t)
	spilled := history()
	spilled.plan.Memory, spilled.plan.Dir = 32<<10, t.TempDir()
	got := spilled.check(t)
	if got.Saw.Spilled < 100<<10 || want.Saw.Spilled != 0 {
		t.Fatalf("%d and %d bytes were spilled", got.Saw.Spilled, want.Saw.Spilled)
	}
	if !maps.Equal(got.Counts, want.Counts) || got.Counts[Duplicate] != 4 || len(got.Counts) != 1 {
		t.Errorf("found %v, want %v, which are 4 duplicates: %v", got.Counts, want.Counts, got.Findings)
	}
	got.Saw.Spilled = 0
	if got.Saw != want.Saw {
		t.Errorf("saw %+v, want %+v", got.Saw, want.Saw)
	}
	if !slices.Equal(got.Findings, want.Findings) {
		t.Errorf("found\n%v\nwant\n%v", got.Findings, want.Findings)
	}
}

// The log is read before the ledger. What was an open transaction then may have been committed, ingested and called
// meanwhile: nothing can be said of it yet.
func TestLedgerMayHaveWhatWasOpenWhenTheLogWasRead(t *testing.T) {
	t.Parallel()
	w := newWorld().run().finish()
	w.plan.Drained, w.plan.Readers = false, false
	w.Reads, w.Offsets = nil, nil
	w.Log = slices.DeleteFunc(w.Log, func(e Entry) bool { return e.Marker != nil || e.Record.Topic != effectTopic })
	report := w.check(t)
	if report.Saw.Open == 0 || report.Saw.Rows == 0 {
		t.Fatalf("saw %+v, want open effects and rows", report.Saw)
	}
	if delete(report.Counts, Sanity); len(report.Counts) != 0 { // no input is decided, which it says
		t.Errorf("found %v: %v", report.Counts, report.Findings)
	}
}
