package dev

import (
	"context"
	"fmt"
	"net"
	"strconv"
)

// The addresses that `processor dev` takes where they are free, so that they are the same every
// time. All lie below the range that Linux gives to outgoing connections (32768 and up).
const (
	loopback        = "127.0.0.1"
	brokerPortFirst = 9092
	adminPortFirst  = 9190
	portTries       = 1000
)

// freePorts gives the first n ports from first on that nobody listens on. Between this and their use
// another program may take one; whoever listens then fails with the port in the error.
func freePorts(ctx context.Context, first, n int) ([]int, error) {
	var ports []int
	var listen net.ListenConfig
	for port := first; len(ports) < n; port++ {
		if port == first+portTries {
			return nil, fmt.Errorf("find %d free ports from %d on: %d tried", n, first, portTries)
		}
		listener, err := listen.Listen(ctx, "tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			continue // somebody else's
		}
		if err := listener.Close(); err != nil {
			return nil, fmt.Errorf("probe port %d: %w", port, err)
		}
		ports = append(ports, port)
	}
	return ports, nil
}
