package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// Ports are taken from below the range that Linux gives to outgoing connections (32768 and up):
// otherwise any connection on the machine could take the port of a broker while that broker is down.
const (
	portMin   = 16_000
	portMax   = 32_000
	portTries = 200
)

// port is a TCP port of the loopback address that no other caller of this package on this machine
// gets until it is closed.
type port struct {
	number int
	lock   *os.File
}

func (p port) address() string { return net.JoinHostPort(loopback, strconv.Itoa(p.number)) }

func (p port) close() error { return p.lock.Close() }

const loopback = "127.0.0.1"

// openPort finds a port that is free and keeps it for the caller by a lock file.
func openPort(ctx context.Context) (port, error) {
	folder := filepath.Join(os.TempDir(), fmt.Sprintf("pawl-ports-%d", os.Getuid()))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return port{}, fmt.Errorf("make folder of port locks: %w", err)
	}
	for range portTries {
		number := portMin + rand.IntN(portMax-portMin) //nolint:gosec // a port, not a secret
		f, err := tryLock(filepath.Join(folder, strconv.Itoa(number)))
		if errors.Is(err, errLocked) {
			continue
		}
		if err != nil {
			return port{}, err
		}
		p := port{number: number, lock: f}
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", p.address())
		if err != nil { // somebody else's
			_ = p.close()
			continue
		}
		if err := listener.Close(); err != nil {
			return port{}, errors.Join(fmt.Errorf("close probe of port %d: %w", number, err), p.close())
		}
		return p, nil
	}
	return port{}, fmt.Errorf("found no free port on %s in %d tries between %d and %d", loopback, portTries, portMin, portMax)
}
