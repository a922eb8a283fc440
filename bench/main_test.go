package main

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain lets the test binary be a peer, as the program is: peers are processes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == profileCommand || peerCommand(os.Args[1:]) != nil) {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}
