package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const drainAskTimeout = 10 * time.Second // for the answer, which comes before the drain is over

// drainRequest is the body of POST /api/v1/drain.
type drainRequest struct {
	Leave  bool   `json:"leave"`
	Reason string `json:"reason"`
	Actor  string `json:"actor,omitempty"`
}

// drained is what `drain -o json` prints.
type drained struct {
	drainRequest

	Begun bool `json:"begun"` // false under --dry-run
}

func (c *cli) newDrainCommand() *cobra.Command {
	var (
		request            drainRequest
		address, tokenFile string
	)
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Make a running process finish and commit what it has in hand and take no more work",
		Long: `drain asks a running process to finish and commit what it has in hand and to take no more work.
The process stays a member of its group, so that a restart gets the same partitions back at once; with
--leave it leaves the group and its partitions move to the others, as a scale-down wants it.
The answer comes when the drain has begun. It needs the token of admin.token_file.`,
		Args: cobra.NoArgs,
		Example: `  processor drain --reason "node maintenance" -c config.yaml
  processor drain --leave --reason "scale down" --url http://10.0.0.7:9090 --token-file /run/secrets/admin`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			target, token, err := c.drainTarget(cmd, address, tokenFile)
			if err != nil {
				return err
			}
			return c.drain(cmd.Context(), target, token, request)
		},
	}
	cmd.Flags().BoolVar(&request.Leave, "leave", false, "also leave the consumer group")
	c.addReason(cmd, &request.Reason, reasonFlag, "node maintenance")
	cmd.Flags().StringVar(&address, "url", "", "`URL` of the process's operations HTTP (default: admin.listen on this machine)")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "`FILE` that holds the token (default: admin.token_file)")
	c.addChangeFlags(cmd)
	return cmd
}

// drainTarget finds the process and its token; the configuration is read only for what is not given.
func (c *cli) drainTarget(cmd *cobra.Command, address, tokenFile string) (target operations, token string, err error) {
	var listen string
	if address == "" || tokenFile == "" {
		conf, err := c.load(cmd)
		if err != nil {
			return operations{}, "", err
		}
		listen = conf.Admin.Listen
		if tokenFile == "" {
			tokenFile = conf.Admin.TokenFile
		}
	}
	if address != "" {
		target, err = operationsAt(address)
	} else {
		target, err = operationsOf(listen)
	}
	if err != nil {
		return operations{}, "", err
	}
	if tokenFile == "" {
		return operations{}, "", usage(errors.New("no token: set admin.token_file, here and where the process runs, or give --token-file"))
	}
	text, err := os.ReadFile(tokenFile) //nolint:gosec // the operator's own path
	if err != nil {
		return operations{}, "", usage(fmt.Errorf("read token: %w", err))
	}
	token = strings.TrimSpace(string(text))
	if token == "" {
		return operations{}, "", usage(fmt.Errorf("read token: %s is empty", tokenFile))
	}
	return target, token, nil
}

func (c *cli) drain(ctx context.Context, target operations, token string, request drainRequest) error {
	what := target.base.Redacted()
	if request.Leave {
		what += " and make it leave the group"
	}
	if c.dryRun {
		return c.render(drained{drainRequest: request}, table{rows: [][]string{{"would drain " + what}}})
	}
	if err := c.confirm("Drain " + what + "?"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, drainAskTimeout)
	defer cancel()
	request.Actor = c.actor()
	code, text, err := target.drain(ctx, token, request)
	if code == http.StatusBadRequest && strings.Contains(text, `"actor"`) {
		request.Actor = "" // a process of a release that does not ask who orders a drain: a roll must not stop for that
		code, text, err = target.drain(ctx, token, request)
	}
	if err != nil {
		return err
	}
	if code != http.StatusAccepted {
		return fmt.Errorf("%s says %d: %s", target.base.Redacted(), code, text)
	}
	return c.render(drained{drainRequest: request, Begun: true}, table{rows: [][]string{{"the drain has begun"}}})
}

func (o operations) drain(ctx context.Context, token string, request drainRequest) (code int, text string, err error) {
	body, err := json.Marshal(request)
	if err != nil {
		return 0, "", fmt.Errorf("make request: %w", err)
	}
	return o.ask(ctx, http.MethodPost, "/api/v1/drain", token, body)
}
