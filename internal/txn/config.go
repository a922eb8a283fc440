// Package txn is the engine: it reads topics read_committed, runs pure handlers and ends outputs,
// dead letters, effects and consumer offsets in one Kafka transaction. A lane is one transactional
// session with one goroutine; an engine runs several lanes as members of one group.
//
// The rules it keeps, and why, stand in DESIGN.md beside this file.
package txn

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
)

// Handler is a business rule. It is pure: the same input gives the same batch, in any process, at
// any time. An error that has a method Reason() string is a reject; any other error aborts the
// transaction.
type Handler interface {
	Handle(in message.In, out *message.Batch) error
}

// Start says where a partition begins that has no committed offset.
type Start string

// The start policies.
const (
	StartEarliest Start = "earliest"
	StartLatest   Start = "latest"
	StartFail     Start = "fail" // halt the partition until an operator sets an offset
)

// Protocol is the group protocol.
type Protocol string

// The group protocols.
const (
	ProtocolClassic  Protocol = "classic"  // cooperative-sticky, balanced by a member
	ProtocolConsumer Protocol = "consumer" // KIP-848, balanced by the broker
)

// Pauses are the orders of operators to leave input alone for a while. Its methods are called from many goroutines.
type Pauses interface {
	// Refresh returns when every order is known that was given before the call.
	Refresh(ctx context.Context) error
	// Changed is closed with the next change.
	Changed() <-chan struct{}
	Paused(topic string, partition int32) bool
}

// Route sends the records of topics to a handler.
type Route struct {
	Topics  []string
	Name    string // the handler's name, for headers and metrics
	Handler Handler
}

// Config is what an engine needs to know. There are no defaults here: the application has them.
type Config struct {
	Application      string // prefix of the transactional ids
	Instance         string // stable across restarts, unique among the living
	Group            string
	ReplayGeneration int

	Client []kgo.Opt // how to reach the brokers: seeds, TLS, SASL, logger

	Protocol         Protocol
	SessionTimeout   time.Duration
	Heartbeat        time.Duration
	RebalanceTimeout time.Duration

	Start   Start
	Routes  []Route
	Outputs map[string]string // output name to topic
	// Endpoints are the names effects may go to. With none of them no effects topic is needed.
	Endpoints []string

	EffectsTopic    string
	DeadLetterTopic string
	ControlTopic    string

	Lanes          int           // 0: by cores and partitions
	RecordsMax     int           // per transaction; 0: by lanes
	BytesMax       int64         // of the input, per transaction; 0: by lanes
	IntervalMin    time.Duration // between commits while there is little to do
	Timeout        time.Duration // transaction.timeout.ms
	HandlerTimeout time.Duration // of one handler call, and of all handler work of a batch
	DrainTimeout   time.Duration // from the order to stop until the last lane must have ended
	Compression    string        // of produced batches: none, lz4, snappy, zstd

	// Pauses says what is not to be read for now; nil: nothing.
	Pauses Pauses

	Hooks Hooks

	known map[string]int // partitions of the input topics when the engine began; nil before
}

const (
	lanesMax   = 64
	recordsCap = 100_000
	// recordsShared is what the lanes of a process may have in their transactions together, and
	// recordsLeast what each may have however many they are, where the configuration names no number.
	recordsShared = 28_000
	recordsLeast  = 7_000
	// bytesShared and bytesLeast are the same for the bytes of the input.
	bytesShared = 16 << 20
	bytesLeast  = 4 << 20
	// endSlackMin is the least time that must be left for flush and end together.
	endSlackMin = 2 * time.Second
)

