package admin

import (
	"encoding/json"
	"net/http"
)

// problem is an error answer as in RFC 9457. Its type is about:blank: the status says the kind.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

func writeProblem(w http.ResponseWriter, code int, detail string) {
	body, err := json.Marshal(problem{Type: "about:blank", Title: http.StatusText(code), Status: code, Detail: detail})
	if err != nil {
		panic(err) // strings and a number always encode
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // the client went away: nobody is left to tell
}

// unmatched answers a request that no route takes. The mux knows whether the path or the method is
// wrong and which methods there are; its plain text is replaced by a problem.
func unmatched(w http.ResponseWriter, r *http.Request, mux http.Handler) {
	answer := statusOnly{header: http.Header{}}
	mux.ServeHTTP(&answer, r)
	if allowed := answer.header.Get("Allow"); answer.code == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", allowed)
		writeProblem(w, answer.code, r.URL.Path+" takes "+allowed)
		return
	}
	writeProblem(w, http.StatusNotFound, "there is nothing at "+r.URL.Path)
}

// statusOnly keeps the headers and the status of an answer and drops its body.
type statusOnly struct {
	header http.Header
	code   int
}

// Header implements http.ResponseWriter.
func (s *statusOnly) Header() http.Header { return s.header }

// WriteHeader implements http.ResponseWriter.
func (s *statusOnly) WriteHeader(code int) { s.code = code }

// Write implements http.ResponseWriter.
func (s *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
