package balance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

var (
	// ErrNoBackends is returned by [Balancer.Pick], [Balancer.PickExcept] and
	// [Balancer.Do] when the set of backends is empty.
	ErrNoBackends = errors.New("balance: no backends")

	// ErrBadBackend is returned by [Balancer.Update] for a set that it refuses. The
	// text names the backend, the value and what was expected.
	ErrBadBackend = errors.New("balance: bad backend")
)

// Backend is one member of the set that a [Balancer] picks from.
type Backend[T any] struct {
	// ID names the backend, uniquely in its set. It keys what the balancer knows of
	// the backend across updates.
	ID string

	// Value is what a pick hands out: an address, a connection, a client.
	Value T

	// Weight is the share of the requests that the backend should get, relative to
	// the others. 0 means 1: a backend that should get none does not belong in the
	// set.
	Weight float64

	// Zone is where the backend is, for [Options].Zone.
	Zone string
}

// Options are the knobs of [New]. The zero value is right for a service.
type Options struct {
	// Rand is the source of random bits: 64 evenly distributed ones a call. It is
	// called by concurrent picks. Nil means [rand.Uint64], which is. Set it for picks
	// that can be repeated, in a test or a simulation.
	Rand func() uint64

	// Clock is the time since a fixed moment, monotonic. Nil means that of the
	// machine. Set it for a simulation.
	Clock func() time.Duration

	// Classify says what an error that a pick is done with says of the backend. Nil
	// means that [context.Canceled] is ignored and anything else is a failure. It is not
	// asked about a nil error, which is a success.
	Classify func(error) Outcome

	// Health says how backends that fail, and new ones, are treated.
	Health Health

	// Zone prefers the backends of the caller's own zone.
	Zone Zone

	// Subset gives each of many clients a few of the backends.
	Subset Subset

	// OnChange, if set, is called after a backend has been ejected, admitted again or
	// has got its whole share, from the call of Pick, Done, Update or Stats that brought
	// it about. It may call the balancer. Calls of different goroutines may overtake each
	// other.
	OnChange func(id string, s State)
}

// Balancer picks one of a set of backends for each request, by the [Strategy]
// that it was made with.
//
// A pick takes no lock, allocates nothing and costs the same for 5 backends as for
// 5000; [Prequal] alone has a lock, around its pool of probes. The balancer starts no
// goroutine, but for Prequal's probes, and needs no closing: what is to happen at a
// time, such as the end of an ejection, happens in the first pick after it. The zero
// Balancer has no backends and takes none: use [New].
//
// A Balancer is safe for concurrent use by multiple goroutines.
type Balancer[T any] struct {
	chooser  chooser  // immutable, but for its counters
	topology topology // immutable
	fleet    fleet

	current atomic.Pointer[snapshot[T]] // what picks are made from
	all     atomic.Pointer[members[T]]  // what Update was given; stored with fleet.mu held
}

// New returns a balancer without backends; give it some with [Balancer.Update]. It
// returns an error if s is nil or a field of the options is out of range.
func New[T any](s Strategy, o Options) (*Balancer[T], error) {
	if s == nil {
		return nil, errors.New("balance: strategy is nil, expected one such as LeastRequest")
	}
	b := &Balancer[T]{topology: topology{o.Zone, o.Subset}}
	b.chooser.rand = o.Rand
	if o.Rand == nil {
		b.chooser.rand = rand.Uint64
	}
	if o.Clock == nil {
		start := time.Now()
		b.fleet.clock = func() time.Duration { return time.Since(start) }
	} else {
		start := o.Clock()
		b.fleet.clock = func() time.Duration { return o.Clock() - start }
	}
	b.fleet.classify = o.Classify
	if o.Classify == nil {
		b.fleet.classify = classify
	}
	b.fleet.onChange = o.OnChange
	b.fleet.decay = defaultDecay
	b.fleet.due.Store(never)
	b.fleet.rebuild = b.rebuild
	var err error
	if b.fleet.health, err = o.Health.withDefaults(); err != nil {
		return nil, err
	}
	if b.topology, err = b.topology.withDefaults(); err != nil {
		return nil, err
	}
	if err := s.configure(&b.chooser, &b.fleet); err != nil {
		return nil, err
	}
	b.fleet.fading = scaleOf(b.fleet.decay)
	b.fleet.forgiving = scaleOf(b.fleet.health.Penalty)
	b.fleet.members.Store(new([]reached))
	b.all.Store(&members[T]{})
	b.current.Store(&snapshot[T]{})
	return b, nil
}

// Update replaces the set of backends. Picks that run at the same time see the old
// set or the new one, whole. What is known of a backend, its requests under way
// above all, is kept for the IDs that are in both sets; a backend that was removed
// and is added again is a new one, which the picks of the old one cannot touch.
//
// It returns an error that wraps [ErrBadBackend], and changes nothing, for an empty
// or repeated ID and for a weight that is negative, infinite or not a number. An
// empty set is allowed. The slice is copied. It costs O(n), with subsets O(n log n),
// and with RoundRobin and weights that differ O(n log n) too, some milliseconds for a
// thousand.
func (b *Balancer[T]) Update(backends []Backend[T]) error {
	f := &b.fleet
	f.mu.Lock()
	defer f.unlock()

	old := b.all.Load()
	if old == nil {
		return errors.New("balance: Update of a zero Balancer, expected one from New")
	}
	weights, err := weightsOf(backends)
	if err != nil {
		return err
	}
	now := f.clock()
	nodes := make([]*node, len(backends))
	known := make(map[string]*node, len(old.nodes))
	for _, n := range old.nodes {
		known[n.id] = n
		n.reached = false
	}
	for i, backend := range backends {
		n := known[backend.ID]
		if n == nil {
			// On its own and not in one array with the others that are new: one that stays
			// would keep the memory of all.
			n = &node{record: &record{fleet: f, id: backend.ID}}
			if f.health.SlowStart > 0 && len(old.nodes) > 0 {
				n.warming, n.warmFrom = true, now
			}
		}
		nodes[i] = n
	}
	next := newMembers(b.topology, slices.Clone(backends), nodes, weights)
	for _, r := range next.reached {
		r.node.record.reached = true
	}
	b.all.Store(next)
	f.members.Store(&next.reached)
	f.refresh(now, true)
	return nil
}

