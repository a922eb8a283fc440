package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"pawl/internal/app"
	"pawl/internal/bundle"
	"pawl/internal/kafka"
	"pawl/internal/outbox"
	"pawl/internal/postgres"
)

const (
	processTimeout = 10 * time.Second // for one answer of a process
	brokersTimeout = 30 * time.Second // for one answer of the brokers or the ledger
	logBytesMax    = 16 << 20         // of one log file, its end
	auditMax       = 10_000
)

// bundler knows how to collect each piece.
type bundler struct {
	*cli

	flags    *bundleFlags
	conf     app.Config
	origins  *app.Origins
	problems error

	mu      sync.Mutex
	closers []func()
}

// later closes something when all is collected: pieces share connections.
func (b *bundler) later(closer func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closers = append(b.closers, closer)
}

func (b *bundler) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, closer := range slices.Backward(b.closers) {
		closer()
	}
	b.closers = nil
}

// pieces lists what is to be collected, in the order in which room is given away: small facts first, logs last.
// noProcess says why no process is known. ctx is that of the whole command.
func (b *bundler) pieces(ctx context.Context, processes []operations, noProcess error) []bundle.Piece {
	pieces := []bundle.Piece{
		{Path: "version.json", Collect: gather(func(context.Context) (any, error) { return thisBuild(), nil })},
		{Path: "config/config.yaml", Collect: b.printedConfig},
		{Path: "config/settings.json", Collect: gather(func(context.Context) (any, error) { return b.origins.Settings(b.conf), nil })},
		{Path: "config/problems.json", Collect: gather(b.configProblems)},
	}
	pieces = append(pieces, b.processPieces(processes, noProcess)...)
	pieces = append(pieces, b.brokerPieces(ctx)...)
	pieces = append(pieces, b.ledgerPieces()...)
	pieces = append(pieces, b.verifyPieces()...)
	return append(pieces, b.logPieces()...)
}

// gather makes a piece of a value, as -o json would print it.
func gather(find func(ctx context.Context) (any, error)) func(context.Context) (bundle.Content, error) {
	return func(ctx context.Context) (bundle.Content, error) {
		value, err := find(ctx)
		if value == nil {
			return bundle.Content{}, err
		}
		var text bytes.Buffer
		err = errors.Join(err, writeJSON(&text, value))
		return bundle.Content{Text: text.Bytes()}, err
	}
}

func (b *bundler) printedConfig(context.Context) (bundle.Content, error) {
	var text bytes.Buffer
	err := b.origins.Print(&text, b.conf)
	return bundle.Content{Text: text.Bytes()}, err
}

func (b *bundler) configProblems(context.Context) (any, error) {
	problems, _ := errors.AsType[app.Problems](b.problems)
	all := slices.Concat(problems, b.origins.Warnings())
	listed := make([]problem, 0, len(all))
	for _, one := range all {
		listed = append(listed, newProblem(one))
	}
	return listed, nil
}

// processPieces are what the processes themselves tell.
func (b *bundler) processPieces(processes []operations, noProcess error) []bundle.Piece {
	if noProcess != nil {
		return []bundle.Piece{{Path: "instances", Collect: func(context.Context) (bundle.Content, error) {
			return bundle.Content{}, fmt.Errorf("%w; or name the processes with --admin", noProcess)
		}}}
	}
	var pieces []bundle.Piece
	for _, process := range processes {
		for _, page := range []struct{ file, path string }{
			{"version.json", "/version"},
			{"status.json", "/api/v1/status"},
			{"view.json", "/api/v1/view"},
			{"metrics.txt", "/metrics"},
			{"livez.txt", "/livez?verbose"},
			{"readyz.txt", "/readyz?verbose"},
		} {
			pieces = append(pieces, bundle.Piece{
				Path: bundle.Folder("instances", process.name(), page.file),
				Collect: func(ctx context.Context) (bundle.Content, error) {
					ctx, cancel := context.WithTimeout(ctx, processTimeout)
					defer cancel()
					got, err := process.get(ctx, page.path)
					if err != nil {
						return bundle.Content{}, err
					}
					// A health endpoint that says no says why: that is what one wants to know.
					if got.code != http.StatusOK && got.code != http.StatusServiceUnavailable {
						err = fmt.Errorf("%s says %d", process.base.Redacted(), got.code) // its text is the file
					}
					return bundle.Content{Text: got.body}, err
				},
			})
		}
	}
	return pieces
}

