package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/load"
	"pawl/internal/postgres"
	"pawl/internal/yardstick"
)

const (
	// orderRecords is the default of a run, and what one must have at least to be judged: enough for the ledger to be
	// at work most of the time. Its group joins while the first orders are already worked off.
	orderRecords = 1_000_000

	orderSeed      = 7 // every run has the same orders
	orderBegins    = `"order_id":"o-7-`
	orderGoesOn    = `","customer_id":"customer-`
	orderCustomers = wireKeys // who order
	// orderDrainEach is how long an effect may take beyond the stream, on average: effects are called for long after
	// their orders where both want all of the machine.
	orderDrainEach = time.Millisecond
	// orderDrainLook is the time between two looks at the ledger for the last of the effects.
	orderDrainLook = 100 * time.Millisecond
)

// orderRun is one run of the orders handler. Each order is a record that commits two outputs and one effect.
type orderRun struct {
	Peer  string `json:"peer"`
	Round int    `json:"round"`
	yardstick.Copied

	// Of the processes, the broker and Postgres, from the start of the processes to their end, by orders.
	CPU      float64 `json:"cpu_s_per_million"`
	Broker   float64 `json:"broker_cpu_s_per_million,omitempty"` // 0 where it isn't ours
	Postgres float64 `json:"postgres_cpu_s_per_million,omitempty"`
	Endpoint float64 `json:"endpoint_cpu_s_per_million,omitempty"` // of bench, which also looks at offsets
	WAL      float64 `json:"wal_bytes_per_effect,omitempty"`
	Peak     float64 `json:"peak_rss_mib"` // of the process that had most

	// Of the effects. All are 0 without a ledger.
	Ingested float64       `json:"ingested_share"`     // that the ledger had when the last order was committed
	Called   float64       `json:"called_share"`       // that had been called for then
	Behind   time.Duration `json:"effects_behind_ns"`  // from then until the ledger had all of them complete
	Effects  float64       `json:"effects_per_second"` // from the first commit of orders to that
	Repeated int64         `json:"repeated"`           // calls for what had been called for
}

// By names the peer.
func (run orderRun) By() string { return run.Peer }

// ingestRate is how many effects the ledger took in a second while orders came.
func (run orderRun) ingestRate() float64 { return run.Ingested * run.Rate }

// callRate is how many effects were called for in a second while orders came.
func (run orderRun) callRate() float64 { return run.Called * run.Rate }

// orders fills a topic once and lets the processor work it off in every round, with a ledger and without, in turn.
func (s *stage) orders(ctx context.Context, programs programs, report *report) (err error) {
	server, err := openDatabases(ctx, s.progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.close()) }()
	report.Postgres = server.version
	const in = "bench-orders-in"
	if err := s.createTopic(ctx, in, s.settings.parts); err != nil {
		return err
	}
	generator, err := load.NewOrders(load.OrdersConfig{Seed: orderSeed, Customers: orderCustomers})
	if err != nil {
		return err
	}
	s.progress(fmt.Sprintf("filling %s with %d orders", in, s.settings.orders))
	if err := s.FillWith(ctx, in, generator, s.settings.orders, func(int64) {}); err != nil {
		return err
	}
	// One round warms the broker up: it writes four times what it reads.
	for turn, p := range yardstick.Turns(min(1, s.settings.warmRounds), s.settings.rounds, newOrdersPeers(s.settings, programs)) {
		run, err := s.ordersOnce(ctx, p, in, "bench-orders-"+turn.Name(), server)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name(), err)
		}
		if turn.Counts() {
			run.Round = turn.Round
			report.Orders = append(report.Orders, run)
		}
		s.progress(fmt.Sprintf("orders, %s: %s: %.0f records/s, CPU s per million %.2f and %.2f of the broker and %.2f of Postgres; at the end %.0f%% of the effects ingested and %.0f%% called, all %s later",
			turn, run.Peer, run.Rate, run.CPU, run.Broker, run.Postgres, 100*run.Ingested, 100*run.Called, run.Behind.Round(time.Millisecond)))
	}
	return s.deleteTopic(ctx, in)
}

// ordersOnce runs the processor under an application's name of its own, with a database of its own.
func (s *stage) ordersOnce(ctx context.Context, p *ordersPeer, in, application string, server *databases) (_ orderRun, err error) {
	calls := newArrivals(s.settings.orders)
	endpoint, err := openEndpoint(ctx, calls.order)
	if err != nil {
		return orderRun{}, err
	}
	defer func() { err = errors.Join(err, endpoint.close()) }()
	j := job{
		name: application, brokers: s.brokers, in: in, out: application + ordersPriced, url: endpoint.url,
		beside: []string{application + ordersJournals, application + ".effects"},
	}
	var g *gauge
	if p.ledger {
		database := strings.ReplaceAll(application, "-", "_")
		if j.dsn, err = server.create(ctx, database); err != nil {
			return orderRun{}, err
		}
		defer func() { err = errors.Join(err, server.drop(context.WithoutCancel(ctx), database)) }()
		if g, err = openGauge(ctx, j.dsn); err != nil {
			return orderRun{}, err
		}
		defer func() { err = errors.Join(err, g.close(context.WithoutCancel(ctx))) }()
		j.lasts = time.Duration(s.settings.orders) * orderDrainEach
	}
	run, err := s.workOff(ctx, p, j, g, calls)
	if err != nil {
		return run, err
	}
	if err := s.checkOrders(ctx, j, calls, p.ledger); err != nil {
		return run, err
	}
	run.Repeated = calls.repeated.Load()
	return run, s.deleteTopics(ctx, application+".")
}

