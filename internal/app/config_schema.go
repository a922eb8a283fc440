package app

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/invopop/jsonschema"
)

// Schema returns the JSON Schema of the configuration file, for editors. Load is stricter: it also
// knows how settings depend on each other.
func Schema() ([]byte, error) {
	reflector := jsonschema.Reflector{
		FieldNameTag:               "yaml",
		RequiredFromJSONSchemaTags: true,
		DoNotReference:             true,
		Anonymous:                  true,
		Mapper:                     scalarSchema,
	}
	schema := reflector.Reflect(Config{})
	schema.Title = "Configuration of processor"
	describe(schema, reflect.ValueOf(Default()), field{})
	text, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("print schema: %w", err)
	}
	return append(text, '\n'), nil
}

// scalarSchema describes the types that read themselves from text.
func scalarSchema(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[Duration]():
		return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+d)?([0-9.]+(h|m|s|ms|us|µs|ns))*$`}
	case reflect.TypeFor[ByteSize]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
			{Type: "string", Pattern: `^[0-9]+ ?([kKMGT]?B|[KMGT]iB)?$`},
			{Type: "integer"},
		}}
	case reflect.TypeFor[Secret]():
		return &jsonschema.Schema{Type: "string", WriteOnly: true}
	default:
		return nil
	}
}

// describe adds what the tags of the settings say, which the reflector does not read. v is what the
// file's values are laid over.
func describe(schema *jsonschema.Schema, v reflect.Value, f field) {
	schema.Description = f.doc
	switch shapeOf(v.Type()) {
	case group:
		for i := range v.NumField() {
			inner := fieldOf(v.Type().Field(i))
			property, found := schema.Properties.Get(inner.key)
			if !found {
				continue
			}
			describe(property, v.Field(i), inner)
			if inner.required && v.Field(i).IsZero() {
				schema.Required = append(schema.Required, inner.key)
			}
		}
	case list:
		describe(schema.Items, fresh(v.Type().Elem()), field{})
	case named:
		if entry := v.Type().Elem(); shapeOf(entry) == group {
			describe(schema.AdditionalProperties, fresh(entry), field{})
		}
	case texts:
		if v.Len() > 0 {
			schema.Default = v.Interface()
		}
	case scalar:
		schema.Default = v.Interface()
		for _, value := range f.enum {
			schema.Enum = append(schema.Enum, value)
		}
		if f.span != "" && schema.Type != "string" && schema.OneOf == nil {
			low, high := bounds(v.Type(), f.span)
			schema.Minimum, schema.Maximum = json.Number(text(low)), json.Number(text(high))
		} else if f.span != "" {
			schema.Description += " Range: " + f.span + "."
		}
	case free:
	}
}
