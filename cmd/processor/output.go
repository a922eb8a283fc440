package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
)

// The values of -o.
const (
	outputTable = "table"
	outputJSON  = "json"
)

// table is a list for people. Cells may be painted: widths count what is seen. Under a header, columns
// of whole numbers are aligned to the right, so that sizes can be compared at a glance.
type table struct {
	header []string
	rows   [][]string
	empty  string // printed to stderr when there are no rows, such as "no dead letters"
}

// render prints v as JSON or t as a table on stdout, as -o asks. Both must tell the same.
func (c *cli) render(v any, t table) error {
	if c.output == outputJSON {
		return writeJSON(c.stdout, v)
	}
	if len(t.rows) == 0 && t.empty != "" {
		_, err := fmt.Fprintln(c.stderr, t.empty)
		return err
	}
	if err := t.write(c.stdout); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("print json: %w", err)
	}
	return nil
}

const columnGap = 2

func (t table) write(w io.Writer) error {
	lines := t.rows
	if len(t.header) > 0 {
		lines = append([][]string{t.header}, t.rows...)
	}
	var widths []int
	for _, line := range lines {
		for i, cell := range line {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], seen(cell))
		}
	}
	right := make([]bool, len(widths))
	for i := range right {
		right[i] = len(t.header) > 0 && t.isNumeric(i)
	}
	out := bufio.NewWriter(w)
	for _, line := range lines {
		pad := 0
		for i, cell := range line {
			rest := widths[i] - seen(cell)
			if right[i] {
				pad += rest
				rest = 0
			}
			if cell == "" { // nothing to see: what follows makes the room
				pad += rest + columnGap
				continue
			}
			fmt.Fprintf(out, "%*s%s", pad, "", cell)
			pad = rest + columnGap
		}
		fmt.Fprintln(out)
	}
	return out.Flush()
}

// isNumeric tells a column that holds whole numbers, and else only signs for none.
func (t table) isNumeric(column int) bool {
	numbers := 0
	for _, row := range t.rows {
		if column >= len(row) {
			continue
		}
		switch cell := escapes.ReplaceAllString(row[column], ""); cell {
		case "", "-", "null":
		default:
			if _, err := strconv.ParseInt(cell, 10, 64); err != nil {
				return false
			}
			numbers++
		}
	}
	return numbers > 0
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*m")

func seen(cell string) int { return utf8.RuneCountInString(escapes.ReplaceAllString(cell, "")) }

// color is an SGR parameter (ECMA-48).
type color string

const (
	red    color = "31"
	green  color = "32"
	yellow color = "33"
	blue   color = "34"
	gray   color = "90"
	bold   color = "1"
)

// paint colours text that is meant for w, where w is a terminal and NO_COLOR is not set.
func (c *cli) paint(w io.Writer, in color, text string) string {
	if !isTerminal(w) || c.getenv("NO_COLOR") != "" || c.getenv("TERM") == "dumb" {
		return text
	}
	return "\x1b[" + string(in) + "m" + text + "\x1b[0m"
}

// isTerminal tells a person's screen or keyboard from a pipe or a file.
func isTerminal(stream any) bool {
	file, is := stream.(*os.File)
	return is && isatty.IsTerminal(file.Fd())
}

// addChangeFlags gives --dry-run and --yes to a command that changes something.
func (c *cli) addChangeFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, "say what would be done and change nothing")
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "yes")
}

// confirm asks a yes-or-no question on stderr. It returns nil for yes; --yes answers it beforehand.
// Where nobody can answer, and --yes is not given, that is a usage error. A command with --dry-run
// returns before it asks.
func (c *cli) confirm(question string) error {
	if c.yes {
		return nil
	}
	if !isTerminal(c.stdin) {
		return usage(fmt.Errorf("nobody to ask %q: standard input is no terminal: give --yes, or --dry-run to see what would be done", question))
	}
	fmt.Fprintf(c.stderr, "%s [y/N] ", question)
	answer, err := bufio.NewReader(c.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	default:
		return errors.New("not confirmed: nothing was changed")
	}
}
