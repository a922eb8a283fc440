// Package dev is `processor dev`: a broker, topics, a stream of orders, some processors, a database for
// their effects and an endpoint that takes charges in one command, on a machine that has little but
// this binary. Its demo kills a processor in the middle of a transaction and of calls, and proves that
// no order was lost or counted twice, and no customer charged twice.
//
// The processors are children of this process and run the same binary as in production, so what
// dies in the demo is a real process. The broker is Apache Kafka where a Java runtime is there, else
// one that is embedded in this process. Where no Postgres can be had, effects are committed and wait.
package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/app"
	"pawl/internal/kafka"
)

// Screen is where progress goes.
type Screen struct {
	Out   io.Writer
	Size  func() (width, height int) // of the terminal; nil where Out is none
	Color bool
}

// Config is what both Run and Demo need.
type Config struct {
	Broker    Broker
	Nodes     int     // brokers of the cluster, 1..3
	Instances int     // processors
	Rate      float64 // orders per second
	DataDir   string  // keeps topics and logs from one run to the next; empty for a temporary folder
	Program   string  // path of the processor binary
	Screen    Screen

	fixedPorts bool         // try the same ports every time
	java       func() error // tells what real Kafka lacks; nil asks cluster
	postgres   func() error // the same for Postgres
}

const (
	nodesMax     = 3
	instancesMax = 16
)

// Validate names everything that is wrong, by the flags of the command.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch c.Broker {
	case BrokerAuto, BrokerReal, BrokerEmbedded:
	default:
		bad("--kafka is %q, want one of %s", c.Broker, strings.Join(Brokers(), ", "))
	}
	if c.Nodes < 1 || c.Nodes > nodesMax {
		bad("--brokers is %d, want 1..%d", c.Nodes, nodesMax)
	}
	if c.Instances < 1 || c.Instances > instancesMax {
		bad("--instances is %d, want 1..%d", c.Instances, instancesMax)
	}
	if !(c.Rate > 0 && c.Rate <= 1e6) { // so that NaN is refused too
		bad("--rate is %v, want more than 0 and at most 1000000", c.Rate)
	}
	return errors.Join(errs...)
}

// rig is everything that runs: broker, database, endpoint, topics, processors.
type rig struct {
	config    Config
	folder    string
	temporary bool
	lock      *os.File // of a folder that is kept
	why       string   // this broker
	broker    *opened
	outside   *outside // nil where there is no ledger
	bare      string   // why that is so
	seed      uint64   // of what the endpoint does
	evenly    bool     // processors are up when each has lanes of effects to dispatch
	file      string   // path of the configuration
	settings  app.Config
	client    *kgo.Client
	admin     *kadm.Client
	instances []*instance
}

// closeTimeout bounds the end of a rig, whatever hangs.
const closeTimeout = 30 * time.Second

