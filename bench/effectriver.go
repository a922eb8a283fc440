package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"pawl/internal/yardstick"
)

// The settings of River's own benchmark (its cmd/river/riverbench), which are its fastest.
const (
	riverWorkers      = 2_000
	riverCooldown     = 2 * time.Millisecond
	riverPollInterval = 20 * time.Millisecond
	riverInserters    = 2
	riverConnections  = 32
	riverSettlePoll   = 20 * time.Millisecond
)

// riverArgs is an effect as a job of River.
type riverArgs struct {
	Body string `json:"body"`
}

// Kind is River's name of the kind of job.
func (riverArgs) Kind() string { return "effect" }

// riverWorker makes the call of a job.
type riverWorker struct {
	river.WorkerDefaults[riverArgs]
	call func(ctx context.Context, body string) error
}

// Work is called by River for each attempt of a job.
func (w *riverWorker) Work(ctx context.Context, job *river.Job[riverArgs]) error {
	return w.call(ctx, job.Args.Body)
}

// riverEngine is River in its best set-up: jobs are inserted by COPY in the same batches, and
// completed by its batch completer. Its lean variant lacks the two GIN indexes.
type riverEngine struct {
	spec   effectSpec
	seen   *deliveries // the target where it does nothing
	poster *poster

	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx]
}

func (r *riverEngine) shape() shape {
	return shape{lanes: effectLanes, inserters: riverInserters, batch: effectBatch}
}

func (r *riverEngine) open(ctx context.Context, done func(lane int, n int64)) error {
	config, err := pgxpool.ParseConfig(r.spec.DSN)
	if err != nil {
		return fmt.Errorf("read connection string: %w", err)
	}
	config.MaxConns = riverConnections
	if r.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return fmt.Errorf("open pool: %w", err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	driver := riverpgxv5.New(r.pool)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: log})
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if r.spec.Peer == effectRiverLean {
		if _, err := r.pool.Exec(ctx, "DROP INDEX river_job_args_index, river_job_metadata_index"); err != nil {
			return fmt.Errorf("drop the GIN indexes: %w", err)
		}
	}
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &riverWorker{call: r.calls(done)}); err != nil {
		return fmt.Errorf("add worker: %w", err)
	}
	r.client, err = river.NewClient(driver, &river.Config{
		FetchCooldown: riverCooldown, FetchPollInterval: riverPollInterval, Logger: log,
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: riverWorkers}}, Workers: workers,
	})
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	if err := r.client.Start(context.WithoutCancel(ctx)); err != nil { // ends by close, in order
		return fmt.Errorf("start client: %w", err)
	}
	return nil
}

// calls gives the work of a job: look, or post. What is done then is still to be completed, see settle.
func (r *riverEngine) calls(done func(lane int, n int64)) func(ctx context.Context, body string) error {
	if r.spec.URL == "" {
		return func(_ context.Context, body string) error {
			lane, err := r.seen.add([]byte(body))
			if err != nil {
				return err
			}
			done(lane, 1)
			return nil
		}
	}
	return func(ctx context.Context, body string) error {
		key, _, err := parseBody([]byte(body))
		if err != nil {
			return err
		}
		if err := r.poster.post(ctx, body); err != nil {
			return err
		}
		done(laneOf(key), 1)
		return nil
	}
}

func (r *riverEngine) insert(ctx context.Context, lane *course, n int) error {
	jobs := make([]river.InsertManyParams, n)
	for i := range jobs {
		_, body := lane.body(r.spec.Bytes)
		jobs[i].Args = riverArgs{Body: string(body)}
	}
	_, err := r.client.InsertManyFast(ctx, jobs)
	return err
}

// settle waits for the completer. It does not use River's events of completion, which would cost
// River time for every job.
func (r *riverEngine) settle(ctx context.Context, g *gauge) error {
	ticker := time.NewTicker(riverSettlePoll)
	defer ticker.Stop()
	for {
		var left bool
		err := g.connection.QueryRow(ctx, "SELECT EXISTS (SELECT FROM river_job WHERE state IN ('available', 'running', 'retryable', 'scheduled', 'pending'))").Scan(&left)
		if err != nil || !left {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *riverEngine) proof(ctx context.Context) (n int64, err error) {
	err = r.pool.QueryRow(ctx, "SELECT count(*) FROM river_job WHERE state = 'completed'").Scan(&n)
	return n, err
}

func (r *riverEngine) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, yardstick.StopTimeout)
	defer cancel()
	var errs []error
	if r.client != nil {
		errs = append(errs, r.client.Stop(ctx))
	}
	if r.pool != nil {
		r.pool.Close()
	}
	r.poster.close()
	return errors.Join(errs...)
}
