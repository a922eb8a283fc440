package admin

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"path"
)

//go:embed page
var pageFiles embed.FS

// pagePolicy lets the page do what it does and nothing else: its own script, style and icon, requests to
// this server, no form sent anywhere, no frame around it, no text ever taken for a document.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// assets are what the page loads, with their types: those of the system differ.
var assets = map[string]string{
	"page.css": "text/css; charset=utf-8",
	"page.js":  "text/javascript; charset=utf-8",
	"icon.svg": "image/svg+xml",
}

func (s *Server) routePage(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", s.page)
	for name, kind := range assets {
		text, err := pageFiles.ReadFile(path.Join("page", name))
		if err != nil {
			panic(err) // embedded above: our own bug
		}
		mux.HandleFunc("GET /assets/"+name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
			_, _ = w.Write(text) // the client went away: nobody is left to tell
		})
	}
}

// page shows what this process knows of itself. Without a script it is a list of its checks and of the other
// addresses; the script brings the rest, see events.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	var body bytes.Buffer
	parsed := template.Must(template.ParseFS(pageFiles, "page/index.html")) // a text of our own; the page is rarely asked for
	err := parsed.Execute(&body, map[string]any{
		"Application": s.config.Application,
		"Instance":    s.config.Instance,
		"Checks":      s.readiness(r.Context()),
		"Token":       s.config.TokenFile != "",
		"Ledger":      s.config.Effects != nil,
		"Pauses":      s.config.Pauses != nil,
		"Letters":     s.config.DeadLetters != nil,
		"Contents":    s.config.Contents,
		"Profiling":   s.config.Profiling,
		"ReasonMax":   reasonRuneMax,
		"ActorMax":    actorRuneMax,
	})
	if err != nil {
		writeProblem(w, http.StatusInternalServerError, "the page cannot be made: "+err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", pagePolicy)
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
	_, _ = w.Write(body.Bytes()) // the client went away: nobody is left to tell
}
