package coalesce

// Leases returns how many loads hold a lease.
func (c *Cache[K, V]) Leases() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, l := range c.leases {
		for ; l != nil; l = l.next {
			n++
		}
	}
	return n
}

// Draw replaces the source of the draws of XFetch.
func (c *Cache[K, V]) Draw(draw func() float64) { c.draw = draw }

// GhostSlots returns the size of the ghost's table.
func (c *Cache[K, V]) GhostSlots() int { return 8 * len(c.policy.ghost.sets) }

// EvictOne evicts an entry, and returns how many others were hot enough to get
// another turn.
func (c *Cache[K, V]) EvictOne() (turns int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	it := c.policy.victim(func(*item[K, V]) bool { turns++; return false })
	c.segment(it.hash).unlink(it)
	return turns
}

// Check panics if the cache contradicts itself.
func (c *Cache[K, V]) Check() {
	c.mu.Lock()
	defer c.mu.Unlock()
	queued := map[*item[K, V]]bool{}
	for _, q := range []*fifo[K, V]{&c.policy.small, &c.policy.main} {
		cost, entries := 0, 0
		for it := q.oldest; it != nil; it = it.newer {
			must(it.queue == q && it.current.Load() != nil && it.cost >= 1)
			must(it.newer == nil && q.newest == it || it.newer.older == it)
			cost, entries = cost+it.cost, entries+1
			queued[it] = true
		}
		must(cost == q.cost && entries == q.entries)
	}
	must(c.policy.cost() <= c.options.Capacity)
	total := 0
	for i := range c.segments {
		s := &c.segments[i]
		b := s.buckets.Load()
		must(!b.moved.Load())
		items := 0
		for j := range b.chains {
			for it := b.chains[j].Load(); it != nil; it = it.next.Load() {
				must(queued[it] && b.chain(it.hash) == &b.chains[j] && c.segment(it.hash) == s)
				items++
			}
		}
		must(items == s.items)
		total += items
	}
	must(total == len(queued))
}

func must(ok bool) {
	if !ok {
		panic("the cache contradicts itself")
	}
}
