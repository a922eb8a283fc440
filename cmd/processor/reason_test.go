package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every command by which an operator changes something wants to know why, says so with an example, and shows one in its help.
// What brings about what the configuration says, or only measures, has no reason of its own.
func TestEveryCommandThatChangesSomethingAsksWhy(t *testing.T) {
	t.Parallel()
	without := []string{"topics apply", "migrate up", "bench", "bench clean"}
	asked := 0
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, child := range cmd.Commands() {
			walk(child)
		}
		name := strings.TrimPrefix(cmd.CommandPath(), "processor ")
		if cmd.Flags().Lookup("dry-run") == nil || slices.Contains(without, name) {
			return
		}
		flag := reasonFlag
		if strings.HasPrefix(name, "dlq ") {
			flag = becauseFlag
		}
		asked++
		if cmd.Flags().Lookup(flag) == nil || !strings.Contains(cmd.Example, "--"+flag+` "`) && !strings.Contains(cmd.Example, "--"+flag+" '") {
			t.Errorf("%s has no --%s, or its help no example of it", name, flag)
		}
		if cmd.PreRunE == nil {
			t.Errorf("%s does not ask why", name)
			return
		}
		if err := cmd.PreRunE(cmd, nil); err == nil || !strings.Contains(err.Error(), "--"+flag+" is empty: say why") || !strings.Contains(err.Error(), "for example --"+flag+` "`) {
			t.Errorf("%s without a reason: %v", name, err)
		}
		for _, set := range [][2]string{{flag, "  "}, {"dry-run", "true"}} {
			if err := cmd.Flags().Set(set[0], set[1]); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if err := cmd.PreRunE(cmd, nil); (err == nil) != (set[0] == "dry-run") {
				t.Errorf("%s with --%s=%q: %v", name, set[0], set[1], err)
			}
		}
		_ = cmd.Flags().Set("dry-run", "false")
	}
	walk(newCLI(nil, nil, nil, nil).newRootCommand())
	if asked < 12 {
		t.Errorf("%d commands were asked, want 12 at least", asked)
	}
}
