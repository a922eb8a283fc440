package load

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// refusal is what a dial gets where no process listens.
var refusal = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}

// refusing lets the first connections be refused, as those to a broker that is down, and counts them.
func refusing(first int64, refused *atomic.Int64, dialed func()) kgo.Opt {
	return kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
		if refused.Load() < first {
			refused.Add(1)
			dialed()
			return nil, refusal
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	})
}

// A broker is down as the load begins and comes back a little later: the load begins then, and every
// record of it is taken.
func TestProducerWaitsForABrokerThatRefusesTheFirstConnections(t *testing.T) {
	t.Parallel()
	const count, first = 100, 3
	_, options := openBroker(t, "in", 1)
	var refused atomic.Int64
	producer := newProducer(t, ProducerConfig{Options: append(options, refusing(first, &refused, func() {})), Topic: "in", Count: count})
	if err := producer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := refused.Load(); got != first {
		t.Errorf("%d connections refused, want %d", got, first)
	}
	if report := producer.Report(); report.Records != count || report.Failed != 0 {
		t.Errorf("report = %+v, want %d records", report, count)
	}
}

// The end of the context ends the wait for a broker that stays away, and the error says what was in the way.
func TestProducerGivesUpOnARefusingBrokerWithItsContext(t *testing.T) {
	t.Parallel()
	_, options := openBroker(t, "in", 1)
	ctx, cancel := context.WithCancel(t.Context())
	var refused atomic.Int64
	forever := refusing(1<<62, &refused, func() {
		if refused.Load() == 3 {
			cancel()
		}
	})
	err := newProducer(t, ProducerConfig{Options: append(options, forever), Topic: "in", Count: 1}).Run(ctx)
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error = %v, want that the connection was refused", err)
	}
}

// Without a deadline of the caller's the wait has its own.
func TestWaitForBrokersIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began, tries := time.Now(), 0
		err := patiently(t.Context(), func(context.Context) error { tries++; return refusal })
		if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), warmTimeout.String()) {
			t.Errorf("error = %v, want the refusal and for how long it was met", err)
		}
		if took := time.Since(began); took != warmTimeout || tries < 2 {
			t.Errorf("gave up after %v and %d tries, want %v", took, tries, warmTimeout)
		}
	})
}

// What waiting can't mend is told at once.
func TestOnlyWhatMayPassIsWaitedFor(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want bool
	}{
		{refusal, true},
		{fmt.Errorf("get a producer id: %w", &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}), true},
		{kerr.CoordinatorLoadInProgress, true},
		{kerr.TopicAuthorizationFailed, false},
		{kerr.SaslAuthenticationFailed, false},
		{fmt.Errorf("%w: create it", kerr.UnknownTopicOrPartition), false},
		{x509.UnknownAuthorityError{}, false},
		{&net.OpError{Op: "remote error", Net: "tcp", Err: errors.New("tls: bad certificate")}, false},
		{&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}, false},
		{io.EOF, false},
	} {
		if got := mayPass(test.err); got != test.want {
			t.Errorf("mayPass(%v) = %t, want %t", test.err, got, test.want)
		}
	}
}
