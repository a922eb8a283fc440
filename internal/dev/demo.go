package dev

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/load"
	"pawl/internal/verify"
)

// DemoConfig is what Demo needs beside Config.
type DemoConfig struct {
	Config
	Orders   int64   // how many are produced
	BadShare float64 // how many of them are wrong, 0..1
	Seed     uint64  // of the orders: the same seed gives the same orders
}

// Validate names everything that is wrong, by the flags of the command.
func (c DemoConfig) Validate() error {
	errs := []error{c.Config.Validate()}
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.DataDir != "" {
		bad("--data-dir keeps records from one run to the next, --demo counts those of one run: give one of the two")
	}
	if c.Instances < 2 {
		bad("--instances is %d, but --demo kills one and watches the others: want at least 2", c.Instances)
	}
	if c.Orders < ordersMin || c.Orders > ordersMax {
		bad("--orders is %d, want %d..%d", c.Orders, ordersMin, ordersMax)
	}
	if !(c.BadShare >= 0 && c.BadShare <= 1) {
		bad("--bad is %v, want 0..1", c.BadShare)
	}
	return errors.Join(errs...)
}

const (
	ordersMin = 1000       // fewer are through before anybody can be killed
	ordersMax = 10_000_000 // the proof keeps some 2 kB of each in memory

	// killShare of the orders is committed when one processor is killed.
	killShare = 0.35
	// killTries bounds how often the victim is frozen to see whether it is in mid-transaction.
	killTries = 300
	// killSettle is how long a frozen victim must stay in mid-transaction: what it had sent before
	// it was frozen may still end its transaction.
	killSettle = 30 * time.Millisecond
	// killPause is how long a victim runs on that was frozen at a bad moment; varied a little, so as
	// not to fall into step with its transactions.
	killPause = 7 * time.Millisecond

	pollEvery      = 20 * time.Millisecond  // for events that are timed
	watchEvery     = 100 * time.Millisecond // for what a person sees
	recoverTimeout = 30 * time.Second
	drainedTimeout = 120 * time.Second // from the last order to lag 0
	demoFlush      = 5 * time.Second
)

// The stages of the demo, as shown.
const (
	stageKafka     = "kafka"
	stageBroker    = "broker"
	stageLedger    = "ledger"
	stageTopics    = "topics"
	stageInstances = "processors"
	stageOrders    = "orders"
	stageKill      = "kill -9"
	stageRestart   = "restart"
	stageDrain     = "drain"
	stageProof     = "proof"
)

// demo is one run.
type demo struct {
	config  DemoConfig
	rig     *rig
	display *display
	acked   atomic.Int64
	fed     atomic.Bool  // all orders are produced
	wrong   int64        // orders, by the generator
	results *load.Reader // of result events; nil where there is no ledger
	proof   Proof
}

// Demo runs the whole script and returns the proof, which the caller prints. Whatever happens, it
// leaves no process and no folder behind. An error says that the demo could not be run to its end;
// a proof that fails is no error, see Proof.Proven.
func Demo(ctx context.Context, config DemoConfig) (proof *Proof, err error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	wrong, err := config.wrong()
	if err != nil {
		return nil, err
	}
	d := &demo{config: config, wrong: wrong, rig: &rig{config: config.Config, seed: config.Seed, evenly: true}}
	d.display = openDisplay(config.Screen, time.Now,
		stageKafka, stageBroker, stageLedger, stageTopics, stageInstances, stageOrders, stageKill, stageRestart, stageDrain, stageProof)
	began := time.Now()
	defer func() {
		d.display.close()
		if ctx.Err() != nil { // err is an echo of that
			proof, err = nil, ErrInterrupted
		}
		err = errors.Join(err, d.rig.close(ctx))
	}()
	if err := openStages(ctx, d.rig, d.display); err != nil {
		return nil, err
	}
	if err := d.run(ctx); err != nil {
		return nil, err
	}
	d.proof.Took = time.Since(began)
	return &d.proof, nil
}

// ErrInterrupted is returned when the context ended before the demo did. Everything was stopped and
// removed.
var ErrInterrupted = errors.New("interrupted: everything was stopped and removed")

