package shard

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
)

var (
	// ErrNoShard is returned by [Map.Split], [Map.Merge] and [Map.Move] for a name that
	// no shard of the map has.
	ErrNoShard = errors.New("shard: no such shard")

	// ErrCannotMerge is returned by [Map.Merge] for shards that do not adjoin or are on
	// different nodes.
	ErrCannotMerge = errors.New("shard: shards cannot be merged")

	// ErrLastEpoch is returned by [Map.Split], [Map.Merge] and [Map.Move] when the map
	// has the greatest epoch there is.
	ErrLastEpoch = errors.New("shard: no epoch left")
)

// ByName returns the shard of a name, or nil. It costs O(n) and is for operators.
func (m *Map) ByName(name string) *Shard {
	if i := m.named(name); i >= 0 {
		return &m.shards[i]
	}
	return nil
}

func (m *Map) named(name string) int {
	return slices.IndexFunc(m.shards, func(s Shard) bool { return s.Name == name })
}

// Split returns the next map, in which the shard of that name is cut at the points as by
// [Range.Split], or without points in the middle. The parts stay on its node and are named
// by their ranges; no other shard changes. The epoch is one higher.
//
// It returns an error that wraps [ErrNoShard], [ErrBadRange], [ErrLastEpoch] or, if a
// shard elsewhere has a part's name, [ErrDuplicateName]. It costs as much as [NewMap].
func (m *Map) Split(name string, at ...ID) (*Map, error) {
	i := m.named(name)
	if i < 0 {
		return nil, fmt.Errorf("%w: cannot split %q", ErrNoShard, name)
	}
	old := m.shards[i]
	ranges, err := old.Range.Split(at...)
	if err != nil {
		return nil, fmt.Errorf("split %q: %w", name, err)
	}
	parts := make([]Shard, len(ranges))
	for p, r := range ranges {
		parts[p] = Shard{Range: r, Node: old.Node}
	}
	return m.next(i, i+1, parts...)
}

// Merge returns the next map, in which the shards of the two names, which must adjoin and
// be on one node, are one shard there, named by its range. The epoch is one higher. To
// merge shards on two nodes, move one of them first: it is that step which carries data.
//
// It returns an error that wraps [ErrNoShard], [ErrCannotMerge], [ErrLastEpoch] or, if a
// shard elsewhere has the whole's name, [ErrDuplicateName]. It costs as much as [NewMap].
func (m *Map) Merge(a, b string) (*Map, error) {
	i, j := m.named(a), m.named(b)
	for at, name := range map[int]string{i: a, j: b} {
		if at < 0 {
			return nil, fmt.Errorf("%w: cannot merge %q", ErrNoShard, name)
		}
	}
	first, second := m.shards[min(i, j)], m.shards[max(i, j)]
	whole, ok := first.Range.Join(second.Range)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: %q (%v) and %q (%v) do not adjoin", ErrCannotMerge, first.Name, first.Range, second.Name, second.Range)
	case first.Node != second.Node:
		return nil, fmt.Errorf("%w: %q is on node %q and %q on %q, expected one node", ErrCannotMerge, first.Name, first.Node, second.Name, second.Node)
	}
	return m.next(min(i, j), max(i, j)+1, Shard{Range: whole, Node: first.Node})
}

// Move returns the next map, in which the shard of that name is on another node, with the
// same name and range. The epoch is one higher, also if it was there already.
//
// It returns an error that wraps [ErrNoShard] or [ErrLastEpoch]. It costs as much as
// [NewMap].
func (m *Map) Move(name, node string) (*Map, error) {
	i := m.named(name)
	if i < 0 {
		return nil, fmt.Errorf("%w: cannot move %q", ErrNoShard, name)
	}
	moved := m.shards[i]
	moved.Node = node
	return m.next(i, i+1, moved)
}

// next returns the map of the next epoch with other shards in the place of some.
func (m *Map) next(from, to int, parts ...Shard) (*Map, error) {
	if m.epoch == math.MaxUint64 {
		return nil, fmt.Errorf("%w after %d", ErrLastEpoch, m.epoch)
	}
	return NewMap(m.epoch+1, slices.Replace(slices.Clone(m.shards), from, to, parts...)...)
}

// Change is a part of the ring that two maps route differently.
type Change struct {
	// Range is the part, at most one shard of each map.
	Range Range

	// From and To are the shards that own it in the first and the second map. They differ
	// in name, node or range.
	From, To *Shard
}

// Moves reports whether the rows of the part have to be carried to another node.
func (c Change) Moves() bool { return c.From.Node != c.To.Node }

// Diff yields, in ring order, what changes from m to next: every part of the ring whose
// shard has another name, node or range there. Equal maps yield nothing. The parts do
// not overlap; it costs O(n).
func (m *Map) Diff(next *Map) iter.Seq[Change] {
	return func(yield func(Change) bool) {
		for i, j := 0, 0; i < len(m.shards) && j < len(next.shards); {
			from, to := &m.shards[i], &next.shards[j]
			part := Range{max(from.Range.Start, to.Range.Start), min(from.Range.last(), to.Range.last()) + 1}
			if *from != *to && !yield(Change{part, from, to}) {
				return
			}
			if from.Range.last() == part.last() {
				i++
			}
			if to.Range.last() == part.last() {
				j++
			}
		}
	}
}
