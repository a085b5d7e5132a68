package shard

import "math/bits"

// index finds the owner of a point, as a position in the map's shards, in constant
// time: a table over the top bits, and where shards crowd into one bucket, a table over
// that bucket alone, and so on.
type index struct {
	table  []entry
	shift  uint // the bucket of a point is its top 64-shift bits
	ends   []ID // the last point of each shard
	crowds []crowd
}

// entry is a bucket of the first table: the position of the owner of its first point, and
// in the lower 40 bits the upper 40 of the last point of that owner; all ones if no other
// shard begins in the bucket. A subtraction tells from it whether a point belongs to the
// owner or to the next shard: one load, and no branch that the processor has to guess. A
// negative entry is the complement of a position in crowds.
type entry int64

const (
	lastBits  = 40
	lastMask  = 1<<lastBits - 1
	lastShift = 64 - lastBits
)

// crowd is a bucket that more than two shards share.
type crowd struct {
	first, last int32 // the owners of the bucket's first and last point

	// A table of the buckets of 2^shift points from base, where the second shard begins,
	// to where the last one does; nil if the shards are so few that they are tried in turn.
	table []int32
	base  ID
	shift uint
}

const (
	minBits   = 8 // of the first table: 2 kB
	bucketsOf = 4 // a shard: few of them are shared then
	few       = 4 // shards that begin inside a bucket and are tried in turn
)

func newIndex(shards []Shard) index {
	x := index{ends: make([]ID, len(shards))}
	var all ID
	for i := range shards {
		x.ends[i] = shards[i].Range.last()
		all |= shards[i].Range.Start
	}
	// With exact bits no shard begins inside a bucket. Boundaries are usually round
	// numbers, so that a small table often does.
	exact := 64 - bits.TrailingZeros64(uint64(all))
	tableBits := max(1, min(exact, max(minBits, bits.Len(uint(bucketsOf*(len(shards)-1))))))
	x.shift = uint(64 - tableBits)
	for b, first := range x.fill(make([]int32, 1<<tableBits), 0, x.shift, 0, int32(len(shards)-1)) {
		x.table = append(x.table, x.entry(ID(b), first))
	}
	return x
}

// entry makes the entry of a bucket that has one of fill's.
func (x *index) entry(bucket ID, first int32) entry {
	if first < 0 {
		return entry(first)
	}
	next := x.ends[first] + 1 // 0 after the last shard
	switch {
	case first >= 1<<(63-lastBits): // has no room beside the last point
		return entry(x.crowd(first, min(first+1, int32(len(x.ends)-1))))
	case next == 0 || next>>x.shift != bucket:
		return entry(first)<<lastBits | lastMask
	case next>>lastShift == 0: // there is nothing below it to write down
		return entry(x.crowd(first, first+1))
	}
	return entry(first)<<lastBits | (entry(next>>lastShift) - 1)
}

// fill sets a table whose first bucket begins at base: the position of the owner of a
// bucket's first point, if at most one more shard begins in the bucket, or the complement of
// a position in crowds. All owners lie between the given ones; the first begins at base or
// before.
func (x *index) fill(table []int32, base ID, shift uint, owner, most int32) []int32 {
	ownerOf := func(id ID) int32 { // of ascending points
		for owner < most && x.ends[owner] < id {
			owner++
		}
		return owner
	}
	for b := range table {
		start := base + ID(b)<<shift
		end := start + (1<<shift - 1)
		if end < start { // past the end of the ring
			end = ^ID(0)
		}
		first, last := ownerOf(start), ownerOf(end)
		table[b] = first
		if last > first+1 {
			table[b] = x.crowd(first, last)
		}
	}
	return table
}

// crowd notes a shared bucket and returns its entry. Its table begins where the second
// shard does, so no bucket of that table is shared by as many: this ends.
func (x *index) crowd(first, last int32) int32 {
	n := len(x.crowds)
	x.crowds = append(x.crowds, crowd{first: first, last: last})
	if cuts := last - first; cuts > few {
		c := crowd{first: first, last: last, base: x.ends[first] + 1}
		span := uint64(x.ends[last-1] + 1 - c.base)
		c.shift = uint(max(0, bits.Len64(span)-bits.Len(uint(bucketsOf*cuts))+1))
		c.table = x.fill(make([]int32, span>>c.shift+1), c.base, c.shift, first+1, last)
		x.crowds[n] = c
	}
	return ^int32(n)
}

// owner returns the position of the shard that owns id.
func (x *index) owner(id ID) int32 {
	e := x.table[id>>(x.shift&63)]
	left := e&lastMask - entry(id>>lastShift) // to the last point of the first owner
	if e < 0 || left == -1 {
		return x.exactly(e, id)
	}
	return int32(e>>lastBits) - int32(left>>63)
}

// exactly returns the owner of a point in a crowded bucket, or so near to the place where
// the next shard begins that 40 bits do not tell them apart.
func (x *index) exactly(e entry, id ID) int32 {
	if e < 0 {
		return x.among(int32(e), id)
	}
	return x.oneOfTwo(int32(e>>lastBits), id)
}

// oneOfTwo tells the owner of a bucket's first point from the next shard.
func (x *index) oneOfTwo(first int32, id ID) int32 {
	if id > x.ends[first] {
		return first + 1
	}
	return first
}

// among returns the owner of a point in a crowd.
func (x *index) among(i int32, id ID) int32 {
	for i < 0 {
		c := &x.crowds[^i]
		if c.table == nil {
			return x.try(c, id)
		}
		if id < c.base {
			return c.first
		}
		b := uint64(id-c.base) >> (c.shift & 63)
		if b >= uint64(len(c.table)) {
			return c.last
		}
		i = c.table[b]
	}
	return x.oneOfTwo(i, id)
}

// try goes through the few shards that begin in a bucket.
func (x *index) try(c *crowd, id ID) int32 {
	owner := c.first
	for owner < c.last && id > x.ends[owner] {
		owner++
	}
	return owner
}
