package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"pawl/internal/app"
	"pawl/internal/telemetry"
	"pawl/internal/verify"
)

// follower judges what is processed, pass after pass.
type follower struct {
	cli     *cli
	system  *verify.System
	conf    app.Config
	metrics *telemetry.Verify
	window  verify.Window
	found   int64
}

// follow runs until ctx ends. That the brokers or the ledger are away is no reason to end.
func (c *cli) follow(ctx context.Context, system *verify.System, conf app.Config, flags *verifyFlags) (err error) {
	all := verify.Verdicts()
	verdicts := make([]string, 0, len(all))
	for _, verdict := range all {
		verdicts = append(verdicts, string(verdict))
	}
	metrics, handler := telemetry.ServeVerify(verdicts, time.Now())
	if flags.listen != "" {
		closeServer, err := c.serveMetrics(ctx, flags.listen, handler)
		if err != nil {
			return err
		}
		defer closeServer()
	}
	f := &follower{cli: c, system: system, conf: conf, metrics: metrics}
	if f.window, err = flags.beginning(ctx, system); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	ticks := time.NewTicker(flags.interval)
	defer ticks.Stop()
	for { // ends with ctx
		if err := f.pass(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			if f.found > 0 {
				return findings()
			}
			return nil
		case <-ticks.C:
		}
	}
}

// beginning is where the first pass begins: now, or where --from says.
func (f *verifyFlags) beginning(ctx context.Context, system *verify.System) (verify.Window, error) {
	if len(f.from) == 0 {
		return system.Now(ctx)
	}
	return f.window(ctx, system)
}

func (f *follower) pass(ctx context.Context) error {
	began := time.Now()
	report, covered, next, err := f.system.Pass(ctx, f.window)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it was told to end
	}
	if err != nil {
		f.metrics.Failed()
		fmt.Fprintf(f.cli.stderr, "%s this pass failed, the next one looks again: %s\n", f.cli.paint(f.cli.stderr, yellow, "warning:"), err)
		return nil
	}
	f.window = next
	f.found += report.Total()
	counts := map[string]int64{}
	for verdict, n := range report.Counts {
		counts[string(verdict)] = n
	}
	f.metrics.Pass(began, covered.Took, report.Saw.Judged, counts, covered.To)
	return f.print(newVerifyReport(f.conf.Application, began, report, covered))
}

// print writes a line for each pass, and the findings of those that have some.
func (f *follower) print(r verifyReport) error {
	if f.cli.output == outputJSON {
		line, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("print json: %w", err)
		}
		_, err = fmt.Fprintf(f.cli.stdout, "%s\n", line)
		return err
	}
	verdict := f.cli.paint(f.cli.stdout, green, "clean")
	if !r.Clean {
		verdict = f.cli.paint(f.cli.stdout, red, count(int(r.Total()), "finding"))
	}
	if _, err := fmt.Fprintf(f.cli.stdout, "%s  %d inputs, %d effects on their way: %s (%.1f s)\n", r.Began.Format(time.RFC3339), r.Saw.Judged, r.Saw.Waiting, verdict, r.Took); err != nil {
		return err
	}
	if r.Clean {
		return nil
	}
	return f.cli.printFindings(f.cli.stdout, r)
}

const (
	verifyReadTimeout  = 10 * time.Second
	verifyCloseTimeout = 3 * time.Second
)

// serveMetrics serves until the function that it returns is called.
func (c *cli) serveMetrics(ctx context.Context, address string, metrics http.Handler) (closeServer func(), err error) {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve metrics: give another --listen or end what holds the port: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: verifyReadTimeout, ReadTimeout: verifyReadTimeout, WriteTimeout: verifyReadTimeout}
	fmt.Fprintf(c.stderr, "metrics on http://%s/metrics\n", listener.Addr())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	return func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), verifyCloseTimeout)
		defer cancel()
		_ = server.Shutdown(closing) // whoever still reads has had his time
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintf(c.stderr, "serve metrics: %s\n", err)
		}
	}, nil
}
