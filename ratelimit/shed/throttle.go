package shed

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// ThrottleOptions are the knobs of [NewThrottle]. The zero value is what Google uses, but
// for a shorter Window.
type ThrottleOptions struct {
	// K is how many requests are sent for each that the backend accepts, in the long
	// run. 0 means 2. With a smaller one less of the backend's time is wasted on
	// refusing, with a larger one the client learns sooner that it accepts again. It
	// must not be less than 1.
	K float64

	// Window is the time that is looked back on, to a tenth of it. 0 means 30 seconds.
	// A backend that was away as a whole gets all of its requests again after about
	// four windows, with a thousand requests a second; with fewer, sooner. Google takes
	// two minutes: then the lower classes are back four minutes after a peak of half a
	// one, and no more is done meanwhile (package sim).
	Window time.Duration

	// Probe is the longest time for which all requests of a class to a backend are
	// rejected: the first one after it is sent, whatever the odds. 0 means one second.
	Probe time.Duration

	// Capacity is the largest number of backends that are kept in mind. 0 means 1024.
	Capacity int

	// Rand is the source of random bits: 64 evenly distributed ones a call. It is called
	// by concurrent calls of Allow. Nil means [rand.Uint64]. Set it for results that can
	// be repeated.
	Rand func() uint64
}

func (o ThrottleOptions) withDefaults() (ThrottleOptions, error) {
	o.K = cmp.Or(o.K, 2)
	if !(o.K >= 1) || math.IsInf(o.K, 0) {
		return o, fmt.Errorf("shed: ThrottleOptions.K is %v, expected 0 or a finite number of at least 1", o.K)
	}
	if o.Window < 0 || o.Window > 0 && o.Window < slots {
		return o, fmt.Errorf("shed: ThrottleOptions.Window is %v, expected 0 or at least %v", o.Window, time.Duration(slots))
	}
	if o.Probe < 0 {
		return o, fmt.Errorf("shed: ThrottleOptions.Probe is %v, expected 0 or more", o.Probe)
	}
	if o.Capacity < 0 {
		return o, fmt.Errorf("shed: ThrottleOptions.Capacity is %v, expected 0 or more", o.Capacity)
	}
	o.Window = min(cmp.Or(o.Window, 30*time.Second), farAway)
	o.Probe = cmp.Or(o.Probe, time.Second)
	o.Capacity = cmp.Or(o.Capacity, 1024)
	if o.Rand == nil {
		o.Rand = rand.Uint64
	}
	return o, nil
}

// Throttle rejects requests in the client, before they are sent to a backend that
// would refuse them: the adaptive throttling of Google's "Site Reliability Engineering"
// (2016, chapter 21, Handling Overload). With the requests and the accepts of the last
// [ThrottleOptions].Window a request is rejected with the probability
//
//	max(0, (requests - K*accepts) / (requests + 1))
//
// for its backend, so that a backend gets about K requests for each that it accepts.
// Requests that were rejected here count as requests. Others count when they are done,
// and not before: a slow backend is not taken for one that refuses.
//
// A refusal by the backend counts against the lower classes too (as in
// bradenaw/backpressure): a backend that refuses critical requests is not asked for
// lesser ones. And no class is rejected less often than a higher one. Each class has
// its own accepts: that critical requests are accepted says nothing of the others.
//
// Backends are told apart by a key: a name, an address. Those that were not asked for
// a window are forgotten when a new one comes; if there are then still Capacity of
// them, a new one is let through without being counted. K keys should be backends,
// never users: what is not comparable to itself, as NaN, is never found again.
//
// It must come from [NewThrottle]. It starts no goroutine and needs no closing. It only
// counts time forward: a clock that goes back changes nothing.
//
// Allow costs one reading of the monotonic clock, a look-up and a few atomic loads, and
// Done two atomic additions. Neither allocates, but for the first request of a backend,
// which copies the table.
//
// A Throttle is safe for concurrent use by multiple goroutines.
type Throttle[K comparable] struct {
	o        ThrottleOptions // immutable
	epoch    time.Time       // immutable
	refusals [classes]Error  // immutable

	backends  atomic.Pointer[map[K]*backend] // the map is immutable
	untracked atomic.Uint64

	adding sync.Mutex // serialises the replacement of backends
	sweep  int64      // when to look again for idle ones, if full; guarded by adding
}

// NewThrottle returns a throttle that lets everything through until it knows better.
// Returns an error that names the field when an option is out of range.
func NewThrottle[K comparable](o ThrottleOptions) (*Throttle[K], error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	t := &Throttle[K]{o: o, epoch: time.Now(), sweep: math.MinInt64}
	for i := range t.refusals {
		t.refusals[i] = Error{Class: Class(i) + Background, Reason: Unavailable, RetryAfter: o.Probe}
	}
	t.backends.Store(&map[K]*backend{})
	return t, nil
}

