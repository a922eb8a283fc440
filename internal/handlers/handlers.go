// Package handlers holds the business rules that ship with the binary and their registry by name.
//
// A handler is a pure function of one input record: it gets no context, no clock, no randomness and
// no logger, so the attempt after an abort writes the same bytes as the aborted one. Its only time
// is the record's timestamp, its only source of new ids is the record's coordinates. What it wants
// done it puts into the batch; what it does not accept it rejects with a reason from a closed set.
package handlers

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"pawl/internal/message"
)

// Handler turns one input record into outputs and effects.
//
// The engine calls Handle from several goroutines at once, for records of different keys, so a
// handler is safe for concurrent use. It may emit the byte slices of in again but neither changes
// nor keeps them. An error is a reject when it has a Reason (see Reasons); whatever the handler had
// put into out by then is dropped.
type Handler interface {
	Handle(in message.In, out *message.Batch) error
}

// Settings is what one route tells its handler.
type Settings struct {
	Config    map[string]any // the route's own free-form settings, as decoded from YAML
	Outputs   []string       // names of the configured outputs
	Endpoints []string       // names of the configured endpoints
}

func registry() map[string]func(*options) Handler {
	return map[string]func(*options) Handler{
		"copy":          newCopy,
		"orders":        newOrders,
		"order-results": newResults,
	}
}

// Names lists the handlers that New knows, sorted.
func Names() []string { return slices.Sorted(maps.Keys(registry())) }

// New makes the handler of that name. It returns every problem of the settings at once; each says
// what to write instead.
func New(name string, settings Settings) (Handler, error) {
	construct, known := registry()[name]
	if !known {
		return nil, fmt.Errorf("handler %q is unknown: use one of %s", name, strings.Join(Names(), ", "))
	}
	o := &options{settings: settings, known: make(map[string]bool)}
	handler := construct(o)
	if err := o.done(); err != nil {
		return nil, fmt.Errorf("handler %s: %w", name, err)
	}
	return handler, nil
}
