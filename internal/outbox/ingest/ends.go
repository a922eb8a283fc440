package ingest

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// endsEvery is how old the end of a lane that does not read may be.
const endsEvery = 5 * time.Second

// followEnds keeps the status of lanes that don't read up to date until ctx ends. A lane that reads hears of the end with
// every fetch; one that waits for the ledger, or is halted, hears of nothing, and what piles up meanwhile must be in view.
func (i *Ingester) followEnds(ctx context.Context, client *kgo.Client) {
	ticker := time.NewTicker(endsEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if lanes := i.notReading(); len(lanes) > 0 {
			refreshEnds(ctx, client, i.config.Topic, lanes)
		}
	}
}

func (i *Ingester) notReading() []*lane {
	i.mu.Lock()
	defer i.mu.Unlock()
	var lanes []*lane
	for _, l := range i.lanes {
		if l.snapshot().State != Reading {
			lanes = append(lanes, l)
		}
	}
	return lanes
}

// refreshEnds asks once for all lanes. A lane of which the brokers don't tell keeps the end that it has until the next time.
func refreshEnds(ctx context.Context, client *kgo.Client, topic string, lanes []*lane) {
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	ends, err := kadm.NewClient(client).ListCommittedOffsets(ctx, topic)
	for _, l := range lanes {
		if end, err := offsetOf(ends, err, topic, l.number); err == nil {
			l.sawEnd(end)
		}
	}
}
