package httpcoalesce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// OwnerOptions configures an [OwnerHandler].
type OwnerOptions struct {
	// Self is the ID of this node in the fleet. It is required.
	Self string

	// Owners is the fleet, with the base URL of each node. It is required, and may
	// be updated at any time. While it has no nodes, everything is local.
	Owners *coalesce.Owners[*url.URL]

	// Key is what a request is routed by. Requests with equal keys go to one node,
	// so the key should be that of the resource, such as the channel of its
	// messages, and need not tell apart what is coalesced apart. If it is nil, it
	// is the host and the path.
	Key func(r *http.Request) string

	// Timeout is how long this node waits for the header of the owner's response.
	// Zero means 5 seconds.
	Timeout time.Duration

	// Transport sends requests to owners. It should leave encodings alone
	// (DisableCompression), so that the owner makes the variant of the page that the
	// client asked for. If it is nil, it is a copy of http.DefaultTransport that
	// does, and that keeps up to 100 idle connections to each node.
	Transport http.RoundTripper
}

// An OwnerHandler sends each request to the node that owns its key, where all
// requests for the key meet and can be collapsed. The key has one owner in the
// whole fleet: a hot page is then worked out once, and not once on every node.
//
// Wrap it around a [Handler] of the same node:
//
//	pages, err := httpcoalesce.New(page, httpcoalesce.Options{})
//	...
//	handler, err := httpcoalesce.ToOwner(pages, httpcoalesce.OwnerOptions{Self: id, Owners: owners})
//
// GET and HEAD requests without a body or an Upgrade are forwarded. All others
// are handled by this node, as are those that it owns and those that another node
// has forwarded: a request makes one hop at most, so that nodes which disagree
// about the fleet cannot send it in circles.
//
// If the owner cannot be reached, or sends no header within Timeout, the request
// is handled by this node: the work may then be done on more nodes than one, but
// it is done. For a second after that the owner counts as down, and then one
// request tries it while the others are handled here. An owner that breaks off
// in the middle of its response breaks the client's connection.
//
// The owner sees the request as this node would: with the same Host and header,
// and this node's client added to X-Forwarded-For. It believes what it is sent,
// so nodes must not be reachable from where requests are not to be trusted
// beyond that.
//
// The mark of a forwarded request is the field Evenkeel-Forwarded-By, with the ID
// of the node. A client that sends it only makes the node do the work itself.
//
// An OwnerHandler is safe for concurrent use by multiple goroutines.
type OwnerHandler struct {
	local     http.Handler
	o         OwnerOptions
	downs     downs
	forwarded atomic.Uint64
	fellBack  atomic.Uint64
}

const (
	hopField = "Evenkeel-Forwarded-By"

	// downFor is how long an owner is left alone after it could not be reached:
	// long against the time of a connection attempt that fails, short against the
	// restart of a process.
	downFor = time.Second
)

// ToOwner returns an OwnerHandler whose own requests local handles. It returns an
// error if local, Self or Owners is missing or Timeout is negative.
func ToOwner(local http.Handler, o OwnerOptions) (*OwnerHandler, error) {
	switch {
	case local == nil:
		return nil, errors.New("httpcoalesce: local is nil, want a handler")
	case o.Self == "":
		return nil, errors.New("httpcoalesce: Self is empty, want the ID of this node")
	case o.Owners == nil:
		return nil, errors.New("httpcoalesce: Owners is nil, want the nodes of the fleet")
	case o.Timeout < 0:
		return nil, fmt.Errorf("httpcoalesce: Timeout is %v, want at least 0", o.Timeout)
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Key == nil {
		o.Key = func(r *http.Request) string { return r.Host + r.URL.EscapedPath() }
	}
	if o.Transport == nil {
		o.Transport = betweenNodes()
	}
	return &OwnerHandler{local: local, o: o}, nil
}

func betweenNodes() http.RoundTripper {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport // somebody has replaced it and knows why
	}
	t = t.Clone()
	t.DisableCompression = true
	t.MaxIdleConnsPerHost = 100
	return t
}

// OwnerStats tells what an [OwnerHandler] has done.
type OwnerStats struct {
	// Forwarded is the number of requests that owners have answered.
	Forwarded uint64

	// FellBack is the number of requests that were handled here because their
	// owner was down.
	FellBack uint64
}

// Stats returns a snapshot of the counters.
func (h *OwnerHandler) Stats() OwnerStats {
	return OwnerStats{Forwarded: h.forwarded.Load(), FellBack: h.fellBack.Load()}
}

// ServeHTTP forwards the request or handles it here.
func (h *OwnerHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !forwardable(r) {
		h.local.ServeHTTP(w, r)
		return
	}
	owner, err := h.o.Owners.Owner(h.o.Key(r))
	if err != nil || owner.ID == h.o.Self || owner.Value == nil {
		h.local.ServeHTTP(w, r)
		return
	}
	if h.downs.avoid(owner.ID) || !h.forward(w, r, owner) {
		h.fellBack.Add(1)
		h.local.ServeHTTP(w, r)
	}
}

// forwardable tells whether another node may handle the request, and whether it
// could be handled here after that has failed.
func forwardable(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) &&
		r.ContentLength == 0 && // or a body would be gone
		r.Header.Get("Upgrade") == "" &&
		r.Header[hopField] == nil
}

var silence = log.New(io.Discard, "", 0)

// errSlow is why a request to an owner ends that has sent no header in time.
var errSlow = errors.New("httpcoalesce: the owner is too slow")

// forward lets the owner answer, and reports false if nothing of an answer has
// come and the client still waits.
func (h *OwnerHandler) forward(w http.ResponseWriter, r *http.Request, owner coalesce.Node[*url.URL]) bool {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	slow := time.AfterFunc(h.o.Timeout, func() { cancel(errSlow) })
	defer slow.Stop()

	answered := true
	proxy := httputil.ReverseProxy{
		Transport:     h.o.Transport,
		FlushInterval: -1,      // what the owner has flushed is flushed here
		ErrorLog:      silence, // the broken connection tells it
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(owner.Value)
			p.Out.URL.RawQuery = p.In.URL.RawQuery // as it is, also what url.ParseQuery refuses
			p.Out.Host = p.In.Host
			forwardedFields(p)
			p.Out.Header.Set(hopField, h.o.Self)
		},
		ModifyResponse: func(*http.Response) error {
			if !slow.Stop() {
				return errSlow // the body would be cut off
			}
			h.downs.up(owner.ID)
			h.forwarded.Add(1)
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			if r.Context().Err() != nil {
				panic(http.ErrAbortHandler) // it was not the owner that failed
			}
			h.downs.down(owner.ID)
			answered = false
		},
	}
	proxy.ServeHTTP(w, r.WithContext(ctx))
	return answered
}

// forwardedFields keeps what proxies in front of this node have said about the
// client, and says it itself where there are none.
func forwardedFields(p *httputil.ProxyRequest) {
	const by = "X-Forwarded-For"
	if prior := p.In.Header[by]; prior != nil {
		p.Out.Header[by] = prior
	}
	p.SetXForwarded()
	if prior := p.In.Header[by]; prior != nil && p.Out.Header[by] == nil {
		p.Out.Header[by] = prior // RemoteAddr is not an address, as on a Unix socket
	}
	for _, field := range []string{"Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if prior := p.In.Header[field]; prior != nil {
			p.Out.Header[field] = prior
		}
	}
}
