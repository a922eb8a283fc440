package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// The date has an offset, as git writes it where somebody commits away from Greenwich.
var flags = []string{"-tag", "v1.2.3-dirty", "-version", "v1.2.3+dirty", "-commit", "0123456789abcdef", "-date", "2026-01-02T05:04:05+02:00"}

var committed = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestSameBinariesGiveTheSameBytes(t *testing.T) {
	t.Parallel()
	one, another := t.TempDir(), t.TempDir()
	amd64, arm64 := writeBinary(t, elf.EM_X86_64), writeBinary(t, elf.EM_AARCH64)
	said := mustRun(t, filepath.Join(one, "image.tar"), amd64, arm64)
	if again := mustRun(t, filepath.Join(another, "other.tar"), arm64, amd64); again != said {
		t.Errorf("the digest is %s at first and %s the second time", said, again)
	}
	if !bytes.Equal(read(t, filepath.Join(one, "image.tar")), read(t, filepath.Join(another, "other.tar"))) {
		t.Error("two archives of the same binaries differ")
	}
	if other := mustRun(t, filepath.Join(one, "one.tar"), amd64); other == said {
		t.Error("an image of one platform has the digest of that of two: the digest does not look at the contents")
	}
}

// What a registry or an engine makes of the archive: one image by the digest that was told, for two platforms, whole.
func TestArchiveHoldsAnImageForEachPlatform(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "image.tar")
	told := mustRun(t, out, writeBinary(t, elf.EM_AARCH64), writeBinary(t, elf.EM_X86_64))
	checkEntries(t, bytes.NewReader(read(t, out)), nil)

	index := open(t, out, told)
	if err := validate.Index(index); err != nil {
		t.Errorf("the image does not hold together: %v", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, descriptor := range manifest.Manifests {
		platforms = append(platforms, descriptor.Platform.String())
		if descriptor.ArtifactType != "" {
			t.Errorf("%s has the artifact type %s; skopeo drops it and with it the digest", descriptor.Platform, descriptor.ArtifactType)
		}
		image, err := index.Image(descriptor.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if got := config.Platform().String(); got != descriptor.Platform.String() {
			t.Errorf("the configuration is for %s, the image's entry for %s", got, descriptor.Platform)
		}
		if !config.Created.Equal(committed) || !config.History[0].Created.Equal(committed) {
			t.Errorf("created at %s, its layer at %s, want the commit's time", config.Created, config.History[0].Created)
		}
		for name, want := range map[string]string{"version": "v1.2.3+dirty", "revision": "0123456789abcdef", "created": "2026-01-02T05:04:05+02:00"} {
			if got := config.Config.Labels["org.opencontainers.image."+name]; got != want {
				t.Errorf("label %s is %q, want %q", name, got, want)
			}
		}
	}
	if !slices.Equal(platforms, []string{"linux/amd64", "linux/arm64"}) {
		t.Errorf("platforms are %s", platforms)
	}
}

func TestImageHasWhatAProcessNeedsAndNoMore(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "image.tar")
	path := writeBinary(t, elf.EM_X86_64)
	index := open(t, out, mustRun(t, out, path))
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("layers: %v, %v; want one", layers, err)
	}
	text, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	bodies := map[string][]byte{}
	got := checkEntries(t, text, bodies)
	want := []string{
		"etc/ 755", "etc/group 644", "etc/passwd 644", "etc/ssl/ 755", "etc/ssl/certs/ 755", "etc/ssl/certs/ca-certificates.crt 644",
		"tmp/ 1777", "usr/ 755", "usr/local/ 755", "usr/local/bin/ 755", "usr/local/bin/processor 755",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the image has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !bytes.Equal(bodies["usr/local/bin/processor"], read(t, path)) {
		t.Error("the binary in the image is another one")
	}
	for name, line := range map[string]string{"etc/passwd": "nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n", "etc/group": "nonroot:x:65532:\n"} {
		if !strings.Contains(string(bodies[name]), "\n"+line) {
			t.Errorf("%s has no line %q: %s", name, line, bodies[name])
		}
	}
	checkRoots(t, bodies["etc/ssl/certs/ca-certificates.crt"])
}

// checkRoots: more than a hundred authorities, among them one that half of the web is signed by, and none that is trusted on a condition.
func checkRoots(t *testing.T, text []byte) {
	t.Helper()
	names := map[string]bool{}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if !certificate.IsCA {
			t.Errorf("%s is no authority", certificate.Subject)
		}
		names[certificate.Subject.CommonName] = true
	}
	if len(names) <= 100 || !names["ISRG Root X1"] {
		t.Errorf("the image trusts %d authorities: %v", len(names), slices.Sorted(maps.Keys(names)))
	}
	if names["Izenpe.com"] {
		t.Error("Mozilla trusts Izenpe.com up to some day; the image would for ever")
	}
}

