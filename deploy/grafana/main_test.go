package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// What is installed is what the program writes: nobody edits the files, and nobody forgets to run it.
func TestDashboardsAreThoseThatAreStored(t *testing.T) {
	t.Parallel()
	for name, d := range dashboards() {
		want, err := render(d)
		if err != nil {
			t.Fatal(err)
		}
		stored, err := os.ReadFile(filepath.Join(folder, name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(stored, want) {
			t.Errorf("dashboards/%s.json is not what the program writes; run `go run .` in deploy/grafana", name)
		}
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil || len(files) != len(dashboards()) {
		t.Errorf("there are the dashboards %v, %v; the program writes %d", files, err, len(dashboards()))
	}
}

// Panels that lie over each other, or share an id, are shown wrongly or not at all.
func TestPanelsHaveAPlaceOfTheirOwn(t *testing.T) {
	t.Parallel()
	for name, d := range dashboards() {
		type cell struct{ x, y int }
		taken, ids := map[cell]string{}, map[int]bool{}
		for _, p := range d.Panels {
			if ids[p.ID] {
				t.Errorf("%s: two panels have the id %d", name, p.ID)
			}
			ids[p.ID] = true
			for x := range p.GridPos.W {
				for y := range p.GridPos.H {
					at := cell{p.GridPos.X + x, p.GridPos.Y + y}
					if other, is := taken[at]; is || at.x >= gridWidth {
						t.Fatalf("%s: panel %q is over %q or over the edge", name, p.Title, other)
					}
					taken[at] = p.Title
				}
			}
		}
		if len(taken) == 0 {
			t.Errorf("%s is empty", name)
		}
	}
}
