package bundle

import "time"

// format is that of the archive: it changes where a reader of archives must be told.
const format = 1

// State is what became of a piece.
type State string

// The states of a piece.
const (
	Collected State = "collected"
	Failed    State = "failed"
	Skipped   State = "skipped"
)

// Manifest says what is in an archive, and what is not and why.
type Manifest struct {
	Format      int       `json:"format"`
	Application string    `json:"application,omitempty"`
	Made        time.Time `json:"made"`
	Host        string    `json:"host,omitempty"`
	Tool        any       `json:"tool"` // the program that made it, which need not be the one that runs
	Took        float64   `json:"took_seconds"`
	Pieces      []Entry   `json:"pieces"`
	Notes       []string  `json:"notes,omitempty"` // what a reader should know beside
}

// Entry is one piece in the manifest.
type Entry struct {
	Path    string  `json:"path"`
	State   State   `json:"state"`
	Bytes   int64   `json:"bytes,omitempty"`
	SHA256  string  `json:"sha256,omitempty"`
	Took    float64 `json:"took_seconds,omitempty"`
	Cut     bool    `json:"cut,omitempty"`     // only the end is there
	Finding string  `json:"finding,omitempty"` // what in it needs a person
	Why     string  `json:"why,omitempty"`     // it failed or was skipped

	tail bool
}

// Complete tells that nothing failed and nothing was found.
func (m Manifest) Complete() bool {
	for _, entry := range m.Pieces {
		if entry.State == Failed || entry.Finding != "" {
			return false
		}
	}
	return true
}

// Count counts the pieces in a state.
func (m Manifest) Count(state State) (n int) {
	for _, entry := range m.Pieces {
		if entry.State == state {
			n++
		}
	}
	return n
}
