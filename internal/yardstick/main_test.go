package yardstick

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

// TestMain lets the test binary be the process that copies: `loop BROKER GROUP IN OUT`, or one that ends at
// once: `fail`.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 {
		goleak.VerifyTestMain(m)
		return
	}
	switch os.Args[1] {
	case "loop":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		err := Loop(ctx, []kgo.Opt{kgo.SeedBrokers(os.Args[2])}, Task{Group: os.Args[3], In: os.Args[4], Out: os.Args[5]})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "fail":
		fmt.Fprintln(os.Stderr, "the last words")
		os.Exit(7)
	default:
		goleak.VerifyTestMain(m)
	}
}
