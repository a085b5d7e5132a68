package httplimit

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync/atomic"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// New returns a middleware that takes the cost of each request from the limits of its
// keys, calls the next handler if it is there, and answers 429 Too Many Requests if
// not. Both answers carry RateLimit-Policy and RateLimit; see the package documentation
// for what is in them. It is [NewLimits] for who needs no Stats.
//
// The middleware is safe for concurrent use by multiple goroutines.
func New(l *ratelimit.Keyed[string], o Options) (func(http.Handler) http.Handler, error) {
	limits, err := NewLimits(l, o)
	if err != nil {
		return nil, err
	}
	return limits.Wrap, nil
}

// Limits is the middleware of [New], with counters. Make it with [NewLimits].
//
// A request costs what the decision and the writing of two fields cost: with one policy
// about four times [ratelimit.Keyed.Take], without the key, and two allocations. Settle
// adds a copy of the request.
//
// A Limits is safe for concurrent use by multiple goroutines.
type Limits struct {
	o        Options
	policies []*policy // immutable

	tooMany *problem // the refusal of InProgress

	allowed, refused, busy, shadowed, keyless, off, failed atomic.Uint64
}

// NewLimits returns a middleware for the policy of the options, with the limits of l,
// and for those of Options.Also. Returns an error that names the option when l or a Key
// is nil, when a name cannot be written as a structured field or is there twice, when
// there are too many policies, or when Jitter is out of range.
func NewLimits(l *ratelimit.Keyed[string], o Options) (*Limits, error) {
	policies, err := o.policies(l)
	if err != nil {
		return nil, err
	}
	limits := &Limits{o: o, policies: policies}
	if o.InProgress != nil {
		limits.tooMany = tooManyInProgress(policies[0].Name, o.InProgress.Limit())
	}
	return limits, nil
}

// Wrap returns the handler that decides, and calls next for what is admitted.
func (l *Limits) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { l.serve(w, r, next) })
}

// Stats is a snapshot of what a [Limits] has done.
type Stats struct {
	// Allowed counts the requests that went on to the next handler, those to which no
	// policy applied included, Refused those that a policy answered with 429, and
	// Keyless those with 400 because a key was missing.
	Allowed, Refused, Keyless uint64

	// Busy counts the requests that InProgress refused, or would have.
	Busy uint64

	// Shadowed counts the requests that the mode Shadow let through and that Enforce
	// would have refused, for want of units or of a key. They are not in Allowed.
	Shadowed uint64

	// Off counts the requests that passed by the kill switch.
	Off uint64

	// Failed counts the failures of the middleware itself. For each of them a policy
	// was left out, or a hook was cut short.
	Failed uint64

	// Policies says how many requests each policy refused, or would have.
	Policies []PolicyStats
}

// PolicyStats is the part of one policy in [Stats].
type PolicyStats struct {
	Name    string
	Refused uint64
}

// Stats returns the counters. They are read one after the other.
func (l *Limits) Stats() Stats {
	s := Stats{
		Allowed: l.allowed.Load(), Refused: l.refused.Load(), Keyless: l.keyless.Load(), Busy: l.busy.Load(),
		Shadowed: l.shadowed.Load(), Off: l.off.Load(), Failed: l.failed.Load(),
	}
	for _, p := range l.policies {
		s.Policies = append(s.Policies, PolicyStats{p.Name, p.refused.Load()})
	}
	return s
}

// policy is a Policy that was checked. Its fields but the last two are immutable.
type policy struct {
	Policy
	quoted  string // Name, as a structured field
	refusal *problem

	texts   policyTexts
	refused atomic.Uint64
}

func (l *Limits) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	mode := l.mode(r)
	if mode == Off {
		l.off.Add(1)
		next.ServeHTTP(w, r)
		return
	}
	var buf [4]ask
	asks, err := l.asks(buf[:0], r)
	switch {
	case err != nil:
		l.nobody(w, r, next, mode)
	case len(asks) == 0:
		l.allowed.Add(1)
		next.ServeHTTP(w, r)
	case l.o.InProgress != nil && asks[0].policy == l.policies[0]:
		l.serveInProgress(w, r, next, mode, asks)
	default:
		l.serveLimited(w, r, next, mode, asks)
	}
}

// serveInProgress asks for a place of the key before anything is charged.
func (l *Limits) serveInProgress(w http.ResponseWriter, r *http.Request, next http.Handler, mode Mode, asks []ask) {
	permit, err := l.o.InProgress.Acquire(asks[0].key)
	if err != nil {
		l.busy.Add(1)
		if mode == Enforce {
			w.Header()["Retry-After"] = []string{strconv.FormatInt(spread(1, l.o.Jitter), 10)}
			l.tooMany.write(w)
			return
		}
	}
	defer permit.Release(shed.Success)
	l.serveLimited(w, r, next, mode, asks)
}

