package topo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/internal/feed"
)

// askTimeout bounds one question of a watcher, so that a server that went silent does not
// silence the watch.
const askTimeout = 10 * time.Second

// pollOf checks Options.Poll.
func pollOf(options string, poll, least, usual time.Duration) (time.Duration, error) {
	switch {
	case poll == 0:
		return usual, nil
	case poll < least:
		return 0, fmt.Errorf("topo: %s.Poll is %v, expected 0 (meaning %v) or at least %v", options, poll, usual, least)
	}
	return poll, nil
}

// A watcher is a watch that asks in pauses.
type watcher struct {
	poll time.Duration

	// ask asks the place. It returns a map or an error that the loop should have, or
	// neither if there is nothing new. It reports whether the place answered; if not, the
	// pauses are those of a Backoff.
	ask func(context.Context) (m *shard.Map, answered bool, err error)

	// listen, if it is there, runs beside and ends a pause by calling changed.
	listen func(ctx context.Context, changed func()) error
}

// run asks until ctx ends or the loop is left, and leaves no goroutine behind.
func (w *watcher) run(ctx context.Context, yield func(*shard.Map, error) bool) {
	ctx, cancel := context.WithCancel(ctx)
	var listening sync.WaitGroup
	defer listening.Wait()
	defer cancel()
	changed, deaf := make(chan struct{}, 1), make(chan error)
	if w.listen != nil {
		listening.Go(func() { w.keepListening(ctx, changed, deaf) })
	}
	var failures feed.Backoff
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-deaf:
			if !yield(nil, err) {
				return
			}
			continue
		case <-changed:
		case <-pause.C:
		}
		asking, done := context.WithTimeout(ctx, askTimeout)
		m, answered, err := w.ask(asking)
		done()
		if ctx.Err() != nil || (m != nil || err != nil) && !yield(m, err) {
			return
		}
		if answered {
			failures.Reset()
			pause.Reset(feed.Jitter(w.poll))
		} else {
			pause.Reset(failures.Next())
		}
	}
}

// keepListening calls listen again whenever it ends, until ctx does, and says why it
// ended.
func (w *watcher) keepListening(ctx context.Context, changed chan<- struct{}, deaf chan<- error) {
	var failures feed.Backoff
	for {
		began := time.Now()
		err := w.listen(ctx, func() {
			select {
			case changed <- struct{}{}:
			default: // a question is due in any case
			}
		})
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > feed.LastPause { // one that connects and breaks at once has failed too
			failures.Reset()
		}
		if err == nil {
			err = errors.New("it ended of itself")
		}
		select {
		case deaf <- fmt.Errorf("topo: listen: %w", err):
		case <-ctx.Done():
			return
		}
		if !feed.Sleep(ctx, failures.Next()) {
			return
		}
	}
}