// weightsOf returns the weights of backends that are all as they should be, relative
// to the heaviest, so that no sum or quotient of some overflows.
func weightsOf[T any](backends []Backend[T]) ([]float64, error) {
	weights := make([]float64, len(backends))
	seen := make(map[string]struct{}, len(backends))
	for i, backend := range backends {
		if backend.ID == "" {
			return nil, fmt.Errorf("%w: number %d has an empty ID, expected a unique name", ErrBadBackend, i)
		}
		if _, ok := seen[backend.ID]; ok {
			return nil, fmt.Errorf("%w: ID %q occurs twice", ErrBadBackend, backend.ID)
		}
		seen[backend.ID] = struct{}{}
		w := backend.Weight
		if !(w >= 0) || math.IsInf(w, 1) {
			return nil, fmt.Errorf("%w %q: Weight is %v, expected 0 (for 1) or a positive and finite number", ErrBadBackend, backend.ID, w)
		}
		if w == 0 {
			w = 1
		}
		weights[i] = w
	}
	relative(weights)
	return weights, nil
}

// Pick chooses a backend and counts a request under way on it, until
// [Pick.Done]. It returns [ErrNoBackends] if the set is empty.
//
// With LeastRequest, equal weights and more than four backends it costs one random
// number, two atomic loads and one atomic addition, and while backends are warming,
// ejected or have failed lately, a look at the clock besides; see the strategies for
// the rest. It allocates nothing.
func (b *Balancer[T]) Pick() (Pick[T], error) {
	s := b.current.Load()
	if s == nil || !s.plain || b.fleet.due.Load() != never {
		return b.pick()
	}
	i := b.chooser.leastOfPlain(&s.set)
	n := s.nodes[i]
	n.begin()
	return Pick[T]{Value: s.backends[i].Value, node: n, state: open}, nil
}

// pick is Pick in all its generality.
func (b *Balancer[T]) pick() (Pick[T], error) {
	now := b.now()
	s := b.current.Load()
	if s == nil || len(s.nodes) == 0 {
		return Pick[T]{}, ErrNoBackends
	}
	return b.take(s, b.chooser.choose(&s.set, now), now), nil
}

// now returns the time if picks need it, having done what is due, and otherwise calm.
func (b *Balancer[T]) now() time.Duration {
	if b.fleet.clock == nil { // the zero Balancer
		return calm
	}
	return b.fleet.now(b.chooser.kind.timed())
}

// exceptTries is how often PickExcept asks the strategy before it looks at all
// backends itself.
const exceptTries = 8

// PickExcept is [Balancer.Pick] for a retry or a hedge: it chooses among the
// backends that have not been tried, whose IDs are not in ids. If all have been, it
// chooses among all, since a second try is better than none. IDs that are not in
// the set do not matter.
//
// It asks the strategy several times, and if that finds tried ones only, takes the
// least busy of the others. It usually costs a little more than Pick, and
// O(n · len(ids)) if nearly all have been tried. It allocates nothing.
func (b *Balancer[T]) PickExcept(ids ...string) (Pick[T], error) {
	now := b.now()
	s := b.current.Load()
	if s == nil || len(s.nodes) == 0 {
		return Pick[T]{}, ErrNoBackends
	}
	for range exceptTries {
		if i := b.chooser.choose(&s.set, now); !s.nodes[i].oneOf(ids) {
			return b.take(s, i, now), nil
		}
	}
	if i, ok := b.chooser.leastExcept(&s.set, now, ids); ok {
		return b.take(s, i, now), nil
	}
	return b.take(s, b.chooser.choose(&s.set, now), now), nil
}

func (b *Balancer[T]) take(s *snapshot[T], i int, now time.Duration) Pick[T] {
	n := s.nodes[i]
	n.begin()
	state := open
	if b.chooser.kind.timed() {
		state = timedFrom(now)
	}
	return Pick[T]{Value: s.backends[i].Value, node: n, state: state}
}

// errUnfinished is the outcome of a call that panicked or ended its goroutine.
var errUnfinished = errors.New("balance: call did not return")

// Do picks a backend, calls f once with ctx and the backend's value, and ends the
// pick with f's error. When f panics or calls [runtime.Goexit], that ends the pick
// too, as a failure. Do returns what f returns, or [ErrNoBackends].
func (b *Balancer[T]) Do(ctx context.Context, f func(context.Context, T) error) error {
	p, err := b.Pick()
	if err != nil {
		return err
	}
	err = errUnfinished
	defer func() { p.Done(err) }()
	err = f(ctx, p.Value)
	return err
}
