package httpcoalesce

import (
	"errors"
	"fmt"
	"hash/maphash"
	"net/http"
	"slices"
	"time"
)

// Options configures a [Handler]. The zero value is ready to use.
type Options struct {
	// Principal says for whom a request is answered. The id becomes part of the
	// key, so that only requests of one principal share a response; a request for
	// which ok is false is not collapsed. Return "" and true for a request whose
	// answer is the same for everybody, whatever credentials came with it: if it
	// has an Authorization field, the response is then shared only if it allows
	// that (RFC 9111, section 3.5).
	//
	// If it is nil, a request with Authorization, Cookie or a TLS client
	// certificate is not collapsed. That is not enough if the answer depends on
	// anything else that says who asks: a header of your own, the client's
	// address, or a value in the request's context.
	//
	// It is called once for each request that could be collapsed, and must be safe
	// for concurrent use.
	Principal func(r *http.Request) (id string, ok bool)

	// KeyHeaders are the request fields that are always part of the key. All other
	// fields that a response names in Vary are found out and respected too; but a
	// field named here also protects from a response that forgets its Vary, and
	// requests that differ in it never wait for each other. If it is nil, they are
	// Accept, Accept-Encoding, Accept-Language and Origin. If it is empty but not
	// nil, Vary alone decides.
	KeyHeaders []string

	// MaxBuffer is how many bytes of a response's body one flight keeps. As long as
	// nothing has been dropped new clients can join. If the body is longer, a client
	// that is further behind the fastest one is cut off; a response whose
	// Content-Length says so beforehand is not shared. 0 means 1 MiB.
	MaxBuffer int

	// Timeout bounds one execution: it is the deadline of the request's context
	// that the wrapped handler sees. 0 means none.
	Timeout time.Duration

	// HitForPass is how long a key is remembered whose response could not be
	// shared. In that time its requests do not wait for each other. 0 means 10
	// seconds, negative means not at all.
	HitForPass time.Duration
}

// A Handler lets concurrent equal requests share one execution of the handler
// that it wraps, and streams the one response to all of their clients.
//
// The first request starts a flight, and requests with an equal key join it while
// it lasts. As soon as the wrapped handler has written its header, it is decided by
// the rules of RFC 9111 whether the response may be shared; if not, it is for the
// first client alone, all others run the handler on their own, at once and
// concurrently, and the key is remembered for [Options.HitForPass]. Requests that
// cannot be collapsed go straight to the wrapped handler. The package comment has
// the rules.
//
// It is guaranteed that no client gets a response whose handler had returned before
// the client's request arrived; that a client gets all bytes of one execution, in
// order, or a broken connection, and never a shorter body that looks complete; and
// that no client waits for another: neither a slow one, nor one that disconnects,
// nor one whose request differs.
//
// A Handler starts one goroutine per flight. It ends when the wrapped handler
// returns, which it should do soon after the end of its request's context, and no
// sooner does the ServeHTTP of the last client return: http.Server.Shutdown waits
// for it. A flight costs about 25 small allocations beside what the handler does, most
// of them for the copies of the request and of the response's header, and two hand-overs
// between goroutines; a request that joins costs a lookup under one of 64 locks and
// about 5 allocations; one that cannot be collapsed costs none.
//
// Make one with [New]. A Handler is safe for concurrent use by multiple goroutines.
type Handler struct {
	next       http.Handler
	principal  func(*http.Request) (string, bool)
	keyHeaders []string // canonical, sorted
	maxBuffer  int64
	timeout    time.Duration
	hitForPass time.Duration

	seed   maphash.Seed
	shards [64]shard
	count  counters
}

