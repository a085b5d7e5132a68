package ratelimit

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Limiter lets units pass up to a [Limit]: a token bucket, kept as the generic
// cell rate algorithm (GCRA) in one atomic word.
//
// In every window of time of length w it admits at most burst + w*n/d units,
// whatever the number of goroutines and in whatever order their clock readings
// arrive: the word only moves forward, so a clock that goes back refuses and
// never grants. Units given back by [Reservation.Cancel] do not count.
//
// Most callers use [Limiter.Allow], which refuses what is above the limit.
// [Limiter.Take] does the same for several units and says how much is left and
// when to come again. [Limiter.Wait] sleeps instead of refusing. [Limiter.Reserve]
// is for those who sleep in their own way.
//
// A Limiter must come from [NewLimiter] and must not be copied. It counts time
// from its creation on the monotonic clock; under testing/synctest create it in
// the bubble that uses it.
//
// Allow costs one reading of the monotonic clock and one compare-and-swap, and a
// refusal writes nothing. Nothing is allocated, except for a sleep in Wait, for the
// error of Wait and Reserve, and for a change of limit.
//
// A Limiter is safe for concurrent use by multiple goroutines.
type Limiter struct {
	state atomic.Pointer[state]
	epoch time.Time // immutable
	id    uint64    // immutable: the place in the order in which All takes hold

	mu sync.Mutex // serialises the replacement of state
}

// state is a word together with all that gives it a meaning. A change of limit, or
// of frame, freezes the word and puts a new state in place, so that no charge can
// mix the two. The first fields share a cache line: who needs the word needs the
// others.
type state struct {
	word atomic.Int64

	// Immutable.
	base int64 // the middle of the frame, in nanoseconds from epoch
	core
	limit   Limit
	initial int64 // the first word

	// refunded sums up what was given back from the middle of the queue, in
	// ticks. It is raised while the word is frozen; see Reservation.refund.
	refunded atomic.Int64

	// next is set once the word is frozen; final, written before, is the word
	// that was there then.
	next  atomic.Pointer[state]
	final int64
}

// NewLimiter returns a limiter that starts with a full burst. Returns an error that
// wraps ErrInvalidLimit when the limit cannot be kept.
func NewLimiter(limit Limit) (*Limiter, error) {
	c, err := limit.compile()
	if err != nil {
		return nil, err
	}
	l := &Limiter{epoch: time.Now(), id: nextID()}
	l.state.Store(newState(limit, c, 0, unused))
	return l, nil
}

func newState(limit Limit, c core, base, word int64) *state {
	s := &state{core: c, limit: limit, base: base, initial: word}
	s.word.Store(word)
	return s
}

// Allow takes one unit and reports whether it was there. It is Take(1) without the
// details.
func (l *Limiter) Allow() bool {
	s := l.state.Load()
	ns := int64(time.Since(l.epoch)) - s.base
	if s.inFrame(ns) {
		now := ns * s.scale
		for {
			word := s.word.Load()
			next, ok := s.admits(word, now, 1)
			if !ok {
				if word == frozen {
					break
				}
				return false
			}
			if s.word.CompareAndSwap(word, next) {
				return true
			}
		}
	}
	return l.Take(1).Allowed
}

// Take takes n units if they are all there, and none otherwise. Taking 0 units is
// always allowed and charges nothing. A negative n, or one above the burst, is
// refused with a negative RetryAfter.
func (l *Limiter) Take(n int64) (d Decision) {
	l.take(&d, int64(time.Since(l.epoch)), n)
	return d
}

// TakeAt is Take at a time of the caller's choice: for replays, for simulations, and
// for callers who have read the clock already. The times need not be in order: an
// earlier one is refused what later ones have used up. A time that lies more than
// 13 days before the latest may be treated as lying 13 days before it, which
// is refused too.
//
// Do not mix times of another time line with the methods that read the clock: after
// a TakeAt in the next century they refuse until then.
func (l *Limiter) TakeAt(now time.Time, n int64) (d Decision) {
	ns := sinceEpoch(l.epoch, now)
	// What take does for most calls, without it: that is a quarter of the time.
	s := l.state.Load()
	if since := ns - s.base; s.inFrame(since) && n > 0 && s.possible(n) {
		word, at := s.word.Load(), since*s.scale
		if next, ok := s.admits(word, at, n); ok && s.word.CompareAndSwap(word, next) {
			d.Allowed, d.Limit = true, s.burst
			d.Remaining, d.ResetAfter = s.rest(next - at)
			return d
		}
	}
	l.take(&d, ns, n)
	return d
}

// TakeUpTo takes as many of n units as are there, and returns their number. The Decision
// is that of Take for this number, or, if it is zero and n is not, that of Take(1). A
// negative n is refused with a negative RetryAfter.
func (l *Limiter) TakeUpTo(n int64) (granted int64, d Decision) {
	ns := int64(time.Since(l.epoch))
	for {
		s, now, word := l.read(ns)
		granted = min(n, s.free(word, now))
		if granted <= 0 {
			s.decide(&d, word, now, min(n, 1), n == 0)
			return 0, d
		}
		if next, ok := s.admits(word, now, granted); ok && s.word.CompareAndSwap(word, next) {
			s.decide(&d, word, now, granted, true)
			return granted, d
		}
	}
}

