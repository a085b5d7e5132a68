package httplimit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/internal/pause"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// Transport is an [http.RoundTripper] for polite clients: it keeps to a limit of its own
// before it sends, and stays away as long as a server asks it to.
//
// A server asks by Retry-After in a 429 or a 503, in seconds or as a date, and by a
// RateLimit field that says that nothing is left (r=0) and when there will be (t); of both,
// Retry-After counts, as the draft demands. Until then requests with the same key wait. One whose context would end before is not sent
// at all: it fails at once with a *[PauseError].
//
// A Transport sends each request once. The 429 or 503 itself is the caller's to read,
// and to try again if the request may be; the next attempt then waits by itself.
//
// The zero value is ready to use. Set the fields before first use and do not change or
// copy the Transport after it. It remembers at most 1024 keys that are paused; of more, those
// whose pause ends soonest are forgotten. Besides the waits a request
// costs one lock and one look-up.
//
// A Transport is safe for concurrent use by multiple goroutines.
type Transport struct {
	// Base sends the requests. Nil means [http.DefaultTransport].
	Base http.RoundTripper

	// Key says which requests share a limit and a pause. Nil means those with the same
	// host in the URL. If a server limits each endpoint or account for itself, so
	// should the key.
	Key func(*http.Request) string

	// Limiter, if set, has the limit that requests with a key keep to. They wait in
	// the order in which they came, and fail at once with a
	// *[ratelimit.LimitError] if their context would end before their turn.
	Limiter *ratelimit.Keyed[string]

	// Throttle, if set, rejects requests here that the server would refuse anyway, with
	// a *[shed.Error]. It asks before the waits, and learns from the answers: a 429 or
	// 503, an error of the connection or a deadline that passed is a refusal. Class is
	// the class that it is given: nil means [shed.Default] for all.
	Throttle *shed.Throttle[string]
	Class    func(*http.Request) shed.Class

	// MaxPause bounds what a server may ask for: a longer wait is cut to it. 0 means
	// one minute; negative means that servers are not heeded.
	MaxPause time.Duration

	pauses pause.Table
}

// PauseError says that a request was not sent, because the server had asked not to be
// called until after the end of the request's context. It wraps [ratelimit.ErrLimited].
type PauseError struct {
	// Key is the key of the request, its host if Transport.Key is nil.
	Key string

	// RetryAfter is how long the pause would have lasted.
	RetryAfter time.Duration
}

// Error names the key and the wait.
func (e *PauseError) Error() string {
	return fmt.Sprintf("httplimit: %s asked not to be called for another %v", e.Key, e.RetryAfter)
}

// Unwrap returns [ratelimit.ErrLimited].
func (e *PauseError) Unwrap() error { return ratelimit.ErrLimited }

// RoundTrip waits for the pause of the key and for the limiter, sends the request, and
// heeds the answer. While it waits it ends with the request's context.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	key := r.URL.Host
	if t.Key != nil {
		key = t.Key(r)
	}
	call, err := t.admit(r, key)
	if err == nil {
		err = t.wait(r.Context(), key)
	}
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // as a RoundTripper must
		}
		return nil, err
	}
	res, err := t.base().RoundTrip(r)
	if err == nil {
		t.heed(key, res)
	}
	if err == nil || !errors.Is(r.Context().Err(), context.Canceled) {
		call.Done(err == nil && !refused(res))
	}
	return res, err
}

// CloseIdleConnections closes those of Base, if it can: [http.Client.CloseIdleConnections]
// asks for it.
func (t *Transport) CloseIdleConnections() {
	if base, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

func (t *Transport) base() http.RoundTripper {
	if t.Base == nil {
		return http.DefaultTransport
	}
	return t.Base
}

// admit asks the throttle. A call that is not sent is never ended, and not counted.
func (t *Transport) admit(r *http.Request, key string) (shed.Call, error) {
	if t.Throttle == nil {
		return shed.Call{}, nil
	}
	class := shed.Default
	if t.Class != nil {
		class = t.Class(r)
	}
	return t.Throttle.Allow(key, class)
}

func refused(res *http.Response) bool {
	return res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusServiceUnavailable
}

// wait returns when a request may be sent.
func (t *Transport) wait(ctx context.Context, key string) error {
	late, err := t.pauses.Wait(ctx, t.Limiter, key)
	if late > 0 {
		return &PauseError{key, late}
	}
	return err
}

// heed begins a pause if the server asks for one. An answer out of a cache, which has an
// Age, is old news.
func (t *Transport) heed(key string, res *http.Response) {
	if t.MaxPause < 0 {
		return
	}
	now := time.Now()
	var (
		wait  time.Duration
		asked bool
	)
	if refused(res) {
		wait, asked = retryAfter(res.Header, now)
	}
	if lines := res.Header["Ratelimit"]; !asked && len(lines) > 0 && res.Header.Get("Age") == "" {
		wait = exhausted(lines)
	}
	t.pauses.Until(key, now, wait, t.MaxPause)
}
