package app

import (
	"log/slog"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/kafka"
	"pawl/internal/txn"
)

// Group is the consumer group's id.
func (c Config) Group() string { return c.Application }

// LedgerGroup is the id of the group that spreads the lanes of the effects topic over the processes;
// empty where this process has no ledger.
func (c Config) LedgerGroup() string {
	if !c.HasLedger() {
		return ""
	}
	return c.Application + ".effects"
}

// HasLedger reports that this process makes effects real. Without a database it only hands them to
// the effects topic, where they wait for a process that has one.
func (c Config) HasLedger() bool {
	return c.Effects.Enabled && (!c.Postgres.DSN.IsZero() || c.Postgres.DSNFile != "")
}

// EffectsTopic carries effects from the handlers to the ledger.
func (c Config) EffectsTopic() string { return c.Application + ".effects" }

// ResultsTopic carries the results of effects back. A route may read it.
func (c Config) ResultsTopic() string { return c.Application + ".effect-results" }

// ProgressTopic holds how far the relay has got.
func (c Config) ProgressTopic() string { return c.Application + ".relay-progress" }

// DeadLetterTopic holds the inputs that handlers rejected.
func (c Config) DeadLetterTopic() string { return c.Application + ".dead-letter" }

// ControlTopic holds pauses and suspected batches.
func (c Config) ControlTopic() string { return c.Application + ".control" }

// internal lists the names of the service's own topics.
func (c Config) internal() []string {
	return []string{c.EffectsTopic(), c.ResultsTopic(), c.ProgressTopic(), c.DeadLetterTopic(), c.ControlTopic()}
}

// OutputTopics gives the topic of each output by its name.
func (c Config) OutputTopics() map[string]string {
	topics := make(map[string]string, len(c.Outputs))
	for name, output := range c.Outputs {
		topics[name] = output.Topic
	}
	return topics
}

// EndpointNames lists the endpoints that handlers may use: none where effects are disabled.
func (c Config) EndpointNames() []string {
	if !c.Effects.Enabled {
		return nil
	}
	return slices.Sorted(maps.Keys(c.Endpoints))
}

// Lanes is how many lanes a process runs whose inputs have so many partitions.
func (c Config) Lanes(partitions int) int { return txn.Lanes(c.Txn.Lanes, partitions) }

// Codec is the compression of what is written.
func (c Config) Codec() (kgo.CompressionCodec, error) { return txn.Codec(c.Kafka.Compression) }

// KafkaConfig says how to reach the brokers. The caller adds the program's version.
func (c Config) KafkaConfig(log *slog.Logger) kafka.Config {
	return kafka.Config{
		Brokers:  c.Kafka.Brokers,
		ClientID: c.Application + "." + c.Instance,
		TLS:      kafka.TLS(c.Kafka.TLS),
		SASL: kafka.SASL{
			Mechanism:    c.Kafka.SASL.Mechanism,
			Username:     c.Kafka.SASL.Username,
			PasswordFile: c.Kafka.SASL.PasswordFile,
			TokenFile:    c.Kafka.SASL.TokenFile,
		},
		Log: log,
	}
}

// Preflight says what the service needs of the brokers.
func (c Config) Preflight() kafka.Spec {
	spec := kafka.Spec{
		Application:        c.Application,
		Group:              c.Group(),
		LedgerGroup:        c.LedgerGroup(),
		Topics:             c.Topics(),
		TransactionalIDs:   []string{c.Application + "." + c.Instance + ".0"}, // the other lanes' differ in the number
		TransactionTimeout: c.Txn.Timeout.Std(),
		ParseMetadata:      txn.ParseOffsetMetadata,
	}
	if c.HasLedger() {
		spec.TransactionalIDs = append(spec.TransactionalIDs, c.Application+".relay.0")
	}
	for _, route := range c.Routes {
		spec.Inputs = append(spec.Inputs, route.Topics...)
	}
	return spec
}

// Topic settings, by Kafka's names.
const (
	cleanupPolicy   = "cleanup.policy"
	messageBytesMax = "max.message.bytes"
	retentionBytes  = "retention.bytes"
	retentionTime   = "retention.ms"
	timestampType   = "message.timestamp.type"

	forever = "-1"

	// deadLetterBytesMax takes any input with its headers: brokers accept 1 MiB unless told otherwise,
	// and what was accepted once must not be refused as a dead letter.
	deadLetterBytesMax = 32 << 20

	// resultBytesMax takes the event of any effect: its body in base64, up to 1 MiB of it, and what is
	// kept of the answer.
	resultBytesMax = 2 << 20
)

// Topics lists every topic of the configuration in the order inputs, outputs, internal, with what
// `topics plan` should make of it. An input belongs to somebody else: nothing is asked of it.
func (c Config) Topics() []kafka.Topic {
	var topics []kafka.Topic
	for _, route := range c.Routes {
		for _, name := range route.Topics {
			if !slices.Contains(c.internal(), name) {
				topics = append(topics, kafka.Topic{Name: name, Replication: -1, Role: kafka.RoleInput})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Outputs)) {
		output := c.Outputs[name]
		topics = append(topics, kafka.Topic{
			Name: output.Topic, Partitions: output.Partitions, Replication: output.Replication,
			Settings: maps.Clone(output.Settings), Role: kafka.RoleOutput,
		})
	}
	if c.Effects.Enabled {
		topics = append(topics, c.effectTopics()...)
	}
	return append(topics,
		// Dead letters keep the timestamps of their inputs, so a retention by time would drop those of
		// old inputs at once. `dlq discard` is what ends them.
		c.topic(c.DeadLetterTopic(), kafka.RoleDeadLetter, 1, map[string]string{
			cleanupPolicy:   "delete",
			retentionTime:   forever,
			retentionBytes:  forever,
			messageBytesMax: ByteSize(deadLetterBytesMax).bytes(),
		}),
		c.topic(c.ControlTopic(), kafka.RoleControl, 1, map[string]string{cleanupPolicy: "compact"}),
	)
}

func (c Config) effectTopics() []kafka.Topic {
	retention := c.Effects.Retention.milliseconds()
	return []kafka.Topic{
		// Effects count their age from their append: those of an input that is older than the retention
		// would be dropped before the ledger has seen them.
		c.topic(c.EffectsTopic(), kafka.RoleEffects, c.Effects.Lanes, map[string]string{
			cleanupPolicy:  "delete",
			retentionTime:  retention,
			retentionBytes: forever,
			timestampType:  "LogAppendTime",
		}),
		c.topic(c.ResultsTopic(), kafka.RoleResults, c.Effects.Lanes, map[string]string{
			cleanupPolicy:   "delete",
			retentionTime:   retention,
			retentionBytes:  forever,
			messageBytesMax: ByteSize(resultBytesMax).bytes(),
		}),
		c.topic(c.ProgressTopic(), kafka.RoleProgress, c.Effects.Lanes, map[string]string{cleanupPolicy: "compact"}),
	}
}

func (c Config) topic(name string, role kafka.Role, partitions int32, settings map[string]string) kafka.Topic {
	return kafka.Topic{Name: name, Partitions: partitions, Replication: -1, Settings: settings, Role: role}
}
