//go:build synctests

package sim

import (
	"context"
	"errors"
	"sync"
)

var errDead = errors.New("the process is dead")

// gate lets things pass while it is open. The zero value is open.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // closed when the gate opens; nil while it is open
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil {
		g.shut = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

// blocked gives what ends when the gate opens, nil where it is open.
func (g *gate) blocked() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut
}

// power says whether a process runs, stands still or is dead. Whatever the process asks of the world
// passes by here, so that a dead one asks nothing and one that stands still asks late.
type power struct {
	gate

	once sync.Once
	dead chan struct{}
}

func newPower() *power { return &power{dead: make(chan struct{})} }

func (p *power) kill() {
	p.once.Do(func() { close(p.dead) })
	p.open() // for whoever waits there
}

func (p *power) over() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// wait returns when the process runs. Its timers run on while it stands still, so ctx may end first.
func (p *power) wait(ctx context.Context) error {
	for {
		if p.over() {
			return errDead
		}
		frozen := p.blocked()
		if frozen == nil {
			return nil
		}
		select {
		case <-frozen:
		case <-p.dead:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
