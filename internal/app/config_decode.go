package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

const (
	fileBytesMax = 1 << 20
	nodesMax     = 100_000 // visited, which bounds what aliases can blow up
)

// decoder puts one YAML text into the configuration. It goes on after a problem, so that all of
// them come at once.
type decoder struct {
	origin func(line, column int) Origin
	note   func(path string, at Origin)
	fail   func(at Origin, path string, err error)

	nodes int
	open  map[*yaml.Node]bool // what aliases are being followed into
}

// parse reads the one document of a YAML text, which is the value of path. It returns nil for an
// empty one, and after a problem.
func (d *decoder) parse(text []byte, path string) *yaml.Node {
	if line, column, why := unreadable(text); why != "" {
		d.fail(d.origin(line, column), path, errors.New(why))
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(text))
	if err != nil {
		d.fail(d.origin(1, 1), path, err)
		return nil
	}
	var document, second yaml.Node
	if err := loader.Load(&document); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		d.failSyntax(path, err)
		return nil
	}
	switch err := loader.Load(&second); {
	case errors.Is(err, io.EOF):
		return document.Content[0]
	case err != nil:
		d.failSyntax(path, err)
	default:
		d.fail(d.origin(second.Line, second.Column), path, errors.New("a second document begins here, want one"))
	}
	return nil
}

// lineEnd is what YAML takes for the end of a line.
var lineEnd = regexp.MustCompile(`\r\n|[\r\n\x{85}\x{2028}\x{2029}]`)

func splitLines(text string) []string { return lineEnd.Split(text, -1) }

// unreadable finds the first character that YAML forbids, which the parser reports without its
// place.
func unreadable(text []byte) (line, column int, why string) {
	if len(text) > fileBytesMax {
		return 1, 1, fmt.Sprintf("is %d bytes long, want at most %d", len(text), fileBytesMax)
	}
	for at := 0; at < len(text); {
		r, size := utf8.DecodeRune(text[at:])
		switch {
		case r == utf8.RuneError && size == 1:
			why = "is not UTF-8"
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r >= 0x7f && r < 0xa0 && r != 0x85:
			why = fmt.Sprintf("the control character %U is not allowed", r)
		}
		if why != "" {
			lines := splitLines(string(text[:at]))
			return len(lines), utf8.RuneCountInString(lines[len(lines)-1]) + 1, why
		}
		at += size
	}
	return 0, 0, ""
}

func (d *decoder) failSyntax(path string, err error) {
	broken, is := errors.AsType[*yaml.LoadError](err)
	if !is {
		d.fail(d.origin(1, 1), path, fmt.Errorf("is not YAML: %w", err))
		return
	}
	text := "is not YAML: " + broken.Message
	if broken.ContextMsg != "" {
		text += fmt.Sprintf(" %s that begins in line %d", broken.ContextMsg, broken.ContextMark.Line)
	}
	d.fail(d.origin(max(broken.Mark.Line, 1), max(broken.Mark.Column, 1)), path, errors.New(text))
}

// decode puts what node says into v.
func (d *decoder) decode(node *yaml.Node, path string, v reflect.Value) {
	at := d.origin(node.Line, node.Column)
	node, leave := d.follow(node, at, path)
	if node == nil {
		return
	}
	defer leave()
	d.note(path, at)
	fail := func(text string) { d.fail(at, path, errors.New(text)) }
	kind := shapeOf(v.Type())
	isNull := node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null"
	switch {
	case kind == free:
		if plain := d.plain(node, path); plain != nil {
			v.Set(reflect.ValueOf(plain))
		}
	case isNull && (kind == scalar || kind == texts):
		fail(`has no value: give one, or leave the key out`)
	case isNull: // a key above nothing but comments
	case kind == scalar && node.Kind == yaml.ScalarNode:
		if err := setScalar(v, node); err != nil {
			d.fail(at, path, err)
		}
	case kind == texts && node.Kind == yaml.SequenceNode:
		items := make([]string, len(node.Content))
		for i, item := range node.Content {
			d.decode(item, join(path, strconv.Itoa(i)), reflect.ValueOf(&items[i]).Elem())
		}
		v.Set(reflect.ValueOf(items))
	case kind == list && node.Kind == yaml.SequenceNode:
		items := reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content))
		for i, item := range node.Content {
			items.Index(i).Set(fresh(v.Type().Elem()))
			d.decode(item, join(path, strconv.Itoa(i)), items.Index(i))
		}
		v.Set(items)
	case kind == group && node.Kind == yaml.MappingNode:
		d.group(node, path, v)
	case kind == named && node.Kind == yaml.MappingNode:
		d.named(node, path, v)
	default:
		fail("is " + kindName(node) + ", want " + shapeName(kind))
	}
}

