package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeJava makes a home of a Java runtime that runs nothing, and returns its folder.
func fakeJava(t *testing.T, release string) string {
	t.Helper()
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"bin/java": "#!/bin/sh\n", "release": release} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return home
}

func TestJavaVersionIsRead(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]int{
		"IMPLEMENTOR=\"x\"\nJAVA_VERSION=\"17.0.15\"\n": 17,
		"JAVA_VERSION=\"1.8.0_392\"\n":                  8,
		"JAVA_VERSION=\"25\"\n":                         25,
		"JAVA_VERSION=\"early\"\n":                      0,
		"":                                              0,
	} {
		if got := javaVersion(filepath.Join(fakeJava(t, release), "bin", "java")); got != want {
			t.Errorf("release %q: version %d, want %d", release, got, want)
		}
	}
	if got := javaVersion("/nowhere/bin/java"); got != 0 {
		t.Errorf("no runtime: version %d", got)
	}
}

// Each piece that is missing is named, with what to do; nothing is missing once the jars are cached,
// Maven or not.
func TestJavaAvailableNamesWhatIsMissing(t *testing.T) {
	cache := t.TempDir()
	j, err := newJars(cache, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		home, want string
	}{
		{"", "no Java runtime"},
		{fakeJava(t, "JAVA_VERSION=\"11.0.2\"\n"), "too old"},
		{fakeJava(t, "JAVA_VERSION=\"21.0.2\"\n"), "no Maven"},
	} {
		t.Setenv("PATH", t.TempDir())
		t.Setenv("JAVA_HOME", step.home)
		if err := JavaAvailable(cache, ""); err == nil || !strings.Contains(err.Error(), step.want) || !strings.Contains(err.Error(), "make setup") {
			t.Errorf("got %v, want %q and the next step", err, step.want)
		}
	}
	if err := os.MkdirAll(j.folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(j.folder, "pom.xml"), j.pom, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := JavaAvailable(cache, ""); err != nil {
		t.Errorf("with cached jars: %v", err)
	}
}