// errConfig stands in for what needs a configuration without problems.
var errConfig = errors.New("the configuration has problems: see config/problems.json")

// brokerPieces are what the brokers tell, over one connection.
func (b *bundler) brokerPieces(whole context.Context) []bundle.Piece {
	connect := sync.OnceValues(func() (*brokers, error) { return b.connectBrokers(whole) })
	piece := func(path string, find func(ctx context.Context, connected *brokers) (any, string, error)) bundle.Piece {
		return bundle.Piece{Path: path, Collect: func(ctx context.Context) (bundle.Content, error) {
			ctx, cancel := context.WithTimeout(ctx, brokersTimeout)
			defer cancel()
			connected, err := connect()
			if err != nil {
				return bundle.Content{}, err
			}
			value, finding, err := find(ctx, connected)
			content, err := gather(func(context.Context) (any, error) { return value, err })(ctx)
			content.Finding = finding
			return content, err
		}}
	}
	return []bundle.Piece{
		piece("kafka/lag.json", func(ctx context.Context, connected *brokers) (any, string, error) {
			report, err := findLag(ctx, connected, true, nil)
			if err != nil {
				return nil, "", err
			}
			return report, "", report.err()
		}),
		piece("kafka/transactions.json", func(ctx context.Context, connected *brokers) (any, string, error) {
			listed, err := findTransactions(ctx, connected, false)
			if err != nil {
				return nil, "", err
			}
			if listed.hanging() {
				return listed, "a transaction hangs: see processor txn abort --hanging", nil
			}
			return listed, "", nil
		}),
		piece("kafka/preflight.json", func(ctx context.Context, connected *brokers) (any, string, error) {
			found := kafka.Preflight(ctx, connected.kafka, connected.conf.Preflight())
			finding := ""
			if failed := kafka.Failed(found); failed != nil {
				finding = failed.Error()
			}
			return found, finding, nil
		}),
		piece("kafka/audit.json", func(ctx context.Context, connected *brokers) (any, string, error) {
			since, err := parseMoment("--since", b.flags.since, time.Now())
			if err != nil {
				return nil, "", err
			}
			orders, err := readAudit(ctx, connected, since, auditMax)
			return orders, "", err
		}),
	}
}

// connectBrokers opens the one connection that the pieces share. Its time is its own: the piece that comes first must
// not spend that of the others.
func (b *bundler) connectBrokers(ctx context.Context) (*brokers, error) {
	if b.problems != nil {
		return nil, errConfig
	}
	ctx, cancel := context.WithTimeout(ctx, min(brokersTimeout, b.flags.timeout))
	defer cancel()
	connected, err := b.connectTo(ctx, b.conf)
	if err == nil {
		b.later(connected.close)
	}
	return connected, err
}