// serveLimited decides, and calls the next handler or refuses.
func (l *Limits) serveLimited(w http.ResponseWriter, r *http.Request, next http.Handler, mode Mode, asks []ask) {
	var d ratelimit.Decision
	bill, err := l.decide(&d, asks)
	if err != nil {
		l.fail(r, err)
		l.allowed.Add(1)
		next.ServeHTTP(w, r)
		return
	}
	refusing := asks[0].policy
	for i := range asks {
		if asks[i].policy.Name == d.Name {
			refusing = asks[i].policy
		}
	}
	l.count(mode, d.Allowed, refusing)
	if l.o.OnDecision != nil {
		l.hook(r, mode, d)
	}
	if mode == Enforce {
		err := look(&d, asks)
		if err != nil {
			l.fail(r, err)
			asks = nil
		}
		if !d.Allowed {
			values := new([5]string)
			l.tell(w.Header(), asks, &d, values[:3])
			refusing.refusal.answer(w, (*[2]string)(values[3:]))
			return
		}
		l.tell(w.Header(), asks, &d, new([2]string)[:])
	}
	if bill == nil {
		next.ServeHTTP(w, r)
		return
	}
	defer bill.settle()
	next.ServeHTTP(w, r.WithContext(bill.in(r.Context())))
}

// nobody answers a request that has no key.
func (l *Limits) nobody(w http.ResponseWriter, r *http.Request, next http.Handler, mode Mode) {
	if mode == Shadow {
		l.shadowed.Add(1)
		next.ServeHTTP(w, r)
		return
	}
	l.keyless.Add(1)
	noKey.write(w)
}

func (l *Limits) count(mode Mode, allowed bool, p *policy) {
	switch {
	case allowed:
		l.allowed.Add(1)
		return
	case mode == Shadow:
		l.shadowed.Add(1)
	default:
		l.refused.Add(1)
	}
	p.refused.Add(1)
}

// asks returns what the policies that apply ask for. An error says that a key is missing.
func (l *Limits) asks(asks []ask, r *http.Request) ([]ask, error) {
	for _, p := range l.policies {
		asks = append(asks, ask{})
		applies, err := l.ask(&asks[len(asks)-1], p, r)
		if err != nil {
			return nil, err
		}
		if !applies {
			asks = asks[:len(asks)-1]
		}
	}
	return asks, nil
}

// ask is what one policy asks for one request.
type ask struct {
	policy *policy
	key    string
	cost   int64
	limit  ratelimit.Limit // of the key

	remaining, reset int64 // for the fields
}

// ask calls the functions of a policy. The policy does not apply if it says so, or if they
// failed. An error says that the request has no key.
func (l *Limits) ask(a *ask, p *policy, r *http.Request) (applies bool, err error) {
	defer func() {
		if v := recover(); v != nil {
			applies, err = false, nil
			l.fail(r, &PanicError{v, debug.Stack()})
		}
	}()
	if p.When != nil && !p.When(r) {
		return false, nil
	}
	key, err := p.Key(r)
	switch {
	case err != nil && errors.Is(err, ErrPass):
		l.fail(r, err)
		return false, nil
	case err != nil:
		return false, err
	case key == "":
		return false, ErrNoKey
	}
	cost := int64(1)
	if p.Cost != nil {
		if cost = p.Cost(r); cost < 0 {
			l.fail(r, fmt.Errorf("%w: the Cost of policy %q is %d, expected 0 or more", ErrCost, p.Name, cost))
			return false, nil
		}
	}
	a.policy, a.key, a.cost, a.limit = p, key, cost, p.Limiter.LimitOf(key)
	return true, nil
}

// mode calls Options.Mode. A switch that is broken is off.
func (l *Limits) mode(r *http.Request) (m Mode) {
	if l.o.Mode == nil {
		return Enforce
	}
	defer func() {
		if v := recover(); v != nil {
			m = Off
			l.fail(r, &PanicError{v, debug.Stack()})
		}
	}()
	if m = l.o.Mode(r); m > Off {
		m = Enforce
	}
	return m
}

// hook calls OnDecision.
func (l *Limits) hook(r *http.Request, mode Mode, d ratelimit.Decision) {
	defer func() {
		if v := recover(); v != nil {
			l.fail(r, &PanicError{v, debug.Stack()})
		}
	}()
	l.o.OnDecision(r, mode, d)
}

// fail counts and reports a failure of our own.
func (l *Limits) fail(r *http.Request, err error) {
	l.failed.Add(1)
	if l.o.OnError == nil {
		return
	}
	defer func() {
		if recover() != nil {
			l.failed.Add(1)
		}
	}()
	l.o.OnError(r, err)
}
