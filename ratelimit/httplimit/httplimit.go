package httplimit

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// Options configure New. Key is required.
type Options struct {
	// Name identifies the policy to clients, in the fields and in the body of a
	// refusal. It consists of printable ASCII characters. Empty means "default".
	Name string

	// Key says whose limit a request is counted against. An error or an empty key
	// refuses the request with 400 Bad Request, in words that do not repeat the
	// error. Answer a client that is not known (401) before this middleware.
	Key func(*http.Request) (string, error)

	// Cost says how many units a request takes: nil means one for each request of
	// any method. A cost of 0 is free and always admitted. A cost above the burst
	// can never be admitted: it is refused with 429 and without Retry-After. A
	// negative cost is a fault of the server and answered with 500 Internal Server
	// Error; nothing is given back.
	Cost func(*http.Request) int64
}

// New returns a middleware that takes the cost of each request from the limit of
// its key, calls the next handler if it is there, and answers 429 Too Many Requests
// if not. Both answers carry RateLimit-Policy and RateLimit; see the package
// documentation for what is in them.
//
// Returns an error that names the option when l or Key is nil or when Name cannot
// be written as a structured field. Several middlewares may share l.
//
// The middleware costs what [ratelimit.Keyed.Take] and the writing of two fields
// cost. It is safe for concurrent use by multiple goroutines.
func New(l *ratelimit.Keyed[string], o Options) (func(http.Handler) http.Handler, error) {
	if l == nil {
		return nil, errors.New("httplimit: the limiter is nil, expected one from ratelimit.NewKeyed")
	}
	if o.Key == nil {
		return nil, errors.New("httplimit: Options.Key is nil, expected a function that names the client")
	}
	if o.Name == "" {
		o.Name = "default"
	}
	name, ok := quote(o.Name)
	if !ok {
		return nil, fmt.Errorf("httplimit: Options.Name is %q, expected printable ASCII characters", o.Name)
	}
	m := &middleware{
		limiter: l,
		options: o,
		name:    name,
		policy:  policy(name, l.Limit()),
		refusal: quotaExceeded(o.Name),
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.serve(w, r, next) })
	}, nil
}

// middleware is immutable.
type middleware struct {
	limiter *ratelimit.Keyed[string]
	options Options
	name    string // quoted
	policy  string
	refusal problem
}

func (m *middleware) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	key, err := m.options.Key(r)
	if err != nil || key == "" {
		noKey.write(w)
		return
	}
	cost := int64(1)
	if m.options.Cost != nil {
		if cost = m.options.Cost(r); cost < 0 {
			badCost.write(w)
			return
		}
	}
	d := m.limiter.Take(key, cost)

	h := w.Header()
	reset := untilNextUnit(d, m.limiter.Limit())
	if !d.Allowed && d.RetryAfter >= 0 {
		retry := max(1, seconds(d.RetryAfter))
		reset = min(reset, retry)
		h.Set("Retry-After", strconv.FormatInt(retry, 10))
	}
	// These are the canonical forms of RateLimit-Policy and RateLimit: field names
	// have no case.
	h.Add("Ratelimit-Policy", m.policy)
	h.Add("Ratelimit", limits(m.name, d.Remaining, reset))
	if !d.Allowed {
		m.refusal.write(w)
		return
	}
	next.ServeHTTP(w, r)
}

// seconds rounds up.
func seconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}
