package main

import (
	"os"
	"testing"

	"pawl/internal/testkit"
)

// asProcessor in the environment makes the test binary the program: bench starts itself as the processes
// that it measures.
const asProcessor = "PAWL_TEST_AS_PROCESSOR"

func TestMain(m *testing.M) {
	if os.Getenv(asProcessor) != "" {
		os.Exit(run())
	}
	os.Exit(testkit.Main(m))
}
