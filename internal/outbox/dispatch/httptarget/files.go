package httptarget

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const filePeriod = time.Second // between looks at the files

// files holds what secret files hold, and looks at them again now and then.
type files struct {
	read    func(path string) ([]byte, error) // must not quote what it read
	changed func(file string, err error)      // nil tells nobody
	period  time.Duration

	mu     sync.Mutex
	held   []file
	looked time.Time
}

type file struct {
	path    string
	content []byte // the last good one
	why     string // why the file's present content is not in use, "" where it is
}

// openFiles reads every file once and reports every problem with them.
func openFiles(paths []string, read func(string) ([]byte, error), changed func(string, error)) (*files, error) {
	f := &files{read: read, changed: changed, period: filePeriod, looked: time.Now()}
	var errs []error
	for _, path := range paths {
		content, err := read(path)
		if err != nil {
			errs = append(errs, err)
		}
		f.held = append(f.held, file{path: path, content: content})
	}
	return f, errors.Join(errs...)
}

// appendTo appends what each file holds, in the order of their paths. Nobody may change it.
func (f *files) appendTo(contents [][]byte, now time.Time) [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	look := now.Sub(f.looked) >= f.period
	if look {
		f.looked = now
	}
	for i := range f.held {
		if look {
			f.refresh(&f.held[i])
		}
		contents = append(contents, f.held[i].content)
	}
	return contents
}

// refresh reads a file again. It doesn't ask for the time of its last change first: two changes can
// share one, and a small file a second costs nothing. A renewal caught half way leaves the last good
// secret in use: what the receiver knew a moment ago is the better guess.
func (f *files) refresh(one *file) {
	content, err := f.read(one.path)
	switch {
	case err != nil:
		if why := err.Error(); why != one.why {
			one.why = why
			f.tell(one.path, err)
		}
	case one.why != "" || !bytes.Equal(content, one.content):
		one.content, one.why = content, ""
		f.tell(one.path, nil)
	}
}

func (f *files) tell(path string, err error) {
	if f.changed != nil {
		f.changed(path, err)
	}
}

// readFile gives a file's first limit+1 bytes: so many say that it is too large.
func readFile(path string, limit int64) ([]byte, error) {
	opened, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(opened, limit+1))
	if err := errors.Join(err, opened.Close()); err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	return text, nil
}
