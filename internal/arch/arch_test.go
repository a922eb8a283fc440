package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "pawl"
	root   = "../.." // of the module, seen from this package
	shipit = module + "/cmd/processor"
)

// goPackage is the part of `go list -json` that the table speaks about.
type goPackage struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// list runs `go list -json` over the whole module: once as it is shipped, and once with every build
// tag of the test layers, so that a file behind a tag obeys as well.
func list(t *testing.T, arguments ...string) []goPackage {
	t.Helper()
	observeTree(t)
	command := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Imports,TestImports,XTestImports"}, arguments...)...)
	command.Dir = root
	var problems bytes.Buffer
	command.Stderr = &problems
	text, err := command.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, problems.String())
	}
	var packages []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(text)); ; {
		var one goPackage
		err := decoder.Decode(&one)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatalf("read the output of go list: %v", err)
		}
		packages = append(packages, one)
	}
}

// observeTree reads every folder of the module. The go command repeats a passed test only when a file
// or folder that the test process itself opened has changed; what its child `go list` reads does not
// count. Without this, a forbidden import would stay green out of the cache.
func observeTree(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(root, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.HasPrefix(entry.Name(), ".git") {
			return filepath.SkipDir
		}
		return err
	})
	// A test that runs beside us may remove a folder of its own while we read.
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("read the tree: %v", err)
	}
}

