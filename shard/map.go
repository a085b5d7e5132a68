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
// shards that it hands out belong to it and must not be changed. The zero Map has no
// shards, and a look-up in it panics.
type Map struct {
	epoch  uint64
	shards []Shard // in ring order
	starts []ID    // shards[i].Range.Start, dense for the search
	digest uint64

	// table tells the owner of the first point of each bucket, where the bucket of a
	// point is its top 64-shift bits: its index, or the complement of that, which is
	// negative, if another shard begins inside the bucket. It has one entry more than
	// there are buckets, to bound the search in the last.
	table []int32
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
// [ErrDuplicateName] and names the shards or the part of the ring. It costs
// O(n log n) and, beside the shards themselves, at most 40 bytes a shard or 1 kB in
// all.
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

	// With exact bits no shard begins inside a bucket. Boundaries are usually round
	// numbers, so that a small table often does. If it does not, about four buckets a
	// shard leave few that another shard begins in.
	var all ID
	for _, start := range m.starts {
		all |= start
	}
	exact := 64 - bits.TrailingZeros64(uint64(all))
	tableBits := max(1, min(exact, max(8, bits.Len(uint(len(m.shards)-1))+2)))
	m.shift = uint(64 - tableBits)
	m.table = make([]int32, 1<<tableBits+1)
	owner := 0
	ownerOf := func(id ID) int32 { // of ascending points
		for owner+1 < len(m.starts) && m.starts[owner+1] <= id {
			owner++
		}
		return int32(owner)
	}
	for b := range len(m.table) - 1 {
		start := ID(b) << m.shift
		first, last := ownerOf(start), ownerOf(start|(1<<m.shift-1))
		m.table[b] = first
		if last != first {
			m.table[b] = ^first
		}
	}
	m.table[len(m.table)-1] = int32(len(m.starts) - 1)

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
// The top bits of id index a table that leads to the owner; where several shards
// share an entry, a search by halves among them follows. It costs 1 to 5 ns if the
// shards are roughly of one size, O(log n) whatever they are, and allocates nothing.
func (m *Map) Lookup(id ID) *Shard { return &m.shards[m.owner(id)] }

func (m *Map) owner(id ID) int32 {
	i := m.table[id>>(m.shift&63)]
	if i < 0 {
		i = m.search(id)
	}
	return i
}

// search returns the owner of a point in a bucket that others begin in. It is a
// function of its own so that owner is inlined.
func (m *Map) search(id ID) int32 {
	b := id >> m.shift
	lo, hi := ^m.table[b], m.table[b+1]
	if hi < 0 {
		hi = ^hi
	}
	for lo < hi { // the owner is in lo..hi
		mid := int32(uint32(lo+hi+1) / 2)
		if m.starts[mid] <= id {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return lo
}

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
		if !r.valid() {
			return
		}
		for i := int(m.owner(r.Start)); i < len(m.shards) && m.shards[i].Range.Start <= r.last(); i++ {
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
