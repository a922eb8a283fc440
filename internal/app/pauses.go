package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/admin"
	"pawl/internal/pause"
	"pawl/internal/telemetry"
)

const (
	pauseExpected = time.Hour // where nobody said how long it is to last
	pauseMax      = 30 * 24 * time.Hour
	pauseMin      = time.Second
)

// PauseAction is an order about a target.
type PauseAction string

// The actions.
const (
	PauseInput   PauseAction = "pause"
	HoldEndpoint PauseAction = "hold"
	Resume       PauseAction = "resume"
)

// PauseActions lists them all.
func PauseActions() []PauseAction { return []PauseAction{PauseInput, HoldEndpoint, Resume} }

// PauseOrder is what an operator wants, as it was typed.
type PauseOrder struct {
	Action PauseAction
	Target string
	For    string // after which it ends by itself; empty: it stays until it is lifted
	Expect string // how long it is expected to last where it does not end by itself
	Reason string
	Actor  string
}

// PausePlan is an order that makes sense.
type PausePlan struct {
	Action PauseAction    `json:"action"`
	Target pause.Target   `json:"target"`
	Reason string         `json:"reason"`
	Actor  string         `json:"actor"`
	Until  time.Time      `json:"until,omitzero"`    // it ends by itself
	Expect time.Time      `json:"expected,omitzero"` // from then on it is overdue
	Below  []pause.Target `json:"still,omitempty"`   // what keeps the target paused all the same, of a resume

	at time.Time
}

// OpenPauses makes a board of the notes about pauses; close it after its Run.
func (c Config) OpenPauses(client []kgo.Opt, hooks pause.Hooks) (*pause.Board, error) {
	return pause.Open(pause.Config{Client: client, Topic: c.ControlTopic(), Reader: c.owner(), Hooks: hooks})
}

// PlanPause judges an order by the configuration and by what is in force. partitions counts those of a topic. Nothing is
// changed yet.
func (c Config) PlanPause(ctx context.Context, order PauseOrder, now time.Time, set pause.Set, partitions func(context.Context, string) (int, error)) (PausePlan, error) {
	plan := PausePlan{Action: order.Action, Reason: strings.TrimSpace(order.Reason), Actor: order.Actor, at: now.UTC()}
	var err error
	if plan.Target, err = pause.ParseTarget(order.Target); err != nil {
		return plan, err
	}
	if plan.Reason == "" {
		return plan, errors.New("the reason is empty: say why, everybody will see it")
	}
	if order.Action == Resume {
		return plan, plan.resume(order, set)
	}
	if err := c.pausable(ctx, order.Action, plan.Target, partitions); err != nil {
		return plan, err
	}
	lasts, ends, err := pauseSpan(order)
	if err != nil {
		return plan, err
	}
	plan.Expect = plan.at.Add(lasts)
	if ends {
		plan.Until = plan.Expect
	}
	return plan, nil
}

// resume takes what is in force, whether or not the configuration knows it any more.
func (p *PausePlan) resume(order PauseOrder, set pause.Set) error {
	if order.For != "" || order.Expect != "" {
		return errors.New("a resume has no duration")
	}
	if _, is := set[p.Target]; !is {
		there := make([]string, 0, len(set))
		for _, one := range set.List() {
			there = append(there, string(one.Target))
		}
		if len(there) == 0 {
			return fmt.Errorf("%s is not paused, nothing is", p.Target)
		}
		return fmt.Errorf("%s is not paused by itself; paused are: %s", p.Target, strings.Join(there, ", "))
	}
	for _, wider := range p.Target.Wider() {
		if _, is := set[wider]; is {
			p.Below = append(p.Below, wider)
		}
	}
	return nil
}

