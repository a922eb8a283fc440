package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	readyRetry   = 50 * time.Millisecond
	readyRequest = 5 * time.Second
)

// waitReady returns when node n answers as a registered member of the cluster, or with the last lines
// of its log when it ends before or ctx does.
func (k *Kafka) waitReady(ctx context.Context, n *node) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(n.internal.address()), kgo.RequestRetries(0),
		kgo.DialTimeout(readyRequest), kgo.RetryTimeout(readyRequest))
	if err != nil {
		return fmt.Errorf("make client for node %d: %w", n.id, err)
	}
	defer client.Close()
	n.mu.Lock()
	process := n.process
	n.mu.Unlock()
	ticker := time.NewTicker(readyRetry)
	defer ticker.Stop()
	for {
		err := probe(ctx, client.SeedBrokers()[0], n.id)
		if err == nil {
			return nil
		}
		select {
		case <-process.gone:
			return fmt.Errorf("node %d ended before it was ready (%w), log %s:%s", n.id, process.err, n.logPath(), tail(n.logPath()))
		case <-ctx.Done():
			return fmt.Errorf("node %d is not ready (%w; %w), log %s:%s", n.id, ctx.Err(), err, n.logPath(), tail(n.logPath()))
		case <-ticker.C:
		}
	}
}

// probe asks a node for the cluster's metadata. A node lists itself once its registration has come
// back to it, unfenced; before that, clients would be sent to the other nodes.
func probe(ctx context.Context, broker *kgo.Broker, id int) error {
	ctx, cancel := context.WithTimeout(ctx, readyRequest)
	defer cancel()
	response, err := broker.Request(ctx, kmsg.NewPtrMetadataRequest())
	if err != nil {
		return fmt.Errorf("ask for metadata: %w", err)
	}
	metadata, ok := response.(*kmsg.MetadataResponse)
	if !ok {
		return fmt.Errorf("ask for metadata: got %T", response)
	}
	if metadata.ControllerID < 0 {
		return errors.New("the cluster has no controller yet")
	}
	for _, b := range metadata.Brokers {
		if int(b.NodeID) == id {
			return nil
		}
	}
	return errors.New("the node is not a member of the cluster yet")
}
