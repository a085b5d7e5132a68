package feed

import (
	"bytes"

	"github.com/evenkeel-go/evenkeel/shard"
)

// A Feed turns what a source holds, time after time, into what one watcher is told:
// newer maps only, and each thing that is wrong once, for as long as it stays the
// same. The zero value has heard nothing. It is for one goroutine.
type Feed struct {
	heard  bool
	text   []byte
	newest *shard.Map
}

// Same reports whether the source held text last time too. Nil is no content.
func (f *Feed) Same(text []byte) bool {
	return f.heard && (f.text == nil) == (text == nil) && bytes.Equal(f.text, text)
}

// Hear takes what the source holds now and keeps text; decode reads it. It returns a
// map if the watcher should have it, an error if it should be told, and neither if
// there is nothing new.
func (f *Feed) Hear(text []byte, decode func([]byte) (*shard.Map, error)) (*shard.Map, error) {
	if f.Same(text) {
		return nil, nil
	}
	f.heard, f.text = true, text
	if text == nil {
		return nil, ErrNoMap
	}
	m, err := decode(text)
	if err != nil {
		return nil, err
	}
	newer, err := m.Supersedes(f.newest)
	if !newer {
		return nil, err
	}
	f.newest = m
	return m, nil
}