// follow counts the node and resolves an alias; leave is called when the node is done with. It
// returns nil where following must end.
func (d *decoder) follow(node *yaml.Node, at Origin, path string) (target *yaml.Node, leave func()) {
	d.nodes++
	if d.nodes == nodesMax {
		d.fail(at, path, fmt.Errorf("the aliases make more than %d values of this", nodesMax))
	}
	switch {
	case d.nodes >= nodesMax:
		return nil, nil
	case node.Kind != yaml.AliasNode:
		return node, func() {}
	case d.open[node.Alias]:
		d.fail(at, path, errors.New("the alias stands inside of what it repeats"))
		return nil, nil
	}
	if d.open == nil {
		d.open = map[*yaml.Node]bool{}
	}
	d.open[node.Alias] = true
	return node.Alias, func() { delete(d.open, node.Alias) }
}

func (d *decoder) group(node *yaml.Node, path string, v reflect.Value) {
	d.entries(node, path, func(key, value *yaml.Node) {
		inner, found := member(v, key.Value)
		if found {
			d.decode(value, join(path, key.Value), inner)
			return
		}
		err := unknownKey(key.Value, path, v.Type())
		if key.ShortTag() == "!!merge" {
			err = errors.New("merge keys are not supported: write the settings out")
		}
		d.fail(d.origin(key.Line, key.Column), join(path, key.Value), err)
	})
}

func (d *decoder) named(node *yaml.Node, path string, v reflect.Value) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	d.entries(node, path, func(key, value *yaml.Node) {
		entry := fresh(v.Type().Elem())
		d.decode(value, join(path, key.Value), entry)
		if shapeOf(entry.Type()) == free { // a handler's own setting: the handler judges key and value at once
			d.note(join(path, key.Value), d.origin(key.Line, key.Column))
		}
		v.SetMapIndex(reflect.ValueOf(key.Value), entry)
	})
}

// entries visits a mapping and refuses keys that are no text or that come twice.
func (d *decoder) entries(node *yaml.Node, path string, do func(key, value *yaml.Node)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := d.origin(key.Line, key.Column)
		if key.Kind != yaml.ScalarNode {
			d.fail(at, path, errors.New("has "+kindName(key)+" for a key, want a name"))
			continue
		}
		if line, twice := seen[key.Value]; twice {
			d.fail(at, join(path, key.Value), &duplicateKeyError{first: line})
			continue
		}
		seen[key.Value] = key.Line
		do(key, value)
	}
}

// duplicateKeyError is a key that a map has twice. The first one counts.
type duplicateKeyError struct{ first int }

func (e *duplicateKeyError) Error() string {
	return fmt.Sprintf("is given twice, first in line %d", e.first)
}

// setScalar checks that YAML means the kind of value that v wants. Text needs no quotes to be text:
// 007 is a good name.
func setScalar(v reflect.Value, node *yaml.Node) error {
	switch tag := node.ShortTag(); tag {
	case "!!str", "!!int", "!!float", "!!bool", "!!timestamp":
	default:
		return fmt.Errorf("has the tag %s, want plain text", tag)
	}
	return setText(v, node.Value)
}

// plain makes what a handler's own settings hold: maps, lists, strings, ints, floats and bools. It
// returns nil for null.
func (d *decoder) plain(node *yaml.Node, path string) any {
	at := d.origin(node.Line, node.Column)
	node, leave := d.follow(node, at, path)
	if node == nil {
		return nil
	}
	defer leave()
	switch node.Kind {
	case yaml.MappingNode:
		entries := map[string]any{}
		d.entries(node, path, func(key, value *yaml.Node) {
			d.note(join(path, key.Value), d.origin(key.Line, key.Column))
			entries[key.Value] = d.plain(value, join(path, key.Value))
		})
		return entries
	case yaml.SequenceNode:
		items := make([]any, len(node.Content))
		for i, item := range node.Content {
			items[i] = d.plain(item, join(path, strconv.Itoa(i)))
		}
		return items
	default:
		var value any
		switch node.ShortTag() {
		case "!!null":
			return nil
		case "!!int", "!!float", "!!bool":
			if err := node.Load(&value); err != nil {
				d.fail(at, path, fmt.Errorf("is %q, want what its tag says", node.Value))
			}
			return value
		default:
			return node.Value
		}
	}
}

func kindName(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}

func shapeName(kind shape) string {
	switch kind {
	case group:
		return "a map of settings"
	case named:
		return "a map by name"
	case list:
		return "a list of maps"
	case texts:
		return "a list"
	case scalar, free:
	}
	return "a single value"
}
