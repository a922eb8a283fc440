//go:build integration

package ledger_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"pawl/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m, func() error { return goleak.Find() })) }
