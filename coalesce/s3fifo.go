package coalesce

import "sync/atomic"

// An s3fifo decides which entry gives way to a new one. It is S3-FIFO (Yang et
// al., "FIFO queues are all you need for cache eviction", SOSP 2023).
//
// Most entries of most caches are never asked for again. A new entry therefore
// goes through a small queue, a tenth of the capacity: if nobody asked for it
// twice until it reaches the end, it is out, and only its hash is remembered. A
// key that comes back while it is remembered, and one that was asked for, go
// into the main queue, where each turn costs an entry one of at most three hits
// and the one without any is out. So a scan of keys that are needed once passes
// through the small queue and leaves the main one alone.
//
// A hit only counts, up to three, and moves nothing. This is what lets hits do
// without a lock, where LRU would have to move the entry to the front.
//
// It differs from the paper in two points. An entry that can never be served
// again has no hits. And one eviction gives at most secondChances entries
// another turn, so that the lock is not held for a whole queue of hot entries.
type s3fifo[K comparable, V any] struct {
	capacity int
	small    fifo[K, V]
	main     fifo[K, V]
	ghost    ghost
}

const (
	maxHits       = 3 // two bits, as in the paper
	promoteHits   = 2 // in the small queue: "accessed more than once"
	secondChances = 128
)

// An item is a key of the cache.
type item[K comparable, V any] struct {
	// Immutable.
	key  K
	hash uint64

	next    atomic.Pointer[item[K, V]] // in the same bucket; written under Cache.mu
	current atomic.Pointer[record[V]]  // never nil; written under Cache.mu
	hits    atomic.Uint32              // since the last turn in the queue, at most maxHits

	// When the next refresh in the background may begin: 0 at once, under way
	// while one is, and later after failed loads. Written under Cache.mu.
	retryAt atomic.Int64

	// Guarded by Cache.mu.
	queue        *fifo[K, V] // nil when it has left the cache
	older, newer *item[K, V]
	cost         int
	pinned       int   // refreshes that want a load although there is a fresh value
	failures     int   // loads that failed in a row
	failure      error // of the last
}

// touch counts a hit. Two hits at the same time may count as one, which changes
// nothing; a hot entry is only read.
func (it *item[K, V]) touch() {
	if n := it.hits.Load(); n < maxHits {
		it.hits.Store(n + 1)
	}
}

func (p *s3fifo[K, V]) cost() int { return p.small.cost + p.main.cost }

func (p *s3fifo[K, V]) entries() int { return p.small.entries + p.main.entries }

// fits reports whether there is room for cost, which is at most the capacity.
func (p *s3fifo[K, V]) fits(cost int) bool { return p.cost() <= p.capacity-cost }

// insert adds an item that fits.
func (p *s3fifo[K, V]) insert(it *item[K, V]) {
	if p.ghost.take(it.hash) {
		p.main.push(it)
	} else {
		p.small.push(it)
	}
}

// victim removes the item that gives way. There must be one. The function dead
// tells whether an item can never be served again.
func (p *s3fifo[K, V]) victim(dead func(*item[K, V]) bool) *item[K, V] {
	share := max(1, p.capacity/10)
	for turns := 0; ; turns++ {
		spent := turns >= secondChances
		if it := p.small.oldest; it != nil && (p.small.cost >= share || p.main.oldest == nil) {
			p.small.remove(it)
			if spent || it.hits.Load() < promoteHits || dead(it) {
				p.ghost.add(it.hash, p.entries())
				return it
			}
			it.hits.Store(0)
			p.main.push(it)
			continue
		}
		it := p.main.oldest
		p.main.remove(it)
		hits := it.hits.Load()
		if spent || hits == 0 || dead(it) {
			return it
		}
		it.hits.Store(hits - 1)
		p.main.push(it)
	}
}

// A fifo is a queue of items.
type fifo[K comparable, V any] struct {
	oldest, newest *item[K, V]
	entries, cost  int
}

func (q *fifo[K, V]) push(it *item[K, V]) {
	it.queue, it.older, it.newer = q, q.newest, nil
	if q.newest != nil {
		q.newest.newer = it
	} else {
		q.oldest = it
	}
	q.newest = it
	q.entries++
	q.cost += it.cost
}

func (q *fifo[K, V]) remove(it *item[K, V]) {
	if it.older != nil {
		it.older.newer = it.newer
	} else {
		q.oldest = it.newer
	}
	if it.newer != nil {
		it.newer.older = it.older
	} else {
		q.newest = it.older
	}
	it.queue, it.older, it.newer = nil, nil, nil
	q.entries--
	q.cost -= it.cost
}
