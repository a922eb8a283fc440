package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

// KafkaVersion is the version of Apache Kafka that OpenKafka runs unless told otherwise.
const KafkaVersion = "4.3.1"

// pom lists what a broker and its tools need on the class path.
var pom = pomOf("kafka", `    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{{.}}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>{{.}}</version>
      <exclusions>
        <exclusion>
          <groupId>org.slf4j</groupId>
          <artifactId>slf4j-reload4j</artifactId>
        </exclusion>
      </exclusions>
    </dependency>
`)

// pomOf is a template that takes a version of Kafka. slf4j-simple prints a program's log to its standard
// error, which is a file here: no log configuration to write.
func pomOf(name, dependencies string) *template.Template {
	return template.Must(template.New(name).Parse(`<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>pawl</groupId>
  <artifactId>` + name + `</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
` + dependencies + `  </dependencies>
  <build>
    <plugins>
      <plugin>
        <groupId>org.apache.maven.plugins</groupId>
        <artifactId>maven-dependency-plugin</artifactId>
        <version>3.8.1</version>
      </plugin>
    </plugins>
  </build>
</project>
`))
}

// jars is the cached class path of one version of Kafka, or of programs that use it.
type jars struct {
	what    string // for a person, with its size
	version string
	cache   string // folder of all caches
	folder  string // folder of this version
	pom     []byte
}

// newJars are those of a broker and its tools.
func newJars(cache, version string) (*jars, error) {
	return newJarsOf("Apache Kafka, about 55 MB", "kafka", cache, version, pom)
}

// newJarsOf are those that a pom lists; name is that of their folder in the cache.
func newJarsOf(what, name, cache, version string, pom *template.Template) (*jars, error) {
	if version == "" {
		version = KafkaVersion
	}
	if strings.Trim(version, "0123456789.") != "" {
		return nil, fmt.Errorf("kafka version %q: want digits and dots, such as %s", version, KafkaVersion)
	}
	cache, err := cacheFolder(cache)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := pom.Execute(&text, version); err != nil {
		return nil, fmt.Errorf("write pom: %w", err)
	}
	return &jars{what: what, version: version, cache: cache, folder: filepath.Join(cache, name+"-"+version), pom: text.Bytes()}, nil
}

// cacheFolder is path, or the default place when path is empty.
func cacheFolder(path string) (string, error) {
	if path != "" {
		return path, nil
	}
	path, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache folder: %w (set HOME or XDG_CACHE_HOME)", err)
	}
	return filepath.Join(path, "pawl"), nil
}

// classPath is what java takes after -cp.
func (j *jars) classPath() string { return filepath.Join(j.folder, "jars", "*") }

// complete tells whether the cache holds all jars that the pom asks for. The folder gets its name in
// one rename after it was filled, so a folder that is there is whole.
func (j *jars) complete() bool {
	text, err := os.ReadFile(filepath.Join(j.folder, "pom.xml"))
	return err == nil && bytes.Equal(text, j.pom)
}

// fetch fills the cache with Maven if it is not complete. Several processes may call it at once: one
// works, the others wait for it.
func (j *jars) fetch(ctx context.Context, progress func(string)) (err error) {
	if j.complete() {
		return nil
	}
	if err := os.MkdirAll(j.cache, 0o750); err != nil {
		return fmt.Errorf("make cache folder: %w", err)
	}
	lock, err := lock(ctx, j.folder+".lock")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if j.complete() {
		return nil
	}
	maven, err := mavenBinary()
	if err != nil {
		return err
	}
	progress(fmt.Sprintf("fetching with Maven, once: %s, version %s, into %s", j.what, j.version, j.folder))

	work, err := os.MkdirTemp(j.cache, "fetch-")
	if err != nil {
		return fmt.Errorf("make work folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), j.pom, 0o600); err != nil {
		return fmt.Errorf("write pom: %w", err)
	}
	//nolint:gosec // Maven from the PATH, arguments of ours
	cmd := exec.CommandContext(ctx, maven, "--batch-mode", "--quiet", "--strict-checksums",
		"dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+filepath.Join(work, "jars"))
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch jars with Maven: %w\n%s", err, bytes.TrimSpace(out))
	}
	if err := os.RemoveAll(j.folder); err != nil { // of an older pom
		return fmt.Errorf("remove old jars: %w", err)
	}
	if err := os.Rename(work, j.folder); err != nil {
		return fmt.Errorf("keep jars: %w", err)
	}
	return nil
}
