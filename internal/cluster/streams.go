package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// streamsPom lists what a program of Kafka Streams needs, and a compiler for it: a JRE has none, and a
// JRE is all that a broker takes.
var streamsPom = pomOf("streams", `    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-streams</artifactId>
      <version>{{.}}</version>
    </dependency>
    <dependency>
      <groupId>org.eclipse.jdt</groupId>
      <artifactId>ecj</artifactId>
      <version>3.40.0</version>
    </dependency>
`)

// StreamsConfig says which program of Kafka Streams to make.
type StreamsConfig struct {
	Source   string            // of one Java file
	Class    string            // its public class, which has main and no package
	Folder   string            // where the class goes; the caller's, who removes it
	Cache    string            // where jars are kept; empty: pawl in the user's cache folder
	Version  string            // of Kafka Streams; empty: KafkaVersion
	Progress func(step string) // told about slow steps; may be nil
}

// Streams is a compiled program of Kafka Streams.
type Streams struct {
	java    string
	version string
	class   string
	path    string // of classes
}

// OpenStreams fetches what is missing and compiles the program. It starts no process that outlives it.
func OpenStreams(ctx context.Context, config StreamsConfig) (_ *Streams, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open Kafka Streams: %w", err)
		}
	}()
	if config.Progress == nil {
		config.Progress = func(string) {}
	}
	java, err := javaBinary()
	if err != nil {
		return nil, err
	}
	jars, err := newJarsOf("Kafka Streams, about 100 MB", "kafka-streams", config.Cache, config.Version, streamsPom)
	if err != nil {
		return nil, err
	}
	if err := jars.fetch(ctx, config.Progress); err != nil {
		return nil, err
	}
	s := &Streams{
		java: java, version: jars.version, class: config.Class,
		path: strings.Join([]string{config.Folder, jars.classPath()}, string(filepath.ListSeparator)),
	}
	source := filepath.Join(config.Folder, config.Class+".java")
	if err := os.WriteFile(source, []byte(config.Source), 0o600); err != nil {
		return nil, fmt.Errorf("write the program: %w", err)
	}
	if err := s.compile(ctx, source, config.Folder, jars); err != nil {
		return nil, err
	}
	return s, nil
}

// compile makes a class file for the oldest Java that runs Kafka. The compiler wants every jar by name.
func (s *Streams) compile(ctx context.Context, source, folder string, jars *jars) error {
	libraries, err := filepath.Glob(jars.classPath() + ".jar")
	if err != nil || len(libraries) == 0 {
		return errors.Join(fmt.Errorf("no jars in %s", jars.folder), err)
	}
	//nolint:gosec // Java, arguments of ours
	cmd := exec.CommandContext(ctx, s.java, "-cp", jars.classPath(), "org.eclipse.jdt.internal.compiler.batch.Main",
		"-source", strconv.Itoa(javaMin), "-target", strconv.Itoa(javaMin), "-proc:none", "-d", folder,
		"-classpath", strings.Join(libraries, string(filepath.ListSeparator)), source)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s: %w\n%s", source, err, bytes.TrimSpace(out))
	}
	return nil
}

// Version returns the version of Kafka Streams.
func (s *Streams) Version() string { return s.version }

// Command prepares a process of the program, its JVM with the given flags. The caller sets its streams
// and runs it.
func (s *Streams) Command(ctx context.Context, jvm []string, args ...string) *exec.Cmd {
	all := append(append([]string{}, jvm...), "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", s.path, s.class)
	cmd := exec.CommandContext(ctx, s.java, append(all, args...)...) //nolint:gosec // Java, a program of the caller's
	dieWithParent(cmd)
	return cmd
}