// step runs one stage: do returns what to show at its end.
func (d *display) step(ctx context.Context, name, detail string, do func(*stage) (string, error)) error {
	s := d.begin(name, detail)
	text, err := do(s)
	if err != nil {
		shown := err
		if ctx.Err() != nil { // err is an echo of that
			shown = context.Cause(ctx)
		}
		s.fail(firstLine(shown))
		return fmt.Errorf("%s: %w", name, err)
	}
	s.done(text)
	return nil
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// openStages are the stages that Run and Demo have in common.
func openStages(ctx context.Context, r *rig, d *display) error {
	var choice Broker
	if err := d.step(ctx, stageKafka, "choosing", func(*stage) (string, error) {
		choice, r.why = r.config.choose()
		return r.why, r.openFolder()
	}); err != nil {
		return err
	}
	if err := d.step(ctx, stageBroker, "starting", func(s *stage) (string, error) {
		var err error
		if r.broker, err = openBroker(ctx, r.config, choice, r.folder, s.say); err != nil {
			return "", err
		}
		return r.broker.name + " at " + strings.Join(r.broker.addresses, ", "), nil
	}); err != nil {
		return err
	}
	if err := d.step(ctx, stageLedger, "starting", func(s *stage) (string, error) {
		err := r.openOutside(ctx, s.say)
		if err == nil {
			err = r.configure(ctx)
		}
		if r.outside == nil {
			return "none, effects wait: " + r.bare, err
		}
		return "Postgres at " + r.outside.host + ", charges at " + r.outside.endpoint.address(), err
	}); err != nil {
		return err
	}
	if err := d.step(ctx, stageTopics, "creating", func(*stage) (string, error) {
		made, all, err := r.openTopics(ctx)
		return fmt.Sprintf("%d of %d created", made, all), err
	}); err != nil {
		return err
	}
	return d.step(ctx, stageInstances, fmt.Sprintf("starting %d", r.config.Instances), func(*stage) (string, error) {
		if err := r.openInstances(ctx); err != nil {
			return "", err
		}
		var names []string
		for _, i := range r.instances {
			names = append(names, fmt.Sprintf("%s (pid %d)", i.name, i.process.pid()))
		}
		return "ready: " + strings.Join(names, ", "), nil
	})
}

// run is the script from the first order to the proof.
func (d *demo) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wait sync.WaitGroup
	defer wait.Wait() // after the cancel below
	defer cancel(nil)
	for _, i := range d.rig.instances {
		d.watchDeath(ctx, &wait, i, cancel)
	}
	if err := d.watchResults(ctx, &wait, cancel); err != nil {
		return err
	}
	wait.Go(func() { d.rig.watchProgress(ctx, d.display, &d.acked, d.config.Orders, d.results) })
	produced := make(chan error, 1)
	wait.Go(func() { produced <- d.produce(ctx) })

	err := d.script(ctx, &wait, cancel, produced)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = cause // what really happened; err is its echo
	}
	return err
}

func (d *demo) script(ctx context.Context, wait *sync.WaitGroup, died func(error), produced <-chan error) error {
	victim := d.rig.instances[len(d.rig.instances)-1]
	var held map[partitionKey]int64
	err := d.display.step(ctx, stageKill, "waiting for work to kill into", func(s *stage) (text string, err error) {
		if err := d.waitCommitted(ctx, int64(killShare*float64(d.config.Orders))); err != nil {
			return "", err
		}
		s.say(fmt.Sprintf("freezing %s until it is in mid-transaction%s", victim.name, d.andCalls()))
		held, err = d.kill(ctx, victim)
		k := d.proof.Kill
		return fmt.Sprintf("%s is dead, %s was open%s", k.Instance, k.Transaction, d.calls()), err
	})
	if err != nil {
		return err
	}
	err = d.display.step(ctx, stageRestart, fmt.Sprintf("starting %s again under its name", victim.name), func(*stage) (string, error) {
		if err := victim.start(ctx); err != nil {
			return "", err
		}
		d.watchDeath(ctx, wait, victim, died)
		if err := d.waitRecovered(ctx, victim, held); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s commits again %s after its start, %s after the kill", victim.name,
			seconds(d.proof.Kill.Recovered), seconds(d.proof.Kill.Outage)), nil
	})
	if err != nil {
		return err
	}
	select {
	case err = <-produced:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if err := d.drain(ctx); err != nil {
		return err
	}
	return d.display.step(ctx, stageProof, "reading everything back", func(s *stage) (string, error) {
		if err := d.prove(ctx, s.say); err != nil {
			return "", err
		}
		if !d.proof.Proven() {
			return "", fmt.Errorf("the topics do not hold what they should: %s; see the report", d.proof.Faults[0])
		}
		return "every order counted once", nil
	})
}

