package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/yardstick"
)

// newBenchLoopCommand is the loop that bench compares with, as the process that it starts. It takes its
// topics from a configuration, just as `processor run` does.
func (c *cli) newBenchLoopCommand() *cobra.Command {
	members := 0
	cmd := &cobra.Command{
		Use:     "loop",
		Short:   "Copy at least once: what bench compares with, as it runs it",
		Example: `  processor bench loop -c config.yaml`,
		Hidden:  true,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.benchLoop(cmd, members) },
	}
	cmd.Flags().IntVar(&members, "members", 1, "members of the group in this process, `NUMBER`")
	return cmd
}

// benchLoop copies from the first input to the output of a configuration until it is told to end.
func (c *cli) benchLoop(cmd *cobra.Command, members int) error {
	conf, err := c.load(cmd)
	if err != nil {
		return err
	}
	output, found := conf.Outputs[benchOutput]
	if !found || members < 1 {
		return usage(fmt.Errorf("want an output named %s and --members of at least 1", benchOutput))
	}
	options, err := c.kafkaConfig(conf).Options()
	if err != nil {
		return usage(err)
	}
	codec, err := conf.Codec()
	if err != nil {
		return usage(err)
	}
	options = append(options, kgo.ProducerBatchCompression(codec))
	return yardstick.Loop(cmd.Context(), options, yardstick.Task{Group: conf.Group(), In: conf.Routes[0].Topics[0], Out: output.Topic}, members)
}
