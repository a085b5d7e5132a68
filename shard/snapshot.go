package shard

import (
	"iter"
	"maps"
	"sync/atomic"
)

// Snapshot is the map that a [Router] used at one moment, with the handles of its nodes.
// It is immutable and safe for concurrent use. The zero value is of no use.
type Snapshot[N any] struct{ s *snapshot[N] }

// Map returns the map.
func (s Snapshot[N]) Map() *Map { return s.s.m }

// Lookup returns where a point lives, in the time of [Map.Lookup].
func (s Snapshot[N]) Lookup(id ID) Target[N] { return s.s.lookup(id) }

// Node returns the handle of a node, and false if no shard of the map is on it.
func (s Snapshot[N]) Node(name string) (N, bool) {
	handle, ok := s.s.nodes[name]
	return handle, ok
}

// Nodes yields every node of the map with its handle, in no order.
func (s Snapshot[N]) Nodes() iter.Seq2[string, N] { return maps.All(s.s.nodes) }

// snapshot is a map with its handles. It counts its users, so that a handle is dropped
// when nobody can be using it.
type snapshot[N any] struct {
	// Immutable once the snapshot is in use.
	m       *Map
	targets []Target[N] // of m's shards
	nodes   map[string]N
	drop    func(node string, handle N)

	superseded chan struct{} // closed when a newer one is in use
	next       *snapshot[N]  // the newer one, set before the router releases this one

	// refs counts the calls that use the snapshot, the router while this is the one in
	// use, and the snapshot before this one while that has references of its own. At zero
	// no older one is in use either, and a handle that next lacks can go.
	refs atomic.Int64
}

func newSnapshot[N any](m *Map, drop func(string, N)) *snapshot[N] {
	s := &snapshot[N]{m: m, nodes: make(map[string]N), drop: drop, superseded: make(chan struct{})}
	s.refs.Store(1)
	return s
}

// fill makes the targets when all handles are there.
func (s *snapshot[N]) fill() {
	s.targets = make([]Target[N], s.m.Len())
	for i := range s.m.shards {
		shard := &s.m.shards[i]
		s.targets[i] = Target[N]{Shard: shard, Node: s.nodes[shard.Node], Epoch: s.m.epoch}
	}
}

func (s *snapshot[N]) lookup(id ID) Target[N] { return s.targets[s.m.index.owner(id)] }

// acquire adds a reference unless there is none left.
func (s *snapshot[N]) acquire() bool {
	for {
		n := s.refs.Load()
		if n == 0 {
			return false
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release gives a reference back. The last one, which comes after the snapshot was
// superseded, drops what the next one does not have and releases that.
func (s *snapshot[N]) release() {
	if s.refs.Add(-1) > 0 {
		return
	}
	defer s.next.release() // also if drop panics, or nothing would be dropped from then on
	for node := range s.nodes {
		if !s.next.has(node) {
			s.dropNode(node)
		}
	}
}

// has reports whether a shard of the map is on a node. A nil snapshot has none.
func (s *snapshot[N]) has(node string) bool {
	if s == nil {
		return false
	}
	_, ok := s.nodes[node]
	return ok
}

func (s *snapshot[N]) dropAll() {
	for node := range s.nodes {
		s.dropNode(node)
	}
}

func (s *snapshot[N]) dropNode(node string) {
	if s.drop != nil {
		s.drop(node, s.nodes[node])
	}
}