func TestWhatCannotRunIsRefused(t *testing.T) {
	t.Parallel()
	amd64, out := writeBinary(t, elf.EM_X86_64), filepath.Join(t.TempDir(), "image.tar")
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(args ...string) []string { return slices.Concat(flags, []string{"-out", out}, args) }
	tests := map[string]struct {
		args []string
		code int
		want string // a part of the message
	}{
		"another platform":         {with(writeBinary(t, elf.EM_RISCV)), 1, "this binary is for EM_RISCV"},
		"one that is not static":   {with(writeBinary(t, elf.EM_X86_64, elf.PT_INTERP)), 1, "build it with CGO_ENABLED=0"},
		"two for one platform":     {with(amd64, amd64), 1, "two of the binaries are for linux/amd64"},
		"no binary at all":         {with(script), 1, "no binary for Linux"},
		"a file that is not there": {with("nowhere"), 1, "open nowhere"},
		"no place to write to":     {slices.Concat(flags, []string{"-out", filepath.Join(script, "image.tar"), amd64}), 1, "write " + script},
		"nothing to pack":          {with(), 2, "no binary is named"},
		"nothing said":             {nil, 2, "-commit is missing"},
		"a date of another form":   {with("-date", "yesterday", amd64), 2, `-date is "yesterday"`},
		"help":                     {[]string{"-help"}, 0, "Example:"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			if code := run(test.args, &stdout, &stderr); code != test.code || !strings.Contains(stderr.String(), test.want) || stdout.Len() > 0 {
				t.Errorf("exit code %d, want %d; says %q, want %q; prints %q", code, test.code, &stderr, test.want, &stdout)
			}
		})
	}
}

// mustRun packs and returns the digest that was printed.
func mustRun(t *testing.T, out string, binaries ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(slices.Concat(flags, []string{"-out", out}, binaries), &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	return strings.TrimSuffix(stdout.String(), "\n")
}

// open unpacks an archive and finds its only image, which has the digest.
func open(t *testing.T, archive, digest string) v1.ImageIndex {
	t.Helper()
	folder := t.TempDir()
	if text, err := exec.CommandContext(t.Context(), "tar", "-xf", archive, "-C", folder).CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v: %s", archive, err, text)
	}
	all, err := layout.ImageIndexFromPath(folder)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := all.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 || manifest.Manifests[0].Digest.String() != digest {
		t.Fatalf("the archive has %+v, %v; want one image, %s", manifest, err, digest)
	}
	if got := manifest.Manifests[0].Annotations["io.containerd.image.name"]; got != "docker.io/pawl/processor:v1.2.3-dirty" {
		t.Errorf("an engine that loads it calls it %q", got)
	}
	index, err := all.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// checkEntries returns names and modes of a tar, and fills in what the files hold. Whatever differs between machines must not be in it.
func checkEntries(t *testing.T, text io.Reader, bodies map[string][]byte) (entries []string) {
	t.Helper()
	for reader := tar.NewReader(text); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, fmt.Sprintf("%s %o", header.Name, header.Mode))
		if header.Uid != 0 || header.Gid != 0 || header.Uname != "" || header.Gname != "" || !header.ModTime.Equal(committed) {
			t.Errorf("%s is of %d:%d (%q, %q) and of %s, want 0:0 without names and the commit's time",
				header.Name, header.Uid, header.Gid, header.Uname, header.Gname, header.ModTime)
		}
		if bodies != nil {
			if bodies[header.Name], err = io.ReadAll(reader); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !slices.IsSorted(entries) {
		t.Errorf("entries are not sorted: %s", entries)
	}
	return entries
}

// writeBinary writes the least that is a binary for Linux.
func writeBinary(t *testing.T, machine elf.Machine, parts ...elf.ProgType) string {
	t.Helper()
	header := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(len(parts)),
	}
	var text bytes.Buffer
	if err := binary.Write(&text, binary.LittleEndian, header); err != nil {
		t.Fatal(err)
	}
	for _, part := range parts {
		if err := binary.Write(&text, binary.LittleEndian, elf.Prog64{Type: uint32(part)}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "processor")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
