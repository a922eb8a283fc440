//go:build synctests

package sim

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"time"

	"pawl/internal/message"
	"pawl/internal/verify"
)

// check holds what is left of a history that has come to rest against the promise. The verdicts are those
// of internal/verify; what only the simulator can know is checked beside it.
func (w *world) check() {
	report, err := w.verify()
	if err != nil {
		w.problem("SETUP check: %v", err)
		return
	}
	for _, f := range report.Findings {
		w.problem("%v", f)
	}
	w.saw = report.Saw
	w.checkCalls()
	w.checkRestores()
}

func (w *world) verify() (verify.Report, error) {
	topicID := func(topic string) [16]byte { return w.cluster.TopicInfo(topic).TopicID }
	model := work{trouble: &trouble{bit: w.bit}}
	c, err := verify.New(verify.Plan{
		Application: application,
		Inputs: []verify.Input{
			{Topic: inTopic, TopicID: topicID(inTopic), Handler: model}, {Topic: resultsTopic, TopicID: topicID(resultsTopic), Handler: settle{}},
		},
		Outputs: outputs(), Effects: effectsTopic, DeadLetters: deadTopic, Results: resultsTopic,
		Drained: true, Ledger: true, Journal: true, Restored: len(w.restores) > 0, Repeated: w.repeated, ClockSkew: time.Millisecond, Least: verify.Least{Inputs: int64(w.script.Inputs)},
	})
	if err != nil {
		return verify.Report{}, err
	}
	defer c.Close()
	for _, feed := range []func(*verify.Checker) error{w.feedLanes, w.feedLogs, w.feedOffsets, w.feedRows, w.feedCalls} {
		if err := feed(c); err != nil {
			return verify.Report{}, err
		}
	}
	return c.Report()
}

func (w *world) feedLanes(c *verify.Checker) error {
	for lane := range int32(lanes) {
		_, last := w.outcomesOf(lane)
		if err := c.Lane(&verify.Lane{Lane: lane, Next: w.ledger.Next(lane), Told: last}); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) feedLogs(c *verify.Checker) error {
	var ranges []verify.Range
	for _, topic := range []string{inTopic, resultsTopic, outA, outB, outSettled, effectsTopic, deadTopic} {
		for _, p := range w.cluster.PartitionInfos(topic) {
			if err := c.Begin(&verify.Begin{Topic: topic, Partition: p.Partition}); err != nil {
				return err
			}
			if p.HighWatermark > 0 {
				ranges = append(ranges, verify.Range{Topic: topic, Partition: p.Partition, To: p.HighWatermark})
			}
			if p.HighWatermark != p.LastStableOffset {
				w.problem("HANGING %s/%d is stable up to %d of %d", topic, p.Partition, p.LastStableOffset, p.HighWatermark)
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return verify.NewLogs(w.client).Read(ctx, verify.Uncommitted, ranges, func(e *verify.Entry) error {
		if r := e.Record; r != nil && r.Topic == deadTopic {
			w.deadLetter(r)
		}
		return c.Entry(e)
	})
}

// deadLetter looks at the engine's own rejects. The checker believes them; here it is known when there
// is a reason.
func (w *world) deadLetter(r *verify.Record) {
	header := func(name string) string {
		for _, h := range r.Headers {
			if h.Key == name {
				return string(h.Value)
			}
		}
		return ""
	}
	var in input
	_ = json.Unmarshal(r.Value, &in) // results are rejected by nobody
	switch reason := header(message.HeaderReason); {
	case reason == "poison" && !w.accused:
		w.problem("CONVICTED %s, though nothing accused it: %s", header(message.HeaderSource), header(message.HeaderError))
	case reason == "panic" && (in.Key == "" || expect(in).reject != "panic"):
		w.problem("REJECTED %s: %s", header(message.HeaderSource), header(message.HeaderError))
	}
}

func (w *world) feedOffsets(c *verify.Checker) error {
	info := w.cluster.GroupInfo(group)
	for _, topic := range []string{inTopic, resultsTopic} {
		for _, p := range w.cluster.PartitionInfos(topic) {
			at := info.Commits[topic][p.Partition].Offset
			if err := c.Offsets(&verify.Offsets{Topic: topic, Partition: p.Partition, Committed: at, After: at, End: p.HighWatermark}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *world) feedRows(c *verify.Checker) error {
	for lane := range int32(lanes) {
		for _, i := range w.ledger.Intents(lane) {
			if err := c.Row(&verify.Row{
				Lane: lane, Offset: i.Offset, ID: i.ID, Source: i.Source, Index: i.Index, Endpoint: i.Endpoint, Class: i.Class,
				ContentType: i.ContentType, BusinessKey: i.BusinessKey, Key: i.Key, Body: i.Body,
			}); err != nil {
				return err
			}
		}
		results, err := w.ledger.Results(context.Background(), lane, 0, 1<<30)
		if err != nil {
			return err
		}
		for _, r := range results {
			if err := c.Outcome(&verify.Outcome{
				Lane: lane, Offset: r.Outcome.Offset, Seq: r.Seq, Status: string(r.Outcome.Status), Attempts: r.Outcome.Attempts,
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// feedCalls leaves out what came late: that the endpoint gets it is the fault itself, and no verdict on
// the dispatcher.
func (w *world) feedCalls(c *verify.Checker) error {
	for _, t := range w.journal.calls {
		if t.late {
			continue
		}
		if err := c.Call(&verify.Call{
			At: t.at, ID: t.Intent.ID.String(), Lane: t.Intent.Lane, Offset: t.Intent.Offset, Attempt: t.Attempt, Fence: t.Fence,
			Body: sha256.Sum256(t.Intent.Body), Executed: t.executed, Refused: t.status == http.StatusUnprocessableEntity, Lost: !t.heard,
		}); err != nil {
			return err
		}
	}
	return nil
}

type effectPlace struct {
	lane   int32
	offset int64
}

// checkCalls knows what each caller heard, and who owned a lane when a call began.
func (w *world) checkCalls() {
	last := map[effectPlace]transmission{}
	for _, t := range w.journal.calls {
		if t.late {
			continue
		}
		at := effectPlace{t.Intent.Lane, t.Intent.Offset}
		if before, again := last[at]; again {
			switch {
			case t.Intent.Class == message.AtMostOnce && w.restoredBetween(before.at, t.at):
				// That it was begun stood in what the restore has lost; see checkRestores.
			case t.Intent.Class == message.AtMostOnce:
				w.problem("AT-MOST-ONCE %v was called again by %s", at, t.process)
			case before.heard && (before.executed || before.status == http.StatusUnprocessableEntity) && before.Fence == t.Fence:
				w.problem("CALLED-AGAIN %v by %s under fence %d, which knew the answer", at, t.process, t.Fence)
			}
		}
		last[at] = t
	}
	if !w.hasTwins() {
		for _, s := range w.journal.stale {
			w.problem("STALE-CALL %s", s)
		}
	}
}

func outputs() map[string]string {
	return map[string]string{"a": outA, "b": outB, "settled": outSettled}
}
