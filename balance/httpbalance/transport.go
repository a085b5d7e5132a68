package httpbalance

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/balance"
)

// defaultRetries is how often a request is tried again at most: two other backends
// have then been asked. More tries help little when one of many backends is broken,
// and only add load when most are.
const defaultRetries = 2

// Transport is an [http.RoundTripper] that sends each request to a backend of its
// Balancer. Set its fields before its first use and do not copy it after.
//
// It sends a copy of the request, whose URL has the scheme and the host of the
// backend's URL, and that URL's path before its own. The Host field stays that of the
// original, for virtual hosts. [http.Transport] takes the name that a TLS certificate
// must have from the URL, that is from the backend: for certificates of the service's
// name set TLSClientConfig.ServerName in Base. Every request goes to a backend,
// whatever its host; see the package documentation on redirects.
//
// The guarantee: every pick is ended exactly once, when the response has: at once if
// it has no body (HEAD, 204, 304, length 0), at the end of the body or the first error
// from it, when it is closed, when the request's context ends, when Base fails, or when
// Base or Stream panics. After 101 Switching Protocols the request is under way until the
// body, which is then an [io.ReadWriteCloser], is closed or fails. Only a body that nobody
// ends, neither reader nor context, is under way for ever; it also holds its connection.
//
// The time until Base returns the headers is what the balancer learns as latency. It
// contains a new connection and the sending of the body. What it learns as outcome is
// nil, a [*StatusError] for the statuses listed there, the error of Base or of the
// response's body, or [context.Canceled] (which it ignores) if the caller gave up or
// if the request's own body failed. A deadline that passes before the body has ended
// is a failure. If the backend reports its load, see [Transport.RoundTrip], the
// balancer is told.
//
// A request that fails on the way, or is answered with 429, 502, 503 or 504, is tried
// on a backend that has not been tried, if that can do no harm: if the method is
// idempotent by RFC 9110 (GET, HEAD, OPTIONS, TRACE, PUT, DELETE) or there is a header
// Idempotency-Key or X-Idempotency-Key, and the body can be had again by GetBody. If no
// connection came about, the method does not matter. Retries have a budget, as in
// Finagle: one for five requests, of which up to 100 unspent are kept, and another 10
// a second; so they add at most about a fifth to the load of backends that are all
// failing. When no retry is left, or no other backend, the caller gets the last
// response or error as it is.
//
// Beyond what Base does it costs less than a microsecond and one allocation, and three more
// if the response has a body and the context can end. A Transport is safe for concurrent
// use by multiple goroutines.
type Transport struct {
	// Balancer chooses the backends. Its values are their URLs, of which scheme, host and
	// path count. Required: without it every request fails.
	Balancer *balance.Balancer[*url.URL]

	// Base sends the requests. Nil means [http.DefaultTransport]. It keeps at most
	// MaxIdleConnsPerHost connections to a backend for reuse, by default only 2.
	Base http.RoundTripper

	// Retries is how often one request is tried again at most. 0 means 2; a negative
	// value means never.
	Retries int

	// Stream, if set, says for which requests the time until the headers tells nothing
	// of the speed of the backend, such as a long poll. They count as under way, but no
	// latency is learnt from them.
	Stream func(*http.Request) bool

	budget  budget
	retries atomic.Int64
	refused atomic.Int64
}

// Stats says how often a [Transport] has tried again.
type Stats struct {
	// Retries is the number of requests that were sent to another backend after one
	// failed.
	Retries int64

	// Refused is the number of retries that the budget did not allow. While it grows,
	// most backends are failing.
	Refused int64
}

// Stats returns how often t has tried again. The two numbers are read one after the
// other while requests go on.
func (t *Transport) Stats() Stats {
	return Stats{Retries: t.retries.Load(), Refused: t.refused.Load()}
}

// CloseIdleConnections closes those of Base, for [http.Client.CloseIdleConnections].
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (t *Transport) base() http.RoundTripper {
	if t.Base == nil {
		return http.DefaultTransport
	}
	return t.Base
}

// RoundTrip sends r to a backend, and to others if that fails; see [Transport]. It does
// not change r, and closes its body whatever happens. The Request of the response is r,
// so that a relative redirect goes to the balancer again.
//
// A response header Endpoint-Load-Metrics in the text or the JSON form of ORCA is
// reported to the balancer as the backend's load: application_utilization or, failing
// that, cpu_utilization, and from named_metrics in_flight (requests) and latency
// (seconds), which are this package's own.
//
// Returns [balance.ErrNoBackends] when there are none, and otherwise the error of Base
// as it is.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := t.check(r); err != nil {
		closeBody(r.Body)
		return nil, err
	}
	pick, err := t.Balancer.Pick()
	if err != nil {
		closeBody(r.Body)
		return nil, err
	}
	t.budget.deposit()
	x, resp, err := t.try(r, r.Body, pick)
	if t.again(x, resp, err) {
		x, resp, err = t.retry(x, resp, err)
	}
	if err != nil {
		return nil, err
	}
	resp.Request = r
	x.attach(resp)
	return resp, nil
}

// check refuses what no backend could answer, so that none is blamed for it.
func (t *Transport) check(r *http.Request) error {
	switch {
	case t.Balancer == nil:
		return errors.New("httpbalance: Transport.Balancer is nil, expected one from balance.New")
	case r.URL == nil:
		return errors.New("httpbalance: URL of the request is nil")
	case r.Header == nil:
		return errors.New("httpbalance: Header of the request is nil")
	}
	return nil
}

var (
	errUnfinished = errors.New("httpbalance: the base transport did not return")
	errNoResponse = errors.New("httpbalance: the base transport returned neither a response nor an error")
)

// try sends r with the given body to the picked backend. If it returns an error the
// pick has been ended, otherwise not.
func (t *Transport) try(r *http.Request, body io.ReadCloser, pick balance.Pick[*url.URL]) (*exchange, *http.Response, error) {
	x := &exchange{original: r, pick: pick}
	if err := x.address(r, body); err != nil {
		closeBody(body)
		x.end(err)
		return x, nil, err
	}
	returned, blame := false, context.Canceled // Stream says nothing of the backend
	defer func() {
		if !returned { // Base or Stream panicked or ended the goroutine
			closeBody(body)
			x.end(blame)
		}
	}()
	stream := t.Stream != nil && t.Stream(r)
	blame = errUnfinished
	start := time.Now()
	resp, err := t.base().RoundTrip(&x.request)
	returned = true
	if resp == nil && err == nil {
		err = errNoResponse
	}
	if err != nil {
		x.end(x.verdict(err))
		return x, nil, err
	}
	x.outcome = outcomeOf(resp)
	switch {
	case stream:
		x.pick.Observe(0)
	case x.outcome == nil:
		x.pick.Observe(max(1, time.Since(start))) // 0 would mean that there is nothing to learn
	default:
		// A failure is not observed: Done learns its time only if it is longer than what is
		// expected, so that a backend that fails at once does not look fast.
	}
	if l, ok := loadOf(resp.Header); ok {
		x.pick.Report(l)
	}
	return x, resp, nil
}

func closeBody(b io.Closer) {
	if b != nil {
		_ = b.Close()
	}
}