// pausable refuses what does not exist: a name that is misspelt would pause nothing and look as if it did.
func (c Config) pausable(ctx context.Context, action PauseAction, target pause.Target, partitions func(context.Context, string) (int, error)) error {
	name, endpoint := target.Endpoint()
	switch {
	case action == HoldEndpoint && !endpoint:
		return fmt.Errorf("hold is for endpoints, and %s is none: want endpoint/NAME with one of %s", target, strings.Join(c.EndpointNames(), ", "))
	case action == PauseInput && endpoint:
		return fmt.Errorf("pause is for input: to stop the calls of %s, hold it", target)
	case endpoint && !slices.Contains(c.EndpointNames(), name):
		return fmt.Errorf("there is no endpoint %s: the configuration has %s", name, strings.Join(c.EndpointNames(), ", "))
	case endpoint:
		return nil
	}
	topic, partition, _ := target.Input()
	if topic == "" {
		return nil
	}
	if inputs := c.inputTopics(); !slices.Contains(inputs, topic) {
		return fmt.Errorf("%s is no input of %s, whose inputs are %s", topic, c.Application, strings.Join(inputs, ", "))
	}
	if partition < 0 {
		return nil
	}
	count, err := partitions(ctx, topic)
	if err != nil {
		return fmt.Errorf("look up the partitions of %s: %w", topic, err)
	}
	if int(partition) >= count {
		return fmt.Errorf("%s has the partitions 0 to %d", topic, count-1)
	}
	return nil
}

// pauseSpan says how long a pause is to last, and whether it ends by itself then.
func pauseSpan(order PauseOrder) (lasts time.Duration, ends bool, err error) {
	read := func(name, text string) (time.Duration, error) {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.Std() < pauseMin || d.Std() > pauseMax {
			return 0, fmt.Errorf("%s is %q, want a time from %s to 30d such as 30m", name, text, pauseMin)
		}
		return d.Std(), nil
	}
	switch {
	case order.For != "" && order.Expect != "":
		return 0, false, errors.New("give either how long it lasts, or how long it is expected to: not both")
	case order.For != "":
		lasts, err = read("for", order.For)
		return lasts, true, err
	case order.Expect != "":
		lasts, err = read("expect", order.Expect)
		return lasts, false, err
	default:
		return pauseExpected, false, nil
	}
}

// Give writes the order down for all processes.
func (p PausePlan) Give(ctx context.Context, board *pause.Board) error {
	return board.Write(ctx, p.Target, pause.Note{
		Paused: p.Action != Resume, Reason: p.Reason, Actor: p.Actor, At: p.at, Until: p.Until, Expected: p.Expect,
	})
}

// CountPartitions asks the brokers for the number of a topic's partitions.
func CountPartitions(client *kgo.Client) func(context.Context, string) (int, error) {
	return func(ctx context.Context, topic string) (int, error) {
		topics, err := kadm.NewClient(client).ListTopics(ctx, topic)
		if err == nil {
			err = topics[topic].Err
		}
		return len(topics[topic].Partitions), err
	}
}

// pauseLog tells what happens to pauses: every process does, so that the log of each says why it stands still, and who
// ordered it. The newest note of each target stays in the control topic.
type pauseLog struct {
	log  *slog.Logger
	told string // the last failure
}

func (l *pauseLog) changed(c pause.Change) {
	l.told = ""
	attrs := []any{slog.String("target", string(c.Pause.Target)), slog.String("reason", c.Reason), slog.String("actor", c.Actor), slog.Time("since", c.Pause.Since)}
	if !c.Pause.Until.IsZero() {
		attrs = append(attrs, slog.Time("until", c.Pause.Until))
	}
	switch c.Kind {
	case pause.Began:
		l.log.Warn("paused by an operator", attrs...)
	case pause.Again:
		l.log.Warn("pause renewed by an operator", attrs...)
	case pause.Lifted:
		l.log.Info("pause lifted by an operator", attrs...)
	case pause.Ended:
		l.log.Info("pause ended by itself", attrs...)
	}
}

func (l *pauseLog) ignored(i pause.Ignored) {
	l.log.Warn("a note about a pause can't be read and is ignored", slog.String("key", i.Key), slog.Int64("offset", i.Offset), slog.Any("err", i.Err),
		slog.String("next", "upgrade this instance, or give the order again"))
}

