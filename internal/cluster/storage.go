package cluster

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Files that formatting leaves in a node's data folder.
const (
	metaFile      = "meta.properties"      // who the node is
	bootstrapFile = "bootstrap.checkpoint" // first records of the cluster's metadata: features, SCRAM users
)

// format writes the settings of all nodes and prepares the storage of those that have none yet, with
// the default features of the version, which from Kafka 4.0 on finalise transaction.version 2. The
// first node is formatted by Kafka's own tool; the others differ from it only in who they are.
func (k *Kafka) format(ctx context.Context) error {
	voters := make([]string, len(k.nodes))
	for i, n := range k.nodes {
		voters[i] = fmt.Sprintf("%d@%s", n.id, n.controller.address())
	}
	for _, n := range k.nodes {
		settings := k.properties(n)
		settings["controller.quorum.voters"] = strings.Join(voters, ",")
		maps.Copy(settings, k.config.Settings)
		if err := os.WriteFile(n.propertiesPath(), renderProperties(settings), 0o600); err != nil {
			return fmt.Errorf("write settings of node %d: %w", n.id, err)
		}
	}
	first := k.nodes[0]
	if _, err := os.Stat(filepath.Join(first.dataPath(), metaFile)); err == nil {
		return nil // a folder that was used before
	}
	cluster := newID()
	args := append([]string{"format", "--cluster-id", cluster, "--config", first.propertiesPath()}, k.config.Listener.formatArguments()...)
	if out, err := k.Tool(ctx, "kafka.tools.StorageTool", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("format storage: %w\n%s", err, out)
	}
	bootstrap, err := os.ReadFile(filepath.Join(first.dataPath(), bootstrapFile))
	if err != nil {
		return fmt.Errorf("read formatted storage: %w", err)
	}
	for _, n := range k.nodes[1:] {
		if err := os.MkdirAll(n.dataPath(), 0o750); err != nil {
			return fmt.Errorf("make storage of node %d: %w", n.id, err)
		}
		meta := fmt.Sprintf("version=1\ncluster.id=%s\nnode.id=%d\ndirectory.id=%s\n", cluster, n.id, newID())
		for name, content := range map[string][]byte{bootstrapFile: bootstrap, metaFile: []byte(meta)} {
			if err := os.WriteFile(filepath.Join(n.dataPath(), name), content, 0o600); err != nil {
				return fmt.Errorf("format storage of node %d: %w", n.id, err)
			}
		}
	}
	return nil
}

// newID makes a random id in Kafka's form: a UUID in URL-safe base64 without padding, which must not
// begin with a dash.
func newID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[0] &= 0x7f           // the dash stands for the bits 111110
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// renderProperties writes settings in Java's format, sorted by name.
func renderProperties(settings map[string]string) []byte {
	var b strings.Builder
	escape := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s=%s\n", name, escape.Replace(settings[name]))
	}
	return []byte(b.String())
}
