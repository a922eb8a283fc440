package top

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/sys/unix"

	"pawl/internal/testkit"
)

const patience = 30 * time.Second

// terminal is a real pseudo-terminal: a person's side, and that of the program.
type terminal struct {
	t       *testing.T
	person  *os.File
	program *os.File
	before  unix.Termios

	mu   sync.Mutex
	seen bytes.Buffer // all that was written to the screen
}

func newTerminal(t *testing.T, width, height uint16) *terminal {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	number := 0
	raw, err := person.SyscallConn() // unlike Fd it leaves the file such that Close ends a Read
	if err != nil {
		t.Fatal(err)
	}
	control := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err := errors.Join(err, control); err != nil {
		t.Fatal(err)
	}
	program, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, person: person, program: program}
	term.resize(width, height)
	before, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	term.before = *before
	var reading sync.WaitGroup
	reading.Go(func() {
		buffer := make([]byte, 64<<10)
		for {
			n, err := person.Read(buffer)
			term.mu.Lock()
			term.seen.Write(buffer[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		_ = person.Close() // ends the reader here, and the one that waits for a key
		reading.Wait()
	})
	return term
}

func (term *terminal) resize(width, height uint16) {
	term.t.Helper()
	if err := unix.IoctlSetWinsize(int(term.program.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		term.t.Fatal(err)
	}
}

func (term *terminal) screen() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.seen.String()
}

func (term *terminal) await(what string) {
	term.t.Helper()
	testkit.WaitFor(term.t, patience, strconv.Quote(what)+" on the screen", func() bool { return strings.Contains(term.screen(), what) })
}

func (term *terminal) press(keys string) {
	term.t.Helper()
	if _, err := term.person.WriteString(keys); err != nil {
		term.t.Fatal(err)
	}
}

// wantRestored fails where the terminal is not as it was.
func (term *terminal) wantRestored() {
	term.t.Helper()
	after, err := unix.IoctlGetTermios(int(term.program.Fd()), unix.TCGETS)
	if err != nil {
		term.t.Fatal(err)
	}
	if *after != term.before {
		term.t.Errorf("the terminal's settings are %+v, they were %+v", *after, term.before)
	}
	term.await("\x1b[?1049l") // the first screen is back
	term.await("\x1b[?25h")   // so is the cursor
}

// watch runs in the background over one process that fetch plays.
func (term *terminal) watch(ctx context.Context, fetch func(context.Context, string) Facts) (ended chan error) {
	ended = make(chan error, 1)
	var running sync.WaitGroup
	term.t.Cleanup(running.Wait)
	running.Go(func() {
		ended <- Run(ctx, Config{
			Processes: []string{"one:9090"}, Fetch: fetch, Every: time.Millisecond, Title: "shop", In: term.program, Out: term.program, Env: []string{"TERM=xterm-256color"},
		})
	})
	return ended
}

func calmly(_ context.Context, process string) Facts { return told(process, 0, 1) }

func end(t *testing.T, ended chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(patience):
		t.Fatal("it does not end")
		return nil
	}
}

// However it ends, a person can go on working in the terminal.
func TestTerminalIsRestored(t *testing.T) {
	t.Parallel()
	t.Run("a key", func(t *testing.T) {
		t.Parallel()
		term := newTerminal(t, 80, 24)
		ended := term.watch(t.Context(), calmly)
		term.await("1 of 1 ready")
		term.await("\x1b[?1049h") // on the second screen
		term.press("q")
		if err := end(t, ended); err != nil {
			t.Error(err)
		}
		term.wantRestored()
	})
	// SIGTERM and Ctrl-C from elsewhere end the context of every command.
	t.Run("told to end", func(t *testing.T) {
		t.Parallel()
		ctx, stop := context.WithCancel(t.Context())
		term := newTerminal(t, 80, 24)
		ended := term.watch(ctx, calmly)
		term.await("1 of 1 ready")
		stop()
		if err := end(t, ended); err != nil {
			t.Error(err)
		}
		term.wantRestored()
	})
	t.Run("a bug", func(t *testing.T) {
		t.Parallel()
		term := newTerminal(t, 80, 24)
		bug := make(chan struct{})
		ended := term.watch(t.Context(), func(ctx context.Context, process string) Facts {
			select {
			case <-bug:
				panic("a bug")
			default:
				return calmly(ctx, process)
			}
		})
		term.await("1 of 1 ready")
		close(bug)
		if err := end(t, ended); !errors.Is(err, tea.ErrProgramPanic) {
			t.Errorf("error %v", err)
		}
		term.wantRestored()
	})
}

func TestKeysAndSizesReachTheScreen(t *testing.T) {
	t.Parallel()
	term := newTerminal(t, 80, 24)
	ended := term.watch(t.Context(), calmly)
	const anew = "\x0c" // Ctrl-L: else only the cells that change are written, not words
	term.await("sort: lag")
	term.press("s" + anew)
	term.await("sort: oldest")
	term.press("\x1b[C" + anew) // right
	term.await("sort: name")
	term.press("?" + anew)
	term.await("partitions by one")
	term.press(" ")
	term.resize(140, 50)
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil { // the kernel tells only whose terminal it is
		t.Fatal(err)
	}
	term.await("LANES")
	term.press("\x03") // Ctrl-C
	if err := end(t, ended); err != nil {
		t.Error(err)
	}
	term.wantRestored()
}
