package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"pawl/internal/app"
	"pawl/internal/top"
)

const (
	topInterval = time.Second
	topTimeout  = 3 * time.Second // for what a process tells at one time
	topWidth    = 120             // where there is no terminal to ask
)

// topFlags are what `top` was told.
type topFlags struct {
	admin    []string
	interval time.Duration
	once     bool
}

func (c *cli) newTopCommand() *cobra.Command {
	var flags topFlags
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch running processes in a terminal: rates, lag, effects, aborts",
		Long: `top asks the operations HTTP of one or several processes again and again and shows what they say: which are
ready, records and transactions per second, the share that aborted, the lag in records and in time, every
partition with its owner, the effects that wait by endpoint with its breaker, and the last aborts with their reason.

Name every process: each tells of the partitions that it owns. It needs no token and changes nothing. A terminal of
80x24 will do; ? tells the keys. NO_COLOR is heeded.

With --once, with -o json, and where there is no terminal, it looks twice, an interval apart, and prints what it saw.

Exit code 3, then: a process did not answer.`,
		Args: cobra.NoArgs,
		Example: `  processor top -c config.yaml
  processor top --admin pawl-0.pawl:9090,pawl-1.pawl:9090,pawl-2.pawl:9090
  processor top --admin 10.0.0.7:9090 --interval 5s
  processor top --admin 10.0.0.7:9090 --once
  processor top -c config.yaml -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.top(cmd.Context(), flags) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&flags.admin, "admin", nil, "operations HTTP of the processes, `ADDRESS`es as host:port or URL, separated by commas (default: admin.listen on this machine)")
	f.DurationVar(&flags.interval, "interval", topInterval, "ask every `TIME`")
	f.BoolVar(&flags.once, "once", false, "print what there is to see and end")
	return cmd
}

func (c *cli) top(ctx context.Context, flags topFlags) error {
	if flags.interval < 100*time.Millisecond || flags.interval > time.Hour {
		return usage(fmt.Errorf("--interval is %s, want 100ms..1h", flags.interval))
	}
	// What else may be wrong with the configuration is no concern of ours: the processes have judged it.
	conf, _, _ := app.Load(c.loadOptions())
	processes, err := instances(flags.admin, conf.Admin.Listen)
	if err != nil {
		return err
	}
	byName := map[string]operations{}
	config := top.Config{
		Every: flags.interval, Title: conf.Application, Env: c.env,
		Fetch: func(ctx context.Context, process string) top.Facts { return fetchFacts(ctx, byName[process]) },
	}
	for _, one := range processes {
		byName[one.name()] = one
		config.Processes = append(config.Processes, one.name())
	}
	in, _ := c.stdin.(*os.File)
	out, _ := c.stdout.(*os.File)
	if flags.once || c.output == outputJSON || !isTerminal(in) || !isTerminal(out) || c.getenv("TERM") == "dumb" {
		return c.topOnce(ctx, config)
	}
	config.In, config.Out, config.Color = in, out, c.getenv("NO_COLOR") == ""
	return top.Run(ctx, config)
}

func (c *cli) topOnce(ctx context.Context, config top.Config) error {
	since := time.Now()
	seen, err := top.Once(ctx, config)
	if err != nil {
		return err
	}
	if c.output == outputJSON {
		err = c.render(seen, table{})
	} else {
		screen := top.Screen{Width: topWidth, Title: config.Title, Every: config.Every, Since: since, Sort: top.ByLag}
		_, err = fmt.Fprint(c.stdout, screen.Print(seen))
	}
	if err != nil {
		return err
	}
	for _, process := range seen.Processes {
		if process.State == top.StateUnreachable {
			return findings()
		}
	}
	return nil
}

// fetchFacts asks a process for all that it tells.
func fetchFacts(ctx context.Context, process operations) top.Facts {
	ctx, cancel := context.WithTimeout(ctx, topTimeout)
	defer cancel()
	var told top.Told
	for _, page := range []struct {
		path string
		into *[]byte
		code int // where it tells anything by another one
	}{{"/metrics", &told.Metrics, 0}, {"/api/v1/status", &told.Status, 0}, {"/readyz?verbose", &told.Ready, http.StatusServiceUnavailable}} {
		got, err := process.get(ctx, page.path)
		if err == nil && got.code != http.StatusOK && got.code != page.code {
			err = fmt.Errorf("%s says %d: %s", page.path, got.code, explain(got.kind, got.body))
		}
		if err != nil {
			if inner := errors.Unwrap(err); inner != nil {
				err = inner // whom we asked stands beside it
			}
			return top.Facts{Process: process.name(), At: time.Now(), Err: err}
		}
		*page.into, told.IsReady = got.body, got.code == http.StatusOK
	}
	return top.Read(process.name(), time.Now(), told)
}
