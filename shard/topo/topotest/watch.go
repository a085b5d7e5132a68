package topotest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
)

// A Watcher is a running watch whose findings a test waits for. It checks that epochs only
// rise and that an error comes without a map.
type Watcher struct {
	t      testing.TB
	maps   chan *shard.Map
	errors chan error
	cancel context.CancelFunc
	ended  chan struct{}
}

// Watch starts a watch, which ends with the test at the latest.
func Watch(t testing.TB, source shard.Source) *Watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watcher{t: t, maps: make(chan *shard.Map, 10_000), errors: make(chan error, 10_000), cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		var last *shard.Map
		for m, err := range source.Watch(ctx) {
			switch {
			case err != nil && m != nil || err == nil && m == nil:
				t.Errorf("watch yielded map %v with error %v", m, err)
			case err != nil:
				w.errors <- err
			case last != nil && m.Epoch() <= last.Epoch():
				t.Errorf("watch yielded epoch %d after %d", m.Epoch(), last.Epoch())
			default:
				last = m
				w.maps <- m
			}
		}
		if ctx.Err() == nil {
			t.Errorf("the watch ended of itself")
		}
	}()
	t.Cleanup(w.Stop)
	return w
}

// Stop ends the watch and waits for its end.
func (w *Watcher) Stop() {
	w.cancel()
	select {
	case <-w.ended:
	case <-time.After(patience):
		w.t.Error("the watch does not end")
	}
}

// Until waits for the map of this epoch, and returns it. Older ones are dropped, and a
// newer one fails the test.
func (w *Watcher) Until(epoch uint64) *shard.Map {
	w.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case m := <-w.maps:
			if m.Epoch() >= epoch {
				require.Equal(w.t, epoch, m.Epoch())
				return m
			}
		case <-limit:
			w.t.Fatalf("no map of epoch %d; errors: %v", epoch, w.Errors())
		}
	}
}

// UntilError waits for an error that wraps target, and returns it. Others are dropped.
func (w *Watcher) UntilError(target error) error {
	w.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case err := <-w.errors:
			if errors.Is(err, target) {
				return err
			}
		case <-limit:
			w.t.Fatalf("no error that wraps %v", target)
		}
	}
}

// AnyError waits for an error.
func (w *Watcher) AnyError() error {
	w.t.Helper()
	select {
	case err := <-w.errors:
		return err
	case <-time.After(patience):
		w.t.Fatal("no error")
	}
	return nil
}

// Maps returns the maps that have come and nobody has waited for.
func (w *Watcher) Maps() (maps []*shard.Map) {
	for {
		select {
		case m := <-w.maps:
			maps = append(maps, m)
		default:
			return maps
		}
	}
}

// Errors returns the errors that have come and nobody has waited for.
func (w *Watcher) Errors() (all []error) {
	for {
		select {
		case err := <-w.errors:
			all = append(all, err)
		default:
			return all
		}
	}
}
