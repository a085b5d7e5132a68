package ratelimit

import (
	"context"
	"runtime"
	"time"
)

// Reservation is the promise of [Limiter.Reserve] or [Keyed.Reserve] that its units may
// be used once [Reservation.Delay] has passed. It is a small value: nothing is allocated
// for it, and a reservation that is used as it was made needs no further call.
//
// The zero value is a reservation of nothing, with no delay. A copy is the same
// reservation but does not know when the other is settled: settle one of them.
//
// Delay is safe for concurrent use by multiple goroutines; Cancel and Settle are not.
type Reservation struct {
	limiter *Limiter // or
	table   *table   // both nil once settled

	n        int64
	end      int64 // the word that the charge left
	refunded int64 // what was given back in the middle of the queue before the charge, or less
	act      int64 // when the units may be used, in nanoseconds from the epoch
	delayed  bool  // that was later than the charge

	state *state // of limiter
	slot  slot   // of table
}

// Reserve takes n units ahead of time. The units may be used when the reservation's
// Delay has passed; nothing that asks later is served earlier. A maxWait of zero or
// less accepts no delay, which is Take(n) with a way back.
//
// Returns a *LimitError, and charges nothing, when the delay would be longer than
// maxWait (ErrLimited) or when n is negative or above the burst (ErrNegative,
// ErrExceedsBurst). A wait is never longer than a frame of the limiter, which is 13
// days or more.
func (l *Limiter) Reserve(n int64, maxWait time.Duration) (Reservation, error) {
	r, _, err := l.reserve(n, maxWait, farAway)
	return r, err
}

// reserve takes n units that may be used at once, or after a delay of at most
// maxWait that ends before the deadline, in nanoseconds from the epoch.
func (l *Limiter) reserve(n int64, maxWait time.Duration, deadline int64) (Reservation, time.Duration, error) {
	for {
		ns := int64(time.Since(l.epoch))
		s, now := l.at(ns)
		refunded := s.refunded.Load() // before the word: rather too little
		word := s.word.Load()
		if word == frozen {
			runtime.Gosched()
			continue
		}
		end, delay, err := s.book(word, now, n, min(maxWait, time.Duration(deadline-ns-1)))
		if err != nil {
			return Reservation{}, 0, &LimitError{N: n, Limit: s.limit, RetryAfter: delay, Err: err}
		}
		if s.word.CompareAndSwap(word, end) {
			return Reservation{
				limiter: l, state: s, n: n, end: end, refunded: refunded, act: ns + int64(delay), delayed: delay > 0,
			}, delay, nil
		}
	}
}

// Delay returns how long to wait from now until the units may be used; zero if they
// may be used already, and if the reservation was settled or cancelled.
func (r *Reservation) Delay() time.Duration {
	switch {
	case r.limiter != nil:
		return max(0, time.Duration(r.act-int64(time.Since(r.limiter.epoch))))
	case r.table != nil:
		return max(0, time.Duration(r.act-int64(time.Since(r.table.epoch))))
	}
	return 0
}

// sleep sleeps for the delay, or until ctx has ended: then it cancels.
func (r *Reservation) sleep(ctx context.Context, delay time.Duration) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		r.Cancel()
		return ctx.Err()
	}
}

// Cancel says that the units were not used and will not be. It is Settle(0).
func (r *Reservation) Cancel() { r.Settle(0) }

