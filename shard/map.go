package shard

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"math/bits"
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
// shards that it hands out belong to it and must not be changed. The zero Map is
// not valid.
type Map struct {
	epoch  uint64
	shards []Shard // in ring order
	starts []ID    // shards[i].Range.Start, dense for the search

	// table[b] is the index of the shard that owns the first point of bucket b,
	// where the bucket of a point is its top 64-shift bits. One entry more than
	// there are buckets, so that table[b+1] bounds the search.
	table []uint32
	shift uint

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
// [ErrDuplicateName] and names the shards.
func NewMap(epoch uint64, shards ...Shard) (*Map, error) {
	m := &Map{epoch: epoch, shards: slices.Clone(shards)}
	names := make(map[string]Range, len(shards))
	for i := range m.shards {
		s := &m.shards[i]
		if !s.Range.valid() {
			return nil, fmt.Errorf("%w [%v, %v) of shard %q: expected an end after the start", ErrBadRange, s.Range.Start, s.Range.End, s.Name)
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
	m.index()
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

// index builds what the look-ups read.
func (m *Map) index() {
	m.starts = make([]ID, len(m.shards))
	for i := range m.shards {
		m.starts[i] = m.shards[i].Range.Start
	}

	// About four buckets a shard: then few buckets of an uneven map hold a cut.
	tableBits := bits.Len(uint(len(m.shards)-1)) + 2
	m.shift = uint(64 - tableBits)
	m.table = make([]uint32, 1<<tableBits+1)
	owner := 0
	for b := range len(m.table) - 1 {
		first := ID(b) << m.shift
		for owner+1 < len(m.starts) && m.starts[owner+1] <= first {
			owner++
		}
		m.table[b] = uint32(owner)
	}
	m.table[len(m.table)-1] = uint32(len(m.starts) - 1)

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
// The top bits of id index a table that leads to the owner, or to the few
// candidates that start in the same bucket; among many, in a very uneven map, it
// searches by halves. It costs about 5 ns for any number of shards of usual
// sizes, O(log n) at the worst, and allocates nothing.
func (m *Map) Lookup(id ID) *Shard { return &m.shards[m.owner(id)] }

// scanLimit is the number of candidates up to which a scan beats halving.
const scanLimit = 4

func (m *Map) owner(id ID) int {
	b := uint64(id) >> (m.shift & 63)
	lo, hi := int(m.table[b]), int(m.table[b+1])
	for hi-lo > scanLimit { // the owner is in lo..hi
		mid := int(uint(lo+hi+1) >> 1)
		if m.starts[mid] <= id {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	for lo < hi && m.starts[lo+1] <= id {
		lo++
	}
	return lo
}

// Epoch returns the version that was given to [NewMap].
func (m *Map) Epoch() uint64 { return m.epoch }

// Len returns the number of shards.
func (m *Map) Len() int { return len(m.shards) }

// All yields every shard in ring order.
func (m *Map) All() iter.Seq[*Shard] { return m.Overlapping(Range{}) }

// Overlapping yields, in ring order, the shards that share a point with r. An
// empty or inverted r yields none. It finds the first in the time of
// [Map.Lookup].
func (m *Map) Overlapping(r Range) iter.Seq[*Shard] {
	return func(yield func(*Shard) bool) {
		if !r.valid() {
			return
		}
		for i := m.owner(r.Start); i < len(m.shards) && m.shards[i].Range.Start <= r.last(); i++ {
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
