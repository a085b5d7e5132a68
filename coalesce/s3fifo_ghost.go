package coalesce

// A ghost remembers the hashes of the entries that the small queue let go, as
// many as the main queue has room for.
//
// It is the table of the S3-FIFO paper: a slot has 32 bits of the hash and the
// time when it was added, counted in additions, so that what is too old need
// not be removed. A set of eight slots is one cache line and gives up its
// oldest. Two hashes are mistaken for each other once in 2^29 times, and then
// an entry starts in the main queue. There are no pointers in it.
type ghost struct {
	sets  [][8]uint64 // a power of two of them; a slot of 0 is free
	limit uint32      // ages up to this are remembered
	added uint32
}

// add remembers a hash. Entries is how many the cache has: nine tenths of them
// are the main queue's share.
func (g *ghost) add(hash uint64, entries int) {
	g.limit = uint32(max(1, min(entries, 1<<30)*9/10))
	if slots := 2 * int(g.limit); slots > 8*len(g.sets) {
		// What it knew is lost. It grows only when the cache first fills, or
		// when the entries become cheaper.
		n := 1
		for 8*n < slots {
			n *= 2
		}
		g.sets = make([][8]uint64, n)
	}
	g.added++
	set, tag := g.locate(hash)
	at := 0
	for i, slot := range set {
		if slot == 0 || uint32(slot>>32) == tag {
			at = i
			break
		}
		if g.age(slot) > g.age(set[at]) {
			at = i
		}
	}
	set[at] = uint64(tag)<<32 | uint64(g.added)
}

// take reports whether a hash is remembered, and forgets it.
func (g *ghost) take(hash uint64) bool {
	if len(g.sets) == 0 {
		return false
	}
	set, tag := g.locate(hash)
	for i, slot := range set {
		if slot != 0 && uint32(slot>>32) == tag {
			set[i] = 0
			return g.age(slot) < g.limit
		}
	}
	return false
}

func (g *ghost) age(slot uint64) uint32 { return g.added - uint32(slot) }

func (g *ghost) locate(hash uint64) (*[8]uint64, uint32) {
	return &g.sets[hash&uint64(len(g.sets)-1)], uint32(hash >> 32)
}
