package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// The flags by which an operator says why. Of dead letters --reason chooses those that were refused for one, and to take the
// one for the other would settle all of them: there it is --because.
const (
	reasonFlag  = "reason"
	becauseFlag = "because"
)

// addReason has a command that changes something ask why, in the operator's words. A dry run may do without.
func (c *cli) addReason(cmd *cobra.Command, text *string, flag, example string) {
	cmd.Flags().StringVar(text, flag, "", "`TEXT` that says why, as in \""+example+"\"; the audit keeps it")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *text = strings.TrimSpace(*text); *text == "" && !c.dryRun {
			return usage(fmt.Errorf("--%s is empty: say why, the audit keeps it; for example --%[1]s %q", flag, example))
		}
		return nil
	}
}
