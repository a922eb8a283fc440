package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// text is a documentation file, by its path below the root of the repository.
type text struct{ path, body string }

// texts are the files that a person reads to use or change Pawl. Both tables that are made from the
// program, docs/configuration.md and docs/metrics.md, are among them; tests of their owners keep them
// true, and the tests here hold the others against them.
func texts(t *testing.T) []text {
	t.Helper()
	var found []text
	for _, pattern := range []string{"*.md", "docs/*.md", "internal/*/*.md", "deploy/*.md", "deploy/*/*.md"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			relative, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, text{relative, read(t, relative)})
		}
	}
	if len(found) < 5 {
		t.Fatalf("found only %d documentation files", len(found))
	}
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// mentions calls visit for every match of a pattern in every text, with its first group.
func mentions(t *testing.T, pattern string, visit func(in text, match string)) {
	t.Helper()
	expression := regexp.MustCompile(pattern)
	count := 0
	for _, in := range texts(t) {
		for _, match := range expression.FindAllStringSubmatch(in.body, -1) {
			count++
			visit(in, match[1])
		}
	}
	if count == 0 {
		t.Fatalf("%s matches nowhere: the test has lost its subject", pattern)
	}
}

func TestDocumentedMakeTargetsExist(t *testing.T) {
	t.Parallel()
	makefile := read(t, "Makefile")
	mentions(t, "(?m)(?:`|^    )make ([a-z-]+)", func(in text, target string) {
		if !strings.Contains(makefile, "\n"+target+":") {
			t.Errorf("%s names `make %s`, which the Makefile does not have", in.path, target)
		}
	})
}

func TestDocumentedMetricsExist(t *testing.T) {
	t.Parallel()
	list := read(t, "docs/metrics.md")
	mentions(t, `\b(processor_[a-z0-9_]+)\b`, func(in text, metric string) {
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			metric = strings.TrimSuffix(metric, suffix)
		}
		if !strings.Contains(list, "`"+metric+"`") {
			t.Errorf("%s names the metric %s, which docs/metrics.md does not have", in.path, metric)
		}
	})
}

func TestDocumentedSettingsExist(t *testing.T) {
	t.Parallel()
	list := read(t, "docs/configuration.md")
	mentions(t, "`((?:kafka|input|txn|effects|postgres|admin|log)\\.[a-z_.]+)`", func(in text, setting string) {
		if !strings.Contains(list, "`"+setting+"`") {
			t.Errorf("%s names the setting %s, which docs/configuration.md does not have", in.path, setting)
		}
	})
	variables := map[string]bool{"PROCESSOR_CONFIG": true} // that one names the file
	for _, match := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)`").FindAllStringSubmatch(list, -1) {
		variables["PROCESSOR_"+strings.ToUpper(strings.ReplaceAll(match[1], ".", "_"))] = true
	}
	mentions(t, `\b(PROCESSOR_[A-Z_]+[A-Z])\b`, func(in text, variable string) {
		if in.path != filepath.Join("docs", "configuration.md") && !variables[variable] {
			t.Errorf("%s names the variable %s, but docs/configuration.md has no such setting", in.path, variable)
		}
	})
}

func TestDocumentedTestsExist(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, file := range slices.Concat(goFiles(t, "internal"), goFiles(t, "cmd"), goFiles(t, "deploy")) {
		for _, match := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(read(t, file), -1) {
			names[match[1]] = true
		}
	}
	mentions(t, "`(Test[A-Z]\\w+)`", func(in text, name string) {
		if !names[name] {
			t.Errorf("%s names %s, but there is no such test", in.path, name)
		}
	})
}

func TestDocumentedLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	mentions(t, `\]\(([^)#]+)(?:#[^)]*)?\)`, func(in text, link string) {
		if strings.Contains(link, "://") {
			return
		}
		if _, err := os.Stat(filepath.Join(root, filepath.Dir(in.path), link)); err != nil {
			t.Errorf("%s links to %s: %v", in.path, link, err)
		}
	})
}

// A documented command line must begin with commands that the program has.
func TestDocumentedCommandsExist(t *testing.T) {
	t.Parallel()
	commands := commandNames(t)
	mentions(t, "(?m)(?:`|bin/|^    )processor ((?:[a-z]+ ?)+)", func(in text, line string) {
		words := strings.Fields(line)
		if !commands[words[0]] {
			t.Errorf("%s names `processor %s`, but there is no command %s", in.path, line, words[0])
		}
	})
	// The table of commands in the README.
	readme := read(t, "README.md")
	_, table, _ := strings.Cut(readme, "| command | does |")
	table, _, _ = strings.Cut(table, "\n\n")
	code := regexp.MustCompile("`([a-z]+)(?: ([a-z]+))?[^`]*`")
	for row := range strings.Lines(table) {
		first, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		for _, match := range code.FindAllStringSubmatch(first, -1) {
			for _, word := range match[1:] {
				if word != "" && !commands[word] {
					t.Errorf("README.md names the command %s, but the program has no %q", match[0], word)
				}
			}
		}
	}
	for name := range commands {
		if !strings.Contains(table, name) {
			t.Errorf("the program has a command %s, which the table in README.md does not have", name)
		}
	}
}

// commandNames collects the first word of every `Use:` in cmd/processor, and the first argument of
// newGroup, which makes commands that only hold others.
func commandNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	add := func(expression ast.Expr) {
		if literal, ok := expression.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if use, err := strconv.Unquote(literal.Value); err == nil && use != "" && use != "processor" {
				names[strings.Fields(use)[0]] = true
			}
		}
	}
	for _, path := range goFiles(t, "cmd/processor") {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.KeyValueExpr:
				if key, ok := node.Key.(*ast.Ident); ok && key.Name == "Use" {
					add(node.Value)
				}
			case *ast.CallExpr:
				if called, ok := node.Fun.(*ast.Ident); ok && called.Name == "newGroup" && len(node.Args) > 0 {
					add(node.Args[0])
				}
			}
			return true
		})
	}
	if len(names) == 0 {
		t.Fatal("found no commands in cmd/processor")
	}
	return names
}
