//go:build integration

package helm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The table of values stands in the document between these two lines.
const (
	tableBegin = "<!-- values: written by make chart from deploy/helm/pawl/values.yaml -->\n"
	tableEnd   = "<!-- end of values -->\n"
)

// documented is the document with the table of values as values.yaml has them.
func documented() (map[string][]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, document))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", document, err)
	}
	before, rest, begins := strings.Cut(string(text), tableBegin)
	_, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		return nil, fmt.Errorf("%s has no place for the table of values: put %q and %q into it", document, tableBegin, tableEnd)
	}
	rows, err := valueRows()
	if err != nil {
		return nil, err
	}
	var table strings.Builder
	table.WriteString("| value | default | meaning |\n|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", r.path, r.value, r.meaning)
	}
	return map[string][]byte{document: []byte(before + tableBegin + table.String() + tableEnd + after)}, nil
}

// row is one value of the chart.
type row struct {
	path, value, meaning string
}

// valueRows reads the values with the comments above them.
func valueRows() ([]row, error) {
	path := filepath.Join(root, chartFolder, "values.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read values: %w", err)
	}
	var tree yaml.Node
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return nil, fmt.Errorf("read values: %w", err)
	}
	return rowsOf("", tree.Content[0])
}

// rowsOf walks a mapping. A value with a comment is a row; one without is a fault, unless it is a mapping whose values
// are rows.
func rowsOf(prefix string, mapping *yaml.Node) (rows []row, err error) {
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		path, meaning := prefix+key.Value, comment(key)
		var below []row
		if value.Kind == yaml.MappingNode && value.Style != yaml.FlowStyle {
			if below, err = rowsOf(path+".", value); err != nil {
				return nil, err
			}
		}
		switch {
		case meaning == "" && len(below) == 0:
			return nil, fmt.Errorf("values.yaml: %s has no comment above it", path)
		case meaning != "" && len(below) > 0:
			rows = append(rows, row{path: path, meaning: meaning})
		case meaning != "":
			shown, err := flow(value)
			if err != nil {
				return nil, err
			}
			rows = append(rows, row{path: path, value: shown, meaning: meaning})
		}
		rows = append(rows, below...)
	}
	return rows, nil
}

func comment(node *yaml.Node) string {
	lines := strings.Split(node.HeadComment, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(strings.TrimPrefix(lines[i], "#"))
	}
	return strings.Join(lines, " ")
}

// flow is a default on one line.
func flow(value *yaml.Node) (string, error) {
	if value.Kind == yaml.ScalarNode && value.Value == "" {
		return "empty", nil
	}
	one := *value
	one.Style |= yaml.FlowStyle
	text, err := yaml.Marshal(&one)
	if err != nil {
		return "", fmt.Errorf("show a default: %w", err)
	}
	return "`" + strings.Join(strings.Fields(string(text)), " ") + "`", nil
}