// watchDeath ends the demo when a processor dies that nobody has killed.
func (d *demo) watchDeath(ctx context.Context, wait *sync.WaitGroup, i *instance, died func(error)) {
	p := i.process
	wait.Go(func() {
		select {
		case <-p.gone:
			if !p.ending.Load() {
				died(fmt.Errorf("%s died unexpectedly (%w); its log ends with:%s", i.name, p.howEnded(), i.logTail()))
			}
		case <-ctx.Done():
		}
	})
}

// produce writes the orders at the configured rate.
func (d *demo) produce(ctx context.Context) error {
	detail := fmt.Sprintf("%s in all, %s a second, about %.2g%% of them wrong",
		thousands(d.config.Orders), thousands(int64(d.config.Rate)), 100*d.config.BadShare)
	return d.display.step(ctx, stageOrders, detail, func(*stage) (string, error) {
		orders, err := load.NewOrders(d.config.generator())
		if err != nil {
			return "", err
		}
		options, err := d.rig.settings.KafkaConfig(nil).Options()
		if err != nil {
			return "", err
		}
		producer, err := load.NewProducer(load.ProducerConfig{
			Options: options, Topic: inputTopic, Generator: orders, Flush: demoFlush,
			Count: d.config.Orders, Rate: d.config.Rate,
			Acked: func(int64, *kgo.Record) { d.acked.Add(1) },
		})
		if err != nil {
			return "", err
		}
		if err := producer.Run(ctx); err != nil {
			return "", err
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		d.fed.Store(true)
		return thousands(d.acked.Load()) + " produced", nil
	})
}

// watchResults counts the result events, so that the demo knows when every effect has its own.
func (d *demo) watchResults(ctx context.Context, wait *sync.WaitGroup, failed func(error)) error {
	if d.rig.outside == nil {
		return nil
	}
	options, err := d.rig.settings.KafkaConfig(nil).Options()
	if err != nil {
		return err
	}
	d.results, err = load.OpenReader(ctx, load.ReaderConfig{
		Options: options, Topics: []string{d.rig.settings.ResultsTopic()}, FromStart: true, Stamp: load.StampTimestamp,
	})
	if err != nil {
		return err
	}
	wait.Go(func() {
		defer d.results.Close()
		if err := d.results.Run(ctx); err != nil {
			failed(err)
		}
	})
	return nil
}

// watchProgress feeds the meters until ctx ends; total is 0 where there is no end to reach, results nil
// where nobody counts them.
func (r *rig) watchProgress(ctx context.Context, d *display, acked *atomic.Int64, total int64, results *load.Reader) {
	produced := d.meter("produced", "a second", total)
	committed := d.meter("committed", "a second", total)
	lag := d.meter("lag", "", 0)
	var calls, told *meter
	if r.outside != nil {
		calls = d.meter("calls", "a second", 0)
	}
	if results != nil {
		told = d.meter("results", "", 0)
	}
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		produced.set(acked.Load())
		if calls != nil {
			calls.set(r.outside.endpoint.Summary().Calls)
		}
		if told != nil {
			told.set(results.Records())
		}
		// A failed look is nothing to report: the next one is soon.
		if n, behind, _, err := r.lag(ctx); err == nil {
			committed.set(n)
			lag.set(behind)
		}
	}
}

// until asks until the answer is yes, or an error, or ctx ends.
func until(ctx context.Context, every time.Duration, ask func() (bool, error)) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		yes, err := ask()
		if yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

