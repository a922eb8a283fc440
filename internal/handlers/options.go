package handlers

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// options reads one route's free-form settings strictly: it collects every problem, and a key that
// no reader has asked for is one.
type options struct {
	settings Settings
	known    map[string]bool
	errs     []error
}

func (o *options) fail(key, format string, args ...any) {
	o.errs = append(o.errs, &OptionError{Key: key, Problem: fmt.Sprintf(format, args...)})
}

// OptionError is what is wrong with one setting of a handler. New gives one for each, joined.
type OptionError struct {
	Key     string // below the route's config; what a map holds is named behind a dot
	Problem string // the second half of a sentence that begins with the key
}

func (e *OptionError) Error() string { return "config." + e.Key + ": " + e.Problem }

func (o *options) lookup(key string) (any, bool) {
	o.known[key] = true
	value, set := o.settings.Config[key]
	return value, set && value != nil
}

// text returns the string at key, or fallback where the key is not set.
func (o *options) text(key, fallback string) string {
	value, set := o.lookup(key)
	if !set {
		return fallback
	}
	text, ok := value.(string)
	if !ok {
		o.fail(key, "is %v, want a string", value)
		return fallback
	}
	return text
}

// output reads the name of a configured output. An empty fallback makes the key mandatory.
func (o *options) output(key, fallback string) string {
	return o.name(key, fallback, "output", o.settings.Outputs)
}

// endpoint reads the name of a configured endpoint. An empty fallback makes the key mandatory.
func (o *options) endpoint(key, fallback string) string {
	return o.name(key, fallback, "endpoint", o.settings.Endpoints)
}

// optional is output or endpoint where not setting the key switches a feature off.
func (o *options) optional(key string, read func(key, fallback string) string) string {
	if _, set := o.lookup(key); !set {
		return ""
	}
	return read(key, "")
}

func (o *options) name(key, fallback, kind string, configured []string) string {
	name := o.text(key, fallback)
	switch {
	case name == "":
		o.fail(key, "is not set: name one of the configured %ss (%s)", kind, list(configured))
	case !slices.Contains(configured, name):
		o.fail(key, "%s %q is not configured: add it under %ss, or use one of %s", kind, name, kind, list(configured))
	}
	return name
}

// numbers reads a map from names to decimal numbers written as strings or integers; a float has
// already lost its decimals, so it is refused.
func (o *options) numbers(key string) map[string]string {
	value, set := o.lookup(key)
	if !set {
		return nil
	}
	entries, ok := value.(map[string]any)
	if !ok {
		o.fail(key, "is %v, want a map from names to numbers", value)
		return nil
	}
	numbers := make(map[string]string, len(entries))
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		switch number := entries[name].(type) {
		case string:
			numbers[name] = number
		case int, int64, uint64:
			numbers[name] = fmt.Sprint(number)
		default:
			o.fail(key+"."+name, "is %v, want a decimal number in quotes, such as \"7.5\"", entries[name])
		}
	}
	return numbers
}

func (o *options) done() error {
	for _, key := range slices.Sorted(maps.Keys(o.settings.Config)) {
		if !o.known[key] {
			o.fail(key, "is unknown: this handler knows %s", list(slices.Sorted(maps.Keys(o.known))))
		}
	}
	return errors.Join(o.errs...)
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
