// Command grafana writes the dashboards of Pawl: `go run .` in deploy/grafana. A dashboard that a program
// writes has one style, and a metric that is renamed is renamed in one place.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

const folder = "dashboards"

func main() {
	if err := write(folder); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func dashboards() map[string]*dashboard {
	return map[string]*dashboard{"overview": overview(), "effects": effects(), "process": process()}
}

func write(folder string) error {
	for name, d := range dashboards() {
		text, err := render(d)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name+".json"), text, 0o644) //nolint:gosec // to be read by all
		}
		if err != nil {
			return fmt.Errorf("write dashboard %s: %w", name, err)
		}
	}
	return nil
}

func render(d *dashboard) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // comparisons stay readable
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(d); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}
