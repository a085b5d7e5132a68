package coalesce

// An index finds the slot of a key. It is a hash table of its own for the
// reasons for which a Group has one (see table): the hash is computed once, and
// outside the lock, and a slot is removed by identity.
type index[K comparable, V any] struct {
	buckets []*slot[K, V] // chains; a power of two of them
	listed  int
}

func (n *index[K, V]) chain(hash uint64) **slot[K, V] {
	return &n.buckets[hash&uint64(len(n.buckets)-1)]
}

func (n *index[K, V]) find(hash uint64, key K) *slot[K, V] {
	if n.listed == 0 {
		return nil
	}
	for s := *n.chain(hash); s != nil; s = s.chain {
		if s.hash == hash && s.key == key {
			return s
		}
	}
	return nil
}

func (n *index[K, V]) add(s *slot[K, V]) {
	if n.listed == len(n.buckets) {
		n.grow()
	}
	at := n.chain(s.hash)
	s.chain, *at, s.listed = *at, s, true
	n.listed++
}

// remove takes the slot out, if it is in.
func (n *index[K, V]) remove(s *slot[K, V]) {
	if !s.listed {
		return
	}
	at := n.chain(s.hash)
	for *at != s {
		at = &(*at).chain
	}
	*at, s.chain, s.listed = s.chain, nil, false
	n.listed--
}

func (n *index[K, V]) grow() {
	old := n.buckets
	n.buckets = make([]*slot[K, V], max(firstBuckets, 2*len(old)))
	for _, s := range old {
		for s != nil {
			next := s.chain
			at := n.chain(s.hash)
			s.chain, *at = *at, s
			s = next
		}
	}
}
