package main

import (
	"strings"

	"github.com/spf13/cobra"

	"pawl/internal/app"
)

func (c *cli) newCompletionCommand() *cobra.Command {
	return &cobra.Command{
		Use:       "completion bash|zsh|fish|powershell",
		Short:     "Print the shell's completion script",
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		Example: `  source <(processor completion bash)
  processor completion zsh > "${fpath[1]}/_processor"
  processor completion fish | source`,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(c.stdout, true)
			case "zsh":
				return root.GenZshCompletion(c.stdout)
			case "fish":
				return root.GenFishCompletion(c.stdout, true)
			default:
				return root.GenPowerShellCompletionWithDesc(c.stdout)
			}
		},
	}
}

// completeFlags registers what the shell offers as values of flags.
func (c *cli) completeFlags(root *cobra.Command) error {
	if err := c.completeNames(root); err != nil {
		return err
	}
	formats := cobra.FixedCompletions([]cobra.Completion{outputTable, outputJSON}, cobra.ShellCompDirectiveNoFileComp)
	if err := root.RegisterFlagCompletionFunc("output", formats); err != nil {
		return err
	}
	return root.RegisterFlagCompletionFunc("set", func(_ *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		conf, origins, _ := app.Load(c.loadOptions()) // as far as it can be read: its routes and outputs have settings too
		var paths []cobra.Completion
		for _, setting := range origins.Settings(conf) {
			if strings.HasPrefix(setting.Path, begun) {
				paths = append(paths, setting.Path+"=")
			}
		}
		return paths, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	})
}

// completeNames lets every command's --topic and --endpoint offer those of the configuration.
func (c *cli) completeNames(cmd *cobra.Command) error {
	for flag, names := range map[string]func(app.Config) []string{
		"topic":    func(conf app.Config) []string { return conf.Preflight().Inputs },
		"endpoint": app.Config.EndpointNames,
	} {
		if cmd.Flags().Lookup(flag) == nil {
			continue
		}
		err := cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			conf, _, _ := app.Load(c.loadOptions()) // as far as it can be read
			return names(conf), cobra.ShellCompDirectiveNoFileComp
		})
		if err != nil {
			return err
		}
	}
	for _, inner := range cmd.Commands() {
		if err := c.completeNames(inner); err != nil {
			return err
		}
	}
	return nil
}
