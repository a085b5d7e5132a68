package gather

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
)

func encodePosition[P any](p P) ([]byte, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("gather: position of a row: %w", err)
	}
	if hasReplacement(data) {
		return nil, errors.New("gather: position of a row has text that is not UTF-8, expected []byte for it")
	}
	return data, nil
}

// decodePosition reads what encodePosition wrote, though for a P of another layout
// perhaps.
func decodePosition[P any](data []byte) (*P, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	p := new(P)
	if err := d.Decode(p); err != nil {
		return nil, fmt.Errorf("%w: a position of another layout, expected one fingerprint for each: %w", ErrForeignCursor, err)
	}
	return p, nil
}

// hasReplacement reports whether JSON text has the escape of U+FFFD. Package json writes it
// for bytes that are not UTF-8, and the character itself as it is.
func hasReplacement(data []byte) bool {
	for i := 0; i < len(data); i++ {
		if data[i] == '\\' {
			if bytes.HasPrefix(data[i:], []byte(`\ufffd`)) {
				return true
			}
			i++ // the escaped character, which may be a backslash
		}
	}
	return false
}

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// checkPositionType refuses types of which JSON keeps not all: the rows between the
// position and what is left of it would be lost, or repeated.
func checkPositionType[P any]() error {
	t := reflect.TypeFor[P]()
	if what := lost(t, map[reflect.Type]bool{}); what != "" {
		return fmt.Errorf("gather: position of type %v has %s, which JSON does not keep", t, what)
	}
	return nil
}

// lost names the first part of t that does not survive JSON, or nothing.
func lost(t reflect.Type, seen map[reflect.Type]bool) string {
	if seen[t] || marshalsItself(t) {
		return ""
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Interface:
		return fmt.Sprintf("an interface, %v", t)
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return lost(t.Elem(), seen)
	case reflect.Struct:
		for f := range t.Fields() {
			promoted := f.Anonymous && f.Type.Kind() == reflect.Struct // also of an unexported type
			if !f.IsExported() && !promoted || f.Tag.Get("json") == "-" {
				return fmt.Sprintf("the field %v.%s", t, f.Name)
			}
			if what := lost(f.Type, seen); what != "" {
				return what
			}
		}
	}
	return ""
}

func marshalsItself(t reflect.Type) bool {
	return t.Implements(jsonMarshaler) || t.Implements(textMarshaler)
}
