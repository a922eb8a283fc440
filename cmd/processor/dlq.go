package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/app"
	"pawl/internal/deadletter"
)

func (c *cli) newDLQCommand() *cobra.Command {
	return newGroup("dlq", "Look at dead letters, send them back or give them up",
		`  processor dlq ls -c config.yaml
  processor dlq ls --group
  processor dlq show 0/42
  processor dlq redrive --reason unknown_version --dry-run
  processor dlq discard --reason bad_json --because "test data" --yes`,
		c.newDLQListCommand(), c.newDLQShowCommand(), c.newDLQRedriveCommand(), c.newDLQDiscardCommand(), c.newDLQPurgeCommand())
}

// letterFlags are the flags that select dead letters.
type letterFlags struct {
	reasons, handlers, topics []string
	since, until              string
	max                       int
}

func (f *letterFlags) add(cmd *cobra.Command, maxDefault int) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.reasons, "reason", nil, "only letters refused for `REASON`; repeatable")
	flags.StringSliceVar(&f.handlers, "handler", nil, "only letters refused by `HANDLER`; repeatable")
	flags.StringSliceVar(&f.topics, "topic", nil, "only letters from `TOPIC` of origin; repeatable")
	flags.StringVar(&f.since, "since", "", "only letters whose record is not older: a `TIME` such as 2026-11-23T10:00:00Z, or 2h or 14d ago")
	flags.StringVar(&f.until, "until", "", "only letters whose record is older: a `TIME`, as with --since")
	flags.IntVar(&f.max, "max", maxDefault, "no more than `NUMBER` letters; 0 is all")
}

// filter reads the flags and the positions given as arguments.
func (f *letterFlags) filter(positions []string) (deadletter.Filter, error) {
	now := time.Now()
	since, sinceErr := parseMoment("--since", f.since, now)
	until, untilErr := parseMoment("--until", f.until, now)
	errs := []error{sinceErr, untilErr}
	if f.max < 0 {
		errs = append(errs, fmt.Errorf("--max is %d, want 0 or more", f.max))
	}
	filter := deadletter.Filter{Reasons: f.reasons, Handlers: f.handlers, Topics: f.topics, Since: since, Until: until}
	for _, text := range positions {
		position, err := deadletter.ParsePosition(text)
		errs = append(errs, err)
		filter.At = append(filter.At, position)
	}
	return filter, usage(errors.Join(errs...))
}

// String says in a line what is selected.
func (f *letterFlags) String() string {
	var parts []string
	for _, part := range []struct {
		name   string
		values []string
	}{{"reason", f.reasons}, {"handler", f.handlers}, {"topic", f.topics}, {"since", []string{f.since}}, {"until", []string{f.until}}} {
		if text := strings.Join(part.values, ","); text != "" {
			parts = append(parts, part.name+" "+text)
		}
	}
	if f.max > 0 {
		parts = append(parts, fmt.Sprintf("at most %d", f.max))
	}
	if len(parts) == 0 {
		return "all that are open"
	}
	return strings.Join(parts, ", ")
}

// narrows tells whether any flag selects.
func (f *letterFlags) narrows() bool {
	return len(f.reasons)+len(f.handlers)+len(f.topics) > 0 || f.since != "" || f.until != ""
}

// parseMoment reads a point in time, or how long ago it was. Empty is the zero time.
func parseMoment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	moment, err := app.ParseMoment(text, now)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s %w", flag, err)
	}
	return moment, nil
}

// letterQueue is the dead letters of a configuration, with what is needed to write down who settles them.
type letterQueue struct {
	*deadletter.Queue

	conf   app.Config
	client []kgo.Opt
}

// openDeadLetters connects to the brokers. The first connection explains what is wrong, where
// something is; those after it are patient.
func (c *cli) openDeadLetters(cmd *cobra.Command) (letterQueue, error) {
	var q letterQueue
	var err error
	if q.conf, err = c.load(cmd); err != nil {
		return q, err
	}
	brokers := c.kafkaConfig(q.conf)
	probe, err := openClient(cmd.Context(), brokers)
	if err != nil {
		return q, err
	}
	probe.Close()
	if q.client, err = brokers.Options(); err != nil {
		return q, err
	}
	q.Queue, err = deadletter.Open(q.conf.DeadLetters(q.client))
	return q, err
}

const (
	listMaxDefault = 100
	listErrorRunes = 70
)

