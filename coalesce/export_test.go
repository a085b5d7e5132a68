package coalesce

import "unsafe"

// Landed returns how many flights have landed in the shard of key, read under
// the lock under which callers are admitted and flights land.
func (g *Group[K, V]) Landed(key K) int64 {
	t := g.table.Load()
	if t == nil {
		return 0
	}
	_, s := t.locate(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.landed
}

// Listed counts the flights in the table, those with odd keys included.
func (g *Group[K, V]) Listed() int {
	n := 0
	if t := g.table.Load(); t != nil {
		for i := range t.shards {
			s := &t.shards[i]
			s.mu.Lock()
			chained := 0
			for _, c := range s.buckets {
				for ; c != nil; c = c.next {
					chained++
				}
			}
			if chained != s.listed || s.listed > len(s.buckets) {
				panic("coalesce: the table has lost count, or is crowded")
			}
			n += chained
			s.mu.Unlock()
		}
	}
	return n
}

// ShardSize is the size of a shard, which must be a multiple of 128.
const ShardSize = unsafe.Sizeof(shard[string, int]{})