func (d *demo) waitCommitted(ctx context.Context, wanted int64) error {
	return until(ctx, pollEvery, func() (bool, error) {
		committed, _, _, err := d.rig.lag(ctx)
		return committed >= wanted, err
	})
}

// andCalls and calls tell of the calls of the victim where there is a ledger.
func (d *demo) andCalls() string {
	if d.rig.outside == nil {
		return ""
	}
	return " with calls under way"
}

func (d *demo) calls() string {
	if d.rig.outside == nil {
		return ""
	}
	return ", and " + counted(d.proof.Kill.Calls, "call")
}

// drain waits until everything is committed, every effect has its result and every result is handled,
// and ends the processors, so that what is read afterwards is final.
func (d *demo) drain(ctx context.Context) error {
	return d.display.step(ctx, stageDrain, "waiting for lag 0", func(s *stage) (string, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, drainedTimeout, fmt.Errorf("lag is not 0 %s after the last order", drainedTimeout))
		defer cancel()
		lagIsZero := func() (bool, error) {
			_, lag, _, err := d.rig.lag(ctx)
			return lag == 0, err
		}
		if err := until(ctx, pollEvery, lagIsZero); err != nil {
			return "", err
		}
		if d.results != nil {
			s.say("waiting for the result of every call")
			if err := d.waitResults(ctx); err != nil {
				return "", err
			}
			if err := until(ctx, pollEvery, lagIsZero); err != nil { // of the results
				return "", err
			}
		}
		s.say("lag 0; stopping the processors")
		if err := d.rig.stopInstances(ctx); err != nil {
			return "", err
		}
		return "lag 0; all processors ended with exit code 0", nil
	})
}

// waitResults waits until there are as many result events as orders that ask for a charge.
func (d *demo) waitResults(ctx context.Context) error {
	wanted := d.config.Orders - d.wrong
	err := until(ctx, pollEvery, func() (bool, error) { return d.results.Records() >= wanted, nil })
	if err != nil {
		err = fmt.Errorf("%s of %s effects have a result: %w", thousands(d.results.Records()), thousands(wanted), err)
	}
	return err
}

// prove reads all topics, the ledger and the endpoint's journal, and compares.
func (d *demo) prove(ctx context.Context, say func(string)) (err error) {
	s := d.rig.settings
	plan, err := s.VerifyPlan()
	if err != nil {
		return err
	}
	plan.Drained = true
	// The embedded broker's list of aborted transactions lacked some that its markers say were aborted.
	plan.Readers = d.rig.broker.kind != BrokerEmbedded
	var ledger *verify.Ledger
	if d.rig.outside != nil {
		pool, _, err := s.OpenLedger(ctx)
		if err != nil {
			return err
		}
		defer pool.Close()
		ledger = verify.NewLedger(pool, s.Postgres.Schema)
		plan.Journal = true
	}
	system, err := verify.NewSystem(ctx, d.rig.client, ledger, s.Group(), plan)
	if err != nil {
		return err
	}
	system.Progress = say
	var summary *EndpointSummary
	if o := d.rig.outside; o != nil {
		summary = new(EndpointSummary)
		*summary = o.endpoint.Summary()
		system.Journal = func(feed func(*verify.Call) error) error { return journal(o.endpoint.Calls(), feed) }
	}
	report, _, _, err := system.Pass(ctx, verify.Window{})
	if err != nil {
		return err
	}
	d.proof.Broker, d.proof.Why, d.proof.Bare = d.rig.broker.name, d.rig.why, d.rig.bare
	d.proof.conclude(&report, &plan, summary, d.config.Orders, d.wrong)
	return nil
}

// wrong counts the orders that the generator has made wrong: a third way to the number of dead
// letters, beside the handler and the topic.
func (c DemoConfig) wrong() (count int64, err error) {
	orders, err := load.NewOrders(c.generator())
	if err != nil {
		return 0, err
	}
	for n := range c.Orders {
		if orders.Bad(n) != load.BadNone {
			count++
		}
	}
	return count, nil
}

func (c DemoConfig) generator() load.OrdersConfig {
	return load.OrdersConfig{Seed: c.Seed, BadShare: c.BadShare}
}
