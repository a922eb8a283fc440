//go:build chaos && linux

package e2e

import (
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pawl/internal/evidence"
)

var alertsResult = flag.String("alerts.result", "", "keep what the alerts did in this file, too")

// sighting is an alert that a fault made fire, and what its runbook's first command said then.
type sighting struct {
	fault, alert  string
	after         time.Duration // since the fault was begun
	command, said string
}

// sightings are those of a run.
type sightings struct {
	fault string // in hand
	all   []*sighting
}

func (s *sightings) of(alert string) *sighting {
	at := slices.IndexFunc(s.all, func(one *sighting) bool { return one.fault == s.fault && one.alert == alert })
	if at < 0 {
		s.all = append(s.all, &sighting{fault: s.fault, alert: alert})
		at = len(s.all) - 1
	}
	return s.all[at]
}

// fired writes down an alert when it is first seen to fire.
func (s *sightings) fired(alert string, after time.Duration) {
	if one := s.of(alert); one.after == 0 {
		one.after = after
	}
}

// answered writes down the lines of an answer that say what they are to say.
func (s *sightings) answered(alert, command, said string, says []string) {
	var lines []string
	for line := range strings.Lines(said) {
		line = strings.Join(strings.Fields(line), " ")
		if line != "" && !slices.Contains(lines, line) && slices.ContainsFunc(says, func(part string) bool { return strings.Contains(line, part) }) {
			lines = append(lines, line)
		}
	}
	one := s.of(alert)
	one.command, one.said = command, strings.Join(lines[:min(len(lines), saidLines)], " / ")
	if runes := []rune(one.said); len(runes) > saidMax {
		one.said = string(runes[:saidMax]) + "…"
	}
}

// What is kept of an answer.
const (
	saidLines = 3
	saidMax   = 240
)

// anonymous takes out of an answer what is of this run alone.
func (w *watchtower) anonymous(said string) string {
	return strings.NewReplacer(w.folder+string(filepath.Separator), "", w.application, "shop").Replace(said)
}

// keep writes the result of a run that has made so many faults, and fails the test for an alert whose first command
// was not tried. Of a part that -run picks nothing is kept.
func (s *sightings) keep(t *testing.T, began time.Time, wanted int) {
	t.Helper()
	result := evidence.Result{
		Kind: evidence.Alerts, Title: "every alert by a fault", Command: "make alerts", Commit: commit(),
		Date: began.UTC().Truncate(time.Second), Seconds: time.Since(began).Seconds(),
		Notes: []string{"Minutes of the rules are seconds here (`hasten` in internal/e2e): the times show the order of things, not what a deployed rule takes. Each alert ended when its fault did."},
		Table: &evidence.Table{Header: []string{"fault", "alert", "fired after", "first command", "it said, among other things"}},
	}
	alerts, faults := map[string]bool{}, map[string]bool{}
	for _, one := range s.all {
		alerts[one.alert] = true
		if !faults[one.fault] {
			faults[one.fault] = true
			result.Faults = append(result.Faults, evidence.Count{Name: one.fault, Count: 1})
		}
		result.Table.Rows = append(result.Table.Rows, []string{
			one.fault, one.alert, fmt.Sprintf("%.1f s", one.after.Seconds()), one.command, one.said,
		})
	}
	for alert := range alerts {
		if !slices.ContainsFunc(s.all, func(one *sighting) bool { return one.alert == alert && one.said != "" }) {
			t.Errorf("the first command of %s was not tried", alert)
		}
	}
	if len(faults) != wanted {
		t.Logf("%d of %d faults were made: the result is not kept", len(faults), wanted)
		return
	}
	result.Counts = []evidence.Count{{Name: "alerts that fired and ended", Count: int64(len(alerts))}}
	for _, path := range []string{filepath.Join(t.ArtifactDir(), "alerts.json"), *alertsResult} {
		if path == "" {
			continue
		}
		if err := evidence.Write(path, result); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%s", evidence.Markdown([]evidence.Result{result}, "", ""))
}
