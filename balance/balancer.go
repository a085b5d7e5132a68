package balance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
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

	// Classify says what an outcome says of the backend. Nil means: a nil error is a
	// success, [context.Canceled] is ignored, anything else is a failure.
	Classify func(error) Outcome

	// Health says how backends that fail, and new ones, are treated.
	Health Health

	// Zone prefers the backends of the caller's own zone.
	Zone Zone

	// Subset gives each of many clients a few of the backends.
	Subset Subset

	// OnChange, if set, is called after a backend has changed its state.
	OnChange func(id string, s State)
}

// Balancer picks one of a set of backends for each request, by the [Strategy]
// that it was made with.
//
// A pick takes no lock, allocates nothing and costs the same for 5 backends as for
// 5000. The balancer starts no goroutine and needs no closing. The zero Balancer
// has no backends and takes none: use [New].
//
// A Balancer is safe for concurrent use by multiple goroutines.
type Balancer[T any] struct {
	chooser chooser // immutable

	current atomic.Pointer[snapshot[T]]
	update  sync.Mutex // serialises Update
}

// snapshot is one set of backends. It is immutable; the nodes that it points to
// are not, and outlive it.
type snapshot[T any] struct {
	set
	backends []Backend[T]
}

// set is the part of a snapshot that choosing reads. It is not generic, so that
// the code that chooses exists once and needs no dictionary.
type set struct {
	nodes []*node

	// What follows is nil if all weights are equal.
	inverse  []float64 // 1/weight, the heaviest being 1
	alias    *alias    // draws by weight; for Random and LeastRequest
	schedule []uint32  // turns by weight; for RoundRobin
}

// New returns a balancer without backends; give it some with [Balancer.Update]. It
// returns an error if s is nil or a field of its options is out of range.
func New[T any](s Strategy, o Options) (*Balancer[T], error) {
	if s == nil {
		return nil, errors.New("balance: strategy is nil, expected one such as LeastRequest")
	}
	b := &Balancer[T]{}
	if err := s.configure(&b.chooser); err != nil {
		return nil, err
	}
	b.chooser.rand = o.Rand
	if o.Rand == nil {
		b.chooser.rand = rand.Uint64
	}
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
// empty set is allowed. The slice is copied. It costs O(n), and with RoundRobin and
// weights that differ O(n log n), some milliseconds for a thousand.
func (b *Balancer[T]) Update(backends []Backend[T]) error {
	b.update.Lock()
	defer b.update.Unlock()

	old := b.current.Load()
	if old == nil {
		return errors.New("balance: Update of a zero Balancer, expected one from New")
	}
	known := make(map[string]*node, len(old.nodes))
	for _, n := range old.nodes {
		known[n.id] = n
	}
	next := &snapshot[T]{backends: slices.Clone(backends)}
	weights := make([]float64, len(backends))
	seen := make(map[string]struct{}, len(backends))
	for i, backend := range backends {
		if backend.ID == "" {
			return fmt.Errorf("%w: number %d has an empty ID, expected a unique name", ErrBadBackend, i)
		}
		if _, ok := seen[backend.ID]; ok {
			return fmt.Errorf("%w: ID %q occurs twice", ErrBadBackend, backend.ID)
		}
		seen[backend.ID] = struct{}{}
		w := backend.Weight
		if !(w >= 0) || math.IsInf(w, 1) {
			return fmt.Errorf("%w %q: Weight is %v, expected 0 (for 1) or a positive and finite number", ErrBadBackend, backend.ID, w)
		}
		if w == 0 {
			w = 1
		}
		weights[i] = w
		n := known[backend.ID]
		if n == nil {
			// On its own and not in one array with the others that are new: one that stays
			// would keep the memory of all.
			n = &node{id: backend.ID}
		}
		next.nodes = append(next.nodes, n)
	}
	next.weigh(weights, b.chooser.kind)
	b.current.Store(next)
	return nil
}

// leastWeight is the least weight relative to the heaviest; a smaller one counts as
// this, so that its inverse is a finite number.
const leastWeight = 1e-12

// weigh prepares choosing by weight, if the weights differ. It scales them.
func (s *set) weigh(weights []float64, k kind) {
	if !slices.ContainsFunc(weights, func(w float64) bool { return w != weights[0] }) {
		return
	}
	// Relative to the heaviest, so that no sum or quotient overflows.
	heaviest := slices.Max(weights)
	s.inverse = make([]float64, len(weights))
	for i := range weights {
		weights[i] = max(weights[i]/heaviest, leastWeight)
		s.inverse[i] = 1 / weights[i]
	}
	if k == roundRobin {
		s.schedule = newSchedule(weights)
	} else {
		s.alias = newAlias(weights)
	}
}

// Pick chooses a backend and counts a request under way on it, until
// [Pick.Done]. It returns [ErrNoBackends] if the set is empty.
//
// With LeastRequest, equal weights and more than four backends it costs one random
// number, two atomic loads and one atomic addition; see the strategies for the rest.
// It allocates nothing.
func (b *Balancer[T]) Pick() (Pick[T], error) {
	s := b.current.Load()
	if s == nil || len(s.nodes) == 0 {
		return Pick[T]{}, ErrNoBackends
	}
	return s.take(b.chooser.choose(&s.set)), nil
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
	s := b.current.Load()
	if s == nil || len(s.nodes) == 0 {
		return Pick[T]{}, ErrNoBackends
	}
	for range exceptTries {
		if i := b.chooser.choose(&s.set); !s.nodes[i].oneOf(ids) {
			return s.take(i), nil
		}
	}
	if i, ok := b.chooser.leastExcept(&s.set, ids); ok {
		return s.take(i), nil
	}
	return s.take(b.chooser.choose(&s.set)), nil
}

func (s *snapshot[T]) take(i int) Pick[T] {
	n := s.nodes[i]
	n.begin()
	return Pick[T]{Value: s.backends[i].Value, node: n, open: true}
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
