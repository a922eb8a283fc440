package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	effectsCommand = "effects" // first argument with which this program is a peer of the effects part

	effectLanes       = 16
	effectConcurrency = 64    // calls at once over HTTP, of every peer
	effectBatch       = 1_000 // effects of one insert
	effectBacklog     = 3_000 // effects of a lane that were inserted and are not complete, at most
	effectSlices      = 10    // of a run, to see whether it slows down
	effectDrain       = 2 * time.Minute
)

// effectSpec tells a peer of the effects part what to do. It is handed over as a file.
type effectSpec struct {
	Peer     string        `json:"peer"` // without effectHeld
	DSN      string        `json:"dsn"`  // of a database of its own, empty for one that needs none
	URL      string        `json:"url"`  // where to post to; empty: the target does nothing
	Bytes    int           `json:"bytes"`
	Duration time.Duration `json:"duration_ns"`
	Result   string        `json:"result"` // path of the file for effectFigures
}

// effectFigures is what a peer has found out about itself.
type effectFigures struct {
	Effects   int64         `json:"effects"`
	Rate      float64       `json:"effects_per_second"` // from the first insert to the last completion
	Took      time.Duration `json:"took_ns"`
	ServerCPU float64       `json:"postgres_cpu_us_per_effect"`
	OwnCPU    float64       `json:"client_cpu_us_per_effect"`
	WAL       float64       `json:"wal_bytes_per_effect"`
	Slices    []float64     `json:"slices_effects_per_second"` // completions while inserting, in parts of equal length
	Asked     []int64       `json:"asked"`                     // effects of each lane
	Tally     deliveryTally `json:"tally"`
}

// shape is how an engine likes to be fed.
type shape struct {
	lanes     int
	inserters int // goroutines that insert, each for its share of the lanes
	batch     int // effects of an insert
}

// engine is what turns inserted effects into calls.
type engine interface {
	shape() shape
	// open makes ready for the first insert. done is to be called for effects that were called.
	open(ctx context.Context, done func(lane int, n int64)) error
	// insert takes the next n effects of a lane. There is one call at a time for a lane.
	insert(ctx context.Context, lane *course, n int) error
	// settle waits until all effects, which were all called, are complete for good.
	settle(ctx context.Context, g *gauge) error
	// proof is how many effects are complete by what the engine has stored.
	proof(ctx context.Context) (int64, error)
	close(ctx context.Context) error
}

