package app

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/outbox"
	"pawl/internal/outbox/dispatch"
	"pawl/internal/outbox/ingest"
	"pawl/internal/outbox/rebuild"
	"pawl/internal/outbox/relay"
)

// RebuildStore is a ledger that can be rebuilt.
type RebuildStore interface {
	rebuild.Store
	ingest.Store
}

// Rebuild prepares to fill a ledger from the topics of this application; the caller sets the topic's id and
// what is to be left out. client stays open as long as the rebuild runs, and options are those that it was made with.
func (c Config) Rebuild(client *kgo.Client, options []kgo.Opt, store RebuildStore) rebuild.Config {
	filling := ingest.Config{Client: options, Topic: c.EffectsTopic(), Store: store, BatchMax: ingestRecords, BytesMax: ingestBytes}
	telling := relay.Config{Client: options, Application: c.Application, ResultsTopic: c.ResultsTopic()}
	return rebuild.Config{
		Store: store,
		Fence: func(ctx context.Context, lane int32) error { return relay.Fence(ctx, telling, lane) },
		Fill: func(ctx context.Context, lane int32) (rebuild.Filler, error) {
			filler, err := ingest.OpenFiller(ctx, filling, lane)
			if err != nil {
				return nil, err // not a nil pointer in an interface
			}
			return filler, nil
		},
		Told: func(ctx context.Context, lane int32, visit func(outbox.Result) error) error {
			return relay.Tellings(ctx, client, c.ResultsTopic(), lane, visit)
		},
		Holds: func(endpoint string) bool {
			return dispatch.OnDead(c.Endpoints[endpoint].OnDead) == dispatch.Hold
		},
	}
}
