package httpcoalesce

import (
	"maps"
	"net/http"
	"slices"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// A fate is how it goes on with a client.
type fate uint8

const (
	riding   fate = iota // it gets the response of the flight
	served               // it has got all of it
	released             // the response cannot be shared: it runs on its own
	diverted             // the response is of another variant
	tooSlow              // it needed bytes that are dropped
	gone                 // it has disconnected
)

// A client is a request that takes part in a flight.
type client struct {
	f   *flight
	req *http.Request

	// Guarded by f.mu.
	fate    fate
	at      int   // where it is in f.clients, or ashore
	pos     int64 // what it has sent of the body
	flushes int   // how many of the handler's flushes it has followed
}

// ashore is the place of a client that has left its flight.
const ashore = -1

// A step is what a client has to do next.
type step struct {
	fate  fate
	wait  <-chan struct{} // wait for this, then ask again
	data  []byte          // send this
	flush bool            // flush
}

// next notes that n bytes have been sent, and says what to do.
func (c *client) next(n int) step {
	f := c.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if n > 0 {
		c.pos += int64(n)
		f.proceed()
	}
	switch {
	case c.fate != riding:
		return step{fate: c.fate}
	case !f.published && !f.over:
		return step{wait: f.wait()}
	case c.pos < f.ready:
		return step{data: f.window.at(c.pos, f.ready)}
	case c.flushes != f.flushes:
		c.flushes = f.flushes
		return step{flush: true}
	case f.over:
		return step{fate: served}
	default:
		return step{wait: f.wait()}
	}
}

// ride sends the response of the flight to w. It panics if the flight was aborted.
func (c *client) ride(w http.ResponseWriter) fate {
	defer c.leave()
	f, ctx, begun, n := c.f, c.req.Context(), false, 0
	for {
		s := c.next(n)
		n = 0
		if s.wait != nil {
			select {
			case <-s.wait:
			case <-ctx.Done():
				return gone
			}
			continue
		}
		if s.fate == served && f.failure != nil {
			panic(f.failure)
		}
		if s.fate == riding && ctx.Err() != nil {
			return gone
		}
		if !begun && (s.fate == riding || s.fate == served) {
			begun = true
			addHeader(w.Header(), f.header)
			w.WriteHeader(f.status)
		}
		switch {
		case s.data != nil:
			var err error
			if n, err = w.Write(s.data); err != nil || n != len(s.data) {
				return gone
			}
		case s.flush:
			// An error that matters comes again with the next byte.
			_ = http.NewResponseController(w).Flush()
		default:
			if s.fate == served {
				maps.Copy(w.Header(), f.trailer.Clone())
			}
			return s.fate
		}
	}
}

// addHeader copies the handler's fields into those that middleware outside has set
// for this client, and replaces what both have set. Vary and Set-Cookie are added:
// replacing them would take away what the one outside relies on.
func addHeader(to, from http.Header) {
	for name, values := range from.Clone() {
		if name == "Vary" || name == "Set-Cookie" {
			values = slices.Concat(to[name], values)
		}
		to[name] = values
	}
}

// leave ends a client's part. The last one to leave while the handler runs cancels it,
// and stays until it has returned, as a handler without a Handler around would keep
// its client. The starter stays if it is not yet known whether the response can be for
// anybody else.
func (c *client) leave() {
	f := c.f
	f.mu.Lock()
	left := f.remove(c)
	if left && len(f.clients) == 0 && !f.over {
		f.abandon(c)
	}
	f.proceed()
	for !f.over && (f.owner == c || left && c == f.starter && !f.decided && f.owner == nil) {
		changed := f.wait()
		f.mu.Unlock()
		<-changed
		f.mu.Lock()
	}
	failure, owned := f.failure.(*coalesce.PanicError)
	owned = owned && f.owner == c
	f.mu.Unlock()
	if owned {
		panic(failure) // nobody else would hear of it
	}
}
