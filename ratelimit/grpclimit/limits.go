package grpclimit

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// Mode says what is done with a decision. Values that have no name are Enforce.
type Mode uint8

const (
	// Enforce refuses what is above a limit. It is the zero value.
	Enforce Mode = iota

	// Shadow decides, charges, counts and calls the hooks, but refuses nobody.
	Shadow

	// Off calls the handler at once and nothing else: the kill switch.
	Off
)

// Policy is one limit among several that are decided together.
type Policy struct {
	// Name identifies the policy to clients and in Stats. No two policies have the
	// same.
	Name string

	// Limiter has the limits.
	Limiter *ratelimit.Keyed[string]

	// Key, Cost and When are as in [Options].
	Key  KeyFunc
	Cost func(context.Context, Call) int64
	When func(context.Context, Call) bool
}

// Options configure [NewLimits]. Key is required.
type Options struct {
	// Name identifies the policy to clients. Empty means "default".
	Name string

	// Key says whose limit a call is counted against.
	Key KeyFunc

	// Cost says how many units a call takes: nil means one. A cost above the burst
	// can never be admitted. A negative cost is a fault of the server: the policy is
	// left out for the call.
	Cost func(context.Context, Call) int64

	// When says to which calls the policy applies: nil means to all.
	When func(context.Context, Call) bool

	// Also are further policies. All that apply to a call are decided together: when
	// one refuses, no other is charged.
	Also []Policy

	// Mode is asked for each call: nil means Enforce.
	Mode func(context.Context, Call) Mode

	// OnDecision is called after each decision, with the one policy of
	// Decision.Name that refused, or has the least left. Nil means not.
	OnDecision func(context.Context, Call, Mode, ratelimit.Decision)

	// OnError is called when the interceptor itself failed: with a *PanicError when a
	// function of these options panicked, with what wraps [ErrPass] or [ErrCost]
	// otherwise. Nil means not; Stats counts in any case.
	OnError func(context.Context, Call, error)
}

// PanicError is what OnError gets for a panic in a function of the options.
type PanicError struct {
	// Value is what was passed to panic.
	Value any

	// Stack is the stack of the goroutine that panicked.
	Stack []byte
}

// Error names the value, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("grpclimit: panic: %v", e.Value) }

// Limits are interceptors that take the cost of each call from the limits of its keys,
// and refuse it with ResourceExhausted if it is not there. Make them with [NewLimits]. A
// call that is admitted costs what the decision costs, and allocates nothing.
//
// A Limits is safe for concurrent use by multiple goroutines.
type Limits struct {
	o        Options
	policies []*policy // immutable

	allowed, refused, shadowed, keyless, off, failed atomic.Uint64
}

// policy is a Policy that was checked, with its counter.
type policy struct {
	Policy
	refused atomic.Uint64
}

// NewLimits returns interceptors for the policy of the options, with the limits of l, and
// for those of Options.Also. Returns an error that names the option when a limiter or a
// Key is nil, or when a name is missing or there twice.
func NewLimits(l *ratelimit.Keyed[string], o Options) (*Limits, error) {
	if o.Name == "" {
		o.Name = "default"
	}
	limits := &Limits{o: o}
	all := append([]Policy{{o.Name, l, o.Key, o.Cost, o.When}}, o.Also...)
	names := map[string]bool{}
	for i, p := range all {
		field := "Options"
		if i > 0 {
			field = fmt.Sprintf("Options.Also[%d]", i-1)
		}
		switch {
		case p.Limiter == nil:
			return nil, fmt.Errorf("grpclimit: the limiter of %s is nil, expected one from ratelimit.NewKeyed", field)
		case p.Key == nil:
			return nil, fmt.Errorf("grpclimit: %s.Key is nil, expected a function that names the client", field)
		case p.Name == "" || names[p.Name]:
			return nil, fmt.Errorf("grpclimit: %s.Name is %q, expected a name of its own", field, p.Name)
		}
		names[p.Name] = true
		limits.policies = append(limits.policies, &policy{Policy: p})
	}
	return limits, nil
}

// Unary is a [grpc.UnaryServerInterceptor].
func (l *Limits) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if refusal := l.check(ctx, Call{info.FullMethod, req}); refusal != nil {
		return nil, refusal.tell(func(md pushback) error { return grpc.SetTrailer(ctx, md) })
	}
	return handler(ctx, req)
}

// Stream is a [grpc.StreamServerInterceptor]. A stream costs when it begins.
func (l *Limits) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if refusal := l.check(stream.Context(), Call{info.FullMethod, nil}); refusal != nil {
		return refusal.tell(func(md pushback) error { stream.SetTrailer(md); return nil })
	}
	return handler(srv, stream)
}

