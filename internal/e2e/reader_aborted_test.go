//go:build chaos && linux

package e2e

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"pawl/internal/testkit"
)

// writing is a producer in a partition: at any time it has one transaction there.
type writing struct {
	at       at
	producer int64
}

// handed is what a watcher was given of a transaction.
type handed struct {
	first, last int64
	count       int
}

// abortedRead is a transaction that a watcher was given although it was aborted, and who was wrong.
type abortedRead struct {
	Reader      string                `json:"reader"`
	Topic       string                `json:"topic"`
	Partition   int32                 `json:"partition"`
	Producer    int64                 `json:"producer"`
	First       int64                 `json:"first"` // of those that it was given
	Last        int64                 `json:"last"`
	Records     int                   `json:"records"`
	Marker      int64                 `json:"marker"`
	BrokerWrong bool                  `json:"broker_wrong"`
	Judgement   string                `json:"judgement"`
	Answers     []testkit.FetchAnswer `json:"answers"` // that held them
}

// follow waits for the marker of every transaction of which the watcher is given something. If it was aborted, the
// answers from which the client had it say whose mistake that was.
func (v *watcher) follow(r *kgo.Record, id [16]byte) {
	w := writing{at{r.Topic, r.Partition}, r.ProducerID}
	if !r.Attrs.IsControl() {
		if r.Attrs.IsTransactional() {
			g, known := v.open[w]
			if !known {
				g.first = r.Offset
			}
			v.open[w] = handed{g.first, r.Offset, g.count + 1}
		}
		return
	}
	var key kmsg.ControlRecordKey
	if key.ReadFrom(r.Key) != nil {
		return
	}
	g, known := v.open[w]
	if known && key.Type == kmsg.ControlRecordKeyTypeAbort {
		v.judge(w, g, r.Offset, v.witness.Answers(r.Topic, id, r.Partition, r.ProducerID, g.first, g.last))
	}
	delete(v.open, w)
	v.ended[w] = r.Offset
}

// judge says who was wrong about an aborted transaction.
func (v *watcher) judge(w writing, g handed, marker int64, answers []testkit.FetchAnswer) {
	before, known := v.ended[w]
	if !known {
		before = -1
	}
	read := abortedRead{
		Reader: v.name, Topic: w.at.topic, Partition: w.at.partition, Producer: w.producer, First: g.first, Last: g.last, Records: g.count, Marker: marker, Answers: answers,
	}
	for _, answer := range answers {
		if !answer.Lists(w.producer, before, g.last) {
			read.BrokerWrong = true
			read.Judgement = fmt.Sprintf("the broker's list lacked it (%s at %s)", answer.Broker, answer.At.UTC().Format("15:04:05.000"))
			break
		}
		read.Judgement = "the list had it and the client gave the records all the same"
	}
	if len(answers) == 0 {
		read.Judgement = "the answers are not kept any more"
	}
	v.aborted = append(v.aborted, read)
}

func (a abortedRead) String() string {
	return fmt.Sprintf("%s was given %d records of an aborted transaction of %s/%d, from offset %d to %d, marker at %d: %s",
		a.Reader, a.Records, a.Topic, a.Partition, a.First, a.Last, a.Marker, a.Judgement)
}

// unlisted counts by partition what brokers gave a watcher as committed that was aborted.
func (v *watcher) unlisted() map[at]int {
	counts := map[at]int{}
	for _, read := range v.aborted {
		if read.BrokerWrong {
			counts[at{read.Topic, read.Partition}] += read.Records
		}
	}
	return counts
}

// forgetWriters lets a partition that is assigned begin in the midst of transactions.
func (v *watcher) forgetWriters(here at) {
	for w := range v.open {
		if w.at == here {
			delete(v.open, w)
		}
	}
	for w := range v.ended {
		if w.at == here {
			delete(v.ended, w)
		}
	}
}
