package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

const sessionCommand = "session" // first argument with which this program is the session

// sessionPeer is what one writes with the client's own transactions: a single GroupTransactSession with
// the client's defaults. This program runs itself again as that, see runSession.
type sessionPeer struct{ self string }

func (p *sessionPeer) name() string { return sessionName }
func (p *sessionPeer) members() int { return 1 }
func (p *sessionPeer) exact() bool  { return true }

func (p *sessionPeer) prepare(ctx context.Context, s *stage, j job) error {
	return s.createTopic(ctx, j.out, s.settings.parts)
}

func (p *sessionPeer) commands(ctx context.Context, j job) []*exec.Cmd {
	return []*exec.Cmd{exec.CommandContext(ctx, p.self, sessionCommand, strings.Join(j.brokers, ","), j.name, j.in, j.out)} //nolint:gosec // this very program
}

// runSession copies exactly once until ctx ends: poll what is there, begin, produce, end. The client has
// its defaults but for compression, which no peer uses. Arguments: brokers, group, topic in, topic out.
func runSession(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("%s: want brokers, group, topic in, topic out", sessionCommand)
	}
	session, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(strings.Split(args[0], ",")...),
		kgo.ConsumerGroup(args[1]),
		kgo.TransactionalID(args[1]),
		kgo.ConsumeTopics(args[2]),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.DefaultProduceTopic(args[3]),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	)
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	defer session.Close()
	for {
		fetches := session.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil // asked to end; nothing is begun
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		if err := copyTransaction(context.WithoutCancel(ctx), session, fetches); err != nil {
			return err
		}
	}
}

// copyTransaction copies what was polled in one transaction. One that the group's rebalance aborts is no
// error: the session goes back to where it was and the records are polled again.
func copyTransaction(ctx context.Context, session *kgo.GroupTransactSession, fetches kgo.Fetches) error {
	if err := session.Begin(); err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	promise := kgo.AbortingFirstErrPromise(session.Client())
	fetches.EachRecord(func(record *kgo.Record) {
		session.Produce(ctx, &kgo.Record{Key: record.Key, Value: record.Value, Headers: record.Headers, Timestamp: record.Timestamp}, promise.Promise())
	})
	failed := promise.Err()
	if _, err := session.End(ctx, failed == nil); err != nil {
		return fmt.Errorf("end a transaction: %w", errors.Join(err, failed))
	}
	if failed != nil {
		return fmt.Errorf("produce: %w", failed)
	}
	return nil
}
