package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// member is a client that is in the group and reads nothing: the lanes read for themselves, so that no
// wait for the ledger delays a rebalance, and no rebalance moves a lane's position.
type member struct {
	client *kgo.Client
	cancel context.CancelFunc // of everything the client still waits for
}

// closeTimeout bounds the farewell from the group.
const closeTimeout = 3 * time.Second

func (i *Ingester) join(ctx context.Context) (*member, error) {
	c := i.config
	// Not derived from ctx: leaving the group comes after the order to stop.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	client, err := kgo.NewClient(append(c.membership(),
		kgo.WithContext(life),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, assigned map[string][]int32) {
			for _, number := range assigned[c.Topic] {
				i.begin(ctx, number)
			}
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, revoked map[string][]int32) { i.end(revoked[c.Topic]) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) { i.end(lost[c.Topic]) }),
	)...)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("ingest: join group %s: %w", c.Group, err)
	}
	return &member{client, cancel}, nil
}

// membership makes a client a member of the group.
func (c Config) membership() []kgo.Opt {
	opts := append(slices.Clone(c.Client),
		kgo.ConsumerGroup(c.Group),
		kgo.ConsumeTopics(c.Topic),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.DisableAutoCommit(), // positions are in the ledger
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		// No partition is left for this client to read.
		kgo.AdjustFetchOffsetsFn(func(context.Context, map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
			return map[string]map[int32]kgo.Offset{}, nil
		}),
	)
	if c.InstanceID != "" {
		opts = append(opts, kgo.InstanceID(c.InstanceID))
	}
	for _, o := range []struct {
		value  time.Duration
		option func(time.Duration) kgo.GroupOpt
	}{{c.SessionTimeout, kgo.SessionTimeout}, {c.Heartbeat, kgo.HeartbeatInterval}, {c.RebalanceTimeout, kgo.RebalanceTimeout}} {
		if o.value != 0 {
			opts = append(opts, o.option(o.value))
		}
	}
	return opts
}

// watch reports what goes wrong with the group until ctx ends. The client mends it by itself.
func watch(ctx context.Context, m *member, hooks Hooks) {
	for ctx.Err() == nil {
		m.client.PollFetches(ctx).EachError(func(_ string, _ int32, err error) {
			if ctx.Err() == nil && !errors.Is(err, kgo.ErrClientClosed) {
				hook(hooks.Retrying, NoLane, err)
			}
		})
	}
}

func (m *member) close() {
	timer := time.AfterFunc(closeTimeout, m.cancel)
	defer timer.Stop()
	defer m.cancel()
	m.client.Close()
}

// leave removes a member that has a name by it (KIP-345), if it was told to. Its own client is closed by then:
// one that is told by its next heartbeat that it is no member would join again.
func (i *Ingester) leave(ctx context.Context) {
	i.mu.Lock()
	leaving := i.leaving
	i.mu.Unlock()
	c := i.config
	if !leaving || c.InstanceID == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := c.leave(ctx); err != nil {
		hook(c.Hooks.Retrying, NoLane, fmt.Errorf("leave group %s: %w; its lanes move after the session timeout", c.Group, err))
	}
}

func (c Config) leave(ctx context.Context) error {
	client, err := kgo.NewClient(c.Client...)
	if err != nil {
		return fmt.Errorf("open a client: %w", err)
	}
	defer client.Close()
	left, err := kadm.NewClient(client).LeaveGroup(ctx, kadm.LeaveGroup(c.Group).InstanceIDs(c.InstanceID).Reason("scale-down"))
	if err == nil {
		err = left[c.InstanceID].Err
	}
	if errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.GroupIDNotFound) {
		return nil
	}
	return err
}

// hook calls an optional hook.
func hook[A, B any](f func(A, B), a A, b B) {
	if f != nil {
		f(a, b)
	}
}
