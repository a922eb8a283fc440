package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// javaMin is the oldest Java that runs Kafka 4 (KIP-1013).
const javaMin = 17

// javaBinary finds a Java runtime that is new enough: of JAVA_HOME, or on the PATH.
func javaBinary() (string, error) {
	const next = "run `make setup`, or install a JRE of version 17 or later"
	path, err := exec.LookPath(filepath.Join(os.Getenv("JAVA_HOME"), "bin", "java"))
	if os.Getenv("JAVA_HOME") == "" || err != nil {
		if path, err = exec.LookPath("java"); err != nil {
			return "", errors.New("no Java runtime found (JAVA_HOME, PATH): " + next)
		}
	}
	if version := javaVersion(path); version > 0 && version < javaMin {
		return "", fmt.Errorf("the Java runtime %s has version %d, too old for Kafka: %s", path, version, next)
	}
	return path, nil
}

// javaVersion reads the version of a runtime from the file "release" in its home, which names it like
// JAVA_VERSION="17.0.15", or "1.8.0_392" for what everybody calls 8. It returns 0 when it cannot tell.
func javaVersion(java string) int {
	java, err := filepath.EvalSymlinks(java)
	if err != nil {
		return 0
	}
	home := filepath.Dir(filepath.Dir(java))
	for _, home := range []string{home, filepath.Dir(home)} { // the JRE of a JDK 8 lies one deeper
		release, err := os.ReadFile(filepath.Join(home, "release")) //nolint:gosec // of the Java runtime
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(release)) {
			value, ok := strings.CutPrefix(line, `JAVA_VERSION="`)
			if !ok {
				continue
			}
			value, _, _ = strings.Cut(strings.TrimPrefix(value, "1."), `"`)
			first, _, _ := strings.Cut(value, ".")
			version, err := strconv.Atoi(first)
			if err != nil {
				return 0
			}
			return version
		}
	}
	return 0
}

// mavenBinary finds Maven on the PATH.
func mavenBinary() (string, error) {
	path, err := exec.LookPath("mvn")
	if err != nil {
		return "", errors.New("no Maven (mvn) found on the PATH, and the Kafka jars are not cached yet: run `make setup`, or install Maven")
	}
	return path, nil
}

// JavaAvailable tells whether OpenKafka has what it needs: nil, or an error that names what is
// missing and what to do. Maven counts only while the jars of version (empty for the default) are
// not in the cache folder (empty for the default).
func JavaAvailable(cache, version string) error {
	if _, err := javaBinary(); err != nil {
		return err
	}
	j, err := newJars(cache, version)
	if err != nil {
		return err
	}
	if !j.complete() {
		if _, err := mavenBinary(); err != nil {
			return fmt.Errorf("kafka %s: %w", j.version, err)
		}
	}
	return nil
}
