package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Stamped by the linker: -ldflags "-X main.version=v1.2.3 -X main.commit=... -X main.date=...".
// They are variables because the linker sets nothing else; no code changes them.
var version, commit, date string

// build says which program this is.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Date    string `json:"date"` // of the build or, where unstamped, of the commit; RFC 3339
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// thisBuild prefers what the linker stamped over what the Go command noted.
func thisBuild() build {
	b := build{Version: version, Commit: commit, Date: date, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, found := debug.ReadBuildInfo()
	if !found {
		info = &debug.BuildInfo{}
	}
	noted := map[string]string{}
	for _, setting := range info.Settings {
		noted[setting.Key] = setting.Value
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Version == "" {
		b.Version = "(devel)"
	}
	if b.Commit == "" {
		b.Commit = noted["vcs.revision"]
		if b.Commit != "" && noted["vcs.modified"] == "true" {
			b.Commit += "-dirty"
		}
	}
	if b.Date == "" {
		b.Date = noted["vcs.time"]
	}
	return b
}

func (c *cli) newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and date of this build",
		Args:  cobra.NoArgs,
		Example: `  processor version
  processor version -o json`,
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			return c.render(b, table{rows: [][]string{
				{"version", b.Version},
				{"commit", b.Commit},
				{"date", b.Date},
				{"go", b.Go},
				{"platform", b.OS + "/" + b.Arch},
			}})
		},
	}
}
