package main

import (
	"github.com/spf13/cobra"

	"pawl/internal/app"
)

func (c *cli) newConfigCommand() *cobra.Command {
	return newGroup("config", "Show the configuration and its schema", `  processor config print -c config.yaml
  processor config schema > config.schema.json`,
		c.newConfigPrintCommand(), c.newConfigSchemaCommand())
}

func (c *cli) newConfigPrintCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "print",
		Short: "Print the merged configuration, secrets hidden, with the origin of each value",
		Long: `Print the configuration as the service would see it: defaults, under the file, under PROCESSOR_*
variables, under --set. Behind each value stands where it comes from. Secrets are printed as ***.

A configuration with problems is printed as far as it could be read; the problems follow on stderr
and the exit code is 2.`,
		Args: cobra.NoArgs,
		Example: `  processor config print -c config.yaml
  PROCESSOR_TXN_LANES=4 processor config print -c config.yaml --set log.level=debug
  processor config print -c config.yaml -o json`,
		RunE: func(*cobra.Command, []string) error {
			conf, origins, problems := app.Load(c.loadOptions())
			var err error
			if c.output == outputJSON {
				err = c.render(origins.Settings(conf), table{})
			} else {
				err = origins.Print(c.stdout, conf)
			}
			if err != nil {
				return err
			}
			return usage(problems)
		},
	}
}

func (c *cli) newConfigSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration file",
		Long: `Print the JSON Schema of the configuration file, for editors. Name it in the file's first line:

    # yaml-language-server: $schema=config.schema.json`,
		Args:    cobra.NoArgs,
		Example: `  processor config schema > config.schema.json`,
		RunE: func(*cobra.Command, []string) error {
			schema, err := app.Schema()
			if err != nil {
				return err
			}
			_, err = c.stdout.Write(schema)
			return err
		},
	}
}
