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

// loopMembers is how many members a process that copies has.
const loopMembers = 2

// TestMain lets the test binary be the process that copies: `loop BROKER GROUP IN OUT`, or one that ends at
// once: `fail`.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 {
		goleak.VerifyTestMain(m)
		return
	}
	switch os.Args[1] {
	case "loop":
		if err := runLoop(os.Args[2:]); err != nil {
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

func runLoop(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return Loop(ctx, []kgo.Opt{kgo.SeedBrokers(args[0])}, Task{Group: args[1], In: args[2], Out: args[3]}, loopMembers)
}
