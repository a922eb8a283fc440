package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pawl/internal/app"
	"pawl/internal/bundle"
	"pawl/internal/redact"
	"pawl/internal/telemetry"
)

const (
	bundleTimeout       = 2 * time.Minute
	bundleVerifyTimeout = 15 * time.Minute
	bundleSize          = 64 // MiB
	bundleSince         = "1h"
)

// bundleFlags are what `bundle` was told.
type bundleFlags struct {
	admin   []string
	logs    []string
	since   string
	verify  bool
	out     string
	timeout time.Duration
	size    int
}

// bundled is what `bundle -o json` prints.
type bundled struct {
	File string `json:"file"`
	bundle.Manifest
}

func (c *cli) newBundleCommand() *cobra.Command {
	var flags bundleFlags
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Collect what an incident needs into one archive without secrets or payloads",
		Long: `bundle writes one .tar.gz for whoever has to find out what happened: the configuration with the origin of each
value, versions, and of each process its status with its partitions, its last transactions with what ended them, its
health and its metrics; lag, owners and pauses, open transactions and what the preflight finds; how many effects wait for each endpoint and what operators ordered; the
end of log files; and with --verify what processor verify says of the inputs since --since.

A piece that can't be had stops no other: manifest.json says what is there, and what is not and why. Nothing is
changed anywhere. A configuration with problems is collected with them.

Secrets are hidden in the configuration as config print does, and each one that the configuration knows is looked
for in every file once more. Records, keys of records and the contents of effects are not collected. Log files are
as the processes wrote them: read them before you send them on. A process logs to standard error, which is its
orchestrator's: write it to a file first and give it with --log.

Exit code 3: the archive is written, and a piece failed or has a finding.`,
		Args: cobra.NoArgs,
		Example: `  processor bundle -c config.yaml
  processor bundle -c config.yaml --admin pawl-0.pawl:9090,pawl-1.pawl:9090 --log pawl-0.log --log pawl-1.log
  processor bundle -c config.yaml --verify --since 2h --file incident-42.tar.gz
  kubectl logs pawl-0 --since=1h > pawl-0.log && processor bundle -c config.yaml --log pawl-0.log`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("timeout") && flags.verify {
				flags.timeout = bundleVerifyTimeout
			}
			return c.bundle(cmd, &flags)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&flags.admin, "admin", nil, "operations HTTP of the processes, `ADDRESS`es as host:port or URL, separated by commas (default: admin.listen on this machine)")
	f.StringArrayVar(&flags.logs, "log", nil, "put the end of a log `FILE` into the archive; repeatable")
	f.StringVar(&flags.since, "since", bundleSince, "look back to this `TIME` for orders of operators and with --verify, such as 2h or 2026-11-23T10:00:00Z")
	f.BoolVar(&flags.verify, "verify", false, "check the inputs since then as processor verify does; it reads the topics and takes its time")
	f.StringVar(&flags.out, "file", "", "write the archive to `FILE` (default: pawl-bundle-APPLICATION-TIME.tar.gz here)")
	f.DurationVar(&flags.timeout, "timeout", bundleTimeout, "collect for no longer than `TIME`; with --verify 15m where it is not given")
	f.IntVar(&flags.size, "size", bundleSize, "no more than `MIB` of files, before they are packed")
	return cmd
}

func (f *bundleFlags) check() error {
	var errs []error
	if _, err := parseMoment("--since", f.since, time.Now()); err != nil {
		errs = append(errs, err)
	}
	if f.since == "" {
		errs = append(errs, errors.New("--since is empty, want a time such as 2h"))
	}
	if f.timeout < time.Second || f.timeout > 24*time.Hour {
		errs = append(errs, fmt.Errorf("--timeout is %s, want 1s..24h", f.timeout))
	}
	if f.size < 1 || f.size > 1024 {
		errs = append(errs, fmt.Errorf("--size is %d, want 1..1024 MiB", f.size))
	}
	return errors.Join(errs...)
}

func (c *cli) bundle(cmd *cobra.Command, flags *bundleFlags) error {
	if err := flags.check(); err != nil {
		return usage(err)
	}
	conf, origins, problems := app.Load(c.loadOptions())
	collector := &bundler{cli: c, flags: flags, conf: conf, origins: origins, problems: problems}
	defer collector.close()
	processes, err := instances(flags.admin, conf.Admin.Listen)
	if err != nil && len(flags.admin) > 0 {
		return err
	}
	made := time.Now().UTC().Truncate(time.Second)
	host, _ := os.Hostname() // a name that is not known is left out
	manifest := bundle.Manifest{Application: conf.Application, Made: made, Host: host, Tool: thisBuild()}
	secrets, unread := conf.Secrets()
	redactor := redact.New(append(secrets, telemetry.TracingSecrets(c.getenv)...))
	manifest.Notes = notes(redactor, unread, problems)
	file := flags.out
	if file == "" {
		file = manifest.Name() + ".tar.gz"
	}
	if _, err := os.Lstat(file); err == nil { // said now rather than after minutes
		return usage(fmt.Errorf("%s is there already: name another with --file", file))
	}
	if _, err := os.Stat(filepath.Dir(file)); err != nil {
		return usage(fmt.Errorf("--file: %w", err))
	}
	collected, err := bundle.Collect(cmd.Context(), bundle.Config{
		Manifest: manifest, Pieces: collector.pieces(cmd.Context(), processes, err), Redactor: redactor,
		BytesMax: int64(flags.size) << 20, Timeout: flags.timeout, Progress: c.bundleProgress(),
	})
	if err != nil {
		return err
	}
	if err := collected.WriteFile(file, redactor); err != nil {
		return err
	}
	if err := c.render(bundled{file, collected.Manifest}, table{rows: [][]string{{file}}}); err != nil {
		return err
	}
	fmt.Fprintf(c.stderr, "%s collected, %d failed, %d skipped: manifest.json in it says which and why\n",
		count(collected.Manifest.Count(bundle.Collected), "file"), collected.Manifest.Count(bundle.Failed), collected.Manifest.Count(bundle.Skipped))
	if !collected.Manifest.Complete() {
		return findings()
	}
	return nil
}

// notes are what a reader of the archive should know beside what is in it.
func notes(redactor *redact.Redactor, unread []error, problems error) (told []string) {
	for _, err := range unread {
		told = append(told, "a secret could not be looked for: "+err.Error())
	}
	if redactor.Ignored > 0 {
		told = append(told, count(redactor.Ignored, "secret")+" too short to be looked for")
	}
	if problems != nil {
		told = append(told, "the configuration has problems: config/problems.json; what needs a whole one is not there")
	}
	return told
}

// bundleProgress tells of each piece as it ends.
func (c *cli) bundleProgress() func(bundle.Entry) {
	paints := map[bundle.State]color{bundle.Collected: green, bundle.Failed: red, bundle.Skipped: gray}
	return func(entry bundle.Entry) {
		why := entry.Why
		if entry.Finding != "" {
			why = strings.TrimSuffix(entry.Finding+"; "+why, "; ")
		}
		if why != "" {
			why = ": " + printable(why)
		}
		if entry.State != bundle.Skipped {
			why += fmt.Sprintf(" (%.1f s)", entry.Took)
		}
		fmt.Fprintln(c.stderr, c.paint(c.stderr, paints[entry.State], string(entry.State))+"  "+entry.Path+why)
	}
}
