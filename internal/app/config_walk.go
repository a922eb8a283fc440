package app

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// The walker: the one mechanism that knows the configuration by reflection. A setting is named by
// its path, such as txn.lanes, routes.0.topics or outputs.priced.settings.retention.ms.

// shape says how a value is made up.
type shape int

const (
	scalar shape = iota // one text: a string, number or bool, or what has UnmarshalText
	texts               // []string
	free                // any: what a handler's own settings hold
	group               // a struct of settings
	list                // a slice of groups
	named               // a map by name
)

func shapeOf(t reflect.Type) shape {
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return scalar
	}
	switch t.Kind() {
	case reflect.Struct:
		return group
	case reflect.Map:
		return named
	case reflect.Interface:
		return free
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return texts
		}
		return list
	default:
		return scalar
	}
}

// field is what the tags say about a setting.
type field struct {
	key      string
	doc      string
	span     string // the range tag
	enum     []string
	required bool
}

func fieldOf(f reflect.StructField) field {
	read := field{key: f.Tag.Get("yaml"), doc: f.Tag.Get("doc"), span: f.Tag.Get("range"), required: f.Tag.Get("required") == "true"}
	if enum, found := f.Tag.Lookup("enum"); found {
		read.enum = strings.Split(enum, "|")
	}
	return read
}

// keys lists the keys of a group.
func keys(t reflect.Type) []string {
	var names []string
	for f := range t.Fields() {
		names = append(names, fieldOf(f).key)
	}
	return names
}