// openFolder makes the folder for configuration, logs and, with DataDir, the broker's data.
func (r *rig) openFolder() (err error) {
	if r.config.DataDir != "" {
		return r.openDataDir()
	}
	sweep(os.TempDir())
	folder := filepath.Join(os.TempDir(), folderPrefix+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(folder, 0o700); err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	r.folder, r.temporary = folder, true
	return nil
}

// openDataDir makes the folder and locks it: two brokers on one log would destroy it. The kernel
// gives the lock back when the file is closed or this process ends.
func (r *rig) openDataDir() (err error) {
	if r.folder, err = filepath.Abs(r.config.DataDir); err != nil {
		return fmt.Errorf("use --data-dir: %w", err)
	}
	if err := os.MkdirAll(r.folder, 0o750); err != nil {
		return fmt.Errorf("use --data-dir: %w", err)
	}
	r.lock, err = os.OpenFile(filepath.Join(r.folder, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("use --data-dir: %w", err)
	}
	if err := syscall.Flock(int(r.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("use --data-dir: lock %s: %w (does another `processor dev` use it?)", r.folder, err)
	}
	return nil
}

// folderPrefix is what the names of temporary folders begin with; the rest is the process id.
const folderPrefix = "pawl-dev-"

// sweep removes folders that killed runs left behind: those named for a process that is no more, or
// for this one, which has none yet. It does what it can; what resists is left to the next run.
func sweep(parent string) {
	left, err := filepath.Glob(filepath.Join(parent, folderPrefix+"*"))
	if err != nil {
		return
	}
	for _, folder := range left {
		owner, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(folder), folderPrefix))
		if err != nil || owner < 1 {
			continue // not one of ours
		}
		if owner == os.Getpid() || errors.Is(syscall.Kill(owner, 0), syscall.ESRCH) {
			_ = os.RemoveAll(folder)
		}
	}
}

// configure writes the configuration for what has been opened and makes a client.
func (r *rig) configure(ctx context.Context) (err error) {
	r.file = filepath.Join(r.folder, "config.yaml")
	if err := writeSettings(r.file, r.broker.addresses, r.outside); err != nil {
		return err
	}
	if r.settings, _, err = app.Load(app.LoadOptions{File: r.file}); err != nil {
		return fmt.Errorf("read back %s: %w", r.file, err)
	}
	r.client, err = r.settings.KafkaConfig(nil).Open(ctx)
	if err != nil {
		return err
	}
	r.admin = kadm.NewClient(r.client)
	return nil
}

// openTopics makes every topic of the configuration and returns how many it made.
func (r *rig) openTopics(ctx context.Context) (made, all int, err error) {
	topics := r.settings.Topics()
	for i := range topics {
		if topics[i].Role == kafka.RoleInput {
			topics[i].Partitions = partitions
		}
	}
	plans, err := kafka.Plan(ctx, r.client, topics, kafka.PlanOptions{})
	if err != nil {
		return 0, 0, err
	}
	for _, plan := range plans {
		if len(plan.Drift) > 0 {
			return 0, 0, fmt.Errorf("topic %s: %s (or choose another --data-dir)", plan.Topic, strings.Join(plan.Drift, "; "))
		}
		if plan.Create {
			made++
		}
	}
	return made, len(plans), kafka.Apply(ctx, r.client, plans, false)
}

// openInstances starts the processors and waits until each is ready.
func (r *rig) openInstances(ctx context.Context) (err error) {
	first := adminPortFirst
	if !r.config.fixedPorts {
		first = 20_000 + rand.IntN(10_000) //nolint:gosec // a port, not a secret
	}
	if r.instances, err = newInstances(ctx, r.config.Instances, first, r.config.Program, r.file, r.folder); err != nil {
		return err
	}
	for _, i := range r.instances {
		i.extra = r.outside.instanceArguments(i.name)
	}
	for _, i := range r.instances {
		if err := i.start(ctx); err != nil {
			return err
		}
	}
	for _, i := range r.instances {
		if err := i.ready(ctx); err != nil {
			return err
		}
	}
	if r.evenly && r.outside != nil {
		return r.waitLanes(ctx)
	}
	return nil
}

// waitLanes waits until all lanes of effects are dispatched, and by all processors where there are
// enough of them.
func (r *rig) waitLanes(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("the lanes of effects are not spread over the processors within %s", readyTimeout))
	defer cancel()
	return until(ctx, pollEvery, func() (bool, error) {
		owned := 0
		for _, i := range r.instances {
			n, err := i.lanes(ctx)
			if err != nil {
				return false, err
			}
			if n == 0 && len(r.instances) <= partitions {
				return false, nil
			}
			owned += n
		}
		return owned == partitions, nil
	})
}

// stopInstances ends all processors in good order, at the same time, and reports those that did not
// end well.
func (r *rig) stopInstances(ctx context.Context) error {
	errs := make(chan error, len(r.instances))
	for _, i := range r.instances {
		go func() { errs <- i.stop(ctx) }()
	}
	all := make([]error, 0, len(r.instances))
	for range r.instances {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// lag tells how many orders are committed, and how many records are not over all inputs of the group.
func (r *rig) lag(ctx context.Context) (committed, lag int64, partitions []kafka.PartitionLag, err error) {
	partitions, err = kafka.Lag(ctx, r.admin, r.settings.Group(), r.inputs())
	if err != nil {
		return 0, 0, nil, err
	}
	for _, one := range partitions {
		if one.Err != nil {
			return 0, 0, nil, fmt.Errorf("lag of %s/%d: %w", one.Topic, one.Partition, one.Err)
		}
		if one.Topic == inputTopic { // no transaction writes it: its offsets count orders and nothing else
			committed += max(one.Committed, 0)
		}
		lag += one.Lag
	}
	return committed, lag, partitions, nil
}

func (r *rig) inputs() []string {
	var topics []string
	for _, route := range r.settings.Routes {
		topics = append(topics, route.Topics...)
	}
	return topics
}

// close ends everything in the reverse order and removes what was temporary. It does not heed the
// end of the context that the rig was opened with: that is what it is called for.
func (r *rig) close(ctx context.Context) error {
	if ctx.Err() != nil {
		fmt.Fprintln(r.config.Screen.Out, "stopping everything (interrupt again to end at once)")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	errs := []error{r.stopInstances(ctx), r.outside.close()}
	if r.client != nil {
		r.client.Close()
	}
	if r.broker != nil {
		errs = append(errs, r.broker.close())
	}
	if r.temporary {
		errs = append(errs, os.RemoveAll(r.folder))
	}
	if r.lock != nil {
		errs = append(errs, r.lock.Close())
	}
	return errors.Join(errs...)
}
