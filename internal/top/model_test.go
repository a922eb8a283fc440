package top

import (
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
)

// opened is a model of one process with partitions, at 80x24.
func opened(t *testing.T, partitions int) *screenModel {
	t.Helper()
	asked := 0
	m := newModel([]string{"a"}, func(process string) Facts {
		asked++
		facts := told(process, time.Duration(asked)*time.Second, float64(asked))
		for i := range partitions {
			facts.Partitions = append(facts.Partitions, Partition{Topic: "orders", Partition: int32(i), Lag: new(float64(asked)), Process: process})
		}
		return facts
	}, Screen{Every: time.Millisecond, Since: noon})
	m.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	return m
}

// poll lets the process be asked once, and returns what comes after that.
func poll(t *testing.T, m *screenModel) tea.Cmd {
	t.Helper()
	_, next := m.Update(m.ask("a")())
	return next
}

func press(m *screenModel, keys ...tea.KeyPressMsg) (last tea.Cmd) {
	for _, key := range keys {
		_, last = m.Update(key)
	}
	return last
}

func key(r rune) tea.KeyPressMsg { return tea.KeyPressMsg{Code: r, Text: string(r)} }

func special(code rune) tea.KeyPressMsg { return tea.KeyPressMsg{Code: code} }

func ctrl(r rune) tea.KeyPressMsg { return tea.KeyPressMsg{Code: r, Mod: tea.ModCtrl} }

func content(m *screenModel) string { return m.View().Content }

// Each answer is shown, and leads to the next question after the interval.
func TestProcessesAreAskedAgainAndAgain(t *testing.T) {
	t.Parallel()
	m := opened(t, 1)
	if !strings.Contains(content(m), "asking") {
		t.Errorf("before the first answer:\n%s", content(m))
	}
	if m.Init() == nil {
		t.Fatal("nobody is asked")
	}
	for range 3 {
		tick := poll(t, m)
		message := tick()
		if message != (due{"a"}) {
			t.Fatalf("after an answer comes %v", message)
		}
		if _, ask := m.Update(message); ask == nil {
			t.Fatal("nobody is asked again")
		}
	}
	if !strings.Contains(content(m), "1 of 1 ready") || !m.View().AltScreen {
		t.Errorf("screen:\n%s", content(m))
	}
}

func TestKeysQuit(t *testing.T) {
	t.Parallel()
	for _, one := range []tea.KeyPressMsg{key('q'), special(tea.KeyEscape), ctrl('c')} {
		if quit := press(opened(t, 1), one); quit == nil || quit() != (tea.QuitMsg{}) {
			t.Errorf("%s does not quit", one)
		}
	}
	if suspend := press(opened(t, 1), ctrl('z')); suspend == nil || suspend() != (tea.SuspendMsg{}) {
		t.Error("Ctrl-Z does not suspend")
	}
	if press(opened(t, 1), key('x')) != nil {
		t.Error("x does something")
	}
}

func TestArrowsScrollWithinThePartitions(t *testing.T) {
	t.Parallel()
	m := opened(t, 40)
	poll(t, m)
	page := m.screen.partitionRows(m.shown)
	if page < 3 || page >= 40 {
		t.Fatalf("a page has %d rows", page)
	}
	for _, step := range []struct {
		key  tea.KeyPressMsg
		want int
	}{
		{special(tea.KeyUp), 0},
		{special(tea.KeyDown), 1},
		{key('j'), 2},
		{key('k'), 1},
		{special(tea.KeyPgDown), 1 + page},
		{special(tea.KeyPgUp), 1},
		{special(tea.KeyEnd), 40 - page},
		{special(tea.KeyDown), 40 - page},
		{special(tea.KeyHome), 0},
	} {
		press(m, step.key)
		if m.screen.Offset != step.want {
			t.Errorf("after %s: offset %d, want %d", step.key, m.screen.Offset, step.want)
		}
	}
	press(m, special(tea.KeyEnd))
	if !strings.Contains(content(m), "of 40") || !strings.Contains(content(m), "orders/39") {
		t.Errorf("the last page:\n%s", content(m))
	}
	m.Update(tea.WindowSizeMsg{Width: 80, Height: 60}) // all fit
	if m.screen.Offset != 40-m.screen.partitionRows(m.shown) || !strings.Contains(content(m), "orders/0 ") {
		t.Errorf("after growing: offset %d\n%s", m.screen.Offset, content(m))
	}
}

func TestKeysSort(t *testing.T) {
	t.Parallel()
	m := opened(t, 40)
	poll(t, m)
	press(m, special(tea.KeyDown))
	for _, step := range []struct {
		key  tea.KeyPressMsg
		want Sort
	}{{key('s'), ByOldest}, {special(tea.KeyRight), ByName}, {key('s'), ByProcess}, {key('s'), ByLag}, {special(tea.KeyLeft), ByProcess}} {
		press(m, step.key)
		if m.screen.Sort != step.want || m.screen.Offset != 0 {
			t.Errorf("after %s: by %s from %d, want %s from 0", step.key, m.screen.Sort, m.screen.Offset, step.want)
		}
	}
}

// Who reads a number wants it to stay; what happens meanwhile is not lost.
func TestPauseHoldsTheDisplay(t *testing.T) {
	t.Parallel()
	m := opened(t, 1)
	poll(t, m)
	press(m, key('p'))
	before := content(m)
	if !strings.Contains(before, "PAUSED") {
		t.Errorf("screen:\n%s", before)
	}
	if poll(t, m) == nil {
		t.Error("nobody is asked while the display is held")
	}
	if content(m) != before {
		t.Errorf("it has moved:\n%s", content(m))
	}
	press(m, special(tea.KeySpace))
	if strings.Contains(content(m), "PAUSED") || !strings.Contains(content(m), "12:00:02") {
		t.Errorf("it does not go on:\n%s", content(m))
	}
}

func TestHelpIsShownAndLeft(t *testing.T) {
	t.Parallel()
	m := opened(t, 1)
	poll(t, m)
	press(m, key('?'))
	if !strings.Contains(content(m), "scroll the partitions") {
		t.Errorf("screen:\n%s", content(m))
	}
	if quit := press(m, key('q')); quit != nil || strings.Contains(content(m), "scroll the partitions") {
		t.Error("a key does not lead back")
	}
}