// Call is a request that a [Throttle] let through.
//
// A Call is a small value. It may be passed on, but must be ended through one
// variable: copies do not know of each other. One that is never ended is not counted.
type Call struct {
	backend *backend
	class   int8
}

// Done says how the backend took the request. Accepted is true for whatever it dealt
// with, well or badly, and false for what it refused or did not get to: statuses 503 and
// 429, Unavailable and ResourceExhausted, a refused connection, a deadline that passed.
// For a request that the caller gave up, do not call it. Later calls on the same
// variable do nothing, as does Done on the zero Call.
//
// The request counts at the time of the latest Allow for the backend.
func (c *Call) Done(accepted bool) {
	if c.backend == nil {
		return
	}
	kind := kindRefused
	if accepted {
		kind = kindAccepted
	}
	c.backend.count(int(c.class), kind)
	c.backend = nil
}

// Allow decides whether to send a request of a class to a backend. Returns an *[Error]
// with the reason Unavailable if not; its RetryAfter is the time of a probe. The error is
// shared by many refusals and must not be changed.
func (t *Throttle[K]) Allow(key K, class Class) (Call, error) {
	return t.allow(int64(time.Since(t.epoch)), key, class)
}

// AllowAt is Allow at a time of the caller's choice, for tests and simulations. A time
// before the latest is taken as that. Do not mix times of another time line with Allow:
// after an AllowAt in the next century the window does not move until then.
func (t *Throttle[K]) AllowAt(now time.Time, key K, class Class) (Call, error) {
	return t.allow(sinceEpoch(t.epoch, now), key, class)
}

func (t *Throttle[K]) allow(ns int64, key K, class Class) (Call, error) {
	b := (*t.backends.Load())[key]
	if b == nil {
		if b = t.add(ns, key); b == nil {
			t.untracked.Add(1)
			return Call{}, nil
		}
	}
	b.advance(t.slot(b, ns))
	i := class.index()
	if p := b.rejection(t.o.K, i); p > 0 && unit(t.o.Rand()) < p && !b.probe(i, ns, int64(t.o.Probe)) {
		b.count(i, kindRejected)
		return Call{}, &t.refusals[i]
	}
	b.sent(i, ns, int64(t.o.Probe))
	return Call{b, int8(i)}, nil
}

// unit makes a number in [0, 1) of random bits.
func unit(bits uint64) float64 { return float64(bits>>11) / (1 << 53) }

// slot returns the number of the tenth of a window that a time lies in, counted from
// the first request to the backend.
func (t *Throttle[K]) slot(b *backend, ns int64) int64 {
	return (ns - b.born) / t.width()
}

// width returns the length of a slot.
func (t *Throttle[K]) width() int64 { return (int64(t.o.Window)-1)/slots + 1 }

// add returns the backend of a key that was not there, nil if there is no room.
func (t *Throttle[K]) add(ns int64, key K) *backend {
	t.adding.Lock()
	defer t.adding.Unlock()
	old := *t.backends.Load()
	if b := old[key]; b != nil {
		return b
	}
	if len(old) >= t.o.Capacity && ns < t.sweep {
		return nil
	}
	t.sweep = ns + t.width()
	next := maps.Clone(old)
	maps.DeleteFunc(next, func(_ K, b *backend) bool { return b.idle(t.slot(b, ns)) })
	var b *backend
	if len(next) < t.o.Capacity {
		b = newBackend(ns)
		next[key] = b
	}
	t.backends.Store(&next)
	return b
}

// BackendStats says what a [Throttle] knows of a backend.
type BackendStats struct {
	// Accepted and Refused count the requests in the window that were done, Rejected
	// those that were not sent.
	Accepted, Refused, Rejected Counts

	// Rejection is the probability with which the next request is rejected, from 0 to
	// 1, by class, Background first.
	Rejection [classes]float64
}

// Backends returns what is known of each backend, in no order: a snapshot of the
// backends, with numbers read as the iteration goes. The window of a backend that is
// not asked for anything does not move.
func (t *Throttle[K]) Backends() iter.Seq2[K, BackendStats] {
	return func(yield func(K, BackendStats) bool) {
		for key, b := range *t.backends.Load() {
			if !yield(key, b.stats(t.o.K)) {
				return
			}
		}
	}
}

// Untracked returns how many requests were let through without being counted, since
// there were Capacity other backends. Anything but 0 means that it is too low, or that
// the keys are not backends.
func (t *Throttle[K]) Untracked() uint64 { return t.untracked.Load() }
