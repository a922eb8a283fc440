package relay

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/message"
	"pawl/internal/outbox"
)

// Fence locks out whoever relays a lane. When it returns, a transaction that a relay has left open is decided. Of the
// configuration it needs what says where the relay writes.
func Fence(ctx context.Context, c Config, lane int32) error {
	p, err := openProducer(ctx, c, lane)
	if err != nil {
		return fmt.Errorf("lock out the relay of lane %d: %w", lane, err)
	}
	p.close()
	return nil
}

// Tellings gives visit what the results topic has told of a lane so far, in the order in which it was told:
// the outcomes, each with as much of its intent as its event holds, and no number of a flush. An effect may
// come more than once: an operator may have retried a dead one. It waits for transactions that are still open.
func Tellings(ctx context.Context, client *kgo.Client, topic string, lane int32, visit func(outbox.Result) error) error {
	start, end, err := bounds(ctx, client, topic, lane)
	if err != nil {
		return err
	}
	return readPartition(ctx, client, topic, lane, start, end, func(r *kgo.Record) error {
		result, err := decodeEvent(r, lane)
		if err != nil {
			return fmt.Errorf("decode result event at %s/%d/%d: %w; only Pawl writes there: run the release that wrote it, or a later one", topic, lane, r.Offset, err)
		}
		return visit(result)
	})
}

// decodeEvent is the reverse of record.
func decodeEvent(r *kgo.Record, lane int32) (outbox.Result, error) {
	var e event
	if err := json.Unmarshal(r.Value, &e); err != nil {
		return outbox.Result{}, err
	}
	if e.Format != eventFormat || e.Lane != lane {
		return outbox.Result{}, fmt.Errorf("it has format %d and lane %d, want %d and %d", e.Format, e.Lane, eventFormat, lane)
	}
	id, err := parseID(e.EffectID)
	if err != nil {
		return outbox.Result{}, err
	}
	result := outbox.Result{
		Outcome: outbox.Outcome{Offset: e.Offset, Status: e.Status, Attempts: e.Attempts, HTTPStatus: e.HTTPStatus, Error: e.Error},
		Intent: outbox.Intent{
			Lane: lane, Offset: e.Offset, ID: id, Endpoint: e.Endpoint, BusinessKey: e.BusinessKey,
			ContentType: e.Request.ContentType, Key: r.Key, Body: e.Request.Body,
		},
	}
	if e.First != nil {
		result.Intent.Twin = &outbox.Twin{Lane: e.First.Lane, Offset: e.First.Offset, Same: e.Status == outbox.Duplicate}
	}
	if e.Response != nil {
		result.Outcome.Response = &outbox.Response{ContentType: e.Response.ContentType, Body: e.Response.Body, Truncated: e.Response.Truncated}
	}
	return result, nil
}

func parseID(text string) (id message.ID, err error) {
	digits, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || copy(id[:], digits) != len(digits) || id.String() != text {
		return id, fmt.Errorf("effect_id %q is no UUID", text)
	}
	return id, nil
}
