package testkit

// The container images that tests use. A test holds them against docker-compose.yml.
const (
	kafkaImage    = "apache/kafka:4.3.1"
	postgresImage = "postgres:18.6"
)