// nameForm is what Kafka allows in a topic name, which our ids must fit too.
var nameForm = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,200}$`)

// Validate reports everything that is wrong, not only the first thing. The inequalities are those
// of DESIGN.md, rule 10.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, name := range []struct{ key, value string }{{"application", c.Application}, {"instance", c.Instance}, {"group", c.Group}} {
		if !nameForm.MatchString(name.value) {
			bad("%s is %q, want 1 to 200 of a-z A-Z 0-9 . _ -", name.key, name.value)
		}
	}
	if c.Protocol != ProtocolClassic && c.Protocol != ProtocolConsumer {
		bad("kafka.protocol is %q, want classic or consumer", c.Protocol)
	}
	switch c.Start {
	case StartEarliest, StartLatest, StartFail:
	default:
		bad("input.start is %q, want earliest, latest or fail", c.Start)
	}
	if len(c.Routes) == 0 {
		bad("routes is empty: nothing would be read")
	}
	topics := map[string]bool{}
	for i, route := range c.Routes {
		if route.Handler == nil {
			bad("routes.%d has no handler", i)
		}
		for _, topic := range route.Topics {
			if topics[topic] {
				bad("routes.%d.topics: %q is routed twice", i, topic)
			}
			topics[topic] = true
		}
	}
	if c.DeadLetterTopic == "" || c.ControlTopic == "" {
		bad("the dead-letter and the control topic need names")
	}
	if len(c.Endpoints) > 0 && c.EffectsTopic == "" {
		bad("endpoints are configured, but no effects topic")
	}
	if c.Lanes < 0 || c.Lanes > lanesMax {
		bad("txn.lanes is %d, want 0..%d", c.Lanes, lanesMax)
	}
	if c.RecordsMax < 0 || c.RecordsMax > recordsCap {
		bad("txn.records_max is %d, want 0..%d", c.RecordsMax, recordsCap)
	}
	if c.BytesMax != 0 && c.BytesMax < 1<<10 {
		bad("txn.bytes_max is %d, want at least 1KiB, or 0 for a share by lanes", c.BytesMax)
	}
	if c.IntervalMin < 0 || c.IntervalMin > time.Second {
		bad("txn.interval_min is %s, want 0s..1s", c.IntervalMin)
	}
	if c.HandlerTimeout < 100*time.Millisecond {
		bad("txn.handler_timeout is %s, want at least 100ms", c.HandlerTimeout)
	}
	if slack := c.Timeout/2 - c.HandlerTimeout; slack < endSlackMin {
		bad("txn.handler_timeout (%s) + flush and end (%s) must be less than half of txn.timeout (%s): raise txn.timeout to %s or lower txn.handler_timeout",
			c.HandlerTimeout, endSlackMin, c.Timeout, 2*(c.HandlerTimeout+endSlackMin))
	}
	if c.DrainTimeout < time.Second {
		bad("txn.drain_timeout is %s, want at least 1s", c.DrainTimeout)
	}
	if c.Heartbeat <= 0 || 3*c.Heartbeat > c.SessionTimeout {
		bad("kafka.heartbeat (%s) x 3 must not exceed kafka.session_timeout (%s)", c.Heartbeat, c.SessionTimeout)
	}
	if c.RebalanceTimeout < c.Timeout/2 {
		bad("kafka.rebalance_timeout is %s, want at least half of txn.timeout (%s)", c.RebalanceTimeout, c.Timeout/2)
	}
	if _, err := Codec(c.Compression); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// flushTimeout and endTimeout share what rule 10 leaves beside the handlers: together they stay
// below half of the transaction's timeout.
func (c Config) flushTimeout() time.Duration { return (c.Timeout/2 - c.HandlerTimeout) / 2 }

func (c Config) endTimeout() time.Duration {
	return (c.Timeout/2-c.HandlerTimeout)/2 - 10*time.Millisecond
}

// member names one lane: its transactional id and its static group member (rule 6).
func (c Config) member(lane int) string {
	return fmt.Sprintf("%s.%s.%d", c.Application, c.Instance, lane)
}

func (c Config) topics() []string {
	var topics []string
	for _, route := range c.Routes {
		topics = append(topics, route.Topics...)
	}
	return topics
}

// Codec is the compression of a name in kafka.compression.
func Codec(name string) (kgo.CompressionCodec, error) {
	switch name {
	case "none":
		return kgo.NoCompression(), nil
	case "lz4":
		return kgo.Lz4Compression(), nil
	case "snappy":
		return kgo.SnappyCompression(), nil
	case "zstd":
		return kgo.ZstdCompression(), nil
	default:
		return kgo.NoCompression(), fmt.Errorf("kafka.compression is %q, want none, lz4, snappy or zstd", name)
	}
}
