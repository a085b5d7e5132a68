package httpcoalesce

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// A writer is the ResponseWriter that the wrapped handler gets. It behaves as the one
// of net/http does, but for what needs a connection: there are no deadlines and no
// Hijack, and informational responses are dropped, for it is not known yet who may
// have them.
type writer struct {
	f       *flight
	method  string
	header  http.Header // the handler's
	wrote   bool
	status  int
	length  int64 // Content-Length, or -1
	written int64 // also what was refused
	lost    bool  // a Write has failed, so that bytes are missing
}

var errReturned = errors.New("httpcoalesce: write after the handler has returned")

func (w *writer) Header() http.Header { return w.header }

// WriteHeader decides who gets the response. What the handler does to Header later
// affects nobody, apart from trailers.
func (w *writer) WriteHeader(status int) {
	if w.wrote {
		return
	}
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status)) // as net/http does
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		return
	}
	header := w.header.Clone()
	if s := header.Get("Content-Length"); s != "" {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
			w.length = n
		} else {
			header.Del("Content-Length")
		}
	}
	w.wrote, w.status = true, status
	w.f.decide(status, header, w.length > w.f.h.maxBuffer && w.method != http.MethodHead && bodyAllowed(status))
}

// flushAt is after how many bytes clients get them without a Flush: net/http has a
// buffer of about this size.
const flushAt = 4 << 10

func (w *writer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if len(p) == 0 {
		return 0, nil
	}
	if !bodyAllowed(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if w.written += int64(len(p)); w.length >= 0 && w.written > w.length {
		return 0, http.ErrContentLength
	}
	f := w.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return 0, errReturned
	}
	for n := 0; n < len(p); {
		piece := p[n:min(len(p), n+int(min(f.limit, maxBlock)))]
		if err := f.room(int64(len(piece))); err != nil {
			w.lost = true
			return n, err
		}
		f.window.add(piece, w.expected())
		n += len(piece)
		if f.window.end-f.ready >= flushAt {
			f.publish()
		}
	}
	return len(p), nil
}

// expected is how many more bytes will probably come. A body is often written at
// once, and if not, in many small pieces.
func (w *writer) expected() int64 {
	switch {
	case w.length >= 0:
		return w.length - w.f.window.end
	case w.f.window.end == 0:
		return 0
	default:
		return minBlock
	}
}

func (w *writer) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController calls.
func (w *writer) FlushError() error {
	w.WriteHeader(http.StatusOK)
	f := w.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return errReturned
	}
	f.flushes++
	f.publish()
	return context.Cause(f.ctx)
}

// incomplete says whether the clients have got less than the handler meant to write.
func (w *writer) incomplete() bool {
	if w.lost {
		return true
	}
	return w.method != http.MethodHead && w.length >= 0 && bodyAllowed(w.status) && w.f.window.end != w.length
}

// trailers returns the trailers, as the keys that make net/http send them: announced
// in Trailer before the body, or with http.TrailerPrefix. A cookie is none: it could
// not be taken into account when it was decided whom the response is for.
func (w *writer) trailers() http.Header {
	var t http.Header
	add := func(name string, values []string) {
		if t == nil {
			t = http.Header{}
		}
		t[name] = slices.Clone(values)
	}
	for name, values := range w.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			add(name, values)
		}
	}
	for _, line := range w.f.header["Trailer"] {
		for name := range strings.SplitSeq(line, ",") {
			name = http.CanonicalHeaderKey(strings.Trim(name, " \t"))
			if values := w.header[name]; len(values) > 0 {
				add(name, values)
			}
		}
	}
	delete(t, "Set-Cookie")
	delete(t, http.TrailerPrefix+"Set-Cookie")
	return t
}

// bodyAllowed says whether a response with this status can have a body (RFC 9110,
// section 6.4.1).
func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}
