package shard

import (
	"runtime"
	"unsafe"
)

// IndexBytes is the memory that the tables of the look-up take.
func (m *Map) IndexBytes() int {
	size := 8*len(m.index.table) + 8*len(m.index.ends) + int(unsafe.Sizeof(crowd{}))*len(m.index.crowds)
	for _, c := range m.index.crowds {
		size += 4 * len(c.table)
	}
	return size
}

// Hold returns what keeps the snapshot that is in use now.
func (r *Router[K, N]) Hold() (acquire func() bool) { return r.current.Load().acquire }

// AcquireFromTheDead acquires while a snapshot that has no references is still the current
// one, for a moment, and reports whether what it got is the live one.
func (r *Router[K, N]) AcquireFromTheDead() bool {
	live := r.current.Load()
	dead := newSnapshot[N](live.m, nil)
	dead.refs.Store(0)
	r.current.Store(dead)
	got := make(chan *snapshot[N])
	go func() { got <- r.acquire() }()
	for range 1000 {
		runtime.Gosched()
	}
	r.current.Store(live)
	s := <-got
	defer s.release()
	return s == live
}

// Steps is the number of entries and ends that a look-up reads after the first.
func (m *Map) Steps(id ID) int {
	x, steps := &m.index, 0
	first := x.table[id>>(x.shift&63)]
	if first >= 0 {
		return 0
	}
	for i := int32(first); i < 0; {
		c := &x.crowds[^i]
		steps++
		if c.table == nil {
			return steps + int(x.try(c, id)-c.first)
		}
		b := uint64(id-c.base) >> (c.shift & 63)
		if id < c.base || b >= uint64(len(c.table)) {
			return steps
		}
		i = c.table[b]
	}
	return steps
}
