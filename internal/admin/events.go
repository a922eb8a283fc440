package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	viewersMax    = 16 // streams at once
	viewersRetry  = "10"
	eventInterval = time.Second
	eventTimeout  = 5 * time.Second // for one event to be taken; who is slower is cut off and comes again
	eventsRetry   = 2 * time.Second // told to the browser: its pause before it comes again
)

// events streams snapshots as server-sent events. There is no queue and no goroutine but the request's own: a
// client that reads slowly misses snapshots, and one that reads none for eventTimeout is cut off.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.viewers <- struct{}{}:
		defer func() { <-s.viewers }()
	default:
		w.Header().Set("Retry-After", viewersRetry)
		writeProblem(w, http.StatusServiceUnavailable, fmt.Sprintf("%d streams are open already: close a page, or ask /api/v1/view", viewersMax))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy that collects answers would hold events back
	if r.Method == http.MethodHead {
		return
	}
	control := http.NewResponseController(w)
	ticker := time.NewTicker(eventInterval)
	defer ticker.Stop()
	event := fmt.Appendf(nil, "retry: %d\n", eventsRetry.Milliseconds())
	for { // ends with the client, its slowness, or the server
		event = s.appendEvent(event, r)
		// In place of the server's limit for an answer, which would end the stream.
		err := control.SetWriteDeadline(time.Now().Add(eventTimeout))
		if err == nil {
			_, err = w.Write(event)
		}
		if err == nil {
			err = control.Flush()
		}
		if err != nil {
			return
		}
		event = event[:0]
		select {
		case <-r.Context().Done():
			return
		case <-s.ending:
			return
		case <-ticker.C:
		}
	}
}

// appendEvent adds a snapshot, or why there is none.
func (s *Server) appendEvent(event []byte, r *http.Request) []byte {
	body, err := s.snapshot(r.Context())
	name := "snapshot"
	if err != nil {
		name = "problem"
		if body, err = json.Marshal(problem{Type: "about:blank", Title: http.StatusText(http.StatusServiceUnavailable), Status: http.StatusServiceUnavailable, Detail: err.Error()}); err != nil {
			panic(err) // strings and a number always encode
		}
	}
	return fmt.Appendf(event, "event: %s\ndata: %s\n\n", name, body)
}
