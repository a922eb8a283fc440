package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

const healthcheckTimeout = 3 * time.Second

func (c *cli) newHealthcheckCommand() *cobra.Command {
	var (
		address string
		ready   bool
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a process on this machine whether it is well, for container health checks",
		Long: `healthcheck asks /livez, or with --ready /readyz, and exits 0 where the answer is yes, else 1.
The address comes from --url, else from the setting admin.listen. No other setting matters, and no file is needed.`,
		Args: cobra.NoArgs,
		Example: `  processor healthcheck
  processor healthcheck --ready --url http://127.0.0.1:9090`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			path := "/livez"
			if ready {
				path = "/readyz"
			}
			target, doubt, err := c.healthcheckTarget(cmd, address)
			if err != nil {
				return err
			}
			code, text, err := target.ask(ctx, http.MethodGet, path, "", nil)
			if err != nil && doubt != nil {
				return fmt.Errorf("%w; the configuration here has problems, so that the address may be wrong: "+
					"run processor check, or give --url", err)
			}
			if err != nil {
				return err
			}
			if code != http.StatusOK {
				return fmt.Errorf("%s says %d: %s", path, code, text)
			}
			return c.render(map[string]string{"endpoint": path, "answer": text}, table{rows: [][]string{{text}}})
		},
	}
	cmd.Flags().StringVar(&address, "url", "", "`URL` of the process's operations HTTP")
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether it is ready to work, not only alive")
	cmd.Flags().DurationVar(&timeout, "timeout", healthcheckTimeout, "how long to wait for the answer")
	return cmd
}

// healthcheckTarget finds the process. What may be wrong with the rest of the configuration is no
// concern of ours, the process has judged it: doubt only helps to explain why nothing answers.
func (c *cli) healthcheckTarget(cmd *cobra.Command, address string) (target operations, doubt, err error) {
	if address != "" {
		target, err = operationsAt(address)
		return target, nil, err
	}
	conf, doubt := c.load(cmd)
	target, err = operationsOf(conf.Admin.Listen)
	return target, doubt, err
}
