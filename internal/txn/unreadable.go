package txn

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// unreadable remembers of each partition what the client could not make sense of. Bytes that were damaged on the
// way come right when they are asked for again. What is still the same after a while is damaged where it
// lies: the partition halts then, because to ask for it for ever would look like an outage, and nobody is told
// what to do. What brokers answer and what happens on the network is never counted: that can be mended.
type unreadable map[place]stubborn

// stubborn is an error that comes again and again.
type stubborn struct {
	text  string
	since time.Time
	times int
}

// An error is believed to last when it has come so often, for so long.
const (
	stubbornTimes = 5
	stubbornAfter = 30 * time.Second
)

// again takes note of an error of a poll and reports whether it is believed to last.
func (u *unreadable) again(at place, err error, now time.Time) bool {
	var answer *kerr.Error
	var network net.Error
	if errors.As(err, &answer) || errors.As(err, &network) || errors.Is(err, io.EOF) || at.partition < 0 {
		return false
	}
	if *u == nil {
		*u = unreadable{}
	}
	s := (*u)[at]
	if s.text != err.Error() {
		s = stubborn{text: err.Error(), since: now}
	}
	s.times++
	(*u)[at] = s
	return s.times >= stubbornTimes && now.Sub(s.since) >= stubbornAfter
}

// read forgets what was said of partitions that can be read.
func (u *unreadable) read(fetches kgo.Fetches) {
	if len(*u) == 0 {
		return
	}
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) > 0 || p.Err == nil { // what was read may wait for its marker
			delete(*u, place{p.Topic, p.Partition})
		}
	})
}
