package shard

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
)

// ErrBadMap is returned by [Map.UnmarshalJSON] for a document that is not a map: of
// another shape or version, or with shards that [NewMap] refuses; then the error
// wraps NewMap's too.
var ErrBadMap = errors.New("shard: bad map document")

// mapVersion is the version of the JSON schema.
const mapVersion = 1

// mapJSON is the schema. A field that is added needs a new version, because readers
// refuse what they do not know rather than lose it.
type mapJSON struct {
	Version int         `json:"version"`
	Epoch   uint64      `json:"epoch"`
	Shards  []shardJSON `json:"shards"`
}

type shardJSON struct {
	Name  string `json:"name,omitempty"` // absent if it is the text of the range
	Range *Range `json:"range"`
	Node  string `json:"node,omitempty"`
}

// MarshalJSON writes the map as
//
//	{"version":1,"epoch":7,"shards":[{"range":"-80","node":"db1"},{"range":"80-","node":"db2"}]}
//
// with the shards in ring order, so that equal maps give equal bytes. The name of a
// shard is left out where it is the text of its range. The version is that of this
// form: it changes only when a reader of the old one could misread the new. The zero
// Map is an error, and so is a name or a node that is not UTF-8, which JSON could not hold.
// It implements [encoding/json.Marshaler].
func (m *Map) MarshalJSON() ([]byte, error) {
	if len(m.shards) == 0 {
		return nil, fmt.Errorf("%w: the zero Map has no form", ErrBadMap)
	}
	doc := mapJSON{Version: mapVersion, Epoch: m.epoch, Shards: make([]shardJSON, len(m.shards))}
	for i := range m.shards {
		s := &m.shards[i]
		if !utf8.ValidString(s.Name) || !utf8.ValidString(s.Node) { // json would change it in silence
			return nil, fmt.Errorf("%w: shard number %d has name %q and node %q, expected UTF-8", ErrBadMap, i, s.Name, s.Node)
		}
		doc.Shards[i] = shardJSON{Range: &s.Range, Node: s.Node}
		if s.Name != s.Range.String() {
			doc.Shards[i].Name = s.Name
		}
	}
	return json.Marshal(doc)
}

// UnmarshalJSON reads what [Map.MarshalJSON] writes and checks it as [NewMap] does.
// It is strict: a field that it does not know, that is there twice or is written in another
// case, a missing range or epoch, or another version is an error that wraps [ErrBadMap], and then m is left alone. Use it on a
// Map that nobody else has seen yet. It implements [encoding/json.Unmarshaler].
func (m *Map) UnmarshalJSON(text []byte) error {
	var version struct {
		Version *int    `json:"version"`
		Epoch   *uint64 `json:"epoch"`
	}
	// The version comes first: a newer document may be of another shape throughout.
	switch err := json.Unmarshal(text, &version); {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrBadMap, err)
	case version.Version == nil:
		return fmt.Errorf("%w: version is missing, expected %d", ErrBadMap, mapVersion)
	case *version.Version != mapVersion:
		return fmt.Errorf("%w: version is %d, expected %d", ErrBadMap, *version.Version, mapVersion)
	case version.Epoch == nil:
		return fmt.Errorf("%w: epoch is missing", ErrBadMap)
	}
	if err := checkKeys(text); err != nil {
		return fmt.Errorf("%w: %w", ErrBadMap, err)
	}
	var doc mapJSON
	if err := json.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("%w: %w", ErrBadMap, err)
	}
	shards := make([]Shard, len(doc.Shards))
	for i, s := range doc.Shards {
		if s.Range == nil {
			return fmt.Errorf("%w: shard number %d, %q, has no range", ErrBadMap, i, s.Name)
		}
		shards[i] = Shard{Name: s.Name, Range: *s.Range, Node: s.Node}
	}
	read, err := NewMap(doc.Epoch, shards...)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadMap, err)
	}
	*m = *read
	return nil
}

// checkKeys refuses the keys of objects that [encoding/json] would take for others, take
// the last of, or leave out.
func checkKeys(text []byte) error {
	known := map[int][]string{1: {"version", "epoch", "shards"}, 3: {"name", "range", "node"}} // by depth
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var objects []map[string]bool // the keys of those that are open; nil for an array
	isKey := false
	for {
		token, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		depth := len(objects)
		switch t := token.(type) {
		case json.Delim:
			switch t {
			case '{':
				objects = append(objects, map[string]bool{})
			case '[':
				objects = append(objects, nil)
			default:
				objects = objects[:depth-1]
			}
			isKey = len(objects) > 0 && objects[len(objects)-1] != nil
			continue
		case string:
			if isKey {
				switch keys := objects[depth-1]; {
				case !slices.Contains(known[depth], t):
					return fmt.Errorf("unknown field %q", t)
				case keys[t]:
					return fmt.Errorf("field %q is there twice", t)
				default:
					keys[t] = true
				}
				isKey = false
				continue
			}
		}
		isKey = depth > 0 && objects[depth-1] != nil // after a value
	}
}

// Digest returns a fingerprint of what the map says, its shards with their names,
// ranges and nodes, and not of its epoch: two maps of one digest route alike. It is
// the xxHash64 of an encoding that does not change with versions of the package. It
// finds mistakes; it is no defence against maps that are made to collide. It costs
// a load.
func (m *Map) Digest() uint64 { return m.digest }

// digestOf hashes each shard's start, name and node; the ends follow from the starts.
func digestOf(shards []Shard) uint64 {
	d := xxhash.New()
	var buf []byte
	for i := range shards {
		s := &shards[i]
		buf = binary.BigEndian.AppendUint64(buf[:0], uint64(s.Range.Start))
		buf = appendField(buf, s.Name)
		buf = appendField(buf, s.Node)
		_, _ = d.Write(buf) // never fails
	}
	return d.Sum64()
}

// appendField appends a text with its length before it, so that two fields cannot
// pass for one.
func appendField(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
	return append(b, s...)
}
