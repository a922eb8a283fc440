package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"pawl/internal/verify"
)

func (c *cli) explain(ctx context.Context, system *verify.System, text string) error {
	at, err := verify.ParsePlace(text)
	if err != nil {
		return usage(fmt.Errorf("--explain: %w", err))
	}
	lineage, err := system.Explain(ctx, at)
	if err != nil {
		return fmt.Errorf("explain %s: %w", at, err)
	}
	if c.output == outputJSON {
		return c.render(lineage, table{})
	}
	return c.printLineage(c.stdout, &lineage)
}

// printLineage is the story for people, in the order in which it happened.
func (c *cli) printLineage(w io.Writer, l *verify.Lineage) error {
	facts := [][]string{{"input", l.Input.String() + c.presence(l)}}
	if l.Present {
		facts = append(facts, []string{"key", strconv.Quote(string(l.Key))}, []string{"time", l.Timestamp.Format(time.RFC3339Nano)})
	}
	facts = append(facts, []string{"processed", processedText(l)})
	if err := (table{rows: facts}).write(w); err != nil {
		return err
	}
	if len(l.Transactions) == 0 {
		fmt.Fprintf(w, "\nnothing was made of it, or retention has deleted that\n")
	}
	for i := range l.Transactions {
		t := &l.Transactions[i]
		who := t.TransactionalID
		if who == "" {
			who = "a producer whose name the brokers have forgotten"
		}
		fmt.Fprintf(w, "\ntransaction of %s (producer %d, epoch %d): %s\n", who, t.Producer, t.Epoch, c.fate(w, t.Fate))
		made := table{header: []string{"  MADE", "AT", "ID", "REASON"}}
		for _, one := range t.Made {
			made.rows = append(made.rows, []string{"  " + one.Role, one.At.String(), one.ID, strings.TrimSpace(one.Reason + " " + firstLine(one.Error))})
		}
		if err := made.write(w); err != nil {
			return err
		}
	}
	for i := range l.Effects {
		if err := c.printErrand(w, &l.Effects[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) presence(l *verify.Lineage) string {
	switch {
	case !l.Present:
		return " (its log has it no more)"
	case l.Asked != l.Input:
		return ", from which " + l.Asked.String() + " was made"
	default:
		return ""
	}
}

func processedText(l *verify.Lineage) string {
	switch {
	case l.Processed:
		return "yes: the committed offset of its partition is " + strconv.FormatInt(l.Committed, 10)
	case l.Committed < 0:
		return "no: nothing is committed of its partition"
	default:
		return "no: the committed offset of its partition is " + strconv.FormatInt(l.Committed, 10)
	}
}

func (c *cli) fate(w io.Writer, fate string) string {
	switch fate {
	case "committed":
		return c.paint(w, green, fate)
	case "aborted":
		return c.paint(w, gray, "aborted, no reader sees it")
	default:
		return c.paint(w, yellow, fate)
	}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

func (c *cli) printErrand(w io.Writer, e *verify.Errand) error {
	fmt.Fprintf(w, "\neffect %s for endpoint %s\n", e.At, e.Endpoint)
	facts := [][]string{{"  idempotency key", e.ID}}
	if e.Business != "" {
		facts = append(facts, []string{"  business key", e.Business})
	}
	state := e.Ledger.State
	if e.Ledger.Flush > 0 {
		state += fmt.Sprintf(" after %s, in flush %d", count(e.Ledger.Calls, "call"), e.Ledger.Flush)
	}
	facts = append(facts, []string{"  ledger", state})
	for _, a := range e.Ledger.Attempts {
		facts = append(facts, []string{"  attempt " + strconv.Itoa(a.Attempt), strings.TrimSpace(fmt.Sprintf("%s  %s %s", a.At.Format(time.RFC3339Nano), httpStatus(a.Status), a.Error))})
	}
	for _, told := range e.Events {
		facts = append(facts, []string{"  result", told.Status + " at " + told.At.String()})
	}
	return table{rows: facts}.write(w)
}

func httpStatus(status int) string {
	if status == 0 {
		return "no answer"
	}
	return strconv.Itoa(status)
}
