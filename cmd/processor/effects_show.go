package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pawl/internal/app"
	"pawl/internal/message"
	"pawl/internal/outbox/ledger"
)

func (c *cli) newEffectsShowCommand() *cobra.Command {
	most := showBytesDefault
	cmd := &cobra.Command{
		Use:   "show EFFECT...",
		Short: "Show effects with their contents and attempts",
		Long: `show tells what became of effects: their state, attempts, what operators ordered, the last answer, and the body that is sent. EFFECT is
lane:offset as ls shows it, or an id (the Idempotency-Key of the call). Effects with one business key share their id, and
ids have no index: to find one takes a while in a large ledger.`,
		Example: `  processor effects show 3:42 -c config.yaml
  processor effects show 3:42 3:43 -o json
  processor effects show 6f1c1c9e-7a52-5d0f-9c1b-0f2b8f6f7a11`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if most < 0 {
				return usage(fmt.Errorf("--bytes is %d, want 0 or more", most))
			}
			targets, err := parseTargets(args)
			if err != nil {
				return usage(err)
			}
			return c.withLedger(cmd, func(_ app.Config, l effectLedger) error {
				effects, err := findEffects(cmd.Context(), l, targets)
				if err != nil {
					return err
				}
				return c.showEffects(cmd.Context(), l, effects, most)
			})
		},
	}
	cmd.Flags().IntVar(&most, "bytes", showBytesDefault, "at most `NUMBER` bytes of a body; -o json gives all")
	return cmd
}

// effectTarget names effects: by place, or all with an id.
type effectTarget struct {
	place app.EffectPlace
	id    *message.ID
}

func parseTargets(args []string) ([]effectTarget, error) {
	var targets []effectTarget
	var errs []error
	for _, text := range args {
		if id, ok := parseID(text); ok {
			targets = append(targets, effectTarget{id: &id})
			continue
		}
		place, err := app.ParseEffectPlace(text)
		errs = append(errs, err)
		targets = append(targets, effectTarget{place: place})
	}
	return targets, errors.Join(errs...)
}

func parseID(text string) (id message.ID, ok bool) {
	raw, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(raw) != len(id) || strings.Count(text, "-") != 4 {
		return id, false
	}
	copy(id[:], raw)
	return id, true
}

// findEffects gives the effects that are named; each must be there.
func findEffects(ctx context.Context, l effectLedger, targets []effectTarget) ([]ledger.Effect, error) {
	var effects []ledger.Effect
	var errs []error
	for _, target := range targets {
		if target.id != nil {
			found, err := l.ShowID(ctx, *target.id)
			effects, errs = append(effects, found...), append(errs, err)
			continue
		}
		found, err := l.Show(ctx, target.place.Lane, target.place.Offset)
		effects, errs = append(effects, found), append(errs, err)
	}
	return effects, errors.Join(errs...)
}

func (c *cli) showEffects(ctx context.Context, l effectLedger, effects []ledger.Effect, most int) error {
	shown := make([]app.ShownEffect, 0, len(effects))
	for i := range effects {
		audit, err := l.AuditOf(ctx, effects[i].Intent.Lane, effects[i].Intent.Offset)
		if err != nil {
			return err
		}
		shown = append(shown, app.ShowEffect(&effects[i], audit))
	}
	if c.output == outputJSON {
		return c.render(shown, table{})
	}
	for i := range shown {
		if i > 0 {
			fmt.Fprintln(c.stdout)
		}
		if err := c.showEffect(&shown[i], most); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) showEffect(s *app.ShownEffect, most int) error {
	rows := [][]string{
		{"effect", s.Effect},
		{"id", s.ID},
		{"state", s.State},
		{"endpoint", printable(s.Endpoint)},
		{"class", s.Class},
		{"key", app.PreviewBytes(s.Key, showKeyBytes)},
		{"source", printable(s.Source)},
		{"committed", s.Committed.Format(time.RFC3339Nano)},
		{"attempts", strconv.Itoa(s.Attempts)},
	}
	for _, row := range [][]string{
		{"business key", printable(s.BusinessKey)}, {"first", s.First}, {"waits for", describeWait(s.ListedEffect)}, {"error", printable(s.Error)}, {"traceparent", printable(s.Trace)}, {"tracestate", printable(s.TraceState)},
	} {
		if row[1] != "" {
			rows = append(rows, row)
		}
	}
	for _, a := range s.History {
		rows = append(rows, []string{fmt.Sprintf("attempt %d", a.Attempt), strings.Join(slices.DeleteFunc([]string{
			a.Time.Format(time.RFC3339Nano), statusText(a.HTTPStatus), printable(a.Error),
		}, func(text string) bool { return text == "" }), "  ")})
	}
	for _, order := range s.Audit {
		rows = append(rows, []string{"order to " + order.Action, fmt.Sprintf("%s  by %s: %s; %s", order.Time.Format(time.RFC3339), printable(order.Actor), printable(order.Reason), describeOrder(order))})
	}
	if s.Response != nil {
		rows = append(rows, []string{"answer", describeBody(s.HTTPStatus, s.Response)})
		rows = append(rows, []string{"", app.PreviewBytes(s.Response.Body, min(most, showKeyBytes))})
	}
	body := shownLetter{Value: s.Body}
	if text := string(s.Body); app.IsText(text) {
		body.Text = &text
	}
	rows = append(rows, []string{"body", describeValue(body) + ", " + printable(s.ContentType)})
	if err := c.render(nil, table{rows: rows}); err != nil {
		return err
	}
	return printValue(c.stdout, body, most)
}

func statusText(status int) string {
	if status == 0 {
		return ""
	}
	return strconv.Itoa(status)
}

func describeBody(status int, r *app.ShownResponse) string {
	text := strings.TrimSpace(statusText(status) + " " + count(len(r.Body), "byte"))
	if r.ContentType != "" {
		text += ", " + printable(r.ContentType)
	}
	if r.Truncated {
		text += ", cut off"
	}
	return text
}
