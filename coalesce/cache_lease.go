package coalesce

import "time"

// A lease is the right of one load to store what it brings. It is given when
// the load starts and void as soon as the key is invalidated or set, or a load
// that began later has stored its value: so no load undoes what happened after
// it began. The idea is that of the leases of Facebook's memcache ("Scaling
// Memcache at Facebook", NSDI 2013).
type lease[K comparable] struct {
	key   K
	hash  uint64
	since time.Duration // when the load started
	void  bool
	next  *lease[K] // of the same hash, an older one
}

// leases holds those that are valid, at most one for each load under way. They
// are found by hash and not by key, so that the lease of a key which is not
// equal to itself can be removed. A foreign key with the same 64 bits loses its
// lease together with this one: then its value is returned and not kept.
type leases[K comparable] map[uint64]*lease[K]

func (m leases[K]) begin(l *lease[K]) {
	l.next = m[l.hash]
	m[l.hash] = l
}

// end takes back a lease, and reports whether it was valid.
func (m leases[K]) end(l *lease[K]) bool {
	if l.void {
		return false
	}
	if m[l.hash] == l {
		m.set(l.hash, l.next)
		return true
	}
	at := m[l.hash]
	for at.next != l {
		at = at.next
	}
	at.next = l.next
	return true
}

// overtake ends a lease and makes void those that are older.
func (m leases[K]) overtake(l *lease[K]) bool {
	if l.void {
		return false
	}
	for old := l.next; old != nil; old = old.next {
		old.void = true
	}
	l.next = nil
	return m.end(l)
}

// revoke makes all leases of a hash void.
func (m leases[K]) revoke(hash uint64) {
	for l := m[hash]; l != nil; l = l.next {
		l.void = true
	}
	delete(m, hash)
}

func (m leases[K]) set(hash uint64, l *lease[K]) {
	if l == nil {
		delete(m, hash)
	} else {
		m[hash] = l
	}
}
