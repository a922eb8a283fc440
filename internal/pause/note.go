// Package pause keeps what an operator has stopped for a while: input that is not to be read, endpoints that are not to
// be called. It is one note for each target in the control topic, the newest of which counts, so that all processes
// of an application obey the same, those too that start later, with or without a database.
package pause

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Prefix begins the keys of notes in the control topic. A release that does not know them passes over them.
const Prefix = "pause/"

// noteFormat is the only one that this release writes and reads.
const noteFormat = 1

// Note is the newest word about a target. Whoever lifts a pause writes a note too, so that the topic says who did.
type Note struct {
	Format int       `json:"format"`
	Paused bool      `json:"paused"` // false: it was lifted
	Reason string    `json:"reason"`
	Actor  string    `json:"actor"` // who ordered it, as far as a program can know
	At     time.Time `json:"at"`    // when, by the clock of whoever wrote it
	// Until is when it ends by itself, on every process by its own clock; zero: it stays until it is lifted.
	Until time.Time `json:"until,omitzero"`
	// Expected is when it should be over; from then on it is overdue. With Until it is the same.
	Expected time.Time `json:"expected,omitzero"`
}

// Pause is a note that is in force.
type Pause struct {
	Target   Target    `json:"target"`
	Reason   string    `json:"reason"`
	Actor    string    `json:"actor"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until,omitzero"`
	Expected time.Time `json:"expected,omitzero"`
}

// Age is how long it has lasted, Overdue how much longer than it was said to.
func (p Pause) Age(now time.Time) time.Duration { return max(0, now.Sub(p.Since)) }

// Overdue is 0 until the pause has lasted longer than it was said to.
func (p Pause) Overdue(now time.Time) time.Duration {
	if p.Expected.IsZero() {
		return 0
	}
	return max(0, now.Sub(p.Expected))
}

// String says it in a line.
func (p Pause) String() string {
	text := fmt.Sprintf("%s is paused since %s by %s: %s", p.Target, p.Since.UTC().Format(time.RFC3339), p.Actor, p.Reason)
	if !p.Until.IsZero() {
		text += "; until " + p.Until.UTC().Format(time.RFC3339)
	}
	return text
}

// inForce reports whether the note stops anything now.
func (n Note) inForce(now time.Time) bool {
	return n.Paused && (n.Until.IsZero() || now.Before(n.Until))
}

func (n Note) pause(target Target) Pause {
	return Pause{Target: target, Reason: n.Reason, Actor: n.Actor, Since: n.At, Until: n.Until, Expected: n.Expected}
}

func encode(note Note) ([]byte, error) {
	note.Format = noteFormat
	value, err := json.Marshal(note)
	if err != nil {
		return nil, fmt.Errorf("encode note: %w", err)
	}
	return value, nil
}

// decode reads a record of the control topic. is says whether it is a note at all; an error, that this release can't
// read it. A note without a value was deleted: nothing is paused.
func decode(key, value []byte) (target Target, note Note, is bool, err error) {
	name, is := strings.CutPrefix(string(key), Prefix)
	if !is {
		return "", Note{}, false, nil
	}
	target, err = ParseTarget(name)
	if err != nil {
		return "", Note{}, true, err
	}
	if value == nil {
		return target, Note{Format: noteFormat}, true, nil
	}
	if err := json.Unmarshal(value, &note); err != nil {
		return target, Note{}, true, fmt.Errorf("read note: %w", err)
	}
	if note.Format != noteFormat {
		return target, Note{}, true, fmt.Errorf("it has format %d, this release knows %d: upgrade this instance", note.Format, noteFormat)
	}
	note.At, note.Until, note.Expected = note.At.UTC(), note.Until.UTC(), note.Expected.UTC() // so that equal times are ==
	return target, note, true, nil
}

// Set is what is in force. A nil Set holds nothing.
type Set map[Target]Pause

// Input returns the narrowest pause that keeps a partition from being read.
func (s Set) Input(topic string, partition int32) (Pause, bool) {
	if len(s) == 0 {
		return Pause{}, false // the way of every transaction
	}
	return s.Of(Partition(topic, partition))
}

// Endpoint returns the pause that keeps an endpoint from being called.
func (s Set) Endpoint(name string) (Pause, bool) { return s.Of(Endpoint(name)) }

// Of returns the narrowest pause that covers a target.
func (s Set) Of(target Target) (Pause, bool) {
	for _, at := range append([]Target{target}, target.Wider()...) {
		if p, is := s[at]; is {
			return p, true
		}
	}
	return Pause{}, false
}

// List gives them in an order.
func (s Set) List() []Pause {
	list := make([]Pause, 0, len(s))
	for _, p := range s {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Pause) int { return compare(a.Target, b.Target) })
	return list
}
