package etcdtopo

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/internal/feed"
)

const (
	// askTimeout is how long etcd may take to answer a reading of a watch.
	askTimeout = 10 * time.Second

	// again is the mean time after which a watch that hears nothing reads the key again.
	again = time.Minute
)

// Watch is that of [shard.Source]: it yields the newest map, and every newer one as etcd
// tells. It yields an error each time that etcd does not answer within 10 s or breaks off
// the watch, and tries again after pauses that grow from 0.1 s to 5 s, also after a
// compaction, unless a watch has lasted 5 s. It yields an error, once, for a value that is
// no map, a deleted key, and a value that went back to an older map. The package's
// documentation says how it misses nothing.
func (s *Store) Watch(ctx context.Context) iter.Seq2[*shard.Map, error] {
	return func(yield func(*shard.Map, error) bool) {
		w := watch{Store: s, yield: yield}
		var failures feed.Backoff
		for ctx.Err() == nil {
			err := w.readAndWatch(ctx, failures.Reset)
			switch {
			case w.left || ctx.Err() != nil:
				return
			case err == nil:
				continue
			case errors.Is(err, rpctypes.ErrCompacted): // the reading tells what it took
			case !yield(nil, fmt.Errorf("etcdtopo: watch key %s: %w", s.key, err)):
				return
			}
			if !feed.Sleep(ctx, failures.Next()) {
				return
			}
		}
	}
}

// watch is one loop over Watch.
type watch struct {
	*Store
	yield func(*shard.Map, error) bool
	heard feed.Feed
	left  bool // the loop
}

// readAndWatch reads the key and watches it from there on, until it is time to read it
// again or etcd breaks off.
func (w *watch) readAndWatch(ctx context.Context, answered func()) error {
	asking, done := context.WithTimeout(ctx, askTimeout)
	r, err := w.get(asking)
	done()
	if err != nil {
		return err
	}
	// A watch that breaks at once has failed too, although the reading has not.
	defer func(began time.Time) {
		if time.Since(began) > feed.LastPause {
			answered()
		}
	}(time.Now())
	if w.hear(textOf(r)); w.left {
		return nil
	}
	// The context ends the watch in the client too.
	watching, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	tooLate := time.AfterFunc(askTimeout, cancel) // Watch returns when etcd has answered
	events := w.client.Watch(watching, w.key, clientv3.WithRev(r.Header.Revision+1))
	tooLate.Stop()
	until := time.NewTimer(feed.Jitter(again))
	defer until.Stop()
	for {
		select {
		case <-until.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-events:
			switch {
			case !ok:
				return errors.New("the client has ended the watch")
			case e.Err() != nil:
				return e.Err()
			}
			if w.hearAll(e.Events); w.left {
				return nil
			}
		}
	}
}

// hearAll takes what etcd tells, in its order.
func (w *watch) hearAll(events []*clientv3.Event) {
	for _, e := range events {
		var text []byte // nil if the key was deleted
		if e.IsCreate() || e.IsModify() {
			text = valueOf(e.Kv)
		}
		if w.hear(text); w.left {
			return
		}
	}
}

func (w *watch) hear(text []byte) {
	m, err := w.heard.Hear(text, w.decode)
	if err != nil && !errors.Is(err, shard.ErrBadMap) {
		err = fmt.Errorf("%w in etcd key %s", err, w.key)
	}
	if m != nil || err != nil {
		w.left = !w.yield(m, err)
	}
}