// Settle says what was used in truth, when the units were an estimate: of the cost of a
// query, of the tokens of an answer. What was reserved and not used is given back, as
// far as nobody was promised anything that rests on it. What was used beyond it is
// charged, whether it is there or not: whoever comes next waits until the debt has flowed
// in. The debt is at most a frame of the limiter, 13 days or more. A negative actual is
// 0. Calling Settle again does nothing.
//
// If nothing was taken since, all that was not used is given back, whenever Settle is
// called. Otherwise the burst sets a limit. Suppose that the next in the queue was
// promised its units at 12:00: it still comes at 12:00, and if all that is given back
// could be taken by then as well, more than a burst might pass at once. So Settle gives
// back at most the burst less what was taken since, and at most what would have remained
// of this reservation's debt by now. After a change of limit only what nothing rested on
// is given back, and what was used beyond the estimate is charged at the new limit. With
// [NewKeyedBy] it is charged at the limit under which it was reserved.
//
// The units that are given back do not count as admitted, and the debt does.
func (r *Reservation) Settle(actual int64) {
	unused := r.n - max(actual, 0)
	l, t := r.limiter, r.table
	r.limiter, r.table = nil, nil
	switch {
	case l != nil && unused > 0:
		r.giveBack(l, unused)
	case l != nil && unused < 0:
		l.owe(-unused)
	case t != nil && unused > 0:
		t.giveBack(r, unused)
	case t != nil && unused < 0:
		t.owe(&r.slot, -unused)
	}
}

// owe charges n units whether they are there or not.
func (l *Limiter) owe(n int64) {
	for {
		s, now, word := l.read(int64(time.Since(l.epoch)))
		if s.word.CompareAndSwap(word, s.owing(word, now, n)) {
			return
		}
	}
}

// giveBack gives back n of the units. It takes hold of the word: between a look at it and
// a swap, others could charge as much as they give back, and bring it back to where it was.
func (r *Reservation) giveBack(l *Limiter, n int64) {
	for {
		s := r.state
		word := s.word.Load()
		if word == frozen {
			if next := s.next.Load(); next == nil {
				runtime.Gosched()
			} else if !r.follow(next) {
				return
			}
			continue
		}
		if !s.word.CompareAndSwap(word, frozen) {
			continue
		}
		back, middle := r.refund(&s.core, l.epoch, s.base, word, r.end, s.refunded.Load()-r.refunded, n)
		if middle {
			s.refunded.Add(back)
		}
		s.word.Store(word - back)
		return
	}
}

// refund returns the ticks that n of the units give back to a word, which nobody else can
// change meanwhile, and whether that is from the middle of the queue. What was given back
// from the middle since the charge is given.
func (r *Reservation) refund(c *core, epoch time.Time, base, word, end, given, n int64) (back int64, middle bool) {
	// Let T be the theoretical arrival time that would stand if every cancelled
	// reservation had never been. With charges of c units at the times t, T is
	// the maximum over all charges of t plus all c from that charge on. The word
	// must not fall below T. Without this reservation, the terms of the charges
	// before it shrink by its cost; the terms of the charges behind it do not
	// shrink at all, and bound what can be given back:
	//
	//   - a charge with a delay has t = end - tol, so its term is at most
	//     word - tol + everything charged behind this reservation;
	//   - a charge without delay, or a debt, had t <= now and began at or after
	//     r.end, so its term is at most word - r.end + now.
	//
	// What was given back since, from the middle of the queue, has lowered the
	// word without lowering these terms, and counts against them (given). Only what
	// the very last charge gives back is not counted: after it all is as if the charge
	// had never been, or had been smaller. But one that keeps a part and had to wait has
	// waited for its whole size: its t is later than end - tol.
	//
	// The clock is read while nobody can charge, so it is not earlier than any charge.
	behind := word + given - end
	back = min(mulDiv(n, c.cost, 1), word-lowest)
	if behind != 0 {
		now := c.clamp(int64(time.Since(epoch)) - base)
		back = min(back, c.tol-behind-given, end-now-given)
	}
	return max(0, back), behind != 0 || r.delayed && n < r.n
}

// follow finds the place of r in the state that took the place of its own, and
// reports whether there is one.
func (r *Reservation) follow(next *state) bool {
	s := r.state
	switch {
	case next.limit == s.limit && next.initial != lowest: // another frame
		r.end -= (next.base - s.base) * s.scale
	case s.final+s.refunded.Load()-r.refunded == r.end: // another limit, and r was the last charge
		r.end, r.refunded = next.initial, 0
	default:
		return false
	}
	r.state = next
	return true
}

// clamp converts nanoseconds from the base to ticks, at the nearer end of the frame
// if they lie outside.
func (c *core) clamp(ns int64) int64 { return min(max(ns, -c.span), c.span) * c.scale }
