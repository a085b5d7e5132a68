package httpbalance

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/balance"
)

// exchange is one request to one backend and the response to it. It holds all that the
// two need, so that a request costs one allocation.
type exchange struct {
	original *http.Request
	request  http.Request // the copy that is sent
	url      url.URL      // of request
	upload   upload       // the body of request, if there is one

	pick    balance.Pick[*url.URL]
	ended   atomic.Bool   // whoever sets it ends the pick
	outcome error         // what the status says of the backend
	body    io.ReadCloser // of the response
	stop    func() bool   // no longer waits for the end of the context; nil if it does not
}

// address makes the request of x: the original, but to the backend. Like
// [http.Request.WithContext] it shares the header with the original, which no
// RoundTripper may change.
func (x *exchange) address(r *http.Request, body io.ReadCloser) error {
	backend := x.pick.Value
	if backend == nil || backend.Host == "" {
		return fmt.Errorf("httpbalance: the URL of backend %q is %v, expected one with a scheme and a host", x.pick.ID(), backend)
	}
	x.request = *r
	x.url = *r.URL
	x.request.URL = &x.url
	if r.Host == "" {
		x.request.Host = r.URL.Host
	}
	x.url.Scheme, x.url.Host = backend.Scheme, backend.Host
	if x.url.Path != "*" { // OPTIONS * asks about the server
		prefix(&x.url, backend)
	}
	if body != nil && body != http.NoBody {
		x.upload.body = body
		body = &x.upload
	}
	x.request.Body = body
	return nil
}

// prefix puts the path of base before that of u, with one slash between them. Both
// keep the escapes that they have.
func prefix(u, base *url.URL) {
	path := strings.TrimSuffix(base.Path, "/")
	if path == "" {
		return
	}
	raw := strings.TrimSuffix(base.EscapedPath(), "/") + slash(u.EscapedPath())
	u.Path = path + slash(u.Path)
	u.RawPath = raw // not used by package url if it is the default form
}

func slash(path string) string {
	if path == "" || path[0] == '/' {
		return path
	}
	return "/" + path
}

// gone returns [context.Canceled] or [context.DeadlineExceeded] if the caller of r
// waits no longer.
func gone(r *http.Request) error {
	if err := r.Context().Err(); err != nil {
		return err
	}
	select {
	//lint:ignore SA1019 http.Client and older callers still set it
	case <-r.Cancel:
	default:
		return nil
	}
	// The timeout of an http.Client closes Cancel and is a deadline of the context too,
	// which may be noticed a little later.
	if at, ok := r.Context().Deadline(); ok && !time.Now().Before(at) {
		return context.DeadlineExceeded
	}
	return context.Canceled
}

// verdict returns what err, from Base or from the body, says of the backend. A context
// that has ended explains any error: err itself may be the cause of that, or a
// connection that was closed because of it.
func (x *exchange) verdict(err error) error {
	if g := gone(x.original); g != nil {
		return g
	}
	if x.upload.failed.Load() {
		return context.Canceled
	}
	return err
}

// end ends the pick, the first time.
func (x *exchange) end(err error) {
	if x.ended.CompareAndSwap(false, true) {
		x.pick.Done(err)
	}
}

// attach sees to it that the pick ends with the response.
func (x *exchange) attach(resp *http.Response) {
	if resp.Body == nil {
		resp.Body = http.NoBody
	}
	x.body = resp.Body
	if resp.StatusCode == http.StatusSwitchingProtocols {
		if w, ok := resp.Body.(io.ReadWriteCloser); ok {
			resp.Body = upgraded{x, w}
			return
		}
	}
	if bodyless(resp, x.original.Method) {
		x.end(x.outcome)
		return
	}
	if _, ok := resp.Body.(io.WriterTo); ok {
		resp.Body = writerToBody{body{x}}
	} else {
		resp.Body = body{x}
	}
	// Of a body that is forgotten after its context has ended, net/http frees the
	// connection; so we free the backend.
	if ctx := x.original.Context(); ctx.Done() != nil {
		x.stop = context.AfterFunc(ctx, x.abandoned)
	}
}

func bodyless(resp *http.Response, method string) bool {
	return resp.Body == http.NoBody || resp.ContentLength == 0 || method == http.MethodHead ||
		resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified
}

// abandoned runs when the context has ended before the body. It does not touch stop,
// which may not be set yet.
func (x *exchange) abandoned() { x.end(cmp.Or(x.outcome, x.original.Context().Err())) }

// finish ends the pick when the body has ended by itself or by err. What the status says
// is more telling than how the body of an error page ended.
func (x *exchange) finish(err error) {
	if x.ended.Load() {
		return
	}
	if x.stop != nil {
		x.stop()
	}
	if err != nil {
		err = x.verdict(err)
	}
	x.end(cmp.Or(x.outcome, err))
}

// read notes how a read of the body ended.
func (x *exchange) read(err error) {
	if err == io.EOF {
		x.finish(nil)
	} else if err != nil {
		x.finish(err)
	}
}
