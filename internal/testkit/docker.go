package testkit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"
)

const (
	dockerPing     = time.Second // an engine that takes longer counts as absent
	containerClose = 30 * time.Second
	dockerSocket   = "unix:///var/run/docker.sock"

	kafkaPort    = "9092/tcp"
	postgresPort = "5432/tcp"
	startScript  = "/tmp/start.sh"
)

// dockerAvailable returns nil when a Docker engine answers.
func dockerAvailable(ctx context.Context) error {
	host := os.Getenv("DOCKER_HOST")
	if host == "" {
		host = dockerSocket
	}
	network, address, ok := strings.Cut(host, "://")
	if !ok {
		return fmt.Errorf("ask Docker engine: DOCKER_HOST %q has no scheme", host)
	}
	ctx, cancel := context.WithTimeout(ctx, dockerPing)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", http.NoBody)
	if err != nil {
		return fmt.Errorf("ask Docker engine: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask Docker engine: %w", err)
	}
	if err := response.Body.Close(); err != nil {
		return fmt.Errorf("ask Docker engine: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask Docker engine: %s", response.Status)
	}
	return nil
}

// openKafkaContainer runs one broker in a container. What it must advertise, the port on this side,
// is known only once the container runs: the broker waits for a script that tells it.
func openKafkaContainer(ctx context.Context) ([]string, func() error, error) {
	advertise := func(ctx context.Context, c testcontainers.Container) error {
		address, err := c.PortEndpoint(ctx, kafkaPort, "")
		if err != nil {
			return fmt.Errorf("find port of the broker: %w", err)
		}
		script := "export KAFKA_ADVERTISED_LISTENERS=CLIENT://" + address + ",INTERNAL://localhost:19092\nexec /etc/kafka/docker/run\n"
		if err := c.CopyToContainer(ctx, []byte(script), startScript, 0o755); err != nil {
			return fmt.Errorf("tell the broker its address: %w", err)
		}
		return nil
	}
	c, err := testcontainers.Run(ctx, kafkaImage,
		testcontainers.WithExposedPorts(kafkaPort),
		testcontainers.WithEntrypoint("sh", "-c", "while [ ! -s "+startScript+" ]; do sleep 0.1; done; exec sh "+startScript),
		testcontainers.WithEnv(map[string]string{
			"KAFKA_NODE_ID":                                  "1",
			"KAFKA_PROCESS_ROLES":                            "broker,controller",
			"KAFKA_CONTROLLER_QUORUM_VOTERS":                 "1@localhost:9093",
			"KAFKA_LISTENERS":                                "CLIENT://:9092,INTERNAL://localhost:19092,CONTROLLER://localhost:9093",
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP":           "CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
			"KAFKA_INTER_BROKER_LISTENER_NAME":               "INTERNAL",
			"KAFKA_CONTROLLER_LISTENER_NAMES":                "CONTROLLER",
			"KAFKA_AUTO_CREATE_TOPICS_ENABLE":                "false",
			"KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS":             "8",
			"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR":         "1",
			"KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS":     "8",
			"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
			"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR":            "1",
			"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS":         "0",
			"KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS":             "1000",
		}),
		testcontainers.WithLifecycleHooks(testcontainers.ContainerLifecycleHooks{
			PostStarts: []testcontainers.ContainerHook{advertise},
		}),
		testcontainers.WithWaitStrategy(wait.ForLog("Kafka Server started")),
	)
	end := terminator(ctx, c)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("run container %s: %w", kafkaImage, err), end())
	}
	address, err := c.PortEndpoint(ctx, kafkaPort, "")
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("find port of the broker: %w", err), end())
	}
	return []string{address}, end, nil
}

// openPostgresContainer runs a server in a container and returns the connection string of its
// superuser.
func openPostgresContainer(ctx context.Context) (string, func() error, error) {
	c, err := testcontainers.Run(ctx, postgresImage,
		testcontainers.WithExposedPorts(postgresPort),
		testcontainers.WithEnv(map[string]string{"POSTGRES_USER": "pawl", "POSTGRES_PASSWORD": "pawl"}),
		testcontainers.WithCmd("postgres", "-c", "fsync=off", "-c", "max_connections=200"),
		// Once by the server that initialises the data, once by the one to stay.
		testcontainers.WithWaitStrategy(wait.ForLog("database system is ready to accept connections").WithOccurrence(2)),
	)
	end := terminator(ctx, c)
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("run container %s: %w", postgresImage, err), end())
	}
	address, err := c.PortEndpoint(ctx, postgresPort, "")
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("find port of Postgres: %w", err), end())
	}
	return "postgres://pawl:pawl@" + address + "/postgres?sslmode=disable", end, nil
}

// terminator makes the function that ends a container, which may be nil or half made.
func terminator(ctx context.Context, c *testcontainers.DockerContainer) func() error {
	return func() error {
		if c == nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), containerClose)
		defer cancel()
		if err := c.Terminate(ctx); err != nil {
			return fmt.Errorf("end container: %w", err)
		}
		return nil
	}
}
