package coalesce

// A ring is a list of slots in the order in which they came.
type ring[K comparable, V any] struct {
	first *slot[K, V] // its prev is the last
	size  int
}

// push puts a slot at the end.
func (r *ring[K, V]) push(s *slot[K, V]) {
	if r.first == nil {
		s.prev, s.next, r.first = s, s, s
	} else {
		last := r.first.prev
		s.prev, s.next = last, r.first
		last.next, r.first.prev = s, s
	}
	r.size++
}

// drop takes a slot out.
func (r *ring[K, V]) drop(s *slot[K, V]) {
	s.prev.next, s.next.prev = s.next, s.prev
	r.size--
	switch {
	case r.size == 0:
		r.first = nil
	case r.first == s:
		r.first = s.next
	}
	s.prev, s.next = nil, nil
}

// cut moves the first n slots, or all if there are fewer, to an empty ring.
func (r *ring[K, V]) cut(n int, to *ring[K, V]) {
	if n >= r.size {
		*to, *r = *r, ring[K, V]{}
		return
	}
	for range n {
		s := r.first
		r.drop(s)
		to.push(s)
	}
}

// all yields the slots. The loop may do with each what it likes.
func (r *ring[K, V]) all(yield func(*slot[K, V]) bool) {
	s := r.first
	for range r.size {
		next := s.next
		if !yield(s) {
			return
		}
		s = next
	}
}