func (c *cli) newDLQListCommand() *cobra.Command {
	var (
		flags      letterFlags
		all, group bool
	)
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List dead letters, without their contents",
		Long: `ls lists the dead letters that are open, oldest first within each partition, up to the end at the time of the
call. What has been redriven or discarded is shown with --all until it is purged.`,
		Example: `  processor dlq ls --reason bad_json --since 2h
  processor dlq ls --group
  processor dlq ls --all --max 0 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := flags.filter(nil)
			if err != nil {
				return err
			}
			filter.Settled = all
			queue, err := c.openDeadLetters(cmd)
			if err != nil {
				return err
			}
			defer queue.Close()
			if group {
				return c.groupLetters(cmd.Context(), queue.Queue, filter)
			}
			return c.listLetters(cmd.Context(), queue.Queue, filter, flags.max)
		},
	}
	flags.add(cmd, listMaxDefault)
	cmd.Flags().BoolVar(&all, "all", false, "also those that are redriven or discarded")
	cmd.Flags().BoolVar(&group, "group", false, "count by reason, handler and topic instead")
	return cmd
}

var errEnoughLetters = errors.New("enough letters")

func (c *cli) listLetters(ctx context.Context, queue *deadletter.Queue, filter deadletter.Filter, most int) error {
	listed := []app.ListedLetter{}
	err := queue.Each(ctx, filter, func(l deadletter.Letter) error {
		if most > 0 && len(listed) == most {
			return errEnoughLetters
		}
		listed = append(listed, app.ListLetter(&l))
		return nil
	})
	more := errors.Is(err, errEnoughLetters)
	if err != nil && !more {
		return err
	}
	t := table{header: []string{"LETTER", "TIME", "SOURCE", "HANDLER", "REASON", "STATE", "REDRIVES", "BYTES", "ERROR"}, empty: "no dead letters"}
	for _, l := range listed {
		size := strconv.Itoa(l.ValueBytes)
		if l.ValueBytes < 0 {
			size = "null"
		}
		t.rows = append(t.rows, []string{
			l.Letter, l.Time.Format(time.RFC3339), l.Source, printable(l.Handler), printable(l.Reason), l.State,
			strconv.Itoa(l.Redrives), size, shorten(printable(l.Error), listErrorRunes),
		})
	}
	if err := c.render(listed, t); err != nil {
		return err
	}
	if more {
		fmt.Fprintf(c.stderr, "there are more than %d: narrow the search, raise --max, or count them with --group\n", most)
	}
	return nil
}

// letterGroup is one line of `dlq ls --group -o json`.
type letterGroup struct {
	Reason  string    `json:"reason"`
	Handler string    `json:"handler"`
	Topic   string    `json:"topic"`
	Letters int       `json:"letters"`
	Oldest  time.Time `json:"oldest"`
	Newest  time.Time `json:"newest"`
}

func (c *cli) groupLetters(ctx context.Context, queue *deadletter.Queue, filter deadletter.Filter) error {
	type key struct{ reason, handler, topic string }
	groups := map[key]*letterGroup{}
	err := queue.Each(ctx, filter, func(l deadletter.Letter) error {
		k := key{l.Reason, l.Handler, l.Source.Topic}
		g := groups[k]
		if g == nil {
			g = &letterGroup{Reason: k.reason, Handler: k.handler, Topic: k.topic, Oldest: l.Timestamp.UTC(), Newest: l.Timestamp.UTC()}
			groups[k] = g
		}
		g.Letters++
		if l.Timestamp.Before(g.Oldest) {
			g.Oldest = l.Timestamp.UTC()
		}
		if l.Timestamp.After(g.Newest) {
			g.Newest = l.Timestamp.UTC()
		}
		return nil
	})
	if err != nil {
		return err
	}
	sorted := slices.SortedFunc(maps.Values(groups), func(a, b *letterGroup) int {
		return compareAll(b.Letters-a.Letters, strings.Compare(a.Reason, b.Reason), strings.Compare(a.Handler, b.Handler), strings.Compare(a.Topic, b.Topic))
	})
	t := table{header: []string{"LETTERS", "REASON", "HANDLER", "TOPIC", "OLDEST", "NEWEST"}, empty: "no dead letters"}
	for _, g := range sorted {
		t.rows = append(t.rows, []string{
			strconv.Itoa(g.Letters), printable(g.Reason), printable(g.Handler), g.Topic,
			g.Oldest.Format(time.RFC3339), g.Newest.Format(time.RFC3339),
		})
	}
	if sorted == nil {
		sorted = []*letterGroup{} // [] in JSON, not null
	}
	return c.render(sorted, t)
}

// compareAll is the first comparison that tells.
func compareAll(results ...int) int {
	for _, result := range results {
		if result != 0 {
			return result
		}
	}
	return 0
}

// printable makes a stranger's text safe for a terminal: one line, no control characters.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '.'
		}
		return r
	}, text)
}

func shorten(text string, runes int) string {
	if utf8.RuneCountInString(text) <= runes {
		return text
	}
	return string([]rune(text)[:runes-1]) + "…"
}
