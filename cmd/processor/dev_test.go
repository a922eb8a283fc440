package main

import (
	"strings"
	"testing"
)

// Mistakes in the flags end with the exit code of wrong usage, all at once, before anything is started.
func TestDevRefusesWrongFlags(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"dev":  {[]string{"--kafka", "pigeon", "--brokers", "9"}, []string{"--kafka", "--brokers"}},
		"demo": {[]string{"--demo", "--instances", "1", "--orders", "3", "--data-dir", "x"}, []string{"--instances", "--orders", "--data-dir"}},
		"rate": {[]string{"--rate", "NaN"}, []string{"--rate"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := invoke(t, nil, append([]string{"dev"}, test.args...)...)
			if got.code != exitUsage || got.stdout != "" {
				t.Errorf("got %+v, want exit code %d and nothing on stdout", got, exitUsage)
			}
			for _, want := range test.want {
				if !strings.Contains(got.stderr, want) {
					t.Errorf("stderr %q does not name %s", got.stderr, want)
				}
			}
		})
	}
}
