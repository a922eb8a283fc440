// Package bundle collects what somebody needs to understand an incident into one archive. It knows nothing of brokers,
// ledgers or processes: every piece comes from a function, and no piece can hold up or spoil another. What leaves it
// has passed the Redactor.
package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"pawl/internal/redact"
)

const (
	piecesAtOnce = 4
	stragglerMax = 2 * time.Second // for a piece to notice that its time is over
)

// Content is what a piece brought.
type Content struct {
	Text    []byte
	Finding string // what in it needs a person, if anything
}

// Piece is one file of the archive.
type Piece struct {
	Path string // below the archive's one folder, with slashes
	Skip string // why it is not collected, where that is known before; Collect is not called then

	// Collect brings the file. It is called once, beside others, and heeds its context. A failure is noted in the
	// manifest; a text that comes with it is kept.
	Collect func(ctx context.Context) (Content, error)

	// Tail says that the end of the text is worth more than its beginning: it is cut where there is too little room.
	// Other pieces are left out then.
	Tail bool
}

// Config says what is collected.
type Config struct {
	Manifest Manifest // Format, Took and Pieces are filled in
	Pieces   []Piece
	Redactor *redact.Redactor
	BytesMax int64         // of all files, before they are packed
	Timeout  time.Duration // for all pieces together
	Progress func(Entry)   // called as each piece ends, one call at a time; may be nil
}

// Bundle is what was collected, ready to be written.
type Bundle struct {
	Manifest Manifest
	texts    [][]byte // by the manifest's pieces; nil where there is none
}

var (
	errPanic = errors.New("panic: a bug of this program")
	errTime  = errors.New("no answer in the time that --timeout gives")
)

// Collect runs all pieces. Its error says that ctx has ended; what a piece meets is in the manifest.
func Collect(ctx context.Context, config Config) (*Bundle, error) {
	began := time.Now()
	collecting, cancel := context.WithTimeout(ctx, config.Timeout)
	defer cancel()
	b := &Bundle{Manifest: config.Manifest, texts: make([][]byte, len(config.Pieces))}
	b.Manifest.Format, b.Manifest.Pieces = format, make([]Entry, len(config.Pieces))
	turns := make(chan struct{}, piecesAtOnce)
	var progress sync.Mutex
	var work sync.WaitGroup
	for i, piece := range config.Pieces {
		work.Go(func() {
			entry, text := Entry{Path: piece.Path, State: Skipped, Why: piece.Skip}, []byte(nil)
			if piece.Skip == "" {
				turns <- struct{}{}
				entry, text = collect(collecting, piece)
				<-turns
			}
			entry.Why, entry.Finding = config.Redactor.String(entry.Why), config.Redactor.String(entry.Finding)
			b.texts[i], b.Manifest.Pieces[i] = config.Redactor.Bytes(text), entry
			if config.Progress != nil {
				progress.Lock()
				defer progress.Unlock()
				config.Progress(entry)
			}
		})
	}
	work.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("collect: %w: nothing was written", err)
	}
	b.fit(config.BytesMax)
	b.Manifest.Took = time.Since(began).Seconds()
	return b, nil
}

// collect runs one piece. One that does not heed its context is left behind: what it brings later goes nowhere.
func collect(ctx context.Context, piece Piece) (Entry, []byte) {
	type end struct {
		content Content
		err     error
	}
	began := time.Now()
	ended := make(chan end, 1)
	go func() {
		var e end
		defer func() {
			if r := recover(); r != nil {
				e = end{err: fmt.Errorf("%w: %v", errPanic, r)}
			}
			ended <- e
		}()
		e.content, e.err = piece.Collect(ctx)
	}()
	var e end
	select {
	case e = <-ended:
	case <-ctx.Done():
		patience := time.NewTimer(stragglerMax)
		defer patience.Stop()
		select {
		case e = <-ended:
		case <-patience.C:
			e.err = errTime
		}
	}
	entry := Entry{Path: piece.Path, State: Collected, Took: time.Since(began).Seconds(), Finding: e.content.Finding, tail: piece.Tail}
	if e.err != nil {
		if errors.Is(e.err, context.DeadlineExceeded) && ctx.Err() != nil {
			e.err = fmt.Errorf("%w: %w", errTime, e.err)
		}
		entry.State, entry.Why = Failed, e.err.Error()
	}
	return entry, e.content.Text
}

// fit keeps what there is room for, in the order of the pieces.
func (b *Bundle) fit(room int64) {
	for i := range b.Manifest.Pieces {
		entry := &b.Manifest.Pieces[i]
		text := b.texts[i]
		if text == nil {
			continue
		}
		if over := int64(len(text)) - room; over > 0 {
			if !entry.tail {
				entry.State, entry.Why = Failed, fmt.Sprintf("it has %d bytes and there was room for %d: raise --size", len(text), room)
				b.texts[i] = nil
				continue
			}
			text, entry.Cut = tail(text, over), true
			b.texts[i] = text
		}
		room -= int64(len(text))
		sum := sha256.Sum256(text)
		entry.Bytes, entry.SHA256 = int64(len(text)), hex.EncodeToString(sum[:])
	}
}

// tail leaves the first bytes out, and the rest of their line.
func tail(text []byte, over int64) []byte {
	for at := over; at < int64(len(text)); at++ {
		if text[at-1] == '\n' {
			return text[at:]
		}
	}
	return []byte{}
}
