package testkit

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { os.Exit(Main(m, func() error { return goleak.Find() })) }
