package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/app"
	"pawl/internal/kafka"
)

// brokers is a configuration with a connection to the cluster that it names.
type brokers struct {
	conf   app.Config
	kafka  kafka.Config
	client *kgo.Client
	admin  *kadm.Client
}

// connect loads the configuration and opens a connection, which the caller closes.
func (c *cli) connect(cmd *cobra.Command) (*brokers, error) {
	conf, err := c.load(cmd)
	if err != nil {
		return nil, err
	}
	return c.connectTo(cmd.Context(), conf)
}

// connectTo opens a connection to the brokers of a configuration, which the caller closes.
func (c *cli) connectTo(ctx context.Context, conf app.Config) (*brokers, error) {
	config := c.kafkaConfig(conf)
	client, err := openClient(ctx, config)
	if err != nil {
		return nil, err
	}
	return &brokers{conf: conf, kafka: config, client: client, admin: kadm.NewClient(client)}, nil
}

// openClient opens a connection. A configuration that cannot connect anywhere ends the program with
// exitUsage, brokers that do not let us in with exitRuntime.
func openClient(ctx context.Context, config kafka.Config) (*kgo.Client, error) {
	client, err := config.Open(ctx)
	if _, away := errors.AsType[*kafka.ConnectError](err); err != nil && !away {
		return nil, usage(err)
	}
	return client, err
}

func (b *brokers) close() { b.client.Close() }

// inputs are the topics that the service reads, each once.
func (b *brokers) inputs() []string {
	return b.conf.Preflight().Inputs
}
