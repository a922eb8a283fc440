//go:build integration

package verify

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"pawl/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m, func() error { return goleak.Find() })) }

func TestRealBrokerLogsAreReadInBothViews(t *testing.T) {
	t.Parallel()
	readBothViews(t, testkit.Kafka(t))
}
