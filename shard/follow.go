package shard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Follow keeps the router at the newest map of source until ctx ends, and returns the
// error of ctx. Errors of the source and maps that [Router.Update] refuses are logged and
// counted, and it goes on: the last good map stays in use. A map that is older than the one
// in use is passed over, since one source may be behind another. A map with a node that could not
// be opened is tried again, after 1 s and then after pauses that double up to a minute.
// Several sources may be followed at once; the newest map wins.
//
// While it runs, [Router.Do] asks the source when it meets a stale map. It returns another
// error if source is nil or ends its watch of itself.
func (r *Router[K, N]) Follow(ctx context.Context, source Source) error {
	if source == nil {
		return errors.New("shard: source is nil")
	}
	defer r.addSource(source)()
	until, cancel := context.WithCancel(ctx)
	refused := make(chan *Map)
	var insisting sync.WaitGroup
	defer insisting.Wait()
	defer cancel()
	insisting.Go(func() { r.insist(until, refused) })
	for m, err := range source.Watch(ctx) {
		if ctx.Err() != nil {
			break
		}
		if errors.Is(r.heard(ctx, m, err), ErrUnknownNode) {
			select {
			case refused <- m:
			case <-ctx.Done():
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.New("shard: the source has ended its watch")
}

const (
	firstInsistence = time.Second // between two attempts to open a node
	lastInsistence  = time.Minute
)

// insist tries to update to a map again that had a node which open refused, until it is in
// use or a newer one is. The source will not say it again.
func (r *Router[K, N]) insist(ctx context.Context, refused <-chan *Map) {
	var m *Map
	var next <-chan time.Time
	pause := firstInsistence
	for {
		select {
		case m = <-refused:
			pause = firstInsistence
		case <-next:
			if err := r.update(m, true); !errors.Is(err, ErrUnknownNode) {
				next = nil
				continue
			}
			pause = min(2*pause, lastInsistence)
		case <-ctx.Done():
			return
		}
		next = time.After(pause)
	}
}

// addSource makes the source one that a stale call asks, until the function that it
// returns is called.
func (r *Router[K, N]) addSource(source Source) (remove func()) {
	r.sourcesMu.Lock()
	defer r.sourcesMu.Unlock()
	id := r.nextSource
	r.nextSource++
	r.sources[id] = &followed{Source: source}
	return func() {
		r.sourcesMu.Lock()
		defer r.sourcesMu.Unlock()
		delete(r.sources, id)
	}
}

// followed is a source that a Follow watches.
type followed struct {
	Source
	busy atomic.Bool // a question has not been answered
}

func (r *Router[K, N]) allSources() []*followed {
	r.sourcesMu.Lock()
	defer r.sourcesMu.Unlock()
	all := make([]*followed, 0, len(r.sources))
	for _, s := range r.sources {
		all = append(all, s)
	}
	return all
}

// heard takes what a source said, and returns why a map was refused.
func (r *Router[K, N]) heard(ctx context.Context, m *Map, err error) error {
	switch {
	case err == nil:
		return r.update(m, true) // which logs and counts what it refuses
	case ctx.Err() == nil:
		r.stats.sourceErrors.Add(1)
		r.options.Log.Warn("shard: source of the map failed", "error", err)
	}
	return nil
}

// neededEpoch is the epoch to wait for after a call by a map of the given one.
func neededEpoch(err error, epoch uint64) uint64 {
	var stale *StaleError
	if errors.As(err, &stale) && stale != nil && stale.Epoch > epoch {
		return stale.Epoch
	}
	return epoch + 1
}

const (
	firstPause = 10 * time.Millisecond // between two questions to the sources
	lastPause  = time.Second
)

// await returns nil as soon as a map of the epoch is in use.
func (r *Router[K, N]) await(ctx context.Context, epoch uint64) error {
	if r.current.Load().m.epoch >= epoch {
		return nil
	}
	if !r.enterBuffer() {
		r.stats.bufferFull.Add(1)
		return fmt.Errorf("%w: %d", ErrBufferFull, r.options.Buffer)
	}
	defer r.stats.waiting.Add(-1)
	late := fmt.Errorf("%w: no map of epoch %d or later within %v", ErrBufferTimeout, epoch, r.options.BufferTimeout)
	waiting, cancel := context.WithTimeoutCause(ctx, r.options.BufferTimeout, late)
	defer cancel()
	for {
		s := r.current.Load()
		if s.m.epoch >= epoch {
			return nil
		}
		select {
		case r.refresher <- struct{}{}:
			r.refresh(waiting, epoch)
		case <-s.superseded:
		case <-waiting.Done():
		}
		if waiting.Err() != nil && r.current.Load().m.epoch < epoch {
			return ended(ctx, waiting)
		}
	}
}

// enterBuffer counts one more call that waits, if there may be one.
func (r *Router[K, N]) enterBuffer() bool {
	for {
		n := r.stats.waiting.Load()
		if n >= int64(r.options.Buffer) {
			return false
		}
		if r.stats.waiting.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// ended is why a wait ended: what the caller's ctx says, or that it took too long.
func ended(ctx, waiting context.Context) error {
	err, cause := ctx.Err(), context.Cause(waiting)
	if err == nil || errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// refresh asks the sources, with growing pauses, until a map of the epoch is in use or ctx
// ends. Its caller has taken the token, which it gives back: the other calls that wait
// are woken by the update.
func (r *Router[K, N]) refresh(ctx context.Context, epoch uint64) {
	defer func() { <-r.refresher }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of questions that nobody waits for any more
	pause := time.NewTimer(0)
	defer pause.Stop()
	for next := firstPause; ; next = min(2*next, lastPause) {
		s := r.current.Load()
		if s.m.epoch >= epoch {
			return
		}
		r.ask(ctx)
		pause.Reset(next)
		select {
		case <-pause.C:
		case <-s.superseded:
		case <-ctx.Done():
			return
		}
	}
}

// ask loads from every source that has answered the last question. It does not wait: one
// that hangs, or that does not look at its context, holds up neither the others nor the call.
func (r *Router[K, N]) ask(ctx context.Context) {
	for _, source := range r.allSources() {
		if !source.busy.CompareAndSwap(false, true) {
			continue
		}
		go func() {
			defer source.busy.Store(false)
			m, err := source.Load(ctx)
			_ = r.heard(ctx, m, err)
		}()
	}
}