func (l *pauseLog) retrying(err error) {
	if text := err.Error(); text != l.told {
		l.told = text
		l.log.Warn("the notes about pauses can't be read, what is paused stays so", slog.Any("err", err))
	}
}

// openPauses makes the board of a service. The dispatcher hears of a change before anybody who waits for it.
func (s *service) openPauses(client []kgo.Opt) (err error) {
	log := &pauseLog{log: s.log}
	s.pauses, err = s.conf.OpenPauses(client, pause.Hooks{
		Changed: log.changed, Ignored: log.ignored, Retrying: log.retrying, Obey: s.effects.obey,
	})
	return err
}

// obey stops the calls to endpoints, and lets them go on.
func (e *effects) obey(set pause.Set) {
	if e == nil {
		return
	}
	e.dispatcher.Pause(func(endpoint string) bool {
		_, paused := set.Endpoint(endpoint)
		return paused
	})
}

// awaitPauses returns false when ctx ends first. No record is read and no call is made before it is known what is paused.
func (s *service) awaitPauses(ctx context.Context) bool {
	select {
	case <-s.pauses.Ready():
		return true
	case <-ctx.Done():
		return false
	}
}

// pausesKnown is a condition of readiness.
func (s *service) pausesKnown(context.Context) error {
	select {
	case <-s.pauses.Ready():
		return nil
	default:
		return errors.New("it is not known yet what is paused: the control topic has not been read")
	}
}

// pauseFacts are for the metrics: what is paused, and at 0 what may be and is named in the configuration.
func (s *service) pauseFacts() (facts telemetry.Pauses) {
	now, set := time.Now(), s.pauses.Set()
	idle := func(target pause.Target) {
		if _, is := set[target]; !is {
			facts.Targets = append(facts.Targets, telemetry.Pause{Target: string(target)})
		}
	}
	idle(pause.AllInput)
	for _, topic := range s.conf.inputTopics() {
		idle(pause.Topic(topic))
	}
	for _, name := range s.conf.EndpointNames() {
		idle(pause.Endpoint(name))
	}
	for _, p := range set.List() {
		facts.Targets = append(facts.Targets, telemetry.Pause{Target: string(p.Target), Age: max(time.Millisecond, p.Age(now)), Overdue: p.Overdue(now)})
	}
	facts.Ignored = s.pauses.Ignored()
	return facts
}

// pauseNotes are lines for people who ask whether the process is ready: it is, and still does not all of its work.
func (s *service) pauseNotes() (notes []string) {
	for _, p := range s.pauses.Set().List() {
		notes = append(notes, p.String())
	}
	return notes
}

// pausesAPI lets operators pause over HTTP.
type pausesAPI struct{ service *service }

// List implements admin.Pauses.
func (a pausesAPI) List(context.Context) (any, error) {
	return struct {
		Pauses  []pause.Pause `json:"pauses"`
		Ignored int           `json:"ignored"`
	}{a.service.pauses.Set().List(), a.service.pauses.Ignored()}, nil
}

// Order implements admin.Pauses.
func (a pausesAPI) Order(ctx context.Context, action string, order admin.PauseOrder) (any, error) {
	s := a.service
	if err := s.pauses.Refresh(ctx); err != nil {
		return nil, &admin.Problem{Status: http.StatusServiceUnavailable, Detail: "the orders that are in force can't be read: " + err.Error()}
	}
	plan, err := s.conf.PlanPause(ctx, PauseOrder{
		Action: PauseAction(action), Target: order.Target, For: order.For, Expect: order.Expect, Reason: order.Reason, Actor: order.Actor,
	}, time.Now(), s.pauses.Set(), CountPartitions(s.client))
	if err != nil {
		return nil, &admin.Problem{Status: http.StatusUnprocessableEntity, Detail: err.Error()}
	}
	if err := plan.Give(ctx, s.pauses); err != nil {
		return nil, &admin.Problem{Status: http.StatusServiceUnavailable, Detail: err.Error() + "; it may be in force all the same: look before you repeat it"}
	}
	return plan, nil
}
