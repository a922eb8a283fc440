package kafka

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	gatePauseFirst  = 250 * time.Millisecond
	gatePauseMax    = 5 * time.Second
	gateLogInterval = time.Minute
)

// gate keeps refused credentials from becoming a hot loop. A client has many reasons to connect
// (metadata, group, produce, fetch, for each broker and lane) and retries each on its own; brokers
// count failed logins and some lock the account. Once a broker has refused us, the gate lets one
// attempt through per pause, and the pause doubles up to gatePauseMax. The first success opens it for
// all. Each attempt reads the secret anew, so that a corrected file is found within one pause.
//
// It is a kgo hook, which is how it learns how connections end.
type gate struct {
	log    *slog.Logger // may be nil
	advice string       // what an operator does about a refusal

	mu      sync.Mutex
	refused int // in a row
	next    time.Time
	logged  time.Time
	opened  chan struct{} // closed when refused returns to 0
}

var _ kgo.HookBrokerConnect = (*gate)(nil)

func newGate(log *slog.Logger, advice string) *gate {
	return &gate{log: log, advice: advice, opened: make(chan struct{})}
}

// wait blocks until an attempt may be made. It ends with an attempt's turn, with another's success
// or with ctx.
func (g *gate) wait(ctx context.Context) error {
	for {
		g.mu.Lock()
		now := time.Now()
		pause := g.next.Sub(now)
		if g.refused == 0 || pause <= 0 {
			g.next = now.Add(g.pause())
			g.mu.Unlock()
			return nil
		}
		opened := g.opened
		g.mu.Unlock()

		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-opened:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// pause is called with mu held.
func (g *gate) pause() time.Duration {
	if g.refused == 0 {
		return 0
	}
	return min(gatePauseFirst<<min(g.refused-1, 10), gatePauseMax)
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (g *gate) OnBrokerConnect(broker kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil && !isRefusal(err) {
		return // a network's failure says nothing about credentials
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		if g.refused > 0 {
			close(g.opened)
			g.opened = make(chan struct{})
		}
		g.refused, g.logged = 0, time.Time{}
		return
	}
	g.refused++
	now := time.Now()
	if next := now.Add(g.pause()); next.After(g.next) {
		g.next = next
	}
	if g.log == nil || now.Sub(g.logged) < gateLogInterval {
		return
	}
	g.logged = now
	g.log.Error("kafka authentication refused",
		slog.Int("attempts", g.refused),
		slog.String("host", broker.Host),
		slog.Any("err", err),
		slog.String("next", g.advice))
}

// isRefusal tells whether the broker, or our own secret's file, refused an authentication.
func isRefusal(err error) bool {
	var credentials *CredentialsError
	return errors.As(err, &credentials) ||
		errors.Is(err, kerr.SaslAuthenticationFailed) ||
		errors.Is(err, kerr.UnsupportedSaslMechanism) ||
		errors.Is(err, kerr.IllegalSaslState)
}
