// Command image packs the binaries of a release into one container image for several platforms, without a container
// engine: an OCI image layout as a tar. Nothing in it depends on where, when or in which order it was packed, so the same
// binaries give the same digest. hack/release.sh runs it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main with its streams; it returns the exit code: 0 done, 1 failed, 2 wrong usage.
func run(args []string, stdout, stderr io.Writer) int {
	r, out, binaries, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return 2
	}
	digest, err := pack(r, out, binaries)
	if err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return 1
	}
	fmt.Fprintln(stdout, digest)
	return 0
}

func parse(args []string, stderr io.Writer) (r release, out string, binaries []string, err error) {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, "Packs binaries, one for each platform, into an image and prints its digest. Example:\n\n"+
			"    go run . -tag v1.2.3 -version v1.2.3 -commit 0123abcd -date 2026-01-02T03:04:05Z -out image.tar ../../dist/processor_v1.2.3_linux_a*64\n\n")
		flags.PrintDefaults()
	}
	flags.StringVar(&r.tag, "tag", "", "`tag` of "+repository+" that engines give the image when they load it")
	flags.StringVar(&r.version, "version", "", "what processor version says")
	flags.StringVar(&r.commit, "commit", "", "of the sources")
	flags.StringVar(&r.date, "date", "", "of the commit, in the form of RFC 3339; every time in the image is this one")
	flags.StringVar(&out, "out", "", "`file` to write")
	if err := flags.Parse(args); err != nil {
		return r, "", nil, err
	}
	for _, name := range []string{"tag", "version", "commit", "date", "out"} {
		if flags.Lookup(name).Value.String() == "" {
			err = errors.Join(err, fmt.Errorf("-%s is missing", name))
		}
	}
	if flags.NArg() == 0 {
		err = errors.Join(err, errors.New("no binary is named"))
	}
	if err != nil {
		return r, "", nil, err
	}
	at, err := time.Parse(time.RFC3339, r.date)
	if err != nil {
		return r, "", nil, fmt.Errorf("-date is %q, want the form 2006-01-02T15:04:05Z: %w", r.date, err)
	}
	r.at = at.UTC()
	return r, out, flags.Args(), nil
}
