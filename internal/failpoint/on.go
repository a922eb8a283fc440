//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// variable says at which place the process dies, and the how many-th time: NAME[:N], the first by default.
// With NAME:N:wait it lives, and whoever is there waits for SIGCONT.
const variable = "PAWL_FAILPOINT"

type place struct {
	name string
	left atomic.Int64 // hits until it happens
	wait bool
}

// chosen is read from the environment at the first hit. It is the one global there is, because Hit must
// cost its callers one line.
var chosen = sync.OnceValue(func() *place {
	name, rest, counted := strings.Cut(os.Getenv(variable), ":")
	count, action, acts := strings.Cut(rest, ":")
	p := &place{name: name, wait: acts}
	if acts && action != "wait" {
		panic(fmt.Sprintf("%s: %q is no action, want wait or none", variable, action))
	}
	p.left.Store(1)
	if counted {
		n, err := strconv.ParseInt(count, 10, 64)
		if err != nil || n < 1 {
			panic(fmt.Sprintf("%s: %q is no number of hits, want 1 or more", variable, count))
		}
		p.left.Store(n)
	}
	return p
})

// Hit kills this process if name is the chosen place and it is there for the chosen time, or lets its
// caller wait, and nobody else. Before, it writes "failpoint NAME" to stderr, as a line of its own.
func Hit(name string) {
	p := chosen()
	if p.name != name || p.left.Add(-1) != 0 {
		return
	}
	goOn := make(chan os.Signal, 1)
	if p.wait {
		signal.Notify(goOn, syscall.SIGCONT)
		defer signal.Stop(goOn)
	}
	_, _ = os.Stderr.WriteString("failpoint " + name + "\n") // one write: nobody else gets into the line
	if !p.wait {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // a process may always send itself a signal
	}
	<-goOn // after a kill, the caller goes no further even if the others still run
}
