package httpcoalesce

import (
	"slices"
	"sync"
	"time"
)

// A shard has the flights of some of the keys, and what was learned about them. All
// variants of a resource are in the shard of its base key. Lock order: shard.mu, then
// flight.mu.
type shard struct {
	mu      sync.Mutex
	flights map[string]*flight
	notes   map[uint64]note
	ring    []uint64 // the notes' keys in the order in which they came
	oldest  int
}

// notesPerShard bounds the memory: 64 shards remember 8,192 notes. A note that is
// forgotten costs a wait, no more.
const notesPerShard = 128

// maxVary is how many fields are remembered for one resource. A response that varies
// on more is not shared.
const maxVary = 16

// A note is what earlier responses said about a key. It is found by a hash of the key
// with a random seed: a collision makes a request run alone, or with a longer key.
type note struct {
	passUntil time.Time
	vary      []string // canonical, sorted, never changed in place
}

func (h *Handler) shardOf(base uint64) *shard { return &h.shards[base%uint64(len(h.shards))] }

func (s *shard) vary(base uint64) []string { return s.notes[base].vary }

func (s *shard) passes(key uint64) bool {
	until := s.notes[key].passUntil
	return !until.IsZero() && time.Now().Before(until)
}

func (s *shard) write(key uint64, n note) {
	if _, known := s.notes[key]; known {
		s.notes[key] = n
		return
	}
	if s.notes == nil {
		s.notes = make(map[uint64]note)
	}
	if len(s.ring) < notesPerShard {
		s.ring = append(s.ring, key)
	} else {
		delete(s.notes, s.ring[s.oldest])
		s.ring[s.oldest] = key
		s.oldest = (s.oldest + 1) % notesPerShard
	}
	s.notes[key] = n
}

// notePass remembers that the responses of this key cannot be shared.
func (s *shard) notePass(key uint64, ttl time.Duration) {
	if ttl > 0 {
		n := s.notes[key]
		n.passUntil = time.Now().Add(ttl)
		s.write(key, n)
	}
}

// noteVary adds names to the fields on which the responses of a base key vary, and
// returns them all, or false if they are too many. Names only come: a 404 that does
// not vary says nothing about the 200.
func (s *shard) noteVary(base uint64, names []string) (all []string, ok bool) {
	n := s.notes[base]
	if len(names) == 0 {
		return n.vary, true
	}
	all = slices.Concat(n.vary, names)
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) > maxVary {
		return nil, false
	}
	if len(all) != len(n.vary) {
		n.vary = all
		s.write(base, n)
	}
	return all, true
}

// remove takes a flight out of the map, if it is still there.
func (s *shard) remove(f *flight) {
	if s.flights[f.key] == f {
		delete(s.flights, f.key)
	}
}
