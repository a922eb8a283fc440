//go:build chaos && linux

package e2e

import (
	"context"
	"slices"
)

// seat is what a trouble takes hold of; at most one at a time has it.
type seat string

const (
	onProcessors seat = "processors"
	onBrokers    seat = "brokers"
	onNetwork    seat = "network"
	onTopics     seat = "topics"
	onDatabase   seat = "database"
	onTill       seat = "till"
)

// trouble is a kind of fault. strike makes it happen, keeps it up until ctx ends, takes it back, and gives
// the proof that it bit: empty where it did not, which counts for nothing but is no error. An error is
// that it could not be made or taken back.
type trouble struct {
	name        string
	seat        seat
	least, most float64 // seconds
	strike      func(ctx context.Context, w *tempest, a act) (proof string, err error)
}

// troubles lists all kinds.
func troubles() []trouble {
	return slices.Concat(processorTroubles(), brokerTroubles(), topicTroubles(), networkTroubles(), databaseTroubles(), tillTroubles())
}

func troubleNamed(name string) (trouble, bool) {
	all := troubles()
	at := slices.IndexFunc(all, func(t trouble) bool { return t.name == name })
	if at < 0 {
		return trouble{}, false
	}
	return all[at], true
}
