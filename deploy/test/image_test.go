//go:build integration

package deploy

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// checkImage: the image of a release is the one that its digest names, says what the Dockerfile says, and its processor runs with nothing
// but the image's own files.
func checkImage(t *testing.T, folder string) {
	t.Helper()
	image := openImage(t, folder)
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := encode(t, config.Config), encode(t, configOf(t, readDockerfile(t).final)); got != want {
		t.Errorf("the image's configuration is\n%s\nthe Dockerfile's\n%s", got, want)
	}
	machine := unpack(t, image)
	text, err := machine.command(t.Context(), config.Config, "version", "-o", "json").CombinedOutput()
	if err != nil {
		t.Fatalf("processor version in the image: %v: %s", err, text)
	}
	if got := decodeVersion(t, text); got != stamp {
		t.Errorf("processor version in the image says %+v, want %+v", got, stamp)
	}
	checkTrust(t, machine, config.Config)
}

// openImage finds the image for this machine as an engine does: by the digest that the release tells.
func openImage(t *testing.T, folder string) v1.Image {
	t.Helper()
	unpacked := t.TempDir()
	archive := filepath.Join(folder, "processor_"+stamp.Version+"_oci.tar")
	if text, err := exec.CommandContext(t.Context(), "tar", "-xf", archive, "-C", unpacked).CombinedOutput(); err != nil {
		t.Fatalf("unpack the image: %v: %s", err, text)
	}
	all, err := layout.ImageIndexFromPath(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := v1.NewHash(strings.TrimSuffix(string(read(t, filepath.Join(folder, "image.txt"))), "\n"))
	if err != nil {
		t.Fatal(err)
	}
	index, err := all.ImageIndex(digest)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 || manifest.Manifests[0].Platform.String() != "linux/"+runtime.GOARCH {
		t.Fatalf("the image is for %+v, %v; want linux/%s alone", manifest, err, runtime.GOARCH)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// configOf is what a stage of the Dockerfile makes of a base that has a PATH.
func configOf(t *testing.T, stage instructions.Stage) v1.Config {
	t.Helper()
	config := v1.Config{
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, WorkingDir: "/",
		ExposedPorts: map[string]struct{}{}, Labels: map[string]string{},
	}
	arguments := map[string]string{"VERSION": stamp.Version, "COMMIT": stamp.Commit, "DATE": stamp.Date}
	for _, command := range stage.Commands {
		switch command := command.(type) {
		case *instructions.LabelCommand:
			for _, label := range command.Labels {
				config.Labels[label.Key] = os.Expand(strings.Trim(label.Value, `"`), func(name string) string { return arguments[name] })
			}
		case *instructions.UserCommand:
			config.User = command.User
		case *instructions.ExposeCommand:
			for _, port := range command.Ports {
				config.ExposedPorts[port+"/tcp"] = struct{}{}
			}
		case *instructions.EnvCommand:
			for _, variable := range command.Env {
				config.Env = append(config.Env, variable.String())
			}
		case *instructions.StopSignalCommand:
			config.StopSignal = command.Signal
		case *instructions.HealthCheckCommand:
			health := command.Health
			config.Healthcheck = &v1.HealthConfig{
				Test: health.Test, Interval: health.Interval, Timeout: health.Timeout, StartPeriod: health.StartPeriod, Retries: health.Retries,
			}
		case *instructions.EntrypointCommand:
			config.Entrypoint = command.CmdLine
		case *instructions.CmdCommand:
			config.Cmd = command.CmdLine
		case *instructions.ArgCommand, *instructions.CopyCommand:
		default:
			t.Errorf("what does %s do to the image? Say it here and in deploy/image", command.Name())
		}
	}
	return config
}

func encode(t *testing.T, config v1.Config) string {
	t.Helper()
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// machine is the root of an image on disk.
type machine string

func unpack(t *testing.T, image v1.Image) machine {
	t.Helper()
	files := mutate.Extract(image)
	defer files.Close()
	root := t.TempDir()
	command := exec.CommandContext(t.Context(), "tar", "-x", "--no-same-owner", "-C", root)
	command.Stdin = files
	if text, err := command.CombinedOutput(); err != nil {
		t.Fatalf("unpack the image's files: %v: %s", err, text)
	}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	return machine(root)
}

// command runs the entry point as an engine does: with the image's root, its user and its variables. Who is not root here is it in a name space
// of its own.
func (m machine) command(ctx context.Context, config v1.Config, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "/usr/local/bin/"+config.Entrypoint[0], args...)
	command.Dir, command.Env = config.WorkingDir, config.Env
	command.SysProcAttr = &syscall.SysProcAttr{Chroot: string(m)}
	const nobody = 65532
	if os.Geteuid() == 0 {
		command.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	} else {
		command.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getuid(), Size: 1}}
		command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getgid(), Size: 1}}
	}
	return command
}

// checkTrust: processor trusts those of the image's authorities and no other. A server with a certificate of its own is turned away, and spoken
// to once its certificate is among them.
func checkTrust(t *testing.T, machine machine, config v1.Config) {
	t.Helper()
	spoken := make(chan struct{}, 1)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it gets no HTTP
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateActive { // the client goes on after the handshake
			select {
			case spoken <- struct{}{}:
			default:
			}
		}
	}
	server.StartTLS()
	defer server.Close()
	writeFile(t, filepath.Join(string(machine), "etc/pawl/processor.yaml"), `application: orders
kafka: {brokers: ["`+server.Listener.Addr().String()+`"], tls: {enabled: true}}
routes: [{topics: [orders], handler: copy, config: {output: copy}}]
outputs: {copy: {topic: orders.copy}}
`)
	text, err := machine.command(t.Context(), config, "check", "--connect").CombinedOutput()
	if err == nil || len(spoken) > 0 || !strings.Contains(string(text), "authority") {
		t.Errorf("processor speaks to a server that nobody vouches for, or does not say why not: %v: %s", err, text)
	}

	roots := filepath.Join(string(machine), "etc/ssl/certs/ca-certificates.crt")
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	writeFile(t, roots, string(read(t, roots))+string(own))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := machine.command(ctx, config, "check", "--connect")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-spoken:
	case <-ctx.Done():
		t.Error("processor does not read the image's authorities: a server that is among them is not spoken to")
	}
	cancel()           // it would wait for an answer of Kafka's
	_ = command.Wait() // killed
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
