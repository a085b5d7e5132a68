package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrUnknownNode is returned by [NewRouter] and [Router.Update] for a map with a node
	// that open refuses; it wraps what open returned.
	ErrUnknownNode = errors.New("shard: unknown node")

	// ErrBufferFull is returned by [Router.Do] and [Router.DoAll], together with the error
	// of the call, when as many calls wait for a newer map as may.
	ErrBufferFull = errors.New("shard: too many calls wait for a newer map")

	// ErrBufferTimeout is returned by [Router.Do] and [Router.DoAll], together with the error
	// of the call, when no newer map came in time.
	ErrBufferTimeout = errors.New("shard: the newer map is late")
)

// RouterOptions are the knobs of a [Router]. The zero value works.
type RouterOptions[N any] struct {
	// Buffer is the most calls of [Router.Do] that wait at once for a newer map. 0 means
	// 1000, as in Vitess; negative means that none waits.
	Buffer int

	// BufferTimeout is the longest that such a call waits. 0 means 10 s, as in Vitess.
	BufferTimeout time.Duration

	// Drop, if not nil, is given the handle of a node that no shard is on any more, once
	// no call of [Router.Do] or [Router.DoAll] can be using it: to close it. It is also given
	// those that were opened for a map which was then refused. It runs on the goroutine of
	// the last such call, or of Update, and may use the router. Handles are dropped map by
	// map, so a long call holds up those of later maps too. A Target or Snapshot that is in
	// use elsewhere is not waited for. When all is done, those of the last map are the
	// caller's to close: [Snapshot.Nodes].
	Drop func(node string, handle N)

	// Log is told of maps that were put to use or refused, and of sources that fail.
	// nil means silence.
	Log *slog.Logger
}

const (
	defaultBuffer        = 1000
	defaultBufferTimeout = 10 * time.Second
)

// Router routes keys of type K by the newest [Map] that it knows, to nodes whose handles
// are of type N: a *sql.DB, a connection pool, the client of a service.
//
// The map and the handles that belong to it are one snapshot behind one atomic pointer,
// and each operation uses a single one: it never sees two topologies. A newer map comes by
// [Router.Update], or by [Router.Follow] from a [Source]; when all sources are down the
// router goes on with the last map that it has.
//
// A process cannot know that its map has become old between the look-up and the write.
// Only the shard itself can: let its database check the epoch within the write's own
// transaction, and fail with a [*StaleError]. [Router.Do] then waits for the newer map and
// tries again.
//
// The zero Router is of no use. A Router is safe for concurrent use by multiple goroutines.
type Router[K, N any] struct {
	hash    Hash[K]
	open    func(node string) (N, error)
	options RouterOptions[N]

	current    atomic.Pointer[snapshot[N]]
	refresher  chan struct{} // holds the token of the one call that asks the sources
	stats      routerStats
	updating   sync.Mutex // one Update at a time
	sourcesMu  sync.Mutex
	sources    map[int]*followed // those that a Follow watches
	nextSource int
}