// New returns a Handler that wraps next. It returns an error if next is nil, or if a
// field of o is out of its range, and names it.
func New(next http.Handler, o Options) (*Handler, error) {
	h := &Handler{
		next:       next,
		principal:  o.Principal,
		keyHeaders: []string{"Accept", "Accept-Encoding", "Accept-Language", "Origin"},
		maxBuffer:  1 << 20,
		timeout:    o.Timeout,
		hitForPass: 10 * time.Second,
		seed:       maphash.MakeSeed(),
	}
	if next == nil {
		return nil, errors.New("httpcoalesce: next is nil, want a handler")
	}
	if o.MaxBuffer < 0 {
		return nil, fmt.Errorf("httpcoalesce: MaxBuffer is %d, want at least 0", o.MaxBuffer)
	}
	if o.Timeout < 0 {
		return nil, fmt.Errorf("httpcoalesce: Timeout is %v, want at least 0", o.Timeout)
	}
	if o.MaxBuffer > 0 {
		h.maxBuffer = int64(o.MaxBuffer)
	}
	if o.HitForPass != 0 {
		h.hitForPass = max(o.HitForPass, 0)
	}
	if o.KeyHeaders != nil {
		names := make([]string, 0, len(o.KeyHeaders))
		for _, name := range o.KeyHeaders {
			if !isToken(name) {
				return nil, fmt.Errorf("httpcoalesce: KeyHeaders has %q, want names of header fields", name)
			}
			names = append(names, http.CanonicalHeaderKey(name))
		}
		slices.Sort(names)
		h.keyHeaders = slices.Compact(names)
	}
	for i := range h.shards {
		h.shards[i].flights = map[string]*flight{}
	}
	return h, nil
}

// maxDiverts is how often a request goes on to another variant after it has waited
// for one that turned out not to be its own. One is the normal case; more are
// needed only while responses name ever different fields in Vary.
const maxDiverts = 3

// ServeHTTP answers the request: from a flight that it joins or starts, or by the
// wrapped handler directly.
//
// If the execution is aborted, ServeHTTP panics in every one of its clients: with
// [http.ErrAbortHandler] if the wrapped handler did so, called runtime.Goexit or
// wrote less than its Content-Length, and with a *coalesce.PanicError, which has the
// original stack, for any other panic. It panics with http.ErrAbortHandler as well
// if this client alone cannot go on: it has disconnected, or was too slow.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.count.requests.Add(1)
	a, ok := h.ask(r)
	if !ok {
		h.count.passed.Add(1)
		h.pass(w, r)
		return
	}
	for range maxDiverts + 1 {
		c := h.board(&a)
		if c == nil {
			h.count.passed.Add(1)
			break
		}
		switch fate := c.ride(w); fate {
		case served:
			return
		case released:
			h.count.released.Add(1)
			h.pass(w, r)
			return
		case diverted:
			h.count.diverted.Add(1)
		default:
			panic(http.ErrAbortHandler)
		}
	}
	h.pass(w, r)
}

// pass runs the wrapped handler for this request alone.
func (h *Handler) pass(w http.ResponseWriter, r *http.Request) {
	h.count.executions.Add(1)
	h.next.ServeHTTP(w, r)
}

// board joins or starts a flight. It returns nil if the request is to run on its own,
// since its key is known for responses that cannot be shared.
func (h *Handler) board(a *ask) *client {
	s := h.shardOf(a.base)
	s.mu.Lock()
	key := a.key
	hash := a.base
	if vary := s.vary(a.base); len(vary) > 0 {
		key = appendVariant(slices.Clip(a.key), vary, a.req.Header)
		hash = maphash.Bytes(h.seed, key)
	}
	f := s.flights[string(key)]
	if s.passes(hash) || f != nil && a.inside(f) {
		s.mu.Unlock()
		return nil
	}
	if f != nil {
		if c := f.join(a); c != nil {
			s.mu.Unlock()
			h.count.joined.Add(1)
			return c
		}
	}
	f, c := newFlight(h, a, string(key))
	s.flights[f.key] = f
	s.mu.Unlock()
	h.count.executions.Add(1)
	f.start(a)
	return c
}