// Peek tells what Take(n) would answer now, and charges nothing: Remaining and
// ResetAfter are what they are without it.
func (l *Limiter) Peek(n int64) (d Decision) {
	s, now, word := l.read(int64(time.Since(l.epoch)))
	s.foresee(&d, word, now, n)
	return d
}

// farAway is a time, in nanoseconds from an epoch, that never comes.
const farAway = 1<<62 - 1

// sinceEpoch returns the nanoseconds from epoch to t, at most 146 years either way
// so that differences cannot overflow.
func sinceEpoch(epoch, t time.Time) int64 {
	return min(max(int64(t.Sub(epoch)), -farAway), farAway)
}

// Limit returns the limit in force.
func (l *Limiter) Limit() Limit { return l.state.Load().limit }

// SetLimit changes the limit. What is free is carried over: as many units can be
// taken right after the change as right before it, or the new burst if that is
// less; a raised burst fills up at the new rate. A debt to those who wait is
// carried over as well, and what they were promised stands. A limiter that was
// never used starts with the new burst.
//
// Returns an error that wraps ErrInvalidLimit, and changes nothing, when the limit
// cannot be kept. It allocates one state; those who take at the same moment wait
// for it for some nanoseconds. It reads the clock: a replay by TakeAt in another time line
// needs a new limiter instead.
func (l *Limiter) SetLimit(limit Limit) error {
	c, err := limit.compile()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.state.Load()
	if old.limit == limit {
		return nil
	}
	// The clock is read once nobody can charge the old word any more: so it is
	// not earlier than any charge in it.
	word := old.hold()
	ns := int64(time.Since(l.epoch))
	s := newState(limit, c, ns, old.convert(word, old.clamp(ns-old.base), &c, 0))
	l.replace(old, word, s)
	return nil
}

// hold freezes the word and returns what it was. The caller puts a word back, or a
// successor in place, within some nanoseconds: meanwhile nobody else gets at the word.
func (s *state) hold() int64 {
	for {
		word := s.word.Load()
		if word == frozen {
			runtime.Gosched() // All has hold of it
		} else if s.word.CompareAndSwap(word, frozen) {
			return word
		}
	}
}

// replace puts s in the place of old, whose word was frozen. It runs under mu.
func (l *Limiter) replace(old *state, final int64, s *state) {
	old.final = final
	old.next.Store(s)
	l.state.Store(s)
}

// take is Take at ns nanoseconds from the epoch.
func (l *Limiter) take(d *Decision, ns, n int64) {
	for {
		s, now, word := l.read(ns)
		if n == 0 || !s.possible(n) {
			s.decide(d, word, now, n, n == 0)
			return
		}
		next, ok := s.admits(word, now, n)
		if !ok || s.word.CompareAndSwap(word, next) {
			s.decide(d, word, now, n, ok)
			return
		}
	}
}

// read returns the state, ns in ticks of its frame, and the word, once nobody has hold of
// it.
func (l *Limiter) read(ns int64) (s *state, now, word int64) {
	for {
		s, now = l.at(ns)
		if word = s.word.Load(); word != frozen {
			return s, now, word
		}
		runtime.Gosched() // it, or a successor, is a few instructions away
	}
}

// at returns the state, and ns in ticks of its frame.
func (l *Limiter) at(ns int64) (*state, int64) {
	s := l.state.Load()
	if since := ns - s.base; s.inFrame(since) {
		return s, since * s.scale
	}
	return l.reframe(ns)
}

// reframe moves the frame so that ns is its middle. It does so when a limiter has
// lived longer than a frame, 13 days with the finest ticks and 36 years with
// the coarsest, or when TakeAt brings times from elsewhere. If the frame cannot be
// moved, because what was charged lies too far ahead of ns, the time is past.
func (l *Limiter) reframe(ns int64) (*state, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.state.Load()
	if old.inFrame(ns - old.base) {
		return old, (ns - old.base) * old.scale
	}
	word := old.hold()
	moved, ok := old.shift(word, ns-old.base)
	if !ok {
		old.word.Store(word) // nobody can have changed it: frozen refuses all
		return old, past
	}
	s := newState(old.limit, old.core, ns, moved)
	s.refunded.Store(old.refunded.Load())
	l.replace(old, word, s)
	return s, 0
}

// Wait takes n units, sleeping until they are there. Those who wait are served in
// the order in which they asked, and nothing that asks later, be it Allow or one
// unit, overtakes them. Only units that somebody gave back may reach a later and
// smaller request first; those who wait come at the times they were promised.
//
// It charges nothing and returns at once when ctx has ended (the error is
// ctx.Err()), when ctx would end before the units are there or in the same moment
// (a *LimitError that wraps ErrLimited), or when n is negative or above the burst
// (ErrNegative, ErrExceedsBurst). When ctx ends during the sleep it returns
// ctx.Err() and gives the units back as [Reservation.Cancel] does.
func (l *Limiter) Wait(ctx context.Context, n int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, delay, err := l.reserve(n, farAway, deadlineOf(ctx, l.epoch))
	if err != nil || delay <= 0 {
		return err
	}
	return r.sleep(ctx, delay)
}

// deadlineOf returns when ctx ends, in nanoseconds from epoch.
func deadlineOf(ctx context.Context, epoch time.Time) int64 {
	if t, ok := ctx.Deadline(); ok {
		return sinceEpoch(epoch, t)
	}
	return farAway
}
