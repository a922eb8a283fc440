package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const repository = "pawl/processor" // as in the Makefile and in the chart's values

// release is what an image says about its origin.
type release struct {
	tag, version, commit, date string
	at                         time.Time // date, parsed
}

// pack writes the image of these binaries and returns its digest.
func pack(r release, out string, binaries []string) (v1.Hash, error) {
	index, err := r.index(binaries)
	if err != nil {
		return v1.Hash{}, err
	}
	if err := r.writeArchive(out, index); err != nil {
		return v1.Hash{}, fmt.Errorf("write %s: %w", out, err)
	}
	return index.Digest()
}

// index is the image for all platforms, in an order of their own.
func (r release) index(binaries []string) (v1.ImageIndex, error) {
	var images []mutate.IndexAddendum
	for _, path := range binaries {
		binary, err := os.ReadFile(path) //nolint:gosec // what the release has just built
		if err != nil {
			return nil, err
		}
		platform, err := platformOf(binary)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		image, err := r.image(platform, binary)
		if err != nil {
			return nil, fmt.Errorf("make the image of %s: %w", path, err)
		}
		images = append(images, mutate.IndexAddendum{Add: plain{image}, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	slices.SortFunc(images, func(a, b mutate.IndexAddendum) int {
		return strings.Compare(a.Platform.Architecture, b.Platform.Architecture)
	})
	for i := 1; i < len(images); i++ {
		if images[i].Platform.Equals(*images[i-1].Platform) {
			return nil, fmt.Errorf("two of the binaries are for %s", images[i].Platform)
		}
	}
	return mutate.AppendManifests(empty.Index, images...), nil
}

// plain keeps the library from giving an image's entry in the index an artifact type, which no image needs. Many a skopeo forgets that field when it copies
// the index, and so changes the digest, or refuses to with --preserve-digests.
type plain struct{ v1.Image }

// ArtifactType is asked for by package partial.
func (plain) ArtifactType() (string, error) { return "", nil }

// image is that of one platform: one layer, since all of it but the binary is small.
func (r release) image(platform v1.Platform, binary []byte) (v1.Image, error) {
	layer, err := newLayer(files(binary), r.at)
	if err != nil {
		return nil, err
	}
	image, err := mutate.ConfigFile(empty.Image, r.config(platform))
	if err != nil {
		return nil, err
	}
	image, err = mutate.Append(image, mutate.Addendum{Layer: layer, History: v1.History{
		Created: v1.Time{Time: r.at}, CreatedBy: "hack/release.sh",
	}})
	if err != nil {
		return nil, err
	}
	return mutate.ConfigMediaType(mutate.MediaType(image, types.OCIManifestSchema1), types.OCIConfigJSON), nil
}

// config says what the Dockerfile says; a test of deploy/test holds one against the other.
func (r release) config(platform v1.Platform) *v1.ConfigFile {
	const label = "org.opencontainers.image."
	return &v1.ConfigFile{
		OS: platform.OS, Architecture: platform.Architecture,
		Created: v1.Time{Time: r.at},
		RootFS:  v1.RootFS{Type: "layers"},
		Config: v1.Config{
			User:         "65532:65532",
			ExposedPorts: map[string]struct{}{"9090/tcp": {}},
			Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PROCESSOR_CONFIG=/etc/pawl/processor.yaml"},
			Entrypoint:   []string{"processor"},
			Cmd:          []string{"run"},
			WorkingDir:   "/",
			StopSignal:   "SIGTERM",
			// Docker's; the OCI's form has no such field and whoever does not know it passes over it.
			Healthcheck: &v1.HealthConfig{
				Test:     []string{"CMD", "processor", "healthcheck"},
				Interval: 10 * time.Second, Timeout: 5 * time.Second, StartPeriod: time.Minute, Retries: 3,
			},
			Labels: map[string]string{
				label + "title":       "Pawl processor",
				label + "description": "Reads Kafka topics, transforms them and writes them back in one transaction",
				label + "licenses":    "Apache-2.0",
				label + "version":     r.version,
				label + "revision":    r.commit,
				label + "created":     r.date,
			},
		},
	}
}
