package httplimit

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// Policy is one limit among several that are decided together.
type Policy struct {
	// Name identifies the policy to clients and in Stats. It consists of printable
	// ASCII characters. No two policies have the same.
	Name string

	// Limiter has the limits. It may be shared by policies and by middlewares.
	Limiter *ratelimit.Keyed[string]

	// Key, Cost and When are as in [Options].
	Key  KeyFunc
	Cost func(*http.Request) int64
	When func(*http.Request) bool
}

// Mode says what is done with a decision. Values that have no name are Enforce.
type Mode uint8

const (
	// Enforce refuses what is above a limit. It is the zero value.
	Enforce Mode = iota

	// Shadow decides, charges, counts and calls the hooks, but refuses nobody and adds
	// no fields: to try a limit before it is in force.
	Shadow

	// Off calls the next handler at once and nothing else: the kill switch.
	Off
)

// Options configure [New] and [NewLimits]. Key is required.
type Options struct {
	// Name identifies the policy to clients, in the fields and in the body of a
	// refusal. It consists of printable ASCII characters. Empty means "default".
	Name string

	// Key says whose limit a request is counted against. An error or an empty key
	// refuses the request with 400 Bad Request, in words that do not repeat the
	// error. Answer a client that is not known (401) before this middleware, or leave
	// it to another policy by When.
	Key KeyFunc

	// Cost says how many units a request takes: nil means one for each request of
	// any method. A cost of 0 is free and always admitted. A cost above the burst
	// can never be admitted: it is refused with 429 and without Retry-After. A
	// negative cost is a fault of the server: the policy is left out for the request.
	Cost func(*http.Request) int64

	// When says to which requests the policy applies: nil means to all.
	When func(*http.Request) bool

	// Also are further policies, at most 16, such as one for the tenant and one for
	// the endpoint. All that apply to a request are decided together: when one
	// refuses, no other is charged.
	Also []Policy

	// InProgress, if set, bounds how many requests of one key of the first policy are
	// in progress at a time, Stripe's concurrent requests limiter: for endpoints that
	// are slow, and for clients that ask again before they were answered. A request
	// above it is refused with 429 too, and takes nothing from any limit.
	InProgress *shed.KeyedConcurrency[string]

	// Settle makes the cost of the first policy, that of these options, an estimate.
	// It is charged before the handler runs, and corrected afterwards to what the
	// handler says by [SetCost]. If it says nothing, or panics before it does, the
	// estimate stands. The answer's fields show the estimate: they are sent first.
	Settle bool

	// Mode is asked for each request, so that it can be switched while the server
	// runs, or for some clients: nil means Enforce. To try one policy beside others
	// that are in force, put it in a middleware of its own.
	Mode func(*http.Request) Mode

	// Jitter adds a random part of the wait, up to this share of it, rounded up to whole
	// seconds, to Retry-After, so that the workers of one client do not come back
	// together. It is never earlier than the exact time. 0, none, is right when each
	// client is one: each has a limit, and so a time, of its own. At most 1.
	Jitter float64

	// OnDecision is called after each decision, with the one policy of
	// Decision.Name that refused, or has the least left. Not for a refusal by
	// InProgress. Nil means not.
	OnDecision func(*http.Request, Mode, ratelimit.Decision)

	// OnError is called when the middleware itself failed: with a *PanicError when a
	// function of these options panicked, with what wraps [ErrPass] or [ErrCost]
	// otherwise. Nil means not; Stats counts in any case.
	OnError func(*http.Request, error)
}

// ErrCost is wrapped by the error that OnError gets for a negative cost.
var ErrCost = errors.New("httplimit: negative cost")

// PanicError is what OnError gets for a panic in a function of the options.
type PanicError struct {
	// Value is what was passed to panic.
	Value any

	// Stack is the stack of the goroutine that panicked.
	Stack []byte
}

// Error names the value, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("httplimit: panic: %v", e.Value) }

// maxPolicies bounds Options.Also: the fields of an answer should stay short.
const maxPolicies = 16

// policies checks the options and returns the policies, the first first.
func (o *Options) policies(l *ratelimit.Keyed[string]) ([]*policy, error) {
	if l == nil {
		return nil, errors.New("httplimit: the limiter is nil, expected one from ratelimit.NewKeyed")
	}
	if !(o.Jitter >= 0 && o.Jitter <= 1) { // NaN is neither
		return nil, fmt.Errorf("httplimit: Options.Jitter is %v, expected 0 to 1", o.Jitter)
	}
	if len(o.Also) > maxPolicies {
		return nil, fmt.Errorf("httplimit: Options.Also has %d policies, expected at most %d", len(o.Also), maxPolicies)
	}
	if o.Name == "" {
		o.Name = "default"
	}
	first, err := newPolicy("Options", Policy{o.Name, l, o.Key, o.Cost, o.When})
	if err != nil {
		return nil, err
	}
	all := []*policy{first}
	for i, also := range o.Also {
		field := fmt.Sprintf("Options.Also[%d]", i)
		p, err := newPolicy(field, also)
		if err != nil {
			return nil, err
		}
		for _, other := range all {
			if other.Name == p.Name {
				return nil, fmt.Errorf("httplimit: %s.Name is %q, which another policy has, expected a name of its own", field, p.Name)
			}
		}
		all = append(all, p)
	}
	return all, nil
}

func newPolicy(field string, p Policy) (*policy, error) {
	if p.Limiter == nil {
		return nil, fmt.Errorf("httplimit: %s.Limiter is nil, expected one from ratelimit.NewKeyed", field)
	}
	if p.Key == nil {
		return nil, fmt.Errorf("httplimit: %s.Key is nil, expected a function that names the client", field)
	}
	quoted, ok := quote(p.Name)
	if !ok || p.Name == "" {
		return nil, fmt.Errorf("httplimit: %s.Name is %q, expected printable ASCII characters", field, p.Name)
	}
	return &policy{Policy: p, quoted: quoted, refusal: quotaExceeded(p.Name)}, nil
}

// spread adds to n seconds a random number of seconds, up to the share of n.
func spread(n int64, share float64) int64 {
	if share == 0 {
		return n
	}
	return n + rand.Int64N(int64(math.Ceil(float64(n)*share))+1)
}
