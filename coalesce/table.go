package coalesce

import (
	"context"
	"fmt"
	"hash/maphash"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A table holds the flights of a Group that can be joined.
//
// It is a hash table of its own and not a map, for two reasons. The hash that
// picks the shard also finds the flight, where a map would hash again for the
// look-up, the insertion and the removal. And a flight is removed by identity,
// so that a key which is not equal to itself can be removed and a flight never
// removes its successor.
type table[K comparable, V any] struct {
	seed   maphash.Seed
	mask   uint64
	epoch  time.Time // call.start counts from it: time.Since is half the price of time.Now
	shards []shard[K, V]

	lostPanic atomic.Pointer[PanicError] // the last that no caller was there to receive
}

// A shard is a part of the table with a lock of its own.
type shard[K comparable, V any] struct {
	group *Group[K, V]
	table *table[K, V]

	mu      sync.Mutex
	buckets []*call[K, V] // chains; a power of two of them
	listed  int           // calls in buckets

	executions, joined, abandoned, panics, landed int64

	_ [32]byte // to 128 bytes: neighbours do not share a pair of cache lines
}

const firstBuckets = 8

// build makes the table at first use.
func (g *Group[K, V]) build() *table[K, V] {
	switch {
	case g.Timeout < 0:
		panic(fmt.Sprintf("coalesce: Group.Timeout is %v, want 0 or more", g.Timeout))
	case g.MaxWaiters < 0:
		panic(fmt.Sprintf("coalesce: Group.MaxWaiters is %d, want 0 or more", g.MaxWaiters))
	case g.Abandon < CancelWork || g.Abandon > Exclusive:
		panic(fmt.Sprintf("coalesce: Group.Abandon is %d, want CancelWork, KeepRunning or Exclusive", g.Abandon))
	}
	// Four locks for each processor keep the odds of two meeting on one low.
	n := 8
	for n < 4*runtime.GOMAXPROCS(0) {
		n *= 2
	}
	t := &table[K, V]{
		seed:   maphash.MakeSeed(),
		mask:   uint64(n - 1),
		epoch:  time.Now().Add(-1), // so that no start is 0
		shards: make([]shard[K, V], n),
	}
	for i := range t.shards {
		t.shards[i].group, t.shards[i].table = g, t
	}
	if !g.table.CompareAndSwap(nil, t) {
		return g.table.Load()
	}
	return t
}

func (t *table[K, V]) locate(key K) (uint64, *shard[K, V]) {
	hash := maphash.Comparable(t.seed, key)
	return hash, &t.shards[hash&t.mask]
}

// chain returns the bucket of a hash. The low bits have chosen the shard.
func (s *shard[K, V]) chain(hash uint64) **call[K, V] {
	return &s.buckets[hash>>32&uint64(len(s.buckets)-1)]
}

// find returns the flight of key that can be joined, or nil.
func (s *shard[K, V]) find(hash uint64, key K) *call[K, V] {
	if s.listed == 0 {
		return nil
	}
	for c := *s.chain(hash); c != nil; c = c.next {
		if c.hash == hash && c.key == key {
			return c
		}
	}
	return nil
}

// inline makes a flight that its caller will run, and detached one that will run
// by itself.
func (s *shard[K, V]) inline(ctx context.Context, hash uint64, key K) *call[K, V] {
	return &call[K, V]{work: work{parent: ctx}, shard: s, hash: hash, key: key}
}

func (s *shard[K, V]) detached(ctx context.Context, hash uint64, key K) *call[K, V] {
	d := new(detached[K, V])
	d.parent, d.shard, d.hash, d.key = ctx, s, hash, key
	d.own.done = make(chan struct{})
	d.gate = &d.own
	return &d.call
}

// list puts a flight into the table. Its work begins now.
func (s *shard[K, V]) list(c *call[K, V]) {
	if s.listed == len(s.buckets) {
		s.grow()
	}
	at := s.chain(c.hash)
	c.next, *at, c.listed = *at, c, true
	s.listed++
	s.executions++
}

// remove takes a listed flight out of the table.
func (s *shard[K, V]) remove(c *call[K, V]) {
	at := s.chain(c.hash)
	for *at != c {
		at = &(*at).next
	}
	*at, c.next, c.listed = c.next, nil, false
	s.listed--
}

func (s *shard[K, V]) grow() {
	old := s.buckets
	s.buckets = make([]*call[K, V], max(firstBuckets, 2*len(old)))
	for _, c := range old {
		for c != nil {
			next := c.next
			at := s.chain(c.hash)
			c.next, *at = *at, c
			c = next
		}
	}
}

// shut keeps callers from joining a listed flight. If it is exclusive it stays
// in the table until it has landed, so that no other begins before.
func (s *shard[K, V]) shut(c *call[K, V]) {
	if s.group.Abandon == Exclusive {
		c.closed = true
	} else {
		s.remove(c)
	}
}

// leave takes a caller off c, and reports false if that has landed and the
// outcome is there or about to be. The last to leave ends the flight. leave
// returns the number of callers that remain.
func (s *shard[K, V]) leave(c *call[K, V], again bool) (remain int, ok bool) {
	s.mu.Lock()
	if c.landed {
		s.mu.Unlock()
		return 0, false
	}
	c.waiters--
	if again {
		c.gate.seconds--
	}
	remain = int(c.waiters)
	end := remain == 0 && !c.pending && s.group.Abandon != KeepRunning
	switch {
	case end:
		s.abandoned++
		if c.listed && !c.closed {
			s.shut(c)
		}
	case remain == 0 && c.pending:
		s.find(c.hash, c.key).successor = nil
	}
	s.mu.Unlock()
	if end {
		c.end(abandoned)
	}
	return remain, true
}

// refuse undoes a join, and reports false if it is too late for that.
func (s *shard[K, V]) refuse(c *call[K, V], joined, again bool) bool {
	if _, ok := s.leave(c, again); !ok {
		return false
	}
	if joined {
		s.mu.Lock()
		s.joined--
		s.mu.Unlock()
	}
	return true
}