// workOff runs the processes until all orders are committed and, where there is a ledger, all of their effects are
// complete in it.
func (s *stage) workOff(ctx context.Context, p *ordersPeer, j job, g *gauge, calls *arrivals) (orderRun, error) {
	run := orderRun{Peer: p.name()}
	if err := g.settle(ctx); err != nil {
		return run, err
	}
	before, err := g.read(ctx)
	if err != nil {
		return run, err
	}
	count := s.settings.orders
	used, err := s.with(ctx, p, j, func(processes []*yardstick.Process) (err error) {
		if run.Copied, err = s.Copy(ctx, j.task(), count, time.Now(), processes, func(int64) {}); err != nil || g == nil {
			return err
		}
		ended := time.Now()
		run.Called = float64(count-calls.missing.Load()) / float64(count)
		ingested, err := g.effects(ctx, ledgerIngested)
		if err != nil {
			return err
		}
		run.Ingested = float64(ingested) / float64(count)
		if err := s.drain(ctx, processes, g, calls); err != nil {
			return err
		}
		run.Behind = time.Since(ended)
		run.Effects = quotient(float64(count), (run.Took + run.Behind).Seconds())
		return nil
	})
	if err != nil {
		return run, err
	}
	after, err := g.read(ctx)
	if err != nil {
		return run, err
	}
	run.CPU, run.Broker = yardstick.PerMillion(used.CPU, count), yardstick.PerMillion(used.Broker, count)
	run.Peak = float64(used.PeakKiB) / 1024
	if g != nil {
		run.Postgres = yardstick.PerMillion(after.server-before.server, count)
		run.Endpoint = yardstick.PerMillion(after.own-before.own, count)
		run.WAL = float64(after.wal-before.wal) / float64(count)
	}
	return run, nil
}

// drain waits until every effect has been called for and is complete in the ledger.
func (s *stage) drain(ctx context.Context, processes []*yardstick.Process, g *gauge, calls *arrivals) error {
	var complete int64
	var looked time.Time
	err := s.Poll(ctx, processes, func() (bool, error) {
		if calls.missing.Load() > 0 || time.Since(looked) < orderDrainLook {
			return false, nil
		}
		looked = time.Now()
		var err error
		complete, err = g.effects(ctx, ledgerComplete)
		return complete == s.settings.orders, err
	})
	if err != nil {
		return fmt.Errorf("of %d effects %d were not called for and %d are complete: %w", s.settings.orders, calls.missing.Load(), complete, err)
	}
	return nil
}

// What of the effects a ledger has.
const (
	ledgerIngested = "segment"
	ledgerComplete = "flush"
)

// effects counts the effects in a table of the ledger.
func (g *gauge) effects(ctx context.Context, table string) (n int64, err error) {
	sql := postgres.Qualify(pawlSchema, "SELECT coalesce(sum(n), 0)::bigint FROM @schema."+table)
	if err := g.connection.QueryRow(ctx, sql).Scan(&n); err != nil {
		return 0, fmt.Errorf("count the effects of the ledger: %w", err)
	}
	return n, nil
}

// checkOrders reads the outputs back: each has every order once, and so has the endpoint's list of calls, in the order
// of each customer's orders.
func (s *stage) checkOrders(ctx context.Context, j job, calls *arrivals, called bool) error {
	for _, topic := range []string{j.name + ordersPriced, j.name + ordersJournals} {
		found := newArrivals(s.settings.orders)
		var broken error
		if err := load.Scan(ctx, clientOptions(s.brokers), []string{topic}, func(record *kgo.Record) {
			if err := found.order(record.Value); err != nil {
				broken = err
			}
		}); err != nil {
			return fmt.Errorf("read back %s: %w", topic, err)
		}
		if missing, repeated := found.missing.Load(), found.repeated.Load(); missing+repeated > 0 || broken != nil {
			return errors.Join(fmt.Errorf("%s is wrong: of %d orders %d are missing and %d are there again", topic, s.settings.orders, missing, repeated), broken)
		}
	}
	want := s.settings.orders
	if called {
		want = 0
	}
	if missing, disordered := calls.missing.Load(), calls.disordered.Load(); missing != want || disordered > 0 {
		return fmt.Errorf("the calls are wrong: of %d, %d are missing and %d out of order", s.settings.orders, missing, disordered)
	}
	return nil
}

// order notes which order a record that the handler wrote, or a call that it asked for, is about.
func (a *arrivals) order(value []byte) error {
	customer, n, err := parseOrder(value)
	if err != nil {
		return err
	}
	return a.came(customer, n)
}

// parseOrder finds who placed which order. All that the handler writes names both, one right after the other.
func parseOrder(value []byte) (customer int, n int64, err error) {
	_, rest, found := bytes.Cut(value, []byte(orderBegins))
	number, rest, foundNumber := bytes.Cut(rest, []byte(orderGoesOn))
	who, _, foundWho := bytes.Cut(rest, []byte(`"`))
	if !found || !foundNumber || !foundWho {
		return 0, 0, fmt.Errorf("%.80q names no order of this run", value)
	}
	if n, err = strconv.ParseInt(string(number), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("number of an order: %w", err)
	}
	if customer, err = strconv.Atoi(string(who)); err != nil {
		return 0, 0, fmt.Errorf("number of a customer: %w", err)
	}
	return customer, n, nil
}
