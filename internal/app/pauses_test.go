package app

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pawl/internal/pause"
)

// An order that pauses nothing, or another thing than was meant, is refused, and the refusal says what there is.
func TestPauseOrdersAreJudged(t *testing.T) {
	t.Parallel()
	conf := Config{
		Application: "orders",
		Routes:      []Route{{Topics: []string{"orders", "prices"}, Handler: "copy"}},
		Effects:     Effects{Enabled: true},
		Endpoints:   map[string]Endpoint{"payments": {}},
	}
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	set := pause.Set{}
	for _, target := range []pause.Target{pause.AllInput, pause.Topic("orders"), pause.Partition("orders", 3), pause.Endpoint("gone")} {
		set[target] = pause.Pause{Target: target}
	}
	partitions := func(context.Context, string) (int, error) { return 12, nil }
	for name, test := range map[string]struct {
		order PauseOrder
		want  PausePlan
		err   string
	}{
		"a partition": {
			order: PauseOrder{Action: PauseInput, Target: "input/orders/11"},
			want:  PausePlan{Action: PauseInput, Target: "input/orders/11", Expect: now.Add(time.Hour)},
		},
		"an end": {
			order: PauseOrder{Action: PauseInput, Target: "input", For: "30m"},
			want:  PausePlan{Action: PauseInput, Target: "input", Until: now.Add(30 * time.Minute), Expect: now.Add(30 * time.Minute)},
		},
		"an expectation": {
			order: PauseOrder{Action: HoldEndpoint, Target: "endpoint/payments", Expect: "2d"},
			want:  PausePlan{Action: HoldEndpoint, Target: "endpoint/payments", Expect: now.Add(48 * time.Hour)},
		},
		"resume tells what is left": {
			order: PauseOrder{Action: Resume, Target: "input/orders/3"},
			want:  PausePlan{Action: Resume, Target: "input/orders/3", Below: []pause.Target{"input/orders", "input"}},
		},
		"resume of what the configuration knows no more": {
			order: PauseOrder{Action: Resume, Target: "endpoint/gone"},
			want:  PausePlan{Action: Resume, Target: "endpoint/gone"},
		},
		"no target":         {order: PauseOrder{Action: PauseInput, Target: "orders"}, err: "want input, input/TOPIC"},
		"no reason":         {order: PauseOrder{Action: PauseInput, Target: "input", Reason: " "}, err: "the reason is empty"},
		"another topic":     {order: PauseOrder{Action: PauseInput, Target: "input/order"}, err: "order is no input of orders, whose inputs are orders, prices"},
		"no partition":      {order: PauseOrder{Action: PauseInput, Target: "input/orders/12"}, err: "has the partitions 0 to 11"},
		"no endpoint":       {order: PauseOrder{Action: HoldEndpoint, Target: "endpoint/payment"}, err: "the configuration has payments"},
		"pause an endpoint": {order: PauseOrder{Action: PauseInput, Target: "endpoint/payments"}, err: "hold it"},
		"hold input":        {order: PauseOrder{Action: HoldEndpoint, Target: "input"}, err: "want endpoint/NAME with one of payments"},
		"not paused":        {order: PauseOrder{Action: Resume, Target: "input/prices"}, err: "paused are: input, input/orders, input/orders/3, endpoint/gone"},
		"both times":        {order: PauseOrder{Action: PauseInput, Target: "input", For: "1h", Expect: "2h"}, err: "not both"},
		"no time":           {order: PauseOrder{Action: PauseInput, Target: "input", For: "soon"}, err: "for is \"soon\""},
		"too short":         {order: PauseOrder{Action: PauseInput, Target: "input", For: "1ms"}, err: "want a time from 1s"},
		"resume for":        {order: PauseOrder{Action: Resume, Target: "input", For: "1h"}, err: "a resume has no duration"},
	} {
		order := test.order
		if order.Reason == "" {
			order.Reason = "test"
		}
		plan, err := conf.PlanPause(t.Context(), order, now, set, partitions)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: %v, want an error with %q", name, err, test.err)
			}
			continue
		}
		want := test.want
		if err != nil || plan.Action != want.Action || plan.Target != want.Target || !plan.Until.Equal(want.Until) || !plan.Expect.Equal(want.Expect) || !slices.Equal(plan.Below, want.Below) {
			t.Errorf("%s: %+v, %v; want %+v", name, plan, err, test.want)
		}
	}
}

// A pause is ordered over HTTP with the token, obeyed, and seen everywhere; so is its end.
func TestServicePausesAndSaysSo(t *testing.T) {
	t.Parallel()
	r := runMinimal(t, nothing)
	r.line("starting")
	r.awaitProbe("/readyz", http.StatusOK)
	order := `{"target": "input/raw/0", "for": "2h", "reason": "bad data", "actor": "ann"}`
	if code, answer := r.ask(http.MethodPost, "/api/v1/pause", order); code != http.StatusAccepted || !strings.Contains(answer, `"target": "input/raw/0"`) {
		t.Fatalf("pause answers %d %s", code, answer)
	}
	r.line("paused by an operator")
	r.produce("one", "two")
	view := r.look("the lag of a paused partition", func(v View) bool {
		return len(v.Partitions) == 1 && v.Partitions[0].Records != nil && *v.Partitions[0].Records == 2
	})
	if p := view.Partitions[0]; p.Paused != "input/raw/0" || view.Inputs[0].Committed != 0 {
		t.Errorf("the view shows %+v, %+v; want it paused and nothing committed", p, view.Inputs)
	}
	for path, parts := range map[string][]string{
		"/readyz?verbose": {"[+]pauses ok", "note: input/raw/0 is paused since", "by ann@127.0.0.1: bad data; until "},
		"/api/v1/pauses":  {`"target": "input/raw/0"`, `"ignored": 0`},
		"/api/v1/status":  {`"paused": {`, `"actor": "ann@127.0.0.1"`},
		"/metrics":        {`processor_pause_overdue_seconds{target="input/raw/0"} 0`, `processor_pause_age_seconds{target="input"} 0`, `processor_consumer_paused{partition="0",topic="raw"} 1`},
	} {
		_, answer := r.ask(http.MethodGet, path, "")
		for _, part := range parts {
			if !strings.Contains(answer, part) {
				t.Errorf("%s has no %q: %s", path, part, answer)
			}
		}
	}
	for path, want := range map[string]string{
		"/api/v1/pause":  `{"target": "input/prices", "reason": "r"}`,
		"/api/v1/hold":   `{"target": "endpoint/mail", "reason": "r"}`,
		"/api/v1/resume": `{"target": "input", "reason": "r"}`,
	} {
		if code, answer := r.ask(http.MethodPost, path, want); code != http.StatusUnprocessableEntity {
			t.Errorf("%s %s answers %d %s, want 422", path, want, code, answer)
		}
	}
	if code, _ := r.ask(http.MethodPost, "/api/v1/pause", `{"target": "input"}`); code != http.StatusUnprocessableEntity {
		t.Errorf("without a reason the answer is %d", code)
	}
	if code, answer := r.ask(http.MethodPost, "/api/v1/resume", `{"target": "input/raw/0", "reason": "repaired"}`); code != http.StatusAccepted {
		t.Fatalf("resume answers %d %s", code, answer)
	}
	r.line("pause lifted by an operator")
	r.look("the records", func(v View) bool { return v.Inputs[0].Committed == 2 && len(v.Pauses) == 0 })
	r.end()
}
