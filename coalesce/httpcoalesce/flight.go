package httpcoalesce

import (
	"context"
	"hash/maphash"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// A flight is one execution of the wrapped handler and its response.
type flight struct {
	h       *Handler
	base    uint64  // hash of baseKey
	baseKey string  // the key without a variant
	guarded bool    // see ask
	parent  *flight // from inside of which it was started
	ctx     context.Context
	cancel  context.CancelCauseFunc

	key string // guarded by the shard's mu; it changes when the response varies

	mu        sync.Mutex
	clients   []*client
	starter   *client   // the handler sees a copy of its request; it stays until decided
	owner     *client   // the last to leave: it stays until the handler has returned
	closed    bool      // nobody joins any more
	decided   bool      // the header is written
	until     time.Time // when decided: the last moment to join, if not zero
	published bool      // clients may begin; status and header do not change any more
	over      bool      // the handler has returned
	failure   any       // when over: what clients panic with, if it was aborted
	abandoned bool      // nobody is left

	status  int
	header  http.Header
	window  window
	limit   int64 // of the window's size
	ready   int64 // the bytes before it are for the clients to take
	flushes int   // how often the handler has flushed
	trailer http.Header

	changed chan struct{} // closed when clients that wait should look again; nil if none does
	space   chan struct{} // cap 1; not nil while the handler is held
}

// newFlight returns a flight with its first client, which has to start it.
func newFlight(h *Handler, a *ask, key string) (*flight, *client) {
	f := &flight{h: h, base: a.base, baseKey: key, key: key, guarded: a.guarded, parent: a.parent, limit: h.maxBuffer}
	if len(key) != len(a.key) {
		f.baseKey = string(a.key)
	}
	c := &client{f: f, req: a.req}
	f.starter = c
	f.clients = []*client{c}
	return f, c
}

// start runs the handler on a goroutine. Its request is a copy, for the first client
// may be gone while it runs: it has the values of that client's context, and not its
// end.
func (f *flight) start(a *ask) {
	ctx := context.WithValue(context.WithoutCancel(a.req.Context()), insideKey{f.h}, f)
	f.ctx, f.cancel = context.WithCancelCause(ctx)
	stop := func() {}
	if f.h.timeout > 0 {
		f.ctx, stop = context.WithTimeout(f.ctx, f.h.timeout)
	}
	req := a.req.Clone(f.ctx)
	req.Body = http.NoBody
	f.h.count.inFlight.Add(1)
	go func() {
		defer stop()
		f.run(req)
	}()
}

func (f *flight) run(req *http.Request) {
	w := &writer{f: f, method: req.Method, header: http.Header{}, length: -1}
	returned := false
	defer func() {
		var failure any
		if v := recover(); v != nil {
			failure = v
			if v != http.ErrAbortHandler {
				failure = newPanicError(v)
			}
		} else if !returned || w.incomplete() {
			failure = http.ErrAbortHandler // runtime.Goexit, or less than was promised
		}
		f.finish(w, failure)
	}()
	f.h.next.ServeHTTP(w, req)
	w.WriteHeader(http.StatusOK)
	returned = true
}

// finish ends the flight. From here on nobody joins.
func (f *flight) finish(w *writer, failure any) {
	f.h.count.inFlight.Add(-1)
	s := f.h.shardOf(f.base)
	s.mu.Lock()
	s.remove(f)
	s.mu.Unlock()
	f.mu.Lock()
	f.over = true
	if f.failure = failure; failure == nil {
		f.trailer = w.trailers()
		f.publish()
	} else if !f.abandoned {
		f.h.count.aborted.Add(1)
	}
	f.wake()
	f.mu.Unlock()
	f.cancel(nil)
}

// join adds a client, or returns nil if the flight does not take any, or none such.
func (f *flight) join(a *ask) *client {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.decided && (a.fresh || !f.until.IsZero() && !time.Now().Before(f.until)) {
		return nil
	}
	c := &client{f: f, req: a.req}
	c.at = len(f.clients)
	f.clients = append(f.clients, c)
	return c
}

// soloLimit is the window of a response for one client. Nobody can join, and a
// larger one only makes the handler run ahead of what is read.
const soloLimit = 64 << 10

// decide is called with the header that the handler has written, before any client
// sees it. It lets those clients go that cannot have this response. A body that is too
// long for the window is not shared: all clients but the fastest would be cut off.
func (f *flight) decide(status int, header http.Header, tooLong bool) {
	v := judge(f.guarded, status, header, time.Now())
	v.share = v.share && !tooLong
	s := f.h.shardOf(f.base)
	s.mu.Lock()
	defer s.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status, f.header = status, header
	f.decided, f.until = true, v.until
	if f.abandoned {
		return // what a cancelled handler says is nothing to remember
	}
	f.learn(s, v)
	f.letGo(func(c *client) fate {
		switch {
		case c == f.starter:
			return riding
		case !v.share:
			return released
		case !sameVariant(v.vary, f.starter.req.Header, c.req.Header):
			return diverted
		}
		return riding
	})
	if !v.share {
		f.closed = true
		f.limit = min(f.limit, soloLimit)
	}
	if len(f.clients) == 0 {
		f.abandon(f.starter)
	}
	f.wake()
}

// learn remembers what the response says about its key, and moves the flight to
// where requests for its variant look from now on: the key of a flight that is
// decided has all the fields on which its response varies.
func (f *flight) learn(s *shard, v verdict) {
	listed := s.flights[f.key] == f
	s.remove(f)
	vary, ok := s.noteVary(f.base, v.vary)
	if !ok {
		return
	}
	if len(vary) > 0 {
		f.key = string(appendVariant([]byte(f.baseKey), vary, f.starter.req.Header))
	}
	if !v.share {
		s.notePass(maphash.String(f.h.seed, f.key), f.h.hitForPass)
	} else if listed && s.flights[f.key] == nil {
		s.flights[f.key] = f
	}
}

// abandon cancels the handler, since nobody is left. The owner stays until it has
// returned.
func (f *flight) abandon(owner *client) {
	f.closed, f.abandoned, f.owner = true, true, owner
	f.h.count.abandoned.Add(1)
	f.cancel(coalesce.ErrAbandoned)
	f.wake()
}

// publish lets the clients have what the handler has written so far.
func (f *flight) publish() {
	if !f.published {
		f.published = true
		f.sniff()
	}
	f.ready = f.window.end
	f.wake()
}

// sniff sets the Content-Type as net/http would, from the same bytes for all clients.
func (f *flight) sniff() {
	if f.window.end == 0 || !bodyAllowed(f.status) {
		return
	}
	_, typed := f.header["Content-Type"]
	if !typed && f.header.Get("Content-Encoding") == "" && len(f.header["Transfer-Encoding"]) == 0 {
		f.header.Set("Content-Type", http.DetectContentType(f.window.first(512)))
	}
}

// wait returns a channel that is closed at the next change.
func (f *flight) wait() <-chan struct{} {
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}

func (f *flight) wake() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// room makes room for n bytes in the window. If it is full, the oldest bytes go as
// soon as every client has read them. They also go if some client has read all there
// is: then it is not the window that is too small but the others that are too slow,
// and those that still needed them are cut off. Otherwise the handler has to wait.
//
// It returns an error if nobody is left, or at the end of the handler's context.
func (f *flight) room(n int64) error {
	for {
		if err := context.Cause(f.ctx); err != nil {
			return err
		}
		keep := f.window.end + n - f.limit
		if keep <= f.window.start {
			return nil
		}
		slowest, fastest := f.positions()
		if slowest >= keep || fastest == f.window.end {
			f.closed = true
			f.cutOff(keep)
			f.window.drop(keep)
			return nil
		}
		f.publish()
		if err := f.hold(); err != nil {
			return err
		}
	}
}

// hold waits, without the lock, until a client has read something or left.
func (f *flight) hold() error {
	space := make(chan struct{}, 1)
	f.space = space
	f.mu.Unlock()
	defer f.mu.Lock()
	select {
	case <-space:
		return nil
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
}

// proceed lets a handler that is held look again.
func (f *flight) proceed() {
	if f.space != nil {
		f.space <- struct{}{}
		f.space = nil
	}
}

func (f *flight) positions() (slowest, fastest int64) {
	slowest = f.window.end
	for _, c := range f.clients {
		slowest, fastest = min(slowest, c.pos), max(fastest, c.pos)
	}
	return slowest, fastest
}

// remove takes one client off the flight, and returns false if it is not on it.
func (f *flight) remove(c *client) bool {
	if c.at == ashore {
		return false
	}
	last := f.clients[len(f.clients)-1]
	f.clients[c.at], last.at = last, c.at
	f.clients[len(f.clients)-1] = nil
	f.clients = f.clients[:len(f.clients)-1]
	c.at = ashore
	return true
}

// letGo takes those clients off the flight for which decide returns another fate than
// riding.
func (f *flight) letGo(decide func(*client) fate) {
	f.clients = slices.DeleteFunc(f.clients, func(c *client) bool {
		if c.fate = decide(c); c.fate != riding {
			c.at = ashore
			return true
		}
		return false
	})
	for i, c := range f.clients {
		c.at = i
	}
}

// cutOff gives up the clients that have not read up to keep.
func (f *flight) cutOff(keep int64) {
	f.letGo(func(c *client) fate {
		if c.pos >= keep {
			return riding
		}
		f.h.count.slow.Add(1)
		return tooSlow
	})
}
