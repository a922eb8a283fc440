// Command processor is Pawl's one binary: the service itself and every tool an operator needs
// beside it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // restores the default: a second signal ends us at once
	return newCLI(os.Stdin, os.Stdout, os.Stderr, os.Environ()).execute(ctx, os.Args[1:])
}