// ledgerPieces are what the effect ledger tells: numbers and orders, no effects.
func (b *bundler) ledgerPieces() []bundle.Piece {
	skip := ""
	if !b.conf.HasLedger() {
		skip = "no effect ledger is configured: postgres.dsn_file and PROCESSOR_POSTGRES_DSN are empty"
	}
	piece := func(path string, find func(ctx context.Context, l effectLedger, version postgres.Version) (any, error)) bundle.Piece {
		return bundle.Piece{Path: path, Skip: skip, Collect: gather(func(ctx context.Context) (any, error) {
			if b.problems != nil {
				return nil, errConfig
			}
			ctx, cancel := context.WithTimeout(ctx, brokersTimeout)
			defer cancel()
			l, err := b.openLedger(ctx, b.conf)
			if err != nil {
				return nil, err
			}
			defer l.Close()
			version, err := l.Version(ctx)
			if err != nil {
				return nil, err
			}
			return find(ctx, l, version)
		})}
	}
	return []bundle.Piece{
		piece("ledger/schema.json", func(_ context.Context, _ effectLedger, version postgres.Version) (any, error) { return version, nil }),
		piece("ledger/effects.json", func(ctx context.Context, l effectLedger, _ postgres.Version) (any, error) {
			backlogs, err := l.Summary(ctx)
			if err != nil {
				return nil, err
			}
			return countEffects(backlogs), nil
		}),
		piece("ledger/audit.json", func(ctx context.Context, l effectLedger, _ postgres.Version) (any, error) {
			since, err := parseMoment("--since", b.flags.since, time.Now())
			if err != nil {
				return nil, err
			}
			audit, err := l.Audit(ctx, outbox.AuditFilter{Since: since, Limit: auditMax})
			if err != nil {
				return nil, err
			}
			return app.ListAudit(audit), nil
		}),
	}
}

// verifyPieces are one pass of the checker, for machines and for people.
func (b *bundler) verifyPieces() []bundle.Piece {
	skip := ""
	if !b.flags.verify {
		skip = "not asked for: give --verify"
	}
	var once sync.Once
	var report verifyReport
	var failed error
	piece := func(path string, write func(verifyReport) ([]byte, error)) bundle.Piece {
		return bundle.Piece{Path: path, Skip: skip, Collect: func(ctx context.Context) (bundle.Content, error) {
			once.Do(func() { report, failed = b.judge(ctx) })
			if failed != nil {
				return bundle.Content{}, failed
			}
			text, err := write(report)
			content := bundle.Content{Text: text}
			if !report.Clean {
				content.Finding = "verify: " + count(int(report.Total()), "finding")
			}
			return content, err
		}}
	}
	return []bundle.Piece{
		piece("verify/report.json", func(r verifyReport) ([]byte, error) {
			var text bytes.Buffer
			err := writeJSON(&text, r)
			return text.Bytes(), err
		}),
		piece("verify/report.txt", func(r verifyReport) ([]byte, error) {
			var text bytes.Buffer
			err := b.printVerify(&text, r)
			return text.Bytes(), err
		}),
	}
}

func (b *bundler) judge(ctx context.Context) (verifyReport, error) {
	if b.problems != nil {
		return verifyReport{}, errConfig
	}
	connected, err := b.connectTo(ctx, b.conf)
	if err != nil {
		return verifyReport{}, err
	}
	defer connected.close()
	flags := verifyFlags{from: []string{b.flags.since}, idle: true, memory: defaultVerifyMemory, wait: defaultVerifyWait}
	system, closeLedger, err := flags.open(ctx, connected)
	if err != nil {
		return verifyReport{}, err
	}
	defer closeLedger()
	return flags.judge(ctx, system, b.conf)
}

// logPieces are the ends of the log files that were named.
func (b *bundler) logPieces() []bundle.Piece {
	if len(b.flags.logs) == 0 {
		return []bundle.Piece{{Path: "log", Skip: "a process logs to standard error, which its orchestrator keeps: write it to a file and give that with --log"}}
	}
	var pieces []bundle.Piece
	for i, file := range b.flags.logs {
		pieces = append(pieces, bundle.Piece{
			// The number tells apart files of one name.
			Path: bundle.Folder("log", strconv.Itoa(i+1)+"-"+filepath.Base(file), ""), Tail: true,
			Collect: func(context.Context) (bundle.Content, error) {
				text, err := readEnd(file, logBytesMax)
				return bundle.Content{Text: text}, err
			},
		})
	}
	return pieces
}

// readEnd reads the last lines of a file. Half a line is left out: half a secret would not be known as one.
func readEnd(name string, limit int64) ([]byte, error) {
	file, err := os.Open(name) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no plain file", name)
	}
	if err != nil {
		return nil, err
	}
	from := max(0, info.Size()-limit)
	text, err := io.ReadAll(io.NewSectionReader(file, from, limit)) // a file that grows meanwhile has an end, too
	if from > 0 {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	return text, err
}
