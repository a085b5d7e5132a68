package shard

import (
	"errors"
	"iter"
	"maps"
	"slices"
	"sync"
)

// Reach is how much of the topology a call concerns: what it will cost once the data is
// sharded.
type Reach int

const (
	SingleShard Reach = iota // one shard
	SameNode                 // several shards on one node, which one call can serve
	Scatter                  // several nodes
)

func (r Reach) String() string {
	switch r {
	case SingleShard:
		return "single-shard"
	case SameNode:
		return "same-node"
	default:
		return "scatter"
	}
}

// Shadow routes calls by a map that is not in use, so that a service learns which of its
// calls a topology would serve from one shard before any data moves. It is Figma's study of
// readiness (2024), which found the part of its queries that could be sharded, as a
// library: call [Shadow.Call] beside each query, let it run for a day and read the
// [Shadow.Report].
//
// Its zero value is of no use. A Shadow is safe for concurrent use by multiple goroutines.
type Shadow[K any] struct {
	router func() *Map // in use now
	hash   Hash[K]
	next   *Map

	mu    sync.Mutex
	stats map[string]*ShadowStats
}

// Shadow returns a Shadow that judges calls by map next, as the router would route them
// then. It moves nothing and changes nothing in the router. It returns an error if next is
// nil or the zero Map.
func (r *Router[K, N]) Shadow(next *Map) (*Shadow[K], error) {
	if next == nil || next.Len() == 0 {
		return nil, errors.New("shard: map of the shadow is nil or empty, expected one with shards")
	}
	return &Shadow[K]{router: func() *Map { return r.Snapshot().Map() }, hash: r.hash, next: next, stats: map[string]*ShadowStats{}}, nil
}

// ShadowStats counts the calls of one name.
type ShadowStats struct {
	SingleShard, SameNode, Scatter int64 // by their reach on the next map
	Moved                          int64 // with a key whose node is another on the next map
}

// Calls is the number of all calls of the name.
func (s ShadowStats) Calls() int64 { return s.SingleShard + s.SameNode + s.Scatter }

// Call notes a call that concerns the given keys, or all the data if there are none, and
// returns its reach on the next map. The name stands for a kind of query; names are few
// and come from the program, since each is kept. It costs two look-ups for each key, or a
// comparison of the maps if there are none, and a lock.
func (s *Shadow[K]) Call(name string, keys ...K) Reach {
	reach, moved := s.judge(keys)
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats[name]
	if stats == nil {
		stats = new(ShadowStats)
		s.stats[name] = stats
	}
	switch reach {
	case SingleShard:
		stats.SingleShard++
	case SameNode:
		stats.SameNode++
	case Scatter:
		stats.Scatter++
	}
	if moved {
		stats.Moved++
	}
	return reach
}

func (s *Shadow[K]) judge(keys []K) (reach Reach, moved bool) {
	inUse := s.router()
	if len(keys) == 0 {
		for c := range inUse.Diff(s.next) {
			moved = moved || c.Moves()
		}
		switch {
		case s.next.Len() == 1:
			return SingleShard, moved
		case len(s.next.nodes) == 1:
			return SameNode, moved
		}
		return Scatter, moved
	}
	first := s.next.Lookup(s.hash(keys[0]))
	for _, key := range keys {
		id := s.hash(key)
		here := s.next.Lookup(id)
		moved = moved || here.Node != inUse.Lookup(id).Node
		if here.Node != first.Node {
			reach = Scatter
		} else if here != first {
			reach = max(reach, SameNode)
		}
	}
	return reach, moved
}

// Report yields the counts of each name, in the order of the names. It is a snapshot of
// the moment at which the loop begins.
func (s *Shadow[K]) Report() iter.Seq2[string, ShadowStats] {
	return func(yield func(string, ShadowStats) bool) {
		s.mu.Lock()
		stats := make(map[string]ShadowStats, len(s.stats))
		for name, st := range s.stats {
			stats[name] = *st
		}
		s.mu.Unlock()
		for _, name := range slices.Sorted(maps.Keys(stats)) {
			if !yield(name, stats[name]) {
				return
			}
		}
	}
}
