package top

import (
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"
)

// Fetch asks one process, within a time that it knows. It is called beside itself, for other processes.
type Fetch func(process string) Facts

// polled is what a process has told.
type polled struct{ facts Facts }

// due says that a process is to be asked again.
type due struct{ process string }

// screenModel is the program that bubbletea runs: messages in, a screen out.
type screenModel struct {
	fetch  Fetch
	fleet  *Fleet
	shown  Snapshot // what is on the screen; it stands still while paused
	screen Screen
}

func newModel(processes []string, fetch Fetch, screen Screen) *screenModel {
	m := &screenModel{fetch: fetch, fleet: NewFleet(processes), screen: screen}
	m.screen.Sort = ByLag
	m.shown = m.fleet.Snapshot(screen.Since)
	return m
}

// Init asks every process for the first time. Each has its own turn from then on, so that one that does not answer
// holds up nobody.
func (m *screenModel) Init() tea.Cmd {
	asks := make([]tea.Cmd, 0, len(m.fleet.processes))
	for _, process := range m.fleet.processes {
		asks = append(asks, m.ask(process))
	}
	return tea.Batch(asks...)
}

func (m *screenModel) ask(process string) tea.Cmd {
	return func() tea.Msg { return polled{m.fetch(process)} }
}

// Update takes keys, sizes and what processes told.
func (m *screenModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case polled:
		m.fleet.Add(msg.facts)
		if !m.screen.Paused {
			m.shown = m.fleet.Snapshot(msg.facts.At)
		}
		return m, tea.Tick(m.screen.Every, func(time.Time) tea.Msg { return due{msg.facts.Process} })
	case due:
		return m, m.ask(msg.process)
	case tea.WindowSizeMsg:
		m.screen.Width, m.screen.Height = msg.Width, msg.Height
		m.scroll(0)
	case tea.KeyPressMsg:
		return m, m.press(msg.String())
	}
	return m, nil
}

// press obeys a key.
func (m *screenModel) press(key string) tea.Cmd {
	switch key {
	case "ctrl+c":
		return tea.Quit
	case "ctrl+z":
		return tea.Suspend
	case "ctrl+l": // somebody else wrote over the screen
		return tea.ClearScreen
	}
	if m.screen.Help {
		m.screen.Help = false
		return nil
	}
	page := m.screen.partitionRows(m.shown)
	switch key {
	case "q", "esc":
		return tea.Quit
	case "?", "h":
		m.screen.Help = true
	case "s", "right":
		m.sort(1)
	case "left":
		m.sort(-1)
	case "p", "space":
		m.screen.Paused = !m.screen.Paused
		if !m.screen.Paused {
			m.shown = m.fleet.Snapshot(m.fleet.latest(m.shown.At))
		}
	case "down", "j":
		m.scroll(1)
	case "up", "k":
		m.scroll(-1)
	case "pgdown":
		m.scroll(page)
	case "pgup":
		m.scroll(-page)
	case "home", "g":
		m.scroll(-m.screen.Offset)
	case "end", "G":
		m.scroll(len(m.shown.Partitions))
	}
	return nil
}

func (m *screenModel) sort(step int) {
	sorts := Sorts()
	at := slices.Index(sorts, m.screen.Sort)
	m.screen.Sort, m.screen.Offset = sorts[(at+step+len(sorts))%len(sorts)], 0
}

func (m *screenModel) scroll(by int) {
	last := max(0, len(m.shown.Partitions)-m.screen.partitionRows(m.shown))
	m.screen.Offset = min(max(0, m.screen.Offset+by), last)
}

// latest is when a process told something last.
func (f *Fleet) latest(at time.Time) time.Time {
	for _, facts := range f.last {
		if facts.At.After(at) {
			at = facts.At
		}
	}
	return at
}

// View draws the screen, on the terminal's second one so that the first is as it was afterwards.
func (m *screenModel) View() tea.View {
	view := tea.NewView("")
	if m.screen.Width > 0 {
		view.Content = m.screen.Draw(m.shown)
	}
	view.AltScreen = true
	view.WindowTitle = "pawl top"
	return view
}
