package testkit

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fetchesKept is how many answers a FetchWitness keeps of a partition.
const fetchesKept = 64

// FetchWitness remembers what brokers answered to the last fetches of each partition, so that it can be said
// afterwards who was wrong about a record: the broker or the client. Clients dial through it, see Dial; it changes
// nothing. Connections must be plaintext.
type FetchWitness struct {
	mu   sync.Mutex
	seen map[fetchedFrom][]FetchAnswer
}

// fetchedFrom is a partition. Newer fetches name topics by id, older ones by name.
type fetchedFrom struct {
	topic     string
	id        [16]byte
	partition int32
}

// FetchAnswer is what an answer to a fetch said of one partition.
type FetchAnswer struct {
	Broker  string          `json:"broker"` // its address
	At      time.Time       `json:"at"`
	High    int64           `json:"high_watermark"`
	Stable  int64           `json:"last_stable_offset"`
	Aborted []AbortedListed `json:"aborted"`
	Batches []BatchFetched  `json:"batches"` // those of transactions
}

// AbortedListed is a transaction of which the broker said that it was aborted.
type AbortedListed struct {
	Producer int64 `json:"producer"`
	First    int64 `json:"first"`
}

// BatchFetched is a batch, or several in a row of one transaction, or an end marker.
type BatchFetched struct {
	First    int64 `json:"first"`
	Last     int64 `json:"last"`
	Producer int64 `json:"producer"`
	Epoch    int16 `json:"epoch"`
	Control  bool  `json:"control,omitempty"`
}

// NewFetchWitness makes one that has seen nothing.
func NewFetchWitness() *FetchWitness { return &FetchWitness{seen: map[fetchedFrom][]FetchAnswer{}} }

// Dial is for kgo.Dialer.
func (w *FetchWitness) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err //nolint:wrapcheck // the client asks what it is
	}
	return w.watch(conn, address), nil
}

func (w *FetchWitness) watch(conn net.Conn, broker string) net.Conn {
	return &witnessed{Conn: conn, witness: w, broker: broker, versions: map[int32]int16{}}
}

// Answers returns the kept answers that hold transactional records of a producer between two offsets, oldest first.
func (w *FetchWitness) Answers(topic string, id [16]byte, partition int32, producer, first, last int64) []FetchAnswer {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []FetchAnswer
	for _, from := range []fetchedFrom{{topic: topic, partition: partition}, {id: id, partition: partition}} {
		for _, answer := range w.seen[from] {
			if answer.holds(producer, first, last) {
				found = append(found, answer)
			}
		}
	}
	return found
}

func (a FetchAnswer) holds(producer, first, last int64) bool {
	return slices.ContainsFunc(a.Batches, func(b BatchFetched) bool {
		return !b.Control && b.Producer == producer && b.First <= last && b.Last >= first
	})
}

// Lists reports that the answer says of a producer's transaction that it was aborted, which begins behind one
// offset, its marker before, and not behind another one.
func (a FetchAnswer) Lists(producer, behind, notBehind int64) bool {
	return slices.ContainsFunc(a.Aborted, func(t AbortedListed) bool {
		return t.Producer == producer && t.First > behind && t.First <= notBehind
	})
}

func (w *FetchWitness) note(broker string, response *kmsg.FetchResponse) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range response.Topics {
		topic := &response.Topics[i]
		for j := range topic.Partitions {
			p := &topic.Partitions[j]
			answer := FetchAnswer{Broker: broker, At: now, High: p.HighWatermark, Stable: p.LastStableOffset, Batches: batchesOf(p.RecordBatches)}
			if len(answer.Batches) == 0 {
				continue
			}
			for _, aborted := range p.AbortedTransactions {
				answer.Aborted = append(answer.Aborted, AbortedListed{aborted.ProducerID, aborted.FirstOffset})
			}
			from := fetchedFrom{topic: topic.Topic, id: topic.TopicID, partition: p.Partition}
			kept := w.seen[from]
			w.seen[from] = append(slices.Delete(kept, 0, max(0, len(kept)+1-fetchesKept)), answer)
		}
	}
}

// Where a batch has its fields (KIP-98).
const (
	batchLength     = 8
	batchAttributes = 21
	batchLastDelta  = 23
	batchProducer   = 43
	batchEpoch      = 51
	batchHeader     = 61

	isTransactional, isControl = 1 << 4, 1 << 5
)

// batchesOf lists the batches of transactions, as far as they are whole.
func batchesOf(raw []byte) []BatchFetched {
	var all []BatchFetched
	for len(raw) >= batchHeader {
		length := int(readInt32(raw[batchLength:])) + 12
		if length < batchHeader || length > len(raw) {
			break
		}
		attributes := readInt16(raw[batchAttributes:])
		b := BatchFetched{
			First: readInt64(raw), Producer: readInt64(raw[batchProducer:]), Epoch: readInt16(raw[batchEpoch:]), Control: attributes&isControl != 0,
		}
		b.Last = b.First + int64(readInt32(raw[batchLastDelta:]))
		raw = raw[length:]
		if attributes&isTransactional == 0 {
			continue
		}
		if n := len(all) - 1; n >= 0 && !b.Control && !all[n].Control && all[n].Producer == b.Producer && all[n].Epoch == b.Epoch {
			all[n].Last = b.Last
			continue
		}
		all = append(all, b)
	}
	return all
}

// witnessed is a connection whose requests and answers are read along.
type witnessed struct {
	net.Conn

	witness *FetchWitness
	broker  string

	mu                sync.Mutex // requests are written and answers read at the same time
	requests, answers bytes.Buffer
	versions          map[int32]int16 // of open fetches, by correlation id
}

func (c *witnessed) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.requests.Write(b) // before it can be answered
	each(&c.requests, func(frame []byte) {
		if len(frame) >= headerMin && readInt16(frame) == int16(kmsg.Fetch) {
			c.versions[readInt32(frame[4:])] = readInt16(frame[2:])
		}
	})
	c.mu.Unlock()
	return c.Conn.Write(b) //nolint:wrapcheck // it is the connection's
}

func (c *witnessed) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers.Write(b[:n])
	each(&c.answers, func(frame []byte) {
		if len(frame) < 4 {
			return
		}
		version, fetch := c.versions[readInt32(frame)]
		if !fetch {
			return
		}
		delete(c.versions, readInt32(frame))
		if response, err := decodeFetch(version, frame[4:]); err == nil { // else the client will say what is wrong with it
			c.witness.note(c.broker, response)
		}
	})
	return n, err //nolint:wrapcheck // it is the connection's
}

// each takes whole frames off a buffer, without their sizes.
func each(buffer *bytes.Buffer, take func(frame []byte)) {
	for buffer.Len() >= 4 {
		size := int(binary.BigEndian.Uint32(buffer.Bytes()))
		if buffer.Len() < 4+size {
			return
		}
		take(buffer.Next(4 + size)[4:])
	}
}

// decodeFetch decodes an answer without its size and correlation id.
func decodeFetch(version int16, body []byte) (*kmsg.FetchResponse, error) {
	response := kmsg.NewPtrFetchResponse()
	response.SetVersion(version)
	if response.IsFlexible() {
		var err error
		if body, err = skipTags(body); err != nil {
			return nil, err
		}
	}
	if err := response.ReadFrom(bytes.Clone(body)); err != nil {
		return nil, fmt.Errorf("decode an answer to a fetch: %w", err)
	}
	return response, nil
}

func readInt64(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) } //nolint:gosec // two's complement
