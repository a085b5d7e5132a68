package shard

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
)

var (
	// ErrGap is returned by [NewMap] when a part of the ring has no shard.
	ErrGap = errors.New("shard: gap between shards")

	// ErrOverlap is returned by [NewMap] when a part of the ring has two shards.
	ErrOverlap = errors.New("shard: overlapping shards")

	// ErrDuplicateName is returned by [NewMap] when two shards have one name.
	ErrDuplicateName = errors.New("shard: duplicate shard name")
)

// Shard is one part of the keyspace and the place where it lives.
type Shard struct {
	// Name identifies the shard across maps. Empty means the text of Range, as in
	// Vitess.
	Name string

	// Range is the part of the ring that the shard owns.
	Range Range

	// Node names what serves the shard: a host, a data source, a file. Several
	// shards may share a node. The package does not interpret it.
	Node string
}

// Map says which shard owns each point of the ring. Its ranges tile the ring
// exactly: [NewMap] builds no other, so a key always has one owner and a scatter
// over all shards misses nothing.
//
// A Map is immutable and safe for concurrent use by multiple goroutines. The
// shards that it hands out belong to it and must not be changed. The zero Map has no
// shards, and a look-up in it panics.
type Map struct {
	epoch  uint64
	shards []Shard // in ring order
	index  index
	digest uint64

	nodes []nodeShards // in order of first appearance
}

type nodeShards struct {
	node   string
	shards []*Shard
}

// NewMap builds a map from shards in any order. The epoch orders the versions of
// one keyspace's map: the higher is the newer. The shards are copied, and an
// empty Name is filled in.
//
// It returns an error that wraps [ErrGap], [ErrOverlap], [ErrBadRange] or
// [ErrDuplicateName] and names the shards or the part of the ring. It costs
// O(n log n) and, beside the shards themselves, at most some 100 bytes a shard and 2 kB.
func NewMap(epoch uint64, shards ...Shard) (*Map, error) {
	m := &Map{epoch: epoch, shards: slices.Clone(shards)}
	names := make(map[string]Range, len(shards))
	for i := range m.shards {
		s := &m.shards[i]
		if !s.Range.valid() {
			return nil, fmt.Errorf("%w [%v, %v) of shard number %d, %q: expected an end after the start", ErrBadRange, s.Range.Start, s.Range.End, i, s.Name)
		}
		if s.Name == "" {
			s.Name = s.Range.String()
		}
		if r, ok := names[s.Name]; ok {
			return nil, fmt.Errorf("%w: %q has ranges %v and %v", ErrDuplicateName, s.Name, r, s.Range)
		}
		names[s.Name] = s.Range
	}
	slices.SortFunc(m.shards, func(a, b Shard) int { return cmp.Compare(a.Range.Start, b.Range.Start) })
	if err := checkTiles(m.shards); err != nil {
		return nil, err
	}
	m.digest = digestOf(m.shards)
	m.index = newIndex(m.shards)
	m.groupByNode()
	return m, nil
}

// checkTiles walks the sorted shards from the start of the ring to its end.
func checkTiles(shards []Shard) error {
	if len(shards) == 0 {
		return fmt.Errorf("%w: no shards, expected ranges that cover -", ErrGap)
	}
	if first := shards[0].Range; first.Start != 0 {
		return fmt.Errorf("%w: nothing owns %v", ErrGap, Range{End: first.Start})
	}
	for i := range len(shards) - 1 {
		a, b := shards[i], shards[i+1]
		switch {
		case a.Range.Overlaps(b.Range):
			return fmt.Errorf("%w: %q (%v) and %q (%v)", ErrOverlap, a.Name, a.Range, b.Name, b.Range)
		case a.Range.End != b.Range.Start:
			return fmt.Errorf("%w: nothing owns %v", ErrGap, Range{a.Range.End, b.Range.Start})
		}
	}
	if last := shards[len(shards)-1].Range; last.End != 0 {
		return fmt.Errorf("%w: nothing owns %v", ErrGap, Range{Start: last.End})
	}
	return nil
}

// groupByNode builds what [Map.ByNode] yields.
func (m *Map) groupByNode() {
	byNode := make(map[string]int)
	for i := range m.shards {
		s := &m.shards[i]
		n, ok := byNode[s.Node]
		if !ok {
			n = len(m.nodes)
			byNode[s.Node] = n
			m.nodes = append(m.nodes, nodeShards{node: s.Node})
		}
		m.nodes[n].shards = append(m.nodes[n].shards, s)
	}
}

// Lookup returns the shard that owns id. It is never nil.
//
// The top bits of id index a table that leads to the owner; where many shards share an
// entry, a table of their own follows. It costs 1 to 5 ns, whatever the number of shards,
// also where they crowd; where they crowd at many scales, each shard half as large as the
// one before, it takes a step more for each few of them, some 12 at most. It allocates
// nothing.
func (m *Map) Lookup(id ID) *Shard { return &m.shards[m.index.owner(id)] }

// Epoch returns the version that was given to [NewMap].
func (m *Map) Epoch() uint64 { return m.epoch }

// Len returns the number of shards.
func (m *Map) Len() int { return len(m.shards) }

// All yields every shard in ring order.
func (m *Map) All() iter.Seq[*Shard] {
	return func(yield func(*Shard) bool) {
		for i := range m.shards {
			if !yield(&m.shards[i]) {
				return
			}
		}
	}
}

// Overlapping yields, in ring order, the shards that share a point with r. An
// empty or inverted r yields none. It finds the first in the time of
// [Map.Lookup].
func (m *Map) Overlapping(r Range) iter.Seq[*Shard] {
	return func(yield func(*Shard) bool) {
		if !r.valid() || len(m.shards) == 0 {
			return
		}
		for i := int(m.index.owner(r.Start)); i < len(m.shards) && m.shards[i].Range.Start <= r.last(); i++ {
			if !yield(&m.shards[i]) {
				return
			}
		}
	}
}

// ByNode yields each node with its shards, the nodes in the order of their first
// shard and the shards in ring order: one call a node can serve them all. The
// slices belong to the map and must not be changed.
func (m *Map) ByNode() iter.Seq2[string, []*Shard] {
	return func(yield func(string, []*Shard) bool) {
		for _, n := range m.nodes {
			if !yield(n.node, n.shards) {
				return
			}
		}
	}
}

// Group sorts points by their shards: it yields, in ring order, each shard that owns some
// of ids with their positions in ids, ascending. It is the first half of a read of many
// keys, one call a shard. The positions may be kept. It costs O(k log k) for k points,
// whatever the size of the map, and three allocations.
func (m *Map) Group(ids []ID) iter.Seq2[*Shard, []int] {
	return func(yield func(*Shard, []int) bool) {
		owners := make([]int32, len(ids))
		positions := make([]int, len(ids))
		for i, id := range ids {
			owners[i] = m.index.owner(id)
			positions[i] = i
		}
		slices.SortFunc(positions, func(a, b int) int {
			if c := cmp.Compare(owners[a], owners[b]); c != 0 {
				return c // not cmp.Or: inlined into a caller, its variadic slice is allocated at each comparison
			}
			return cmp.Compare(a, b)
		})
		for len(positions) > 0 {
			owner, n := owners[positions[0]], 1
			for n < len(positions) && owners[positions[n]] == owner {
				n++
			}
			if !yield(&m.shards[owner], positions[:n:n]) {
				return
			}
			positions = positions[n:]
		}
	}
}
