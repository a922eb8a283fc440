package app

import (
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Setting is one value with its origin.
type Setting struct {
	Path   string `json:"path"`
	Env    string `json:"env"`
	Value  any    `json:"value"` // *** for a secret
	Origin string `json:"origin"`
}

// Settings lists every value of the configuration, secrets hidden.
func (o *Origins) Settings(c Config) []Setting {
	var found []Setting
	for _, s := range settings(reflect.ValueOf(c)) {
		if (s.shape == list || s.shape == named) && s.value.Len() > 0 {
			continue // what it holds follows
		}
		value := s.value.Interface()
		switch {
		case s.value.Kind() == reflect.String:
			value = printable(s.path, s.value)
		case s.shape == named:
			value = struct{}{} // {} and not null
		case s.shape == texts && s.value.Len() == 0:
			value = []string{}
		}
		found = append(found, Setting{Path: s.path, Env: envName(s.path), Value: value, Origin: o.latest(s.path).String()})
	}
	return found
}

// latest is Of for what is printed in one piece: where --set changed a part of it, that counts.
func (o *Origins) latest(path string) Origin {
	at := o.Of(path)
	for inner, origin := range o.places {
		if strings.HasPrefix(inner, path+".") && origin.Kind > at.Kind {
			at = origin
		}
	}
	return at
}

// Print writes the configuration as YAML, secrets hidden, with the origin of every value behind it.
// Without secrets the text loads to the same configuration.
func (o *Origins) Print(w io.Writer, c Config) error {
	node, err := o.node("", reflect.ValueOf(c))
	if err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	dumper, err := yaml.NewDumper(w, yaml.WithIndent(2), yaml.WithLineWidth(-1), yaml.WithQuotePreference(yaml.QuoteDouble))
	if err == nil {
		err = dumper.Dump(node)
	}
	if err == nil {
		err = dumper.Close()
	}
	if err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	return nil
}

func (o *Origins) node(path string, v reflect.Value) (*yaml.Node, error) {
	kind := shapeOf(v.Type())
	node := &yaml.Node{LineComment: "# " + o.Of(path).String()}
	add := func(key string, inner reflect.Value) error {
		value, err := o.node(join(path, key), inner)
		if node.Kind == yaml.MappingNode {
			node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key})
		}
		node.Content = append(node.Content, value)
		return err
	}
	var err error
	switch {
	case kind == free:
		err = node.Dump(v.Interface())
		node.Style = yaml.FlowStyle
		node.LineComment = "# " + o.latest(path).String()
	case kind == scalar:
		node.Kind, node.Value, node.Tag = yaml.ScalarNode, printable(path, v), scalarTag(v)
	case kind == group:
		node.Kind, node.LineComment = yaml.MappingNode, ""
		for i := range v.NumField() {
			if err == nil {
				err = add(fieldOf(v.Type().Field(i)).key, v.Field(i))
			}
		}
	case kind == named && v.Len() > 0:
		node.Kind, node.LineComment = yaml.MappingNode, ""
		for _, name := range names(v) {
			if err == nil {
				err = add(name, v.MapIndex(reflect.ValueOf(name)))
			}
		}
	case kind == list && v.Len() > 0:
		node.Kind, node.LineComment = yaml.SequenceNode, ""
		for i := range v.Len() {
			if err == nil {
				err = add(strconv.Itoa(i), v.Index(i))
			}
		}
	case kind == named:
		node.Kind, node.Style = yaml.MappingNode, yaml.FlowStyle
	default:
		node.Kind, node.Style = yaml.SequenceNode, yaml.FlowStyle
		for i := range v.Len() {
			node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v.Index(i).String()})
		}
	}
	return node, err
}

func scalarTag(v reflect.Value) string {
	_, custom := reflect.TypeAssert[fmt.Stringer](v)
	switch {
	case v.Kind() == reflect.Bool:
		return "!!bool"
	case v.CanInt() && !custom:
		return "!!int"
	case v.CanFloat():
		return "!!float"
	default:
		return "!!str"
	}
}

// printable is text without the user part of URLs, which a wrong configuration may hold. In the URL of an endpoint, the
// part after the question mark may be a key of somebody's API.
func printable(path string, v reflect.Value) string {
	shown := userForm.ReplaceAllString(text(v), "://"+hidden+"@")
	if where, query, found := strings.Cut(shown, "?"); found && query != "" && urlForm.MatchString(path) {
		return where + "?" + hidden
	}
	return shown
}
