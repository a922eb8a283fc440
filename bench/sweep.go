package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"pawl/internal/yardstick"
)

// sweep measures the peers again and again while one number of their task changes.
type sweep struct {
	name   string
	values []int
	unit   string
	steady bool // latency is measured, else throughput
	set    func(s *settings, value int)
}

var sweeps = []sweep{
	{name: "sizes", values: []int{100, 1000, 10_000, 100_000}, unit: "bytes a record", set: func(s *settings, value int) { s.bytes = value }},
	{name: "partitions", values: []int{1, 8, 64, 512}, unit: "partitions", set: func(s *settings, value int) { s.parts = value }},
	{name: "lanes", values: []int{1, 2, 4}, unit: "lanes a process", set: func(s *settings, value int) { s.lanes = value }},
	{name: "instances", values: []int{1, 2, 4}, unit: "processes", set: func(s *settings, value int) { s.processes = value }},
	{name: "rates", values: []int{1000, 5000, 20_000}, unit: "records/s", steady: true, set: func(s *settings, value int) { s.rate = float64(value) }},
}

func sweepNames() string {
	names := make([]string, len(sweeps))
	for i, one := range sweeps {
		names[i] = one.name
	}
	return strings.Join(names, ", ")
}

// point is what was found at one value of a sweep.
type point struct {
	Sweep   string              `json:"sweep"`
	Value   int                 `json:"value"`
	Unit    string              `json:"unit"`
	Records int64               `json:"records,omitempty"` // of a throughput run
	Copies  []yardstick.CopyRun `json:"throughput,omitempty"`
	Waits   []yardstick.WaitRun `json:"latency,omitempty"`
}

// checkPoints judges the flags of sweeps.
func (s settings) checkPoints() error {
	if s.sweepBytes < 1 {
		return errors.New("sweep-bytes must be at least 1")
	}
	if s.points == "" {
		return nil
	}
	named := 0
	if s.has(partSteps) {
		named++
	}
	for _, one := range sweeps {
		if s.has(one.name) {
			named++
		}
	}
	if named != 1 {
		return fmt.Errorf("-points needs one of %s, %s in -only, got %d of them", sweepNames(), partSteps, named)
	}
	_, err := parsePoints(s.points)
	return err
}

func parsePoints(text string) ([]int, error) {
	var values []int
	for field := range strings.SplitSeq(text, ",") {
		value, err := strconv.Atoi(field)
		if err != nil || value < 1 {
			return nil, fmt.Errorf("-points has %q, want numbers from 1 on", field)
		}
		values = append(values, value)
	}
	return values, nil
}

// at gives the settings of one value: no more bytes than a sweep may copy, and one round to warm up,
// since the broker is warm after the first value.
func (w sweep) at(s settings, value int) settings {
	w.set(&s, value)
	s.warmRounds = min(1, s.warmRounds)
	s.count = max(1, min(s.count, s.sweepBytes/int64(s.bytes)))
	return s
}

// sweep measures every value in turn.
func (s *stage) sweep(ctx context.Context, w sweep, programs programs, report *report) error {
	values := w.values
	if s.settings.points != "" {
		var err error
		if values, err = parsePoints(s.settings.points); err != nil {
			return err
		}
	}
	for _, value := range values {
		here := *s
		here.settings = w.at(s.settings, value)
		here.label = fmt.Sprintf("bench-%s-%d", w.name, value)
		s.progress(fmt.Sprintf("%s: %d %s", w.name, value, w.unit))
		found := point{Sweep: w.name, Value: value, Unit: w.unit}
		peers := newPeers(here.settings, programs)
		var err error
		if w.steady {
			err = here.latency(ctx, peers, func(run yardstick.WaitRun) { found.Waits = append(found.Waits, run) })
		} else {
			found.Records = here.settings.count
			err = here.throughput(ctx, peers, func(run yardstick.CopyRun) { found.Copies = append(found.Copies, run) })
		}
		if err != nil {
			return fmt.Errorf("%s at %d %s: %w", w.name, value, w.unit, err)
		}
		report.Points = append(report.Points, found)
	}
	return nil
}
