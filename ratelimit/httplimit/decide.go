package httplimit

import (
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// decide charges all that is asked for, or nothing, and leaves the Decision in d. An error
// means that a function of a limiter panicked.
func (l *Limits) decide(d *ratelimit.Decision, asks []ask) (b *bill, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{v, debug.Stack()}
		}
	}()
	first := &asks[0]
	switch {
	case l.o.Settle && first.policy == l.policies[0]:
		b = &bill{}
		if *d = takeAll(asks, &b.reservation); !d.Allowed {
			b = nil
		}
		return b, nil
	case len(asks) == 1:
		*d = first.policy.Limiter.Take(first.key, first.cost)
		d.Name = first.policy.Name
	default:
		*d = takeAll(asks, nil)
	}
	return nil, nil
}

// takeAll decides several together. The first is reserved in r, unless that is nil.
func takeAll(asks []ask, r *ratelimit.Reservation) ratelimit.Decision {
	var buf [4]ratelimit.Want
	wants := buf[:0]
	for i := range asks {
		a := &asks[i]
		wants = append(wants, a.policy.Limiter.Want(a.key, a.cost).Named(a.policy.Name))
	}
	if r != nil {
		wants[0] = wants[0].Reserving(r)
	}
	return ratelimit.All(wants...)
}

// look gathers what the fields say of each policy. An error means that a function of a
// limiter panicked: the decision stands, and nothing is told.
func look(d *ratelimit.Decision, asks []ask) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{v, debug.Stack()}
		}
	}()
	for i := range asks {
		a, own := &asks[i], d
		if a.policy.Name != d.Name {
			peeked := a.policy.Limiter.Peek(a.key, 0)
			own = &peeked
		}
		if own.Limit == 0 {
			a.limit = ratelimit.Limit{} // it cannot be kept, and all is refused
		}
		a.remaining, a.reset = own.Remaining, untilNextUnit(a, own)
	}
	return nil
}

// tell adds the fields of a decision, with one member for each policy. The values are
// memory for two fields, and for a third if the decision is a refusal.
func (l *Limits) tell(h http.Header, asks []ask, d *ratelimit.Decision, values []string) {
	retry := int64(-1)
	if !d.Allowed && d.RetryAfter >= 0 {
		retry = max(1, seconds(d.RetryAfter))
		values[2] = strconv.FormatInt(spread(retry, l.o.Jitter), 10)
		h["Retry-After"] = values[2:3:3]
	}
	if len(asks) == 0 {
		return
	}
	var (
		buf    [128]byte
		limits = buf[:0]
		policy string
	)
	for i := range asks {
		a := &asks[i]
		reset := a.reset
		if retry > 0 && a.policy.Name == d.Name {
			reset = min(reset, retry)
		}
		text := a.policy.texts.of(a.policy.quoted, a.limit)
		if i == 0 {
			policy = text
		} else {
			policy += ", " + text
			limits = append(limits, ", "...)
		}
		limits = appendLimits(limits, a.policy.quoted, a.remaining, reset)
	}
	// These are the canonical forms of RateLimit-Policy and RateLimit: field names
	// have no case.
	values[0], values[1] = policy, string(limits)
	add(h, "Ratelimit-Policy", values[0:1:1])
	add(h, "Ratelimit", values[1:2:2])
}

func add(h http.Header, name string, values []string) {
	if have := h[name]; len(have) > 0 {
		values = append(have, values...)
	}
	h[name] = values
}

// policyTexts remembers the members of RateLimit-Policy of the limits that a policy
// has. The zero value is ready. It is safe for concurrent use.
type policyTexts struct {
	last  atomic.Pointer[policyText] // most policies have one limit
	mu    sync.Mutex
	known map[ratelimit.Limit]*policyText // guarded by mu; at most maxTexts
}

type policyText struct {
	limit ratelimit.Limit
	text  string
}

// maxTexts bounds what is remembered, for limits that are computed.
const maxTexts = 64

func (t *policyTexts) of(name string, l ratelimit.Limit) string {
	if last := t.last.Load(); last != nil && last.limit == l {
		return last.text
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	known, ok := t.known[l]
	if !ok {
		known = &policyText{l, policyMember(name, l)}
		if t.known == nil || len(t.known) == maxTexts {
			t.known = map[ratelimit.Limit]*policyText{}
		}
		t.known[l] = known
	}
	t.last.Store(known)
	return known.text
}
