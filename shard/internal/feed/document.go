// Package feed has what the sources of the shard map share: the form of a stored map,
// the rule that it only moves forward, what a watcher is told, and pauses.
package feed

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/evenkeel-go/evenkeel/shard"
)

// ErrNoMap is topo.ErrNoMap, which package topo exports.
var ErrNoMap = errors.New("topo: no map")

// Encode returns the document of m. It refuses a map that would be read back as
// another: JSON has no text that is not UTF-8, and would replace it silently.
func Encode(m *shard.Map) ([]byte, error) {
	if m == nil {
		return nil, fmt.Errorf("%w: it is nil, expected a map", shard.ErrBadMap)
	}
	text, err := m.MarshalJSON()
	if err != nil {
		return nil, err
	}
	again, err := Decode(text)
	if err != nil {
		return nil, err
	}
	if again.Digest() != m.Digest() {
		return nil, fmt.Errorf("%w: epoch %d has a name or node that is not UTF-8", shard.ErrBadMap, m.Epoch())
	}
	return text, nil
}

// Ahead returns an error that wraps shard.ErrStaleMap if text, which Decode refused, is a
// document of a later version of this library whose epoch is not below that of m.
func Ahead(text []byte, m *shard.Map) error {
	var head struct {
		Version int     `json:"version"`
		Epoch   *uint64 `json:"epoch"`
	}
	if json.Unmarshal(text, &head) != nil || head.Version <= 1 || head.Epoch == nil || *head.Epoch < m.Epoch() {
		return nil
	}
	return fmt.Errorf("%w: epoch %d, expected above %d, of a document of version %d", shard.ErrStaleMap, m.Epoch(), *head.Epoch, head.Version)
}

// Decode reads a document. Its errors wrap shard.ErrBadMap.
func Decode(text []byte) (*shard.Map, error) {
	m := new(shard.Map)
	if err := m.UnmarshalJSON(text); err != nil {
		return nil, err
	}
	return m, nil
}
