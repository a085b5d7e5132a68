package coalesce

import (
	"context"
	"hash/maphash"
	"math"
	"time"
)

const (
	// underWay is the retryAt of an item while a refresh runs.
	underWay = math.MaxInt64

	// How long refreshes pause after failures: ours. The first is short enough
	// for one lost packet, the last long enough that it is not felt by the
	// backend.
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second

	// farthestDraw is what an exponential draw of mean 1 stays below but for
	// once in 10^19 times: so long before the expiry nobody need draw.
	farthestDraw = 45
)

// pause returns how long to wait after a number of failures in a row.
func pause(failures int) time.Duration {
	if failures > 7 {
		return lastPause
	}
	return min(firstPause<<(failures-1), lastPause)
}

// tooNear draws the lot of XFetch.
func (c *Cache[K, V]) tooNear(r *record[V], now time.Duration) bool {
	return float64(r.expiry-now) <= c.options.Beta*float64(r.took)*c.draw()
}

// Refresh loads the value of key now, also if there is a fresh one, and returns
// it. A load that is under way is joined, so after a write call Invalidate
// first. It returns the errors that Get returns, but never an old value. A load
// that fails leaves the old value in memory, except with [ErrNotFound].
func (c *Cache[K, V]) Refresh(ctx context.Context, key K) (V, error) {
	var zero V
	if c.closed.Load() {
		return zero, ErrClosed
	}
	hash := maphash.Comparable(c.seed, key)
	it, old := c.pin(hash, key)
	if it != nil {
		defer c.unpin(it)
	}
	for {
		r, err := c.fetch(ctx, hash, key)
		if r != nil && r == old {
			continue // joined one that had looked before the pin and loaded nothing
		}
		if r == nil || err != nil {
			return zero, err
		}
		return r.value, nil
	}
}

// pin sees to it that loads of key which begin from now on do load, although
// there may be a fresh value. It returns no item if there is none.
func (c *Cache[K, V]) pin(hash uint64, key K) (*item[K, V], *record[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	it := c.find(hash, key)
	if it == nil {
		return nil, nil
	}
	it.pinned++
	return it, it.current.Load()
}

func (c *Cache[K, V]) unpin(it *item[K, V]) {
	c.mu.Lock()
	it.pinned--
	c.mu.Unlock()
}

// refresh starts a load in the background, unless there is one or it is too
// soon after one that failed.
func (c *Cache[K, V]) refresh(ctx context.Context, it *item[K, V], now time.Duration) {
	if now < time.Duration(it.retryAt.Load()) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() || it.queue == nil || now < time.Duration(it.retryAt.Load()) {
		return
	}
	it.retryAt.Store(underWay)
	it.pinned++
	c.refreshers++
	c.refreshes++
	go c.refreshDetached(background{context.WithoutCancel(ctx), c.closing}, it)
}

// refreshDetached is the goroutine of a refresh. It leaves the load when Close
// has run out of patience.
func (c *Cache[K, V]) refreshDetached(ctx context.Context, it *item[K, V]) {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		it.pinned--
		if it.retryAt.Load() == underWay { // the load was void, or deserted
			it.retryAt.Store(0)
		}
		c.refreshers--
		if c.closed.Load() && c.refreshers == 0 {
			close(c.idle)
		}
	}()
	_, _ = c.fetch(ctx, it.hash, it.key) // settle has taken note of the error
}

// A background is a context with the values of one and the end of another.
type background struct {
	context.Context
	closing context.Context
}

func (b background) Done() <-chan struct{} { return b.closing.Done() }
func (b background) Err() error            { return b.closing.Err() }
