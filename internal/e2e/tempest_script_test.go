//go:build chaos && linux

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// act is one trouble that a script wants.
type act struct {
	Trouble string  `json:"trouble"`
	Seconds float64 `json:"seconds"` // for which it lasts
	Dice    uint64  `json:"dice"`    // of its further choices
}

func (a act) random() *rand.Rand { return rand.New(rand.NewPCG(a.Dice, 1)) }

// turn is a set of troubles at once, and the pause after they have healed.
type turn struct {
	Acts  []act   `json:"acts"`
	Pause float64 `json:"pause"` // seconds
}

// script is what a tempest does, all of it decided before it begins. What it meets is not: a script that
// is run again finds other records on their way.
type script struct {
	Seed     uint64 `json:"seed"`
	Protocol string `json:"protocol"` // of the group, as in kafka.protocol
	Turns    []turn `json:"turns"`
}

// The group protocols. Every consumerShare-th seed, on average, takes the newer one.
const (
	protocolClassic  = "classic"
	protocolConsumer = "consumer" // KIP-848
	consumerShare    = 3
)

const (
	actsMax  = 3 // at once
	pauseMin = 1.5
	pauseMax = 4.0
	calm     = 12 // every so many-th turn is none, on average
)

// write draws turns that last for so long when nothing waits. Kinds are dealt as cards are: none comes
// again before all have come. Troubles of one turn never take hold of the same thing.
func write(number uint64, kinds []trouble, duration time.Duration) script {
	random := rand.New(rand.NewPCG(number, 0))
	s := script{Seed: number, Protocol: protocolClassic}
	if random.IntN(consumerShare) == 0 {
		s.Protocol = protocolConsumer
	}
	var deck []trouble
	for total := 0.0; total < duration.Seconds(); {
		t := turn{Pause: pauseMin + random.Float64()*(pauseMax-pauseMin)}
		longest := 0.0
		count := 1 + random.IntN(actsMax)
		if random.IntN(calm) == 0 {
			count = 0
		}
		var taken []seat
		for range count {
			if len(deck) < actsMax {
				deal := slices.Clone(kinds)
				random.Shuffle(len(deal), func(i, j int) { deal[i], deal[j] = deal[j], deal[i] })
				deck = append(deck, deal...)
			}
			at := slices.IndexFunc(deck, func(k trouble) bool { return !slices.Contains(taken, k.seat) })
			if at < 0 {
				break
			}
			kind := deck[at]
			deck = slices.Delete(deck, at, at+1)
			taken = append(taken, kind.seat)
			seconds := kind.least + random.Float64()*(kind.most-kind.least)
			longest = max(longest, seconds)
			t.Acts = append(t.Acts, act{Trouble: kind.name, Seconds: seconds, Dice: random.Uint64()})
		}
		total += longest + t.Pause + turnOverhead
		s.Turns = append(s.Turns, t)
	}
	return s
}

// turnOverhead is about what a turn takes beside its longest trouble and its pause, in seconds.
const turnOverhead = 1.0

func readScript(path string) (script, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return script{}, err
	}
	var s script
	if err := json.Unmarshal(text, &s); err != nil {
		return script{}, fmt.Errorf("read script %s: %w", path, err)
	}
	for _, t := range s.Turns {
		for _, a := range t.Acts {
			if _, known := troubleNamed(a.Trouble); !known {
				return script{}, fmt.Errorf("read script %s: there is no trouble %q", path, a.Trouble)
			}
		}
	}
	return s, nil
}

// keep writes something as JSON beside the logs of a run.
func keep(t testing.TB, path string, what any) {
	t.Helper()
	text, err := json.MarshalIndent(what, "", " ")
	if err == nil {
		err = os.WriteFile(path, append(text, '\n'), 0o600)
	}
	if err != nil {
		t.Errorf("keep %s: %v", path, err)
	}
}

// A seed says everything: the same one writes the same script. Every kind of trouble comes before any comes
// again, and what is at work at once never fights for one thing.
func TestTempestScriptIsTheSeeds(t *testing.T) {
	t.Parallel()
	kinds := troubles()
	length := 20 * time.Minute
	one, again, other := write(1, kinds, length), write(1, kinds, length), write(2, kinds, length)
	text := func(s script) string {
		all, err := json.Marshal(s.Turns)
		if err != nil {
			t.Fatal(err)
		}
		return string(all)
	}
	if text(one) != text(again) || text(one) == text(other) {
		t.Error("the script is not what its seed says")
	}
	counts := map[string]int{}
	for _, turn := range one.Turns {
		var taken []string
		for _, a := range turn.Acts {
			kind, known := troubleNamed(a.Trouble)
			if !known || a.Seconds < kind.least || a.Seconds > kind.most {
				t.Errorf("act %+v is none of a trouble between %v and %v s", a, kind.least, kind.most)
			}
			counts[a.Trouble]++
			taken = append(taken, string(kind.seat))
		}
		slices.Sort(taken)
		if len(slices.Compact(slices.Clone(taken))) != len(taken) {
			t.Errorf("one turn takes hold of %s", strings.Join(taken, ", "))
		}
	}
	least, most := length, time.Duration(0)
	for _, kind := range kinds {
		least, most = min(least, time.Duration(counts[kind.name])), max(most, time.Duration(counts[kind.name]))
	}
	if least == 0 || most > least+2 {
		t.Errorf("kinds come %d to %d times: %v", least, most, counts)
	}
}
