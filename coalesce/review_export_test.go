package coalesce

// Indexed counts the keys that can be joined.
func (b *Batcher[K, V]) Indexed() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, s := range b.index.buckets {
		for ; s != nil; s = s.chain {
			n++
		}
	}
	if n != b.index.listed {
		panic("coalesce: the index has lost count")
	}
	return n
}
