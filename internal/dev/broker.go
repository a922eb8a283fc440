package dev

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/twmb/franz-go/pkg/kfake"

	"pawl/internal/cluster"
)

// Broker says what Kafka to use.
type Broker string

// The choices.
const (
	BrokerAuto     Broker = "auto"     // real where a Java runtime is there, else embedded
	BrokerReal     Broker = "real"     // Apache Kafka as Java processes
	BrokerEmbedded Broker = "embedded" // kfake: one goroutine in this process, instant
)

// Brokers lists the choices.
func Brokers() []string {
	return []string{string(BrokerAuto), string(BrokerReal), string(BrokerEmbedded)}
}

// opened is a running cluster.
type opened struct {
	kind      Broker // real or embedded
	name      string // for people, with version and number of nodes
	addresses []string
	close     func() error
}

// choose resolves auto and says why.
func (c Config) choose() (broker Broker, why string) {
	if c.Broker != BrokerAuto {
		return c.Broker, string(c.Broker) + ", as --kafka says"
	}
	if err := c.javaMissing(); err != nil {
		return BrokerEmbedded, fmt.Sprintf("embedded: %v", err)
	}
	return BrokerReal, "real: a Java runtime is there"
}

// OpenBroker opens a cluster that is gone with close, for a command that wants nothing else of dev. name is
// for people. say is told about slow steps.
func OpenBroker(ctx context.Context, broker Broker, say func(string)) (addresses []string, name string, closeBroker func() error, err error) {
	config := Config{Broker: broker, Nodes: 1}
	choice, _ := config.choose()
	cluster, err := openBroker(ctx, config, choice, "", say)
	if err != nil {
		return nil, "", nil, err
	}
	return cluster.addresses, cluster.name, cluster.close, nil
}

// openBroker opens the chosen broker. say is told about slow steps.
func openBroker(ctx context.Context, config Config, choice Broker, folder string, say func(string)) (*opened, error) {
	if choice == BrokerEmbedded {
		return openEmbedded(ctx, config, folder)
	}
	broker, err := openReal(ctx, config, folder, say)
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%w\n(--kafka embedded does without Java)", err)
	}
	return broker, err
}

func openReal(ctx context.Context, config Config, folder string, say func(string)) (*opened, error) {
	kafka := cluster.KafkaConfig{Nodes: config.Nodes, Progress: say}
	if config.DataDir != "" {
		kafka.Dir = filepath.Join(folder, "kafka")
	}
	started, err := cluster.OpenKafka(ctx, kafka)
	if err != nil {
		return nil, err
	}
	return &opened{
		kind: BrokerReal, name: fmt.Sprintf("Apache Kafka %s, %s", started.Version(), nodes(started.Nodes())),
		addresses: started.Brokers(), close: started.Close,
	}, nil
}

func openEmbedded(ctx context.Context, config Config, folder string) (*opened, error) {
	options := []kfake.Opt{kfake.NumBrokers(config.Nodes)}
	if config.fixedPorts {
		ports, err := freePorts(ctx, brokerPortFirst, config.Nodes)
		if err != nil {
			return nil, err
		}
		options = append(options, kfake.Ports(ports...))
	}
	if config.DataDir != "" {
		options = append(options, kfake.DataDir(filepath.Join(folder, "embedded")))
	}
	fake, err := kfake.NewCluster(options...)
	if err != nil {
		return nil, fmt.Errorf("open the embedded broker: %w", err)
	}
	return &opened{
		kind: BrokerEmbedded, name: "embedded broker (kfake), " + nodes(config.Nodes),
		addresses: fake.ListenAddrs(), close: func() error { fake.Close(); return nil },
	}, nil
}

func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

// javaMissing tells why real Kafka cannot be had, nil where it can.
func (c Config) javaMissing() error {
	if c.java != nil {
		return c.java()
	}
	return cluster.JavaAvailable("", "")
}
