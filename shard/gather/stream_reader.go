package gather

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/shard"
)

// stream is one iteration of a [Stream] without a limit.
type stream[T any] struct {
	// Immutable once the readers run.
	ctx     context.Context
	cancel  context.CancelFunc
	fn      func(context.Context, *shard.Shard) iter.Seq2[T, error]
	o       Options
	need    int
	reading chan struct{} // holds a value for each shard that is being read
	readers []reader[T]

	running sync.WaitGroup
	stopped atomic.Bool // set under mu

	mu     sync.Mutex
	failed int
	torn   bool
	panic  *PanicError
	goexit bool
}

// reader reads one shard ahead of the merge, with two buffers: the merge plays from one
// while the other is filled.
type reader[T any] struct {
	shard *shard.Shard
	more  chan struct{} // cap 1: there are rows, or all is done
	room  chan struct{} // cap 1: rows is empty

	mu      sync.Mutex
	rows    []T
	done    bool
	hungry  bool // the merge waits for more
	blocked bool // the reader waits for room

	taken []T // what the merge has, and rows is to be next; the merge's own

	// Guarded by stream.mu, and read when the readers have ended.
	err      error
	answered bool // it had a row, or ended well

	yielded bool // to its end; the merge's own
}

const mostRows = 64

// errStopped ends the merge of a stream whose outcome says why.
var errStopped = errors.New("gather: stream has stopped")

func newStream[T any](ctx context.Context, list []*shard.Shard, fn func(context.Context, *shard.Shard) iter.Seq2[T, error], o Options) (*stream[T], error) {
	need, err := o.need(len(list))
	if err != nil {
		return nil, err
	}
	if o.Bulkhead != nil {
		if err := reserve(ctx, o.Bulkhead, list); err != nil {
			return nil, err
		}
	}
	s := &stream[T]{fn: fn, o: o, need: need, reading: make(chan struct{}, o.concurrency(len(list))), readers: make([]reader[T], len(list))}
	s.ctx, s.cancel = context.WithCancel(ctx)
	for i, of := range list {
		r := &s.readers[i]
		r.shard, r.more, r.room = of, make(chan struct{}, 1), make(chan struct{}, 1)
	}
	return s, nil
}

// read reads a shard to its end and notes what came of it. It contains a panic.
func (s *stream[T]) read(r *reader[T]) {
	returned := false
	defer func() {
		if !returned {
			s.caught(r, recover())
		}
		if s.o.Bulkhead != nil {
			s.o.Bulkhead.release(r.shard.Node, 1)
		}
		r.end()
	}()
	err := s.readRows(r)
	returned = true
	if err != nil {
		s.fail(r, err)
	} else {
		s.hasAnswered(r)
	}
}

func (s *stream[T]) readRows(r *reader[T]) error {
	if err := s.begin(); err != nil {
		return err
	}
	reading := true
	defer func() {
		if reading {
			<-s.reading
		}
	}()
	ctx, watch := newWatch(s.ctx, s.o.ShardTimeout)
	defer watch.end()
	first := true
	for row, err := range s.fn(ctx, r.shard) {
		if err != nil {
			return watch.cause(err)
		}
		if err := ended(s.ctx); err != nil {
			return err // whether or not fn looks
		}
		watch.row()
		if first {
			s.hasAnswered(r)
			first = false
		}
		if r.push(row) {
			continue
		}
		watch.pause()
		<-s.reading
		reading = false
		select {
		case <-r.room:
		case <-s.ctx.Done():
		}
		if err := s.begin(); err != nil {
			return err
		}
		reading = true
		watch.row()
	}
	if err := ended(ctx); err != nil {
		return watch.cause(err)
	}
	return nil
}

// begin waits until one more shard may be read.
func (s *stream[T]) begin() error {
	if err := ended(s.ctx); err != nil {
		return err
	}
	select {
	case s.reading <- struct{}{}:
		return nil
	case <-s.ctx.Done():
		return ended(s.ctx)
	}
}

// push adds a row and reports whether there is room for the next.
func (r *reader[T]) push(row T) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, row)
	if r.hungry {
		r.hungry = false
		r.more <- struct{}{}
	}
	r.blocked = len(r.rows) == mostRows
	return !r.blocked
}

// end tells the merge that no row follows.
func (r *reader[T]) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = true
	if r.hungry {
		r.hungry = false
		r.more <- struct{}{}
	}
}

// take exchanges the buffers. It reports whether it was worth it: there are rows, or
// none will follow. If not, more will say so.
func (r *reader[T]) take() ([]T, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rows) == 0 {
		r.hungry = !r.done
		return nil, r.done
	}
	r.taken, r.rows = r.rows, r.taken[:0]
	if r.blocked {
		r.blocked = false
		r.room <- struct{}{}
	}
	return r.taken, true
}

// next returns the rows of a shard that follow, as the merge asks for them. It need not
// look at the context: when that ends, so does the reader.
func (s *stream[T]) next(r *reader[T]) ([]T, error) {
	for {
		rows, ok := r.take()
		switch {
		case s.stopped.Load(): // perhaps by this reader, as it ended
			return nil, errStopped
		case len(rows) > 0:
			return rows, nil
		case ok:
			r.yielded = true
			return nil, nil
		}
		<-r.more
	}
}

func (s *stream[T]) hasAnswered(r *reader[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.answered = true
}

// fail counts a failure, which ends the stream if it tore it or was one too many.
func (s *stream[T]) fail(r *reader[T], err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped.Load() {
		return // the end of a query that the stream ended
	}
	r.err = err
	s.failed++
	s.torn = r.answered
	if s.torn || len(s.readers)-s.failed < s.need {
		s.stop()
	}
}

// caught notes a panic, or with a nil value a Goexit.
func (s *stream[T]) caught(r *reader[T], value any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case value == nil:
		s.goexit = true
	case s.panic == nil:
		s.panic = &PanicError{Shard: r.shard, Value: value, Stack: debug.Stack()}
	}
	s.stop()
}

// stop ends the stream. The caller holds mu.
func (s *stream[T]) stop() {
	s.stopped.Store(true)
	s.cancel()
}

// watch ends a context when no row has come for a time. Its zero value does nothing.
type watch struct {
	after  time.Duration
	cancel context.CancelFunc
	timer  *time.Timer
	fired  atomic.Bool
}

func newWatch(ctx context.Context, after time.Duration) (context.Context, *watch) {
	w := &watch{after: after}
	if after == 0 {
		return ctx, w
	}
	ctx, w.cancel = context.WithCancel(ctx)
	w.timer = time.AfterFunc(after, func() {
		w.fired.Store(true)
		w.cancel()
	})
	return ctx, w
}

// row starts the time anew.
func (w *watch) row() {
	if w.timer != nil {
		w.timer.Reset(w.after)
	}
}

// pause stops the time until the next row.
func (w *watch) pause() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

func (w *watch) end() {
	if w.timer != nil {
		w.timer.Stop()
		w.cancel()
	}
}

// cause is the error of a query, in whose place a cancellation by the watch is the
// end of its time.
func (w *watch) cause(err error) error {
	if !w.fired.Load() {
		return err
	}
	if err == context.Canceled { // the watch's own, and nothing of fn's
		return fmt.Errorf("no row within %v: %w", w.after, context.DeadlineExceeded)
	}
	return fmt.Errorf("no row within %v: %w: %w", w.after, context.DeadlineExceeded, err)
}
