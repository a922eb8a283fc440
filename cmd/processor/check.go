package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"pawl/internal/app"
	"pawl/internal/kafka"
)

// checked is what `check -o json` prints.
type checked struct {
	OK       bool            `json:"ok"`
	Problems []problem       `json:"problems"`
	Findings []kafka.Finding `json:"findings,omitempty"` // of --connect
	Rights   []kafka.Right   `json:"rights,omitempty"`   // of --rights
}

// problem is an app.Problem for machines.
type problem struct {
	Severity string `json:"severity"` // error or warning
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	Env      string `json:"env,omitempty"`
	Set      string `json:"set,omitempty"`
	Path     string `json:"path,omitempty"`
	Problem  string `json:"problem"`
}

func newProblem(from app.Problem) problem {
	p := problem{Severity: "error", Path: from.Path, Problem: from.Text, Line: from.Origin.Line, Column: from.Origin.Column}
	if from.Warning {
		p.Severity = "warning"
	}
	switch from.Origin.Kind {
	case app.FromFile:
		p.File = from.Origin.Name
	case app.FromEnv:
		p.Env = from.Origin.Name
	case app.FromSet:
		p.Set = from.Origin.Name
	case app.FromDefault:
	}
	return p
}

func (c *cli) newCheckCommand() *cobra.Command {
	var connect, rights bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say everything that is wrong with the configuration",
		Long: `Read the configuration as the service would and report every problem at once, each as
file:line:col: path: problem. Nothing is asked of the network and no secret is read.

With --connect, a configuration without problems is then held against the brokers: can they be
reached and entered, are topics and rights there, is the cluster fit for transactions.

With --rights it lists what brokers that deny by default must allow the service, each with the command that
gives it. The service needs no more than that.

Exit code 2: the configuration is wrong. Exit code 3: the brokers are not ready for it.`,
		Args: cobra.NoArgs,
		Example: `  processor check -c config.yaml
  processor check -c config.yaml --connect
  processor check -c config.yaml --rights
  processor check -c config.yaml -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.check(cmd.Context(), connect, rights) },
	}
	cmd.Flags().BoolVar(&rights, "rights", false, "list the rights that the service needs of the brokers")
	cmd.Flags().BoolVar(&connect, "connect", false, "hold the configuration against the brokers")
	return cmd
}

func (c *cli) check(ctx context.Context, connect, rights bool) error {
	conf, origins, err := app.Load(c.loadOptions())
	problems, _ := errors.AsType[app.Problems](err)
	if tracing := app.CheckTracing(c.env); tracing != nil {
		problems = append(problems, tracing...)
		err = problems
	}
	result := checked{OK: err == nil, Problems: []problem{}}
	for _, p := range slices.Concat(problems, origins.Warnings()) {
		result.Problems = append(result.Problems, newProblem(p))
	}
	if c.output == outputTable {
		c.printProblems(c.stdout, slices.Concat(problems, origins.Warnings()))
	}
	if err != nil {
		c.printSummary(problems)
		if c.output == outputJSON {
			if err := c.render(result, table{}); err != nil {
				return err
			}
		}
		return &exitError{code: exitUsage}
	}
	if connect {
		result.Findings = kafka.Preflight(ctx, c.kafkaConfig(conf), conf.Preflight())
		result.OK = kafka.Failed(result.Findings) == nil
	}
	if rights {
		result.Rights = kafka.Rights(c.kafkaConfig(conf), conf.Preflight())
	}
	if err := c.render(result, c.checkTable(conf, result)); err != nil {
		return err
	}
	if !result.OK {
		return findings()
	}
	return nil
}

func (c *cli) checkTable(conf app.Config, result checked) table {
	file := cmp.Or(c.configFile(), "environment")
	t := table{rows: [][]string{{
		c.paint(c.stdout, green, "ok"), "configuration",
		fmt.Sprintf("%s: application %s, instance %s, %s, %s", file, conf.Application, conf.Instance,
			count(len(conf.Routes), "route"), count(len(conf.Outputs), "output")),
	}}}
	colors := map[kafka.Status]color{kafka.OK: green, kafka.Degraded: yellow, kafka.Problem: red}
	for _, finding := range result.Findings {
		t.rows = append(t.rows, []string{c.paint(c.stdout, colors[finding.Status], string(finding.Status)), finding.Check, finding.Detail})
		if finding.Next != "" {
			t.rows = append(t.rows, []string{"", "", "-> " + finding.Next})
		}
	}
	for _, right := range result.Rights {
		name := right.Name
		if right.Prefixed {
			name += "*"
		}
		t.rows = append(t.rows,
			[]string{"right", string(right.Resource), fmt.Sprintf("%s: %s: %s", name, strings.Join(right.Operations, ", "), right.Why)},
			[]string{"", "", "-> run `" + right.Command + "`"})
	}
	return t
}
