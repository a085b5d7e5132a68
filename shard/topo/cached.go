package topo

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/shard"
)

// CachedOptions are the knobs of [Cached]. The zero value of each field is its default.
type CachedOptions struct {
	// Patience is how long the source may take before the file answers in its place, and
	// how long the file may take to be written before the source's next map goes first.
	// 0 means 1 s.
	Patience time.Duration
}

// Cached is a source that keeps the last good map of another source in a file, so that a
// process starts and routes while the other is down. It must be created by [NewCached].
// It is Segment's ctlstore for one document.
//
// The file is a memory and no authority, with one exception: it never goes back. A map of
// the source that is older than the one in the file, after a restore of the source say,
// is an error, and the file's is used; Load compares with the file now, and Watch with the
// file as it was when the watch began. If the source begins anew at lower epochs, delete the
// file. Of two maps of one epoch the source's is used, and Watch reports it; if the watch
// has yielded the file's already, that stays until the next epoch. A file that is no map is
// reported by Watch, ignored, and replaced by the next map. A file that cannot be written
// is reported and stops no map.
//
// Many processes may share a file. A Cached is safe for concurrent use by multiple
// goroutines.
type Cached struct {
	source   shard.Source
	file     *File
	patience time.Duration
}

var _ shard.Source = (*Cached)(nil)

// NewCached returns a Cached of source in file. Give each keyspace a file of its own:
// the document does not name its keyspace, and would route one by the map of another.
// Returns an error if one of them is nil or an option is out of its range.
func NewCached(source shard.Source, file *File, o CachedOptions) (*Cached, error) {
	switch {
	case source == nil:
		return nil, errors.New("topo: source is nil, expected a shard.Source")
	case file == nil:
		return nil, errors.New("topo: file is nil, expected a *topo.File")
	case o.Patience < 0:
		return nil, fmt.Errorf("topo: CachedOptions.Patience is %v, expected 0 (meaning 1s) or more", o.Patience)
	case o.Patience == 0:
		o.Patience = time.Second
	}
	return &Cached{source: source, file: file, patience: o.Patience}, nil
}

// Load asks the source, and returns the file's map if the source fails, does not answer
// within Patience or by the deadline of ctx, or says an older map. What the source said
// is written to the file; an error of that is left to Watch. Returns the error of the
// source if there is no file, and both errors if the file is no map either. When ctx is
// canceled, the error is its own.
func (c *Cached) Load(ctx context.Context) (*shard.Map, error) {
	m, err := c.ask(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil, ctx.Err()
	}
	if err == nil {
		// Whatever else kept it from being written, the file may be ahead.
		if failed := c.keep(ctx, m); failed == nil || errors.Is(failed, shard.ErrSplitBrain) {
			return m, nil
		}
	}
	// The file answers at once, so that it may after the deadline too.
	kept, fileErr := c.file.Load(context.WithoutCancel(ctx))
	switch {
	case fileErr == nil && m != nil && kept.Epoch() <= m.Epoch():
		return m, nil // the file could not be written, or somebody changed it meanwhile
	case fileErr == nil:
		return kept, nil
	case m != nil:
		return m, nil
	case errors.Is(fileErr, ErrNoMap):
		return nil, err
	}
	return nil, fmt.Errorf("%w, and %w", err, fileErr)
}

// ask gives the source as long as Patience. It does not wait for a source that does not
// heed its context; its goroutine ends with the answer.
func (c *Cached) ask(ctx context.Context) (*shard.Map, error) {
	late := fmt.Errorf("topo: the source has not answered within %v: %w", c.patience, context.DeadlineExceeded)
	ctx, cancel := context.WithTimeoutCause(ctx, c.patience, late)
	defer cancel()
	answers := make(chan said, 1)
	go func() {
		m, err := c.source.Load(ctx)
		answers <- said{m, err}
	}()
	select {
	case a := <-answers:
		return checked(a.m, a.err)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// said is what a source said.
type said struct {
	m   *shard.Map
	err error
}

// checked takes a source that says nothing at all for one that failed.
func checked(m *shard.Map, err error) (*shard.Map, error) {
	if m == nil && err == nil {
		return nil, errors.New("topo: the source gave neither a map nor an error")
	}
	return m, err
}

// keep writes m to the file, unless that takes longer than Patience.
func (c *Cached) keep(ctx context.Context, m *shard.Map) error {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	return c.file.Publish(ctx, m)
}

// Watch is that of [shard.Source]: it yields what the source does, its errors included.
// If the source has given no map within Patience, or fails first, it yields the file's
// map, once. Errors of the file come between, and a map of the source that is older than
// the file's becomes one. It ends when the source ends its watch of itself.
func (c *Cached) Watch(ctx context.Context) iter.Seq2[*shard.Map, error] {
	return func(yield func(*shard.Map, error) bool) {
		if ctx.Err() != nil {
			return
		}
		kept, err := c.file.Load(ctx)
		if err != nil && !errors.Is(err, ErrNoMap) && ctx.Err() == nil && !yield(nil, err) {
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		var source sync.WaitGroup
		defer source.Wait()
		defer cancel()
		news := make(chan said)
		source.Go(func() {
			defer close(news)
			for m, err := range c.source.Watch(ctx) {
				select {
				case news <- said{m, err}:
				case <-ctx.Done():
					return
				}
			}
		})
		w := cachedWatch{Cached: c, ctx: ctx, yield: yield, kept: kept}
		w.run(news)
	}
}

// cachedWatch is one watch of a Cached.
type cachedWatch struct {
	*Cached
	ctx   context.Context
	yield func(*shard.Map, error) bool

	kept   *shard.Map // the file's, until it was yielded or is of no more use
	newest *shard.Map // that was yielded
}

func (w *cachedWatch) run(news <-chan said) {
	patience := time.NewTimer(w.patience)
	defer patience.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-patience.C:
			if !w.yieldKept() {
				return
			}
		case s, ok := <-news:
			if !ok && w.ctx.Err() == nil {
				w.yieldKept()
			}
			if !ok || w.ctx.Err() != nil || !w.hear(s) {
				return
			}
		}
	}
}

// yieldKept yields the file's map if it has not been and nothing newer has.
func (w *cachedWatch) yieldKept() bool {
	m := w.kept
	w.kept = nil
	if m == nil {
		return true
	}
	w.newest = m
	return w.yield(m, nil)
}

// hear takes what the source said, and reports whether the loop goes on.
func (w *cachedWatch) hear(s said) bool {
	m, err := checked(s.m, s.err)
	if err != nil {
		return w.yield(nil, err) && w.yieldKept()
	}
	if w.kept != nil && m.Epoch() < w.kept.Epoch() && !w.yieldKept() {
		return false
	}
	newer, err := m.Supersedes(w.newest)
	if err != nil {
		return w.yield(nil, fmt.Errorf("topo: the source is at odds with file %s: %w", w.file.path, err))
	}
	more := true
	if newer {
		w.kept, w.newest = nil, m
		more = w.yield(m, nil) // before it is on the disk, which may be slow
	}
	if err := w.keep(w.ctx, m); err != nil && more && w.ctx.Err() == nil {
		return w.yield(nil, err)
	}
	return more
}
