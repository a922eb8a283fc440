package testkit

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"pawl/internal/cluster"
)

// openTimeout bounds the start of a server, including the first fetch of its files.
const openTimeout = 5 * time.Minute

// Kafka returns the addresses of the broker that all tests of this process share. A test must not
// stop it; one that wants to takes a KafkaCluster.
func Kafka(tb testing.TB) []string {
	tb.Helper()
	brokers, err := sharedKafka.get(openSharedKafka)
	require(tb, "a Kafka broker", err)
	return brokers
}

func openSharedKafka() ([]string, func() error, error) {
	if brokers := os.Getenv("KAFKA_BROKERS"); brokers != "" {
		return strings.Split(strings.ReplaceAll(brokers, " ", ""), ","), nil, nil
	}
	return firstOf(openKafkaContainer, cluster.JavaAvailable("", ""), func(ctx context.Context) ([]string, func() error, error) {
		k, err := cluster.OpenKafka(ctx, cluster.KafkaConfig{})
		if err != nil {
			return nil, nil, err
		}
		return k.Brokers(), k.Close, nil
	})
}

// opener opens a server and returns how to reach it and how to close it.
type opener[T any] func(context.Context) (T, func() error, error)

// firstOf opens a server in a container where a Docker engine answers and can run it, else as a
// process, unless missing says that this machine lacks what that needs.
func firstOf[T any](container opener[T], missing error, process opener[T]) (T, func() error, error) {
	// Not a test's context: the server is there for the tests that follow.
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	errDocker := dockerAvailable(ctx)
	if errDocker == nil {
		value, end, err := container(ctx)
		if err == nil {
			return value, end, nil
		}
		errDocker = err
	}
	if missing != nil {
		var none T
		return none, nil, unavailable{errors.Join(errDocker, missing)}
	}
	return process(ctx)
}

// KafkaCluster opens a cluster for this test alone, whose nodes it may kill, stop and pause. It is
// closed when the test ends.
func KafkaCluster(tb testing.TB, nodes int) *cluster.Kafka {
	tb.Helper()
	return OpenKafka(tb, cluster.KafkaConfig{Nodes: nodes})
}

// OpenKafka opens a cluster as config says for this test alone, and closes it when the test ends.
func OpenKafka(tb testing.TB, config cluster.KafkaConfig) *cluster.Kafka {
	tb.Helper()
	if err := cluster.JavaAvailable(config.Cache, config.Version); err != nil {
		require(tb, "Kafka as a Java process", unavailable{err})
	}
	ctx, cancel := context.WithTimeout(tb.Context(), openTimeout)
	defer cancel()
	if config.Progress == nil {
		config.Progress = func(step string) { tb.Log(step) }
	}
	k, err := cluster.OpenKafka(ctx, config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := k.Close(); err != nil {
			tb.Error(err)
		}
	})
	return k
}