// member finds the value with that key in a group.
func member(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if fieldOf(v.Type().Field(i)).key == key {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// fresh makes the value that an entry of a list or map begins with.
func fresh(t reflect.Type) reflect.Value {
	v := reflect.New(t).Elem()
	switch t {
	case reflect.TypeFor[Output]():
		v.Set(reflect.ValueOf(DefaultOutput()))
	case reflect.TypeFor[Endpoint]():
		v.Set(reflect.ValueOf(DefaultEndpoint()))
	}
	return v
}

// setting is one value of the configuration.
type setting struct {
	path  string
	field field // of the nearest struct field
	shape shape
	value reflect.Value
}

// settings lists everything below v that can be set, in the order of the structs, names sorted:
// every list and map before what it holds, but no groups.
func settings(v reflect.Value) []setting {
	var found []setting
	var visit func(path string, f field, v reflect.Value)
	visit = func(path string, f field, v reflect.Value) {
		kind := shapeOf(v.Type())
		if kind != group {
			found = append(found, setting{path, f, kind, v})
		}
		switch kind {
		case group:
			for i := range v.NumField() {
				inner := fieldOf(v.Type().Field(i))
				visit(join(path, inner.key), inner, v.Field(i))
			}
		case list:
			for i := range v.Len() {
				visit(join(path, strconv.Itoa(i)), f, v.Index(i))
			}
		case named:
			for _, name := range names(v) {
				visit(join(path, name), field{doc: f.doc}, v.MapIndex(reflect.ValueOf(name)))
			}
		case scalar, texts, free:
		}
	}
	visit("", field{}, v)
	return found
}

// names lists the keys of a map, sorted.
func names(v reflect.Value) []string {
	keys := make([]string, 0, v.Len())
	for _, key := range v.MapKeys() {
		keys = append(keys, key.String())
	}
	slices.Sort(keys)
	return keys
}

// join extends a path. A name that is no plain word is quoted, so that a path stays on its line.
func join(path, name string) string {
	if !pathForm.MatchString(name) {
		name = strconv.Quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// reach goes from v along the rest of a path and gives what it finds there to do, with its full
// path. Names that are not in a map yet are made, and so is the next item of a list; they stay if do
// is reached. The error says what is wrong with the path.
func reach(v reflect.Value, path string, rest []string, do func(path string, v reflect.Value)) error {
	if len(rest) == 0 {
		do(path, v)
		return nil
	}
	switch shapeOf(v.Type()) {
	case group:
		inner, found := member(v, rest[0])
		if !found {
			return unknownKey(rest[0], path, v.Type())
		}
		return reach(inner, join(path, rest[0]), rest[1:], do)
	case list:
		return reachItem(v, path, rest, do)
	case named:
		return reachName(v, path, rest, do)
	case free:
		inner, _ := reflect.TypeAssert[map[string]any](v)
		entries := reflect.ValueOf(maps.Clone(inner))
		if inner == nil {
			entries = reflect.ValueOf(map[string]any{})
		}
		err := reachName(entries, path, rest, do)
		v.Set(entries)
		return err
	case scalar, texts:
	}
	return fmt.Errorf("%s has nothing below it", path)
}

func reachItem(v reflect.Value, path string, rest []string, do func(path string, v reflect.Value)) error {
	index, err := strconv.Atoi(rest[0])
	if err != nil || index < 0 || index > v.Len() {
		return fmt.Errorf("%s has the items 0 to %d, and %d adds one: %q is none of them", path, v.Len()-1, v.Len(), rest[0])
	}
	item := fresh(v.Type().Elem())
	if index < v.Len() {
		item = v.Index(index)
	}
	err = reach(item, join(path, rest[0]), rest[1:], do)
	if err == nil && index == v.Len() {
		v.Set(reflect.Append(v, item))
	}
	return err
}

func reachName(v reflect.Value, path string, rest []string, do func(path string, v reflect.Value)) error {
	name, tail := rest[0], rest[1:]
	// Names of topic settings have dots; a name that exists with its dots is that name.
	whole := strings.Join(rest, ".")
	if shapeOf(v.Type().Elem()) == scalar || v.MapIndex(reflect.ValueOf(whole)).IsValid() {
		name, tail = whole, nil
	}
	entry := fresh(v.Type().Elem())
	if old := v.MapIndex(reflect.ValueOf(name)); old.IsValid() {
		entry.Set(old)
	}
	if err := reach(entry, join(path, name), tail, do); err != nil {
		return err
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	v.SetMapIndex(reflect.ValueOf(name), entry)
	return nil
}

// unknownKeyError is a key that a group does not have.
type unknownKeyError struct {
	meant string   // path of the setting that was probably meant, or ""
	keys  []string // that the group has
}

// unknownKey looks for what was meant among the group's keys first, then among all settings.
func unknownKey(key, path string, t reflect.Type) error {
	err := &unknownKeyError{keys: keys(t)}
	if near := nearest(key, err.keys); near != "" {
		err.meant = join(path, near)
		return err
	}
	var elsewhere []string
	for _, s := range settings(reflect.ValueOf(Default())) {
		if s.path == key || strings.HasSuffix(s.path, "."+key) {
			elsewhere = append(elsewhere, s.path)
		}
	}
	if len(elsewhere) == 1 {
		err.meant = elsewhere[0]
	}
	return err
}

func (e *unknownKeyError) Error() string {
	text := "is an unknown key"
	if e.meant != "" {
		return text + ", did you mean " + e.meant + "?"
	}
	return text + ", want one of " + strings.Join(e.keys, ", ")
}

// setText reads a scalar. The error is the second half of a sentence that begins with its path.
func setText(v reflect.Value, text string) error {
	if scalar, is := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); is {
		if err := scalar.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("is %q: %w", text, err)
		}
		return nil
	}
	var err error
	switch v.Kind() {
	case reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("is %q, want true or false", text)
		}
		v.SetBool(text == "true")
	case reflect.Float32, reflect.Float64:
		var number float64
		if number, err = strconv.ParseFloat(text, 64); err != nil {
			return fmt.Errorf("is %q, want a number", text)
		}
		v.SetFloat(number)
	case reflect.Int, reflect.Int16, reflect.Int32, reflect.Int64:
		var number int64
		if number, err = strconv.ParseInt(text, 10, 64); err != nil {
			return fmt.Errorf("is %q, want a whole number", text)
		}
		if v.OverflowInt(number) {
			return fmt.Errorf("is %s, which is out of every range", text)
		}
		v.SetInt(number)
	default:
		v.SetString(text)
	}
	return nil
}

// text gives what setText reads; of a secret only ***.
func text(v reflect.Value) string { return fmt.Sprint(v.Interface()) }