// Stats is a snapshot of what a [Limits] has done.
type Stats struct {
	// Allowed counts the calls that went on to the handler, those to which no policy
	// applied included, Refused those that were refused with ResourceExhausted, and
	// Keyless those with InvalidArgument because a key was missing.
	Allowed, Refused, Keyless uint64

	// Shadowed counts the calls that the mode Shadow let through and that Enforce would
	// have refused. They are not in Allowed.
	Shadowed uint64

	// Off counts the calls that passed by the kill switch.
	Off uint64

	// Failed counts the failures of the interceptor itself.
	Failed uint64

	// Policies says how many calls each policy refused, or would have.
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
		Allowed: l.allowed.Load(), Refused: l.refused.Load(), Keyless: l.keyless.Load(),
		Shadowed: l.shadowed.Load(), Off: l.off.Load(), Failed: l.failed.Load(),
	}
	for _, p := range l.policies {
		s.Policies = append(s.Policies, PolicyStats{p.Name, p.refused.Load()})
	}
	return s
}

// check decides on a call. It returns nil if the call may go on.
func (l *Limits) check(ctx context.Context, c Call) *refusal {
	mode := l.mode(ctx, c)
	if mode == Off {
		l.off.Add(1)
		return nil
	}
	var (
		buf  [4]ask
		asks = buf[:0]
	)
	for _, p := range l.policies {
		a, err := l.ask(ctx, c, p)
		if err != nil && mode == Shadow {
			l.shadowed.Add(1)
			return nil
		}
		if err != nil {
			l.keyless.Add(1)
			return noKey
		}
		if a.policy != nil {
			asks = append(asks, a)
		}
	}
	if len(asks) == 0 {
		l.allowed.Add(1)
		return nil
	}
	d, err := decide(asks)
	if err != nil {
		l.fail(ctx, c, err)
		l.allowed.Add(1)
		return nil
	}
	if l.o.OnDecision != nil {
		l.hook(ctx, c, mode, d)
	}
	if d.Allowed {
		l.allowed.Add(1)
		return nil
	}
	for _, p := range l.policies {
		if p.Name == d.Name {
			p.refused.Add(1)
		}
	}
	if mode == Shadow {
		l.shadowed.Add(1)
		return nil
	}
	l.refused.Add(1)
	return limited(d)
}

// ask is what one policy asks for one call.
type ask struct {
	policy *policy
	key    string
	cost   int64
}

// ask calls the functions of a policy. The policy is nil if it does not apply, or if
// they failed. An error says that the call has no key.
func (l *Limits) ask(ctx context.Context, c Call, p *policy) (a ask, err error) {
	defer func() {
		if v := recover(); v != nil {
			a, err = ask{}, nil
			l.fail(ctx, c, &PanicError{v, debug.Stack()})
		}
	}()
	if p.When != nil && !p.When(ctx, c) {
		return ask{}, nil
	}
	key, err := p.Key(ctx, c)
	switch {
	case err != nil && errors.Is(err, ErrPass):
		l.fail(ctx, c, err)
		return ask{}, nil
	case err != nil:
		return ask{}, err
	case key == "":
		return ask{}, ErrNoKey
	}
	cost := int64(1)
	if p.Cost != nil {
		if cost = p.Cost(ctx, c); cost < 0 {
			l.fail(ctx, c, fmt.Errorf("%w: the Cost of policy %q is %d, expected 0 or more", ErrCost, p.Name, cost))
			return ask{}, nil
		}
	}
	p.Limiter.LimitOf(key) // if it panics, it leaves out this policy and not all
	return ask{p, key, cost}, nil
}

// decide charges all that is asked for, or nothing. An error means that a function of a
// limiter panicked.
func decide(asks []ask) (d ratelimit.Decision, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{v, debug.Stack()}
		}
	}()
	if len(asks) == 1 {
		d = asks[0].policy.Limiter.Take(asks[0].key, asks[0].cost)
		d.Name = asks[0].policy.Name
		return d, nil
	}
	var buf [4]ratelimit.Want
	wants := buf[:0]
	for _, a := range asks {
		wants = append(wants, a.policy.Limiter.Want(a.key, a.cost).Named(a.policy.Name))
	}
	return ratelimit.All(wants...), nil
}

// mode calls Options.Mode. A switch that is broken is off.
func (l *Limits) mode(ctx context.Context, c Call) (m Mode) {
	if l.o.Mode == nil {
		return Enforce
	}
	defer func() {
		if v := recover(); v != nil {
			m = Off
			l.fail(ctx, c, &PanicError{v, debug.Stack()})
		}
	}()
	return l.o.Mode(ctx, c)
}

// hook calls OnDecision.
func (l *Limits) hook(ctx context.Context, c Call, mode Mode, d ratelimit.Decision) {
	defer func() {
		if v := recover(); v != nil {
			l.fail(ctx, c, &PanicError{v, debug.Stack()})
		}
	}()
	l.o.OnDecision(ctx, c, mode, d)
}

// fail counts and reports a failure of our own.
func (l *Limits) fail(ctx context.Context, c Call, err error) {
	l.failed.Add(1)
	if l.o.OnError == nil {
		return
	}
	defer func() {
		if recover() != nil {
			l.failed.Add(1)
		}
	}()
	l.o.OnError(ctx, c, err)
}