// runEffects is one peer for the length of a run. Arguments: path of a file with an effectSpec.
func runEffects(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s: want the path of a file", effectsCommand)
	}
	var spec effectSpec
	text, err := os.ReadFile(args[0]) //nolint:gosec // written by bench
	if err == nil {
		err = json.Unmarshal(text, &spec)
	}
	if err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	figures, err := spec.run(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", spec.Peer, err)
	}
	if text, err = json.Marshal(figures); err == nil {
		err = os.WriteFile(spec.Result, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

func (s effectSpec) run(ctx context.Context) (_ effectFigures, err error) {
	e, seen, err := s.engine()
	if err != nil {
		return effectFigures{}, err
	}
	var g *gauge
	if s.DSN != "" {
		if g, err = openGauge(ctx, s.DSN); err != nil {
			return effectFigures{}, err
		}
		defer func() { err = errors.Join(err, g.close(context.WithoutCancel(ctx))) }()
	}
	f := newFeed(e.shape(), s.Duration)
	defer func() { err = errors.Join(err, e.close(context.WithoutCancel(ctx))) }()
	if err := e.open(ctx, f.done); err != nil {
		return effectFigures{}, fmt.Errorf("get ready: %w", err)
	}
	figures, err := f.run(ctx, e, g)
	if err != nil {
		return figures, err
	}
	if seen != nil {
		figures.Tally = seen.tally(figures.Asked)
	}
	proof, err := e.proof(ctx)
	if err == nil && proof != figures.Effects {
		err = fmt.Errorf("%d effects are complete by what is stored, want %d", proof, figures.Effects)
	}
	return figures, err
}

// engine makes the peer. Where the target is in this process, seen is what it sees.
func (s effectSpec) engine() (e engine, seen *deliveries, err error) {
	if s.URL == "" && s.Peer != effectHTTP {
		seen = newDeliveries(effectLanes)
	}
	switch s.Peer {
	case effectPawl:
		return &pawlEngine{spec: s, seen: seen}, seen, nil
	case effectRiver, effectRiverLean:
		return &riverEngine{spec: s, seen: seen, poster: newPoster(s.URL)}, seen, nil
	case effectHTTP:
		return &httpEngine{spec: s, poster: newPoster(s.URL)}, seen, nil
	}
	return nil, nil, fmt.Errorf("no peer has the name %q", s.Peer)
}

// feed inserts effects for a while, as fast as they complete.
type feed struct {
	shape     shape
	duration  time.Duration
	courses   []course        // by lane; each is moved by its inserter
	asked     []int64         // by lane, likewise
	completed []atomic.Int64  // by lane
	total     atomic.Int64    // completed, of all lanes
	moved     []chan struct{} // by inserter: something is complete
}

func newFeed(s shape, duration time.Duration) *feed {
	f := &feed{
		shape: s, duration: duration,
		courses: make([]course, s.lanes), asked: make([]int64, s.lanes), completed: make([]atomic.Int64, s.lanes),
	}
	for lane := range f.courses {
		f.courses[lane].lane = lane
	}
	for range s.inserters {
		f.moved = append(f.moved, make(chan struct{}, 1))
	}
	return f
}

func (f *feed) done(lane int, n int64) {
	f.completed[lane].Add(n)
	f.total.Add(n)
	select {
	case f.moved[lane%f.shape.inserters] <- struct{}{}:
	default:
	}
}

func (f *feed) run(ctx context.Context, e engine, g *gauge) (figures effectFigures, err error) {
	if err := g.settle(ctx); err != nil {
		return figures, err
	}
	before, err := g.read(ctx)
	if err != nil {
		return figures, err
	}
	group, inserting := errgroup.WithContext(ctx)
	until, cancel := context.WithTimeout(ctx, f.duration)
	defer cancel()
	for inserter := range f.shape.inserters {
		group.Go(func() error { return f.insert(inserting, until, e, inserter) })
	}
	group.Go(func() error {
		figures.Slices = f.watch(inserting)
		return nil
	})
	if err := group.Wait(); err != nil {
		return figures, err
	}
	if err := f.drain(ctx, e, g); err != nil {
		return figures, err
	}
	after, err := g.read(ctx)
	if err != nil {
		return figures, err
	}
	figures.Asked = f.asked
	figures.add(before, after)
	return figures, nil
}

func (f *effectFigures) add(before, after reading) {
	for _, n := range f.Asked {
		f.Effects += n
	}
	f.Took = after.at.Sub(before.at)
	if f.Effects == 0 || f.Took <= 0 {
		return
	}
	f.Rate = float64(f.Effects) / f.Took.Seconds()
	f.ServerCPU = each(after.server-before.server, f.Effects)
	f.OwnCPU = each(after.own-before.own, f.Effects)
	f.WAL = float64(after.wal-before.wal) / float64(f.Effects)
}

// each is the share of one of n in a time, in microseconds.
func each(d time.Duration, n int64) float64 {
	if n == 0 {
		return 0
	}
	return float64(d.Nanoseconds()) / 1e3 / float64(n)
}

// insert feeds the lanes of one inserter until a context ends: ctx means failure, until the end of the
// time. An insert that is under way then is finished.
func (f *feed) insert(ctx, until context.Context, e engine, inserter int) error {
	for {
		idle := true
		for lane := inserter; lane < f.shape.lanes; lane += f.shape.inserters {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-until.Done():
				return nil
			default:
			}
			if f.asked[lane]-f.completed[lane].Load()+int64(f.shape.batch) > effectBacklog {
				continue
			}
			idle = false
			if err := e.insert(ctx, &f.courses[lane], f.shape.batch); err != nil {
				return fmt.Errorf("insert: %w", err)
			}
			f.asked[lane] += int64(f.shape.batch)
		}
		if !idle {
			continue
		}
		select {
		case <-f.moved[inserter]:
		case <-until.Done():
		case <-ctx.Done():
		}
	}
}

// watch gives the rate of completions, slice after slice.
func (f *feed) watch(ctx context.Context) []float64 {
	ticker := time.NewTicker(max(f.duration/effectSlices, time.Millisecond))
	defer ticker.Stop()
	var rates []float64
	last, at := int64(0), time.Now()
	for range effectSlices {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return rates
		}
		now, total := time.Now(), f.total.Load()
		rates = append(rates, float64(total-last)/now.Sub(at).Seconds())
		last, at = total, now
	}
	return rates
}

// drain waits until all that was asked for is complete.
func (f *feed) drain(ctx context.Context, e engine, g *gauge) error {
	ctx, cancel := context.WithTimeout(ctx, effectDrain)
	defer cancel()
	for lane := range f.asked {
		for f.completed[lane].Load() < f.asked[lane] {
			select {
			case <-f.moved[lane%f.shape.inserters]:
			case <-ctx.Done():
				return fmt.Errorf("wait for lane %d: %d of %d effects were called: %w", lane, f.completed[lane].Load(), f.asked[lane], ctx.Err())
			}
		}
	}
	if err := e.settle(ctx, g); err != nil {
		return fmt.Errorf("wait until all is complete: %w", err)
	}
	return nil
}
