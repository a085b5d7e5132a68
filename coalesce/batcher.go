package coalesce

import (
	"context"
	"fmt"
	"hash/maphash"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// A Batcher loads single keys for its callers and fetches them in batches, as
// group commit does with the writes of a database log.
//
// It paces itself. When no fetch is under way, a key goes at once: a lone Load
// waits for nobody. While a fetch is under way, the keys that come collect, and
// the next fetch takes them all. So a batch is as large as the load demands,
// and no timer has to be tuned between latency and size.
//
// Use it where one query can answer for many keys, such as WHERE id IN (…), and
// the callers ask for one each: the resolvers of a GraphQL server, the renderers
// of a page, the misses of a cache.
//
// # Guarantees
//
//   - At most MaxInFlight fetches run at a time, and none has more than MaxBatch
//     keys or a key twice.
//   - A key is in one batch at a time, unless it was forgotten or its fetch was
//     abandoned. Who asks for a key that is queued or being fetched gets that
//     result; nobody gets a result that was finished before it asked.
//   - Every caller gets its own right value or error: that of its key, however
//     wrong the fetch is about others.
//   - Every caller returns when its own context ends. A key that waits in the
//     queue and for which no caller waits any more is not fetched. The context of
//     a fetch ends, with the cause [ErrAbandoned], when all callers of all its
//     keys have left.
//   - A panic of the fetch reaches every caller of its keys as a [*PanicError],
//     and runtime.Goexit as [ErrGoexit].
//
// The context of a fetch has the values of the first of the callers that wait for
// it, and no caller's deadline or cancellation. A caller whose context can never end runs
// the fetch that it starts on its own goroutine, as in a [Group]. An abandoned
// fetch that does not obey its context keeps its place until it returns: the
// bound on fetches is one that the database can rely on. Set Timeout, so that
// one that hangs does not hold up all that come after it.
//
// A Batcher must not be copied after first use, and its fields must not be
// changed then. Its first use panics if Fetch is nil or another field negative.
//
// Cost of a key: two short sections on the Batcher's one lock, and no
// allocation. Cost of a fetch: two allocations, the keys and the context, and a
// goroutine if the caller's context can end.
//
// A Batcher is safe for concurrent use by multiple goroutines.
type Batcher[K comparable, V any] struct {
	// Fetch returns the values of keys, which are distinct and at least one. The
	// slice is its own to keep; the map it must not change any more.
	//
	// A key that is missing from the map gets ErrNotFound, and one that nobody
	// asked for is ignored. An error that is Errors or wraps it, alone, is about
	// its keys; any other is the error of all keys, and the map is ignored.
	Fetch func(ctx context.Context, keys []K) (map[K]V, error)

	// MaxBatch bounds the keys of a fetch. Zero means 1000, which stays below the
	// limits that databases set on the parameters of a statement.
	MaxBatch int

	// MaxInFlight bounds the fetches that run at a time. Zero means 1. More than
	// one shortens the wait of those who come during a fetch, and makes the
	// batches smaller.
	MaxInFlight int

	// Linger is how long an idle Batcher waits for more keys after the first.
	// Zero means not at all. It trades the latency of every caller for larger
	// batches, and is seldom needed: see the pacing above.
	Linger time.Duration

	// Timeout bounds one fetch: it is the deadline of its context. Zero means no
	// bound.
	Timeout time.Duration

	ready    atomic.Bool // the fields have been checked and seed is set
	seed     maphash.Seed
	requests sync.Pool // of *request

	mu      sync.Mutex
	index   index[K, V]           // every key that can be joined
	queued  ring[K, V]            // the keys that wait to be fetched, oldest first
	ripe    bool                  // the queue has lingered
	linger  *time.Timer           // that will make it ripe
	flying  map[*batch[K, V]]bool // what is being fetched
	drained chan struct{}         // not nil after Close; closed when all is done
	free    *slot[K, V]           // to be used again, linked by next
	spare   int                   // how many
	stats   BatcherStats
}

// Load returns the value of key.
//
// It returns the error of the fetch; [ErrNotFound] when the fetch did not return
// the key; ctx.Err() when ctx ends first; [ErrReentrant] when ctx descends from
// the context of a fetch of this Batcher, which could wait for itself;
// [ErrClosed] after Close. It panics with a [*PanicError] when the fetch
// panicked.
func (b *Batcher[K, V]) Load(ctx context.Context, key K) (V, error) {
	b.setUp()
	r := b.request(ctx, 1)
	r.wants[0].ask(r, b.seed, key)
	err := b.load(ctx, r)
	o := r.wants[0].outcome
	b.release(r)
	switch {
	case err != nil:
		return o.val, err
	case o.panicked:
		panic(o.err)
	}
	return o.val, o.err
}

// LoadAll loads keys together and yields the result of each, in their order. A
// key that is given twice is loaded once and yielded twice. The errors are those
// of Load; a panic of the fetch is an error of type *PanicError.
//
// The keys are asked for when the sequence is ranged over, anew each time, and
// nothing is yielded before all of them are there or ctx has ended. Then those
// that are there have their values, and the others the error of ctx.
//
// More keys than MaxBatch are several batches. Shared and Waiters of a result
// count how often the key was asked for.
func (b *Batcher[K, V]) LoadAll(ctx context.Context, keys []K) iter.Seq2[K, Result[V]] {
	return func(yield func(K, Result[V]) bool) {
		if len(keys) == 0 {
			return
		}
		b.setUp()
		r := b.request(ctx, len(keys))
		for i, key := range keys {
			r.wants[i].ask(r, b.seed, key)
		}
		err := b.load(ctx, r)
		for i := range r.wants {
			w := &r.wants[i]
			if err != nil {
				w.outcome.err = err
			}
			if !yield(w.key, w.outcome.result()) {
				break
			}
		}
		b.release(r)
	}
}

// Forget makes the next Load of key start anew, although a fetch of it is under
// way, and reports whether there was such a fetch. It goes on for the callers
// that it has. Use it after a write, so that a read which follows does not get
// what was fetched before.
//
// A key that waits in the queue is not forgotten, since its fetch has not begun.
func (b *Batcher[K, V]) Forget(key K) bool {
	b.setUp()
	hash := maphash.Comparable(b.seed, key)
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.index.find(hash, key)
	if s == nil || s.batch == nil {
		return false
	}
	b.index.remove(s)
	return true
}

// Close waits until all callers have their results, without further lingering.
// From its beginning on, Load and LoadAll return [ErrClosed].
//
// If ctx ends first, Close returns its error at once: the contexts of the
// fetches under way end with the cause ErrClosed, and the callers of keys that
// are still queued get ErrClosed. A second Close waits too. Fetch must not call
// Close, which would wait for it.
func (b *Batcher[K, V]) Close(ctx context.Context) error {
	b.setUp()
	b.mu.Lock()
	if b.drained == nil {
		b.drained = make(chan struct{})
	}
	begun := b.dispatch()
	idle := len(b.flying) == 0
	b.mu.Unlock()
	begun.depart()
	if idle {
		return nil
	}
	select {
	case <-b.drained:
		return nil
	case <-ctx.Done():
		b.abort()
		return ctx.Err()
	}
}

// load asks for what r wants and waits until all is there. An error is that of
// all wants.
func (b *Batcher[K, V]) load(ctx context.Context, r *request[K, V]) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ctx.Value(b) != nil {
		return ErrReentrant
	}
	b.mu.Lock()
	if b.drained != nil {
		b.mu.Unlock()
		return ErrClosed
	}
	for i := range r.wants {
		b.add(&r.wants[i])
	}
	r.pending = len(r.wants)
	begun := b.dispatch()
	b.mu.Unlock()

	done := ctx.Done()
	if done == nil {
		if begun != nil {
			begun.next.depart()
			begun.fly() // the caller has nothing better to do
		}
		<-r.ready
		return nil
	}
	begun.depart()
	select {
	case <-r.ready:
	case <-done:
		if !b.leave(r, ctx.Err()) {
			<-r.ready // on its way
		}
	}
	return nil
}

// setUp prepares the first use.
func (b *Batcher[K, V]) setUp() {
	if b.ready.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ready.Load():
		return
	case b.Fetch == nil:
		panic("coalesce: Batcher.Fetch is nil, want a function")
	case b.MaxBatch < 0:
		panic(fmt.Sprintf("coalesce: Batcher.MaxBatch is %d, want 0 or more", b.MaxBatch))
	case b.MaxInFlight < 0:
		panic(fmt.Sprintf("coalesce: Batcher.MaxInFlight is %d, want 0 or more", b.MaxInFlight))
	case b.Linger < 0:
		panic(fmt.Sprintf("coalesce: Batcher.Linger is %v, want 0 or more", b.Linger))
	case b.Timeout < 0:
		panic(fmt.Sprintf("coalesce: Batcher.Timeout is %v, want 0 or more", b.Timeout))
	}
	b.seed = maphash.MakeSeed()
	b.flying = map[*batch[K, V]]bool{}
	b.ready.Store(true)
}
