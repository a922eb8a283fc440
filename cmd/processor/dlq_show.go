package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pawl/internal/app"
	"pawl/internal/deadletter"
)

// shownLetter is a dead letter with its contents, exact: bytes are base64 in JSON.
type shownLetter struct {
	app.ListedLetter
	Key     []byte        `json:"key"`
	Value   []byte        `json:"value"`
	Text    *string       `json:"value_text,omitempty"` // the value once more, where it is text
	Headers []shownHeader `json:"headers"`
}

type shownHeader struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

const (
	showBytesDefault = 4096
	showKeyBytes     = 256
)

func (c *cli) newDLQShowCommand() *cobra.Command {
	var (
		raw  bool
		most int
	)
	cmd := &cobra.Command{
		Use:   "show LETTER...",
		Short: "Show dead letters with their contents",
		Long: `show tells why a record was refused, and shows its key, headers and value: as text where it is text, else in
hexadecimal. LETTER is a position as ls shows it. With -o json everything is exact, with bytes in base64; with
--raw the value alone goes to standard output, byte for byte.`,
		Example: `  processor dlq show 0/42
  processor dlq show 0/42 0/43 -o json
  processor dlq show 0/42 --raw > order.json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if raw && len(args) != 1 {
				return usage(errors.New("--raw shows one letter"))
			}
			if most < 0 {
				return usage(fmt.Errorf("--bytes is %d, want 0 or more", most))
			}
			filter, err := (&letterFlags{}).filter(args)
			if err != nil {
				return err
			}
			queue, err := c.openDeadLetters(cmd)
			if err != nil {
				return err
			}
			defer queue.Close()
			letters, err := findLetters(cmd.Context(), queue.Queue, filter.At)
			if err != nil {
				return err
			}
			if raw {
				_, err := c.stdout.Write(letters[0].Value)
				return err
			}
			return c.showLetters(letters, most)
		},
	}
	cmd.Flags().BoolVar(&raw, "raw", false, "the value alone, byte for byte")
	cmd.Flags().IntVar(&most, "bytes", showBytesDefault, "at most `NUMBER` bytes of the value; -o json and --raw give all")
	cmd.MarkFlagsMutuallyExclusive("raw", "bytes")
	return cmd
}

// findLetters reads the letters at the positions, settled ones too; each must be there.
func findLetters(ctx context.Context, queue *deadletter.Queue, positions []deadletter.Position) ([]deadletter.Letter, error) {
	found := map[deadletter.Position]deadletter.Letter{}
	err := queue.Each(ctx, deadletter.Filter{At: positions, Settled: true}, func(l deadletter.Letter) error {
		found[l.Position()] = l
		return nil
	})
	if err != nil {
		return nil, err
	}
	var letters []deadletter.Letter
	var errs []error
	for _, position := range positions {
		l, is := found[position]
		if !is {
			errs = append(errs, fmt.Errorf("there is no dead letter at %s: `processor dlq ls --all` lists them", position))
		}
		letters = append(letters, l)
	}
	return letters, errors.Join(errs...)
}

func (c *cli) showLetters(letters []deadletter.Letter, most int) error {
	shown := make([]shownLetter, 0, len(letters))
	for i := range letters {
		l := &letters[i]
		s := shownLetter{ListedLetter: app.ListLetter(l), Key: l.Key, Value: l.Value, Headers: []shownHeader{}}
		if text := string(l.Value); l.Value != nil && app.IsText(text) {
			s.Text = &text
		}
		for _, h := range l.Headers {
			s.Headers = append(s.Headers, shownHeader(h))
		}
		shown = append(shown, s)
	}
	if c.output == outputJSON {
		return c.render(shown, table{})
	}
	for i, s := range shown {
		if i > 0 {
			fmt.Fprintln(c.stdout)
		}
		if err := c.showLetter(s, most); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) showLetter(s shownLetter, most int) error {
	headers := make([][]string, 0, len(s.Headers))
	for _, h := range s.Headers {
		headers = append(headers, []string{"header", printable(h.Key) + " = " + app.PreviewBytes(h.Value, showKeyBytes)})
	}
	rows := slices.Concat([][]string{
		{"letter", s.Letter},
		{"state", s.State},
		{"source", s.Source},
		{"time", s.Time.Format(time.RFC3339Nano)},
		{"handler", printable(s.Handler)},
		{"reason", printable(s.Reason)},
		{"error", printable(s.Error)},
		{"redrives", strconv.Itoa(s.Redrives)},
		{"key", app.PreviewBytes(s.Key, showKeyBytes)},
	}, headers, [][]string{{"value", describeValue(s)}})
	if err := c.render(nil, table{rows: rows}); err != nil {
		return err
	}
	return printValue(c.stdout, s, most)
}

func describeValue(s shownLetter) string {
	switch {
	case s.Value == nil:
		return "null"
	case s.Text != nil:
		return count(len(s.Value), "byte") + " of text"
	default:
		return count(len(s.Value), "byte")
	}
}

// printValue prints text as it is and anything else as a hexadecimal dump, so that no byte of a
// stranger's reaches the terminal as a control character.
func printValue(w io.Writer, s shownLetter, most int) error {
	if len(s.Value) == 0 {
		return nil
	}
	part := s.Value[:min(most, len(s.Value))]
	var err error
	if s.Text != nil {
		_, err = fmt.Fprintf(w, "\n%s\n", strings.TrimRight(strings.ToValidUTF8(string(part), ""), "\n"))
	} else {
		_, err = fmt.Fprintf(w, "\n%s", hex.Dump(part))
	}
	if rest := len(s.Value) - len(part); err == nil && rest > 0 {
		_, err = fmt.Fprintf(w, "... %s more: --bytes shows more, --raw all\n", count(rest, "byte"))
	}
	return err
}