// NewRouter makes a router that starts with map m. It calls open once for each node of the
// map, and later once for each node that a newer map adds, and keeps the handle for as
// long as a shard is on the node; a node that went and comes back is opened anew. Open should check the name and return without waiting
// for the network, as [database/sql.Open] does: an update waits for it, and a map with a
// node that it refuses is refused whole. It must not use the router.
//
// It returns an error that wraps [ErrUnknownNode] or [ErrBadMap] (the zero Map, or none),
// or one that names the argument or the option that is out of range.
func NewRouter[K, N any](hash Hash[K], m *Map, open func(node string) (N, error), o RouterOptions[N]) (*Router[K, N], error) {
	switch {
	case hash == nil || open == nil:
		return nil, errors.New("shard: hash or open is nil, expected functions")
	case o.BufferTimeout < 0:
		return nil, fmt.Errorf("shard: RouterOptions.BufferTimeout is %v, expected 0 or more", o.BufferTimeout)
	}
	if o.Buffer == 0 {
		o.Buffer = defaultBuffer
	}
	if o.BufferTimeout == 0 {
		o.BufferTimeout = defaultBufferTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Router[K, N]{hash: hash, open: open, options: o, refresher: make(chan struct{}, 1), sources: map[int]*followed{}}
	if err := r.Update(m); err != nil {
		return nil, err
	}
	return r, nil
}

// Target is where a key lives.
type Target[N any] struct {
	Shard *Shard // of the map of that epoch
	Node  N      // the handle of Shard.Node
	Epoch uint64 // for the fence in the shard's database
}

// Route returns where key lives by the map in use. It costs the hash, one atomic load and
// a [Map.Lookup], and allocates nothing beyond what the hash does. For a write, and for
// whatever must not reach a shard that has given up the key, use [Router.Do].
func (r *Router[K, N]) Route(key K) Target[N] {
	return r.current.Load().lookup(r.hash(key))
}

// Snapshot returns the map in use with its handles, for an operation that asks for more
// than one key or for all shards. It costs one atomic load. Where handles may be dropped,
// or shards refuse a stale map, use [Router.DoAll].
func (r *Router[K, N]) Snapshot() Snapshot[N] { return Snapshot[N]{r.current.Load()} }

// Update puts m in the place of the map in use. To update to the same map again does
// nothing. A map of a lower epoch is refused with an error that wraps [ErrStaleMap], one of
// the same epoch that says something else with [ErrSplitBrain], one with a node that open
// refuses with [ErrUnknownNode], the zero Map or nil with [ErrBadMap]. Nothing of a refused
// map takes effect. Calls that are under way keep the map that they began with.
func (r *Router[K, N]) Update(m *Map) error { return r.update(m, false) }

// update is Update. A source may be behind the others, or remember: that is no news.
func (r *Router[K, N]) update(m *Map, heard bool) error {
	old, next, err := r.replace(m)
	switch {
	case heard && errors.Is(err, ErrStaleMap) && !errors.Is(err, ErrUnknownNode):
	case err != nil:
		r.stats.refused.Add(1)
		r.options.Log.Warn("shard: map refused", "error", err)
	case next != nil:
		r.stats.updates.Add(1)
		r.options.Log.Info("shard: map in use", "epoch", m.Epoch(), "shards", m.Len())
	}
	// After the lock, because Drop may update.
	switch {
	case next != nil && err != nil:
		next.dropAll()
	case next != nil && old != nil:
		old.release()
	}
	return err
}

// replace swaps the snapshots under the lock of updates. The next is nil if m is not newer,
// and with an error it holds the handles that were opened for nothing.
func (r *Router[K, N]) replace(m *Map) (old, next *snapshot[N], err error) {
	if m == nil || m.Len() == 0 {
		return nil, nil, fmt.Errorf("%w: expected a map with shards", ErrBadMap)
	}
	r.updating.Lock()
	defer r.updating.Unlock()
	old = r.current.Load()
	var inUse *Map
	if old != nil {
		inUse = old.m
	}
	if newer, err := m.Supersedes(inUse); err != nil || !newer {
		return nil, nil, err
	}
	if next, err = r.openAll(m, old); err != nil {
		return nil, next, err
	}
	if old != nil {
		old.next = next
	}
	r.current.Store(next)
	if old != nil {
		close(old.superseded)
	}
	return old, next, nil
}

// openAll makes the snapshot of m, with the handles of old where they go on. With an error
// it has only those that it opened.
func (r *Router[K, N]) openAll(m *Map, old *snapshot[N]) (*snapshot[N], error) {
	next := newSnapshot(m, r.options.Drop)
	for node, shards := range m.ByNode() {
		if old.has(node) {
			next.nodes[node] = old.nodes[node]
			continue
		}
		handle, err := r.open(node)
		if err != nil {
			maps.DeleteFunc(next.nodes, func(name string, _ N) bool { return old.has(name) })
			return next, fmt.Errorf("%w %q of shard %q in the map of epoch %d: %w", ErrUnknownNode, node, shards[0].Name, m.epoch, err)
		}
		next.nodes[node] = handle
	}
	next.fill()
	if old != nil {
		next.refs.Add(1) // the handles that go on are old's until it is released
	}
	return next, nil
}

// Do calls fn with where key lives. If fn's error is [ErrStaleMap], the shard that it
// reached no longer owns the key: Do waits for a newer map and calls fn once more, with
// where the key lives then. A [*StaleError] says which epoch to wait for; without one any
// newer map will do.
//
// To wait is to ask the sources that [Router.Follow] watches, one call for all that wait,
// and to look out for an [Router.Update]: at a cutover the fence is up some milliseconds
// before the new map is out. At most RouterOptions.Buffer calls wait, each at most
// RouterOptions.BufferTimeout; then the call fails with fn's error, wrapped with
// [ErrBufferFull], [ErrBufferTimeout], or the error of ctx. All that waited go on at once.
//
// Fn must return ErrStaleMap only if nothing that it did has taken effect, since it is
// repeated, and only of this router's map. Do returns every other error of fn as it is.
// Beside fn it costs a few tens of nanoseconds.
func (r *Router[K, N]) Do(ctx context.Context, key K, fn func(context.Context, Target[N]) error) error {
	return r.do(ctx, func(s *snapshot[N]) error { return fn(ctx, s.lookup(r.hash(key))) })
}

// DoAll is [Router.Do] for a call that concerns more than one key, such as a scatter: fn is
// given the map in use with all its handles, which are not dropped before it has returned.
// A PartialError of package gather with an ErrStaleMap among its causes counts as one.
func (r *Router[K, N]) DoAll(ctx context.Context, fn func(context.Context, Snapshot[N]) error) error {
	return r.do(ctx, func(s *snapshot[N]) error { return fn(ctx, Snapshot[N]{s}) })
}

// do makes a call, and once more by a newer map if it has to.
func (r *Router[K, N]) do(ctx context.Context, fn func(*snapshot[N]) error) error {
	r.stats.calls.Add(1)
	epoch, err := r.call(fn)
	if !errors.Is(err, ErrStaleMap) {
		return err
	}
	r.stats.stale.Add(1)
	needed := neededEpoch(err, epoch)
	if needed == 0 {
		return err // no map can be newer
	}
	if notYet := r.await(ctx, needed); notYet != nil {
		return fmt.Errorf("%w: %w", notYet, err)
	}
	_, err = r.call(fn)
	return err
}

// call makes one call by the snapshot in use, and says of which epoch that was.
func (r *Router[K, N]) call(fn func(*snapshot[N]) error) (uint64, error) {
	s := r.acquire()
	defer s.release()
	return s.m.epoch, fn(s)
}

// acquire returns the snapshot in use and keeps its handles from being dropped.
func (r *Router[K, N]) acquire() *snapshot[N] {
	for {
		if s := r.current.Load(); s.acquire() {
			return s
		}
	}
}

// RouterStats tells an operator whether routing is healthy: a counter of StaleCalls that
// climbs without Updates means that maps do not arrive.
type RouterStats struct {
	Epoch        uint64 // of the map in use
	Calls        int64  // of Do and DoAll
	StaleCalls   int64  // whose first try met a shard that had given up the key
	Waiting      int64  // calls that wait for a newer map now
	BufferFull   int64  // calls that were not allowed to
	Updates      int64  // maps put to use, the first included
	Refused      int64  // maps refused by Update
	SourceErrors int64  // errors of sources
}

type routerStats struct {
	calls, stale, waiting, bufferFull, updates, refused, sourceErrors atomic.Int64
}

// Stats returns a snapshot of the counters, each read on its own.
func (r *Router[K, N]) Stats() RouterStats {
	return RouterStats{
		Epoch:        r.current.Load().m.epoch,
		Calls:        r.stats.calls.Load(),
		StaleCalls:   r.stats.stale.Load(),
		Waiting:      r.stats.waiting.Load(),
		BufferFull:   r.stats.bufferFull.Load(),
		Updates:      r.stats.updates.Load(),
		Refused:      r.stats.refused.Load(),
		SourceErrors: r.stats.sourceErrors.Load(),
	}
}
