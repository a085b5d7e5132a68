package httpbalance

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/balance"
)

// again reports whether what came of x is worth another try, should there be one.
func (t *Transport) again(x *exchange, resp *http.Response, err error) bool {
	r := x.original
	if t.Retries < 0 || gone(r) != nil || !replayable(r) {
		return false
	}
	if err != nil {
		return !x.upload.failed.Load() && (idempotent(r) || unsent(err))
	}
	return retryStatus(resp.StatusCode) && idempotent(r)
}

// retry tries other backends after x, and returns what came of the last try.
func (t *Transport) retry(x *exchange, resp *http.Response, err error) (*exchange, *http.Response, error) {
	limit := t.Retries
	if limit == 0 {
		limit = defaultRetries
	}
	var tried []string
	for range limit {
		tried = append(tried, x.pick.ID())
		body, pick, ok := t.other(x.original, tried)
		if !ok {
			break
		}
		if err == nil {
			x.end(x.outcome)
			discard(resp.Body)
		}
		t.retries.Add(1)
		x, resp, err = t.try(x.original, body, pick)
		if !t.again(x, resp, err) {
			break
		}
	}
	return x, resp, err
}

// other returns a pick of a backend that has not been tried and a fresh body for it.
func (t *Transport) other(r *http.Request, tried []string) (io.ReadCloser, balance.Pick[*url.URL], bool) {
	var none balance.Pick[*url.URL]
	if !t.budget.withdraw(time.Now()) {
		t.refused.Add(1)
		return nil, none, false
	}
	pick, err := t.Balancer.PickExcept(tried...)
	if err != nil {
		t.budget.refund()
		return nil, none, false
	}
	body := r.Body
	if hasBody(r) {
		body, err = r.GetBody()
	}
	if err != nil || slices.Contains(tried, pick.ID()) {
		if hasBody(r) && err == nil {
			closeBody(body)
		}
		pick.Done(context.Canceled) // says nothing of the backend
		t.budget.refund()
		return nil, none, false
	}
	return body, pick, true
}

func hasBody(r *http.Request) bool    { return r.Body != nil && r.Body != http.NoBody }
func replayable(r *http.Request) bool { return !hasBody(r) || r.GetBody != nil }

// idempotent reports whether sending r twice does what sending it once does, by RFC
// 9110, section 9.2.2, or because it has the header by which net/http goes too.
func idempotent(r *http.Request) bool {
	switch r.Method {
	case "", "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	_, ok := r.Header["Idempotency-Key"]
	if !ok {
		_, ok = r.Header["X-Idempotency-Key"]
	}
	return ok
}

// unsent reports whether there was no connection to send a request on.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func retryStatus(code int) bool {
	switch code {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}