// violations judges packages by a table and says for each wrong arrow what to do about it.
func violations(packages []goPackage, table map[string]rule) []string {
	var found []string
	for _, one := range packages {
		name := short(one.ImportPath)
		rule, known := table[name]
		if !known {
			found = append(found, fmt.Sprintf("package %s is not in the table.\n"+
				"  Add a row for it to internal/arch/table_test.go: what it may import, and in a comment why it exists.", name))
			continue
		}
		allowed := slices.Concat(rule.inside, rule.outside)
		if rule.testsOnly {
			allowed = slices.Concat(allowed, testFamilies, testPackages)
		}
		inTests := slices.Concat(allowed, rule.tests, testFamilies, testPackages, []string{name})
		for _, imported := range one.Imports {
			if problem := judge(imported, allowed); problem != "" {
				found = append(found, complaint(name, imported, problem, allowed))
			}
		}
		for _, imported := range slices.Concat(one.TestImports, one.XTestImports) {
			if problem := judge(imported, inTests); problem != "" {
				found = append(found, complaint("the tests of "+name, imported, problem, inTests))
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// judge says what is wrong with importing path, or "".
func judge(path string, allowed []string) string {
	switch {
	case path == module || strings.HasPrefix(path, module+"/"):
		if !slices.Contains(allowed, short(path)) {
			return "the arrow is not in the table"
		}
	case strings.Contains(strings.Split(path, "/")[0], "."):
		family := familyOf(path)
		if family == "" {
			return "it belongs to no family of packages that this project uses"
		}
		if !slices.Contains(allowed, family) {
			return fmt.Sprintf("the family %q is not in its row", family)
		}
	}
	return "" // the standard library is everybody's
}

func complaint(importer, imported, problem string, allowed []string) string {
	list := "nothing but the standard library"
	if len(allowed) > 0 {
		allowed = slices.Clone(allowed)
		slices.Sort(allowed)
		list = strings.Join(slices.Compact(allowed), ", ")
	}
	return fmt.Sprintf("%s must not import %s: %s.\n"+
		"  It may import: %s.\n"+
		"  Take what you need as an argument or behind a small interface of your own. Only if the border itself is wrong,\n"+
		"  change the row in internal/arch/table_test.go and give the reason in its comment.", importer, imported, problem, list)
}

// familyOf finds the family with the longest prefix of path, or "".
func familyOf(path string) string {
	family, length := "", 0
	for name, prefixes := range families {
		for _, prefix := range prefixes {
			if len(prefix) > length && (path == prefix || strings.HasPrefix(path, prefix+"/")) {
				family, length = name, len(prefix)
			}
		}
	}
	return family
}

// short is the name that the table uses for a package of this module.
func short(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module+"/"), "internal/")
}

func TestImportsObeyTheTable(t *testing.T) {
	t.Parallel()
	for _, tags := range []string{"", "integration,chaos"} {
		for _, violation := range violations(list(t, "-tags", tags, "./..."), table) {
			t.Errorf("%s", violation)
		}
	}
}

func TestEveryRowHasItsPackage(t *testing.T) {
	t.Parallel()
	var present []string
	for _, one := range list(t, "-tags", "integration,chaos", "./...") {
		present = append(present, short(one.ImportPath))
	}
	for name := range table {
		if !slices.Contains(present, name) {
			t.Errorf("the table has a row for %s, but there is no such package: remove the row or correct its name", name)
		}
	}
}

// Whoever runs the binary runs no test code: not a package for tests only, and nothing of ours that
// imports testing, which would bring its flags along.
func TestShippedCodeReachesNoTestPackage(t *testing.T) {
	t.Parallel()
	for _, one := range list(t, "-deps", "./cmd/processor") {
		if !strings.HasPrefix(one.ImportPath, module+"/") {
			continue
		}
		if table[short(one.ImportPath)].testsOnly {
			t.Errorf("%s reaches %s, which is for tests only", shipit, one.ImportPath)
		}
		if slices.Contains(one.Imports, "testing") {
			t.Errorf("%s is shipped and imports testing; move what needs it to internal/testkit", one.ImportPath)
		}
	}
}

// TestTableIsClosed keeps the table itself honest: names that exist, and no way from shipped code to
// a package for tests only.
func TestTableIsClosed(t *testing.T) {
	t.Parallel()
	for name, rule := range table {
		for _, inside := range rule.inside {
			target, known := table[inside]
			if !known {
				t.Errorf("row %s allows %s, which has no row", name, inside)
			}
			if target.testsOnly && !rule.testsOnly {
				t.Errorf("row %s is shipped and allows %s, which is for tests only", name, inside)
			}
		}
		for _, outside := range slices.Concat(rule.outside, testFamilies) {
			if families[outside] == nil {
				t.Errorf("row %s allows %q, which is no family", name, outside)
			}
		}
		for _, extra := range slices.Concat(rule.tests, testPackages) {
			if _, known := table[extra]; !known && families[extra] == nil {
				t.Errorf("row %s allows its tests %q, which is neither a row nor a family", name, extra)
			}
		}
	}
}

// The judge itself: what it must let pass, what it must catch.
func TestWrongImportsAreCaught(t *testing.T) {
	t.Parallel()
	small := map[string]rule{
		"message": {},
		"txn":     {inside: []string{"message"}, outside: []string{"kgo"}, tests: []string{"handlers"}},
	}
	const path = module + "/internal/txn"
	tests := map[string]struct {
		given goPackage
		want  string // a part of the complaint; "" for none
	}{
		"allowed":                  {goPackage{ImportPath: path, Imports: []string{"fmt", "pawl/internal/message", "github.com/twmb/franz-go/pkg/kgo"}}, ""},
		"sideways":                 {goPackage{ImportPath: path, Imports: []string{"pawl/internal/kafka"}}, "txn must not import pawl/internal/kafka"},
		"wrong family":             {goPackage{ImportPath: path, Imports: []string{"github.com/twmb/franz-go/pkg/kadm"}}, `"kadm" is not in its row`},
		"no family":                {goPackage{ImportPath: path, Imports: []string{"example.com/left/pad"}}, "belongs to no family"},
		"own package in xtest":     {goPackage{ImportPath: path, XTestImports: []string{path, "pawl/internal/testkit"}}, ""},
		"extra of tests":           {goPackage{ImportPath: path, TestImports: []string{"pawl/internal/handlers"}}, ""},
		"extra of tests, shipped":  {goPackage{ImportPath: path, Imports: []string{"pawl/internal/handlers"}}, "txn must not import pawl/internal/handlers"},
		"tests go sideways":        {goPackage{ImportPath: path, XTestImports: []string{"pawl/internal/admin"}}, "the tests of txn must not import pawl/internal/admin"},
		"test package in shipped":  {goPackage{ImportPath: path, Imports: []string{"pawl/internal/testkit"}}, "txn must not import pawl/internal/testkit"},
		"package without a row":    {goPackage{ImportPath: "pawl/internal/helpers"}, "helpers is not in the table"},
		"the root itself imported": {goPackage{ImportPath: path, Imports: []string{"pawl"}}, "txn must not import pawl"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := strings.Join(violations([]goPackage{test.given}, small), "\n")
			if test.want == "" && got != "" {
				t.Errorf("complaint about an allowed import:\n%s", got)
			}
			if !strings.Contains(got, test.want) {
				t.Errorf("complaint does not contain %q:\n%s", test.want, got)
			}
		})
	}
}

// The table speaks of files that the go command knows. A Go file outside every module of the
// repository, or a module that nobody builds, would escape it.
func TestEveryModuleIsBuiltByMake(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(makefile, []byte("$(wildcard */go.mod */*/go.mod)")) {
		t.Error("Makefile no longer finds the modules by wildcard; adapt this test to how it does")
	}
	for _, file := range filesNamed(t, "go.mod") {
		if depth := strings.Count(filepath.ToSlash(file), "/"); depth > 2 {
			t.Errorf("%s is deeper than make looks for modules", file)
		}
	}
}

// filesNamed finds the files of the repository with this base name, by their path below its root.
func filesNamed(t *testing.T, name string) []string {
	t.Helper()
	return files(t, ".", func(path string) bool { return filepath.Base(path) == name })
}

// goFiles finds the Go files below a folder, by their path below the root of the repository.
func goFiles(t *testing.T, folder string) []string {
	t.Helper()
	return files(t, folder, func(path string) bool { return strings.HasSuffix(path, ".go") })
}

func files(t *testing.T, folder string, wanted func(path string) bool) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == ".git" {
			return filepath.SkipDir
		}
		if !entry.IsDir() && wanted(path) {
			relative, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			found = append(found, relative)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("look for files: %v", err)
	}
	return found
}
