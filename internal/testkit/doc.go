// Package testkit gives tests real brokers and databases, and the means to break what lies between
// them and the code under test. Only tests import it.
//
// Kafka is found in this order: the brokers named by KAFKA_BROKERS; a container, where a Docker
// engine answers; Apache Kafka as a Java process (internal/cluster). Postgres likewise: POSTGRES_DSN;
// a container; installed server binaries. Where nothing can be had, the test is skipped with a
// message, and fails where CI=true.
//
// The shared broker and database serve all tests of one test process, which therefore must use names
// of their own, see Name. They end with the process, or with Main.
package testkit
