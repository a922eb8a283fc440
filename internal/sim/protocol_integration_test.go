//go:build integration

package sim

import (
	"cmp"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/testkit"
)

func TestProtocolOnABroker(t *testing.T) {
	ask(t, func(kfake, broker string) string { return cmp.Or(broker, kfake) }, kgo.SeedBrokers(testkit.Kafka(t)...))
}
