package top

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	tea "charm.land/bubbletea/v2"
)

// Config says what is watched, and where it is shown.
type Config struct {
	Processes []string
	Fetch     func(ctx context.Context, process string) Facts
	Every     time.Duration
	Title     string
	Color     bool

	In, Out *os.File // a terminal
	Env     []string
}

// Run shows the processes until a key or ctx ends it. However it ends, the terminal is as it was before.
func Run(ctx context.Context, config Config) error {
	// A terminal that goes away, and everybody who is told to go: all of it passes through the end of this function.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	screen := Screen{Color: config.Color, Title: config.Title, Every: config.Every, Since: time.Now()}
	fetch := func(process string) Facts { return config.Fetch(ctx, process) }
	program := tea.NewProgram(newModel(config.Processes, fetch, screen),
		tea.WithContext(ctx), tea.WithInput(keyboard{config.In}), tea.WithOutput(config.Out), tea.WithEnvironment(config.Env), tea.WithoutSignalHandler())
	_, err := program.Run()
	switch {
	case ctx.Err() != nil && errors.Is(err, tea.ErrProgramKilled) && !errors.Is(err, tea.ErrProgramPanic):
		return nil // it was told to end
	case err != nil:
		return fmt.Errorf("show: %w", err)
	default:
		return nil
	}
}

// keyboard is a terminal to read from, without the name that makes bubbletea's reader wait for it in epoll: that one
// closes its files at the end while another of its goroutines may still look at them. What goes without it is that a
// key is lost to the reader that was waiting when the program was suspended.
type keyboard struct{ file *os.File }

// Read implements io.Reader.
func (k keyboard) Read(b []byte) (int, error) { return k.file.Read(b) }

// Write implements io.Writer.
func (k keyboard) Write(b []byte) (int, error) { return k.file.Write(b) }

// Close implements io.Closer. The terminal is not ours to close.
func (k keyboard) Close() error { return nil }

// Fd lets bubbletea see a terminal, and set it up.
func (k keyboard) Fd() uintptr { return k.file.Fd() }

// Once looks at the processes twice, because rates need two looks, and gives the snapshot.
func Once(ctx context.Context, config Config) (Snapshot, error) {
	fleet := NewFleet(config.Processes)
	for look := range 2 {
		if look > 0 {
			timer := time.NewTimer(config.Every)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return Snapshot{}, ctx.Err()
			}
		}
		var lock sync.Mutex
		var asks sync.WaitGroup
		for _, process := range config.Processes {
			asks.Go(func() {
				facts := config.Fetch(ctx, process)
				lock.Lock()
				defer lock.Unlock()
				fleet.Add(facts)
			})
		}
		asks.Wait()
	}
	return fleet.Snapshot(time.Now()), ctx.Err()
}
