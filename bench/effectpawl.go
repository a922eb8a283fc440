package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"pawl/internal/message"
	"pawl/internal/outbox"
	"pawl/internal/outbox/dispatch"
	"pawl/internal/outbox/dispatch/httptarget"
	"pawl/internal/outbox/ledger"
	"pawl/internal/postgres"
)

const (
	pawlSchema      = "pawl"
	pawlEndpoint    = "bench"
	pawlConnections = 24 // the service's default
	pawlLease       = effectCallTimeout + 10*time.Second
	pawlQuietCalls  = 2_000 // calls at once where the target does nothing, as many as the peer has workers
)

// pawlEngine is this project's ledger and dispatcher, put together as the service does it: a batch is
// appended in one transaction with its position and then offered to the dispatcher. What stands before
// and behind is left out, since its peer has neither: the consumer of the effects topic and the relay.
type pawlEngine struct {
	spec effectSpec
	seen *deliveries // the target where it does nothing

	pool       *pgxpool.Pool
	ledger     *ledger.Ledger
	target     *httptarget.Target
	dispatcher *dispatch.Dispatcher
	stop       context.CancelFunc
	ended      chan error
}

func (p *pawlEngine) shape() shape {
	return shape{lanes: effectLanes, inserters: effectLanes, batch: effectBatch}
}

// topicID stands for that of the effects topic and that of the input.
func (p *pawlEngine) topicID() [16]byte { return [16]byte{0: 0xbe, 15: 1} }

func (p *pawlEngine) open(ctx context.Context, done func(lane int, n int64)) (err error) {
	if p.pool, err = postgres.Open(ctx, postgres.Config{DSN: p.spec.DSN, ConnsMax: pawlConnections}); err != nil {
		return err
	}
	if _, err := postgres.Migrate(ctx, p.pool, ledger.Migrations(pawlSchema)); err != nil {
		return err
	}
	p.ledger = ledger.Open(p.pool, ledger.Config{Schema: pawlSchema})
	if err := p.ledger.Maintain(ctx, time.Now()); err != nil {
		return err
	}
	for lane := range int32(effectLanes) {
		if err := p.ledger.Seed(ctx, lane, p.topicID(), 0); err != nil {
			return err
		}
	}
	return p.dispatch(ctx, done)
}

// dispatch starts the dispatcher and waits until it owns all lanes.
func (p *pawlEngine) dispatch(ctx context.Context, done func(lane int, n int64)) error {
	var target dispatch.Target = quiet{p.seen}
	concurrency := pawlQuietCalls
	if p.spec.URL != "" {
		concurrency = effectConcurrency
		var err error
		if p.target, err = httptarget.New(httptarget.Config{URL: p.spec.URL, AllowPrivate: true, Concurrency: effectConcurrency}); err != nil {
			return err
		}
		target = p.target
	}
	var owned atomic.Int32
	all := make(chan struct{})
	var err error
	p.dispatcher, err = dispatch.New(dispatch.Config{
		Store: p.ledger, Owner: "bench", LeaseTTL: pawlLease, Workers: concurrency,
		DrainTimeout: effectCallTimeout, StrangerAgeMax: time.Hour,
		Endpoints: map[string]dispatch.Endpoint{pawlEndpoint: {
			Target: target, Timeout: effectCallTimeout, AttemptsMax: 20, AgeMax: time.Hour,
			Concurrency: concurrency, OnDead: dispatch.Continue,
		}},
		Hooks: dispatch.Hooks{
			Owned: func(int32, int64) {
				if owned.Add(1) == effectLanes {
					close(all)
				}
			},
			Flushed:  func(f dispatch.Flushed) { done(int(f.Lane), int64(f.Results)) },
			Retrying: func(lane int32, err error) { fmt.Fprintf(os.Stderr, "lane %d: %v\n", lane, err) },
		},
	})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx)) // ends by close, in order
	p.stop, p.ended = stop, make(chan error, 1)
	go func() { p.ended <- p.dispatcher.Run(running) }()
	for lane := range int32(effectLanes) {
		p.dispatcher.Assign(lane) //nolint:contextcheck // lanes have the context of Run
	}
	select {
	case <-all:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the lanes: %w", ctx.Err())
	}
}

func (p *pawlEngine) insert(ctx context.Context, lane *course, n int) error {
	number, first := int32(lane.lane), int64(lane.next) //nolint:gosec // below effectLanes, and a count
	batch := outbox.Batch{Lane: number, TopicID: p.topicID(), Base: first, Next: first + int64(n), Intents: make([]outbox.Intent, n)}
	now := time.Now()
	for i := range batch.Intents {
		offset := first + int64(i)
		key, body := lane.body(p.spec.Bytes)
		var id message.ID
		binary.BigEndian.PutUint32(id[:], uint32(number))    //nolint:gosec // below effectLanes
		binary.BigEndian.PutUint64(id[8:], uint64(offset+1)) //nolint:gosec // not negative
		batch.Intents[i] = outbox.Intent{
			Lane: number, Offset: offset, ID: id,
			Source:   message.Source{Application: "bench", Topic: "orders", TopicID: p.topicID(), Partition: number, Offset: offset},
			Endpoint: pawlEndpoint, Class: message.AtLeastOnce, ContentType: "text/plain",
			Key: strconv.AppendInt(nil, int64(key), 10), Body: body, At: now,
		}
	}
	batch.Seen = map[outbox.Origin]outbox.Mark{{TopicID: p.topicID(), Partition: number}: {Offset: batch.Next - 1}}
	if err := p.ledger.Append(ctx, &batch); err != nil {
		return err
	}
	p.dispatcher.Offer(batch)
	return nil
}

// settle has nothing to wait for: what counted as done was flushed.
func (p *pawlEngine) settle(context.Context, *gauge) error { return nil }

func (p *pawlEngine) proof(ctx context.Context) (n int64, err error) {
	err = p.pool.QueryRow(ctx, postgres.Qualify(pawlSchema, "SELECT coalesce(sum(n), 0)::bigint FROM @schema.flush")).Scan(&n)
	return n, err
}

func (p *pawlEngine) close(context.Context) error {
	var err error
	if p.stop != nil {
		p.stop()
		err = <-p.ended
	}
	if p.target != nil {
		p.target.Close()
	}
	if p.pool != nil {
		p.pool.Close()
	}
	return err
}

// quiet is the target that does nothing but look.
type quiet struct{ seen *deliveries }

func (q quiet) Send(_ context.Context, call outbox.Call) outbox.Answer {
	if _, err := q.seen.add(call.Intent.Body); err != nil {
		return outbox.Answer{Status: 400, Sent: true}
	}
	return outbox.Answer{Status: 200, Sent: true}
}
