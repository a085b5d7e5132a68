// Package hold keeps a lease by renewing it, and knows locally when it can no
// longer be trusted. It is what sqllease and redislease have in common.
package hold

import (
	"context"
	"sync"
	"time"
)

// A Hold is a lease that is held until it is stopped or cannot be renewed in
// time.
//
// The store counts the time to live from the moment at which it handles a
// request. That is after the request was sent, so a Hold that counts from the
// sending ends first. Both clocks are monotonic, and neither is compared with
// the other. A process that does not run cannot notice anything: its Hold ends
// when it runs again.
//
// A Hold is safe for concurrent use by multiple goroutines.
type Hold struct {
	ttl     time.Duration
	renew   func(context.Context) (bool, error)
	abandon func()

	ctx    context.Context // of the renewals
	cancel context.CancelFunc
	done   chan struct{} // closed when no renewal will run any more
	lost   chan struct{}

	mu     sync.Mutex
	state  state
	expiry *time.Timer
}

type state uint8

const (
	held state = iota
	stopped
	lost
)

// Start begins to keep a lease of time to live ttl that was granted by a request
// sent at the time sent. The first renewal is a third of ttl later, as is each
// further one: two may fail.
//
// renew asks the store for another ttl. It returns false if the lease belongs to
// somebody else or to nobody, and an error if it does not know; then it is tried
// again soon. Its context ends when the lease does. One renewal runs at a time.
//
// If the lease is lost, and not stopped, abandon runs when the last renewal has
// ended. It may be nil.
func Start(ttl time.Duration, sent time.Time, renew func(context.Context) (bool, error), abandon func()) *Hold {
	h := &Hold{ttl: ttl, renew: renew, abandon: abandon, done: make(chan struct{}), lost: make(chan struct{})}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expiry = time.AfterFunc(time.Until(sent.Add(ttl)), func() { h.finish(lost); h.cancel() })
	go h.keep()
	return h
}

// Lost returns a channel that is closed when the lease is no longer held.
func (h *Hold) Lost() <-chan struct{} { return h.lost }

// Stop ends the lease here: it closes Lost, and returns when no renewal runs any
// more. A renewal under way may finish, unless ctx ends first. Stop reports
// whether the lease was held until now; it is false the second time.
func (h *Hold) Stop(ctx context.Context) bool {
	wasHeld := h.finish(stopped)
	defer context.AfterFunc(ctx, h.cancel)()
	<-h.done
	return wasHeld
}

// finish ends the lease, and reports whether it was held until now.
func (h *Hold) finish(how state) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != held {
		return false
	}
	h.state = how
	h.expiry.Stop()
	close(h.lost)
	return true
}

// extend counts the time to live from sent, unless the lease has ended.
func (h *Hold) extend(sent time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state == held {
		h.expiry.Reset(time.Until(sent.Add(h.ttl)))
	}
}

// keep renews until the lease has ended.
func (h *Hold) keep() {
	defer close(h.done)
	defer h.cancel()
	pause := time.NewTimer(h.ttl / 3)
	defer pause.Stop()
	for {
		select {
		case <-h.lost:
			h.mu.Lock()
			how := h.state
			h.mu.Unlock()
			if how == lost && h.abandon != nil {
				h.abandon()
			}
			return
		case <-pause.C:
		}
		sent := time.Now()
		ok, err := h.renew(h.ctx)
		switch {
		case err != nil:
			pause.Reset(h.ttl / 20)
		case ok:
			h.extend(sent)
			pause.Reset(h.ttl / 3)
		default:
			h.finish(lost)
		}
	}
}
