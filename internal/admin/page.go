package admin

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
)

//go:embed page.html
var pageText string

// page shows which process this is, its readiness, and where everything else is.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	type row struct {
		Name   string
		Failed string
	}
	rows := make([]row, 0, len(s.config.Ready))
	for _, result := range probeAll(r.Context(), s.config.Ready, nil) {
		shown := row{Name: result.name}
		if result.err != nil {
			shown.Failed = result.err.Error()
		}
		rows = append(rows, shown)
	}
	var body bytes.Buffer
	parsed := template.Must(template.New("page").Parse(pageText)) // a text of our own; the page is rarely asked for
	err := parsed.Execute(&body, map[string]any{
		"Application": s.config.Application,
		"Instance":    s.config.Instance,
		"Checks":      rows,
		"Profiling":   s.config.Profiling,
	})
	if err != nil {
		writeProblem(w, http.StatusInternalServerError, "the page cannot be made: "+err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	_, _ = w.Write(body.Bytes()) // the client went away: nobody is left to tell
}
