package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/load"
)

const (
	// badShare of the orders that Run produces are wrong, so that there are dead letters to look at.
	badShare = 0.01
	// A processor that dies is started again after restartPause; one that dies deathsMax times in a
	// row within youth of its start is a fault to look at.
	restartPause = 200 * time.Millisecond
	youth        = 10 * time.Second
	deathsMax    = 3
)

// Run brings everything up, prints the addresses to out and keeps it up until ctx ends, which is its
// good end; before it is up, that is ErrInterrupted. A processor that dies is started again: killing one is what a person may want to try.
func Run(ctx context.Context, config Config, out io.Writer) (err error) {
	if err := config.Validate(); err != nil {
		return err
	}
	config.fixedPorts = true
	r, up := &rig{config: config, seed: rand.Uint64()}, false //nolint:gosec // not a secret
	defer func() {
		switch {
		case ctx.Err() == nil:
		case up:
			err = nil // the good end; err is an echo of it
		default:
			err = ErrInterrupted
		}
		err = errors.Join(err, r.close(ctx))
	}()
	d := openDisplay(config.Screen, time.Now, stageKafka, stageBroker, stageLedger, stageTopics, stageInstances)
	err = openStages(ctx, r, d)
	d.close()
	if err != nil {
		return err
	}
	up = true
	if _, err := io.WriteString(out, r.addresses()); err != nil {
		return fmt.Errorf("print addresses: %w", err)
	}
	d = openDisplay(config.Screen, time.Now, stageInstances, stageOrders)
	defer d.close() // before the rig's close
	return r.stayUp(ctx, d)
}

// stayUp feeds orders and watches the processors until ctx ends.
func (r *rig) stayUp(ctx context.Context, d *display) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wait sync.WaitGroup
	defer wait.Wait() // after the cancel below
	defer cancel(nil)
	up := d.begin(stageInstances, fmt.Sprintf("%d up", len(r.instances)))
	for _, i := range r.instances {
		wait.Go(func() {
			if err := i.keepUp(ctx, up.say); err != nil {
				cancel(err)
			}
		})
	}
	var acked atomic.Int64
	wait.Go(func() { r.watchProgress(ctx, d, &acked, 0, nil) })
	if err := r.feed(ctx, d, &acked); err != nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause // a processor that keeps dying
	}
	return nil
}

// feed produces orders until ctx ends.
func (r *rig) feed(ctx context.Context, d *display, acked *atomic.Int64) error {
	s := d.begin(stageOrders, fmt.Sprintf("%s a second, about %.0f%% of them wrong; Ctrl-C ends everything", thousands(int64(r.config.Rate)), 100*badShare))
	orders, err := load.NewOrders(load.OrdersConfig{Seed: rand.Uint64(), BadShare: badShare}) //nolint:gosec // ids that do not repeat those of the last run
	if err != nil {
		return err
	}
	options, err := r.settings.KafkaConfig(nil).Options()
	if err != nil {
		return err
	}
	producer, err := load.NewProducer(load.ProducerConfig{
		Options: options, Topic: inputTopic, Generator: orders, Rate: r.config.Rate, Flush: demoFlush,
		Acked: func(int64, *kgo.Record) { acked.Add(1) },
	})
	if err != nil {
		return err
	}
	if err := producer.Run(ctx); err != nil {
		s.fail(firstLine(err))
		return err
	}
	s.done(thousands(producer.Acked()) + " produced")
	return nil
}

// keepUp starts the instance again whenever it dies, until ctx ends or it dies too often.
func (i *instance) keepUp(ctx context.Context, say func(string)) error {
	for deaths := 0; ; {
		select {
		case <-i.process.gone:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the good end
		}
		if time.Since(i.began) < youth {
			deaths++
		} else {
			deaths = 1
		}
		how := i.process.howEnded()
		if deaths >= deathsMax {
			return fmt.Errorf("%s died %d times within %s of its start, the last time with %w; its log ends with:%s", i.name, deaths, youth, how, i.logTail())
		}
		say(fmt.Sprintf("%s died (%v), starting it again", i.name, how))
		if err := i.again(ctx); err != nil && ctx.Err() == nil && i.process.alive() {
			return err
		} else if err != nil {
			continue // ctx has ended, or the death is counted above
		}
		say(fmt.Sprintf("%s is back as pid %d, %s after its start", i.name, i.process.pid(), seconds(time.Since(i.began))))
	}
}

// again starts the instance after a pause and waits until it is ready.
func (i *instance) again(ctx context.Context) error {
	if err := pause(ctx, restartPause); err != nil {
		return err
	}
	if err := i.start(ctx); err != nil {
		return err
	}
	return i.ready(ctx)
}

// addresses is what a person needs to look around.
func (r *rig) addresses() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-*s %s\n", nameWidth, name, fmt.Sprintf(format, args...))
	}
	b.WriteByte('\n')
	line("brokers", "%s", strings.Join(r.broker.addresses, ","))
	line("input", "%s", strings.Join(r.inputs(), ", "))
	s := r.settings
	line("written", "%s", strings.Join(append(sortedTopics(s.OutputTopics()), s.EffectsTopic(), s.ResultsTopic(), s.DeadLetterTopic()), ", "))
	if o := r.outside; o != nil {
		line("postgres", "%s, database %s; the connection string is in %s", o.host, o.database, o.dsnFile)
		line("endpoint", "%s; every call is in %s", o.endpoint.URL(), o.journal)
	} else {
		line("postgres", "none, effects are committed and wait: %s", r.bare)
	}
	line("config", "%s", r.file)
	for n, i := range r.instances {
		name := ""
		if n == 0 {
			name = stageInstances
		}
		line(name, "%s  pid %d  http://%s/  /metrics /readyz", i.name, i.process.pid(), i.admin)
		line("", "   log %s", i.log)
	}
	program := fromHere(r.config.Program)
	line("try", "%s lag -c %s", program, r.file)
	line("", "%s dlq ls -c %s", program, r.file)
	if r.outside != nil {
		line("", "%s effects ls -c %s", program, r.file)
	}
	line("", "kill -9 %d   (it comes back under its name, and nothing is lost)", r.instances[len(r.instances)-1].process.pid())
	b.WriteByte('\n')
	return b.String()
}

// fromHere shortens a path to how a person would type it in the current folder.
func fromHere(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	relative, err := filepath.Rel(here, path)
	if err != nil || strings.HasPrefix(relative, "..") {
		return path
	}
	if !strings.Contains(relative, string(filepath.Separator)) {
		relative = "." + string(filepath.Separator) + relative // else a shell looks on its path
	}
	return relative
}
