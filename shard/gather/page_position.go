package gather

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
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

	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
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
	if seen[t] {
		return ""
	}
	if marshalsItself(t) {
		return notBack(t)
	}
	seen[t] = true
	if name := nameTwice(t, map[string]bool{}); name != "" {
		return fmt.Sprintf("two fields of %v with the name %q", t, name)
	}
	switch t.Kind() {
	case reflect.Interface:
		return fmt.Sprintf("an interface, %v", t)
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return lost(t.Elem(), seen)
	case reflect.Struct:
		for f := range t.Fields() {
			embedded := f.Anonymous && f.Type.Kind() == reflect.Struct // also of an unexported type
			if !f.IsExported() && !embedded || f.Tag.Get("json") == "-" {
				return fmt.Sprintf("the field %v.%s", t, f.Name)
			}
			if k := f.Type.Kind(); (k == reflect.Slice || k == reflect.Map) && strings.Contains(f.Tag.Get("json"), ",omitempty") {
				return fmt.Sprintf("omitempty at %v.%s, of which an empty value comes back as nil", t, f.Name)
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

// notBack says what is wrong with a type that marshals itself: it does not unmarshal, or
// it is a struct for which an embedded field does it, without the others.
func notBack(t reflect.Type) string {
	if p := reflect.PointerTo(t); !p.Implements(jsonUnmarshaler) && !p.Implements(textUnmarshaler) && !t.Implements(jsonUnmarshaler) && !t.Implements(textUnmarshaler) {
		return fmt.Sprintf("a type that marshals itself and does not unmarshal, %v", t)
	}
	if t.Kind() != reflect.Struct || t.NumField() == 1 {
		return ""
	}
	for f := range t.Fields() {
		if f.Anonymous && marshalsItself(f.Type) {
			return fmt.Sprintf("an embedded field that marshals itself, %v.%s", t, f.Name)
		}
	}
	return ""
}

// nameTwice returns a JSON name that two fields of a struct share, embedded ones
// included: package json writes one of them or neither.
func nameTwice(t reflect.Type, seen map[string]bool) string {
	if t.Kind() != reflect.Struct {
		return ""
	}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct && !marshalsItself(f.Type) {
			if twice := nameTwice(f.Type, seen); twice != "" {
				return twice
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		if seen[name] {
			return name
		}
		seen[name] = true
	}
	return ""
}
