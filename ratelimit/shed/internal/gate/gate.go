// Package gate is the engine of shed's gates: a limit on what is in progress, a share
// of it that is reserved for the highest class, and a bounded queue by class.
//
// It is a state machine without a clock, a lock or a goroutine. The caller says what
// happens and when, tells the waiters that come back how it went, and lets one
// goroutine in at a time. So the same code runs under shed's locks, and in a simulator
// on a virtual clock.
package gate

import "time"

// Classes is the number of classes. They are numbered from 0, the least important.
const Classes = 4

// Top is the class for which the reserve is.
const Top = Classes - 1

// Reason says why a request was refused. The numbers are those of shed.Reason.
type Reason uint8

const (
	None      Reason = iota
	Full             // everything is in progress, and there is no queue, or it is full
	Reserved         // what is free is reserved for the highest class
	Expired          // it waited in the queue until its deadline
	Outranked        // a request of a higher class took its place in the queue
	reasons
)

// Options configure a Gate. The caller has checked them.
type Options struct {
	Limit   int     // how many may be in progress, 1 or more
	Reserve float64 // the share that only the highest class may use, 0 to below 1
	Max     int     // how many may wait, 0 for none

	Target   time.Duration // the time that a request may wait in a standing queue
	Interval time.Duration // a queue that was never empty for that long is standing
}

// Counts counts the requests of a class by what became of them.
type Counts struct {
	Admitted  uint64          // started, at once or from the queue
	Cancelled uint64          // taken out of the queue with Remove
	Refused   [reasons]uint64 // by Reason
}

// Gate is the engine. Times are distances from any fixed moment; one that is earlier
// than a time seen before is taken for that. The order of things:
//
//   - A request is admitted when fewer than the limit are in progress, or, below the
//     highest class, fewer than the limit without the reserve.
//   - Otherwise it waits, if there is room. A full queue makes room for a higher class:
//     it drops the request that would be served last of the lowest class that waits.
//   - What gets free goes to the highest class that waits and may use it. Within a
//     class the oldest is served first, or the newest once the queue is standing.
//   - A class's queue is standing when this class and those above it were not without
//     waiters for an interval. Requests may then wait for the target; before, for
//     what is left of the interval, and at least the target.
//
// The last rule is the controlled delay and the adaptive LIFO of "Fail at Scale" (Maurer,
// ACM Queue 2015). While a request waits, the moment at which the queue was last empty
// stays what it is, so its deadline is known when it arrives, and deadlines are in the
// order of arrival. And since the queue of a higher class is standing only when those
// of all lower ones are, no request outlives in the queue one of a higher class that
// came later.
//
// Every operation takes time in the number of classes, and in the number of waiters
// that it settles. None allocates.
type Gate[T any] struct {
	limit, shared int // shared is the limit without the reserve
	inflight      int
	waiting       int
	now           time.Duration
	queues        [Classes]list[T]
	length        [Classes]int
	empty         [Classes]time.Duration // when this class and those above it last had no waiters
	counts        [Classes]Counts
	options       Options
}

// New returns a gate.
func New[T any](o Options) *Gate[T] {
	g := &Gate[T]{options: o}
	g.setLimit(o.Limit)
	return g
}

// Limit returns the limit.
func (g *Gate[T]) Limit() int { return g.limit }

// InFlight returns how many requests are in progress.
func (g *Gate[T]) InFlight() int { return g.inflight }

// Waiting returns how many requests wait.
func (g *Gate[T]) Waiting() int { return g.waiting }

// WaitingOf returns how many requests of a class wait.
func (g *Gate[T]) WaitingOf(class int) int { return g.length[class] }

// Counts returns the counts of a class.
func (g *Gate[T]) Counts(class int) Counts { return g.counts[class] }

// Admit starts a request if the limit allows it at once, and reports whether it did.
// It needs no time: requests wait only when nothing is free that they may use, so there
// is nobody to overtake.
func (g *Gate[T]) Admit(class int) bool {
	if g.inflight >= g.bound(class) {
		return false
	}
	g.inflight++
	g.counts[class].Admitted++
	return true
}

// Refuse counts a request that Admit did not start and that does not want to wait.
func (g *Gate[T]) Refuse(class int) Reason {
	reason := Full
	if g.inflight < g.limit {
		reason = Reserved
	}
	g.counts[class].Refused[reason]++
	return reason
}

// Room makes room in the queue for a request that Admit did not start. It returns
// None, after which Enqueue must follow, or the reason why there is none. The chain
// is of those that had to go.
func (g *Gate[T]) Room(now time.Duration, class int) (Reason, Chain[T]) {
	if g.options.Max == 0 {
		return g.Refuse(class), Chain[T]{}
	}
	settled := g.Expire(now)
	if g.waiting < g.options.Max {
		return None, settled
	}
	for lower := range class {
		if g.length[lower] > 0 {
			g.drop(g.last(lower), Outranked, &settled)
			return None, settled
		}
	}
	return g.Refuse(class), settled
}

// Enqueue puts w into the queue, where Room has made room for it.
func (g *Gate[T]) Enqueue(now time.Duration, class int, w *Waiter[T]) {
	g.advance(now)
	for c := Top; c >= 0 && g.length[c] == 0; c-- {
		g.empty[c] = g.now
	}
	w.class, w.state, w.reason = int8(class), Queued, None
	w.deadline = max(g.empty[class]+g.options.Interval, g.now+g.options.Target)
	g.queues[class].push(w)
	g.length[class]++
	g.waiting++
}

// Arrive is Admit, Room and Enqueue in one: the request is Started, Queued or Refused
// afterwards, as the state of w says.
func (g *Gate[T]) Arrive(now time.Duration, class int, w *Waiter[T]) Chain[T] {
	if g.Admit(class) {
		g.advance(now)
		w.class, w.state, w.started = int8(class), Started, g.now
		return Chain[T]{}
	}
	reason, settled := g.Room(now, class)
	if reason != None {
		w.class, w.state, w.reason = int8(class), Refused, reason
		return settled
	}
	g.Enqueue(now, class, w)
	return settled
}

// Leave ends a request in progress. The chain is of those that start in its place, and
// of those that had to go. It does nothing when nothing is in progress.
func (g *Gate[T]) Leave(now time.Duration) (settled Chain[T]) {
	g.advance(now)
	if g.inflight == 0 {
		return settled
	}
	g.inflight--
	if g.waiting > 0 {
		settled = g.Expire(now)
		g.start(&settled)
	}
	return settled
}

// Expire drops those whose deadline has come.
func (g *Gate[T]) Expire(now time.Duration) (settled Chain[T]) {
	g.advance(now)
	for c := range g.queues {
		for w := g.queues[c].oldest; w != nil && w.deadline <= g.now; w = g.queues[c].oldest {
			g.drop(w, Expired, &settled)
		}
	}
	return settled
}

// Remove takes a waiter out of the queue whose request was cancelled, and reports
// whether it was Queued. If it was Started, the caller still owes the Leave.
func (g *Gate[T]) Remove(w *Waiter[T]) bool {
	if w.state != Queued {
		return false
	}
	g.unlink(w)
	w.state = Idle
	g.counts[w.class].Cancelled++
	return true
}

// SetLimit changes the limit. The chain is of those that start when it rises. When
// it falls below what is in progress, nothing starts until enough has left.
func (g *Gate[T]) SetLimit(now time.Duration, limit int) (settled Chain[T]) {
	g.advance(now)
	g.setLimit(limit)
	if g.waiting > 0 {
		settled = g.Expire(now)
		g.start(&settled)
	}
	return settled
}

func (g *Gate[T]) setLimit(limit int) {
	g.limit = limit
	// The reserve is rounded down: a limit of one is for everybody. The small addend makes
	// a hundredth of a hundred one, in spite of binary fractions.
	reserved := int(float64(limit)*g.options.Reserve + 1e-9)
	g.shared = max(1, limit-reserved)
}

// bound returns how many may be in progress for a request of the class to start.
func (g *Gate[T]) bound(class int) int {
	if class == Top {
		return g.limit
	}
	return g.shared
}

func (g *Gate[T]) advance(now time.Duration) { g.now = max(g.now, now) }

// standing reports whether those who wait in the class are served newest first.
func (g *Gate[T]) standing(class int) bool {
	return g.now-g.empty[class] >= g.options.Interval
}

// first returns the waiter of a class that is served next, last the one that would be
// served after all others.
func (g *Gate[T]) first(class int) *Waiter[T] {
	if g.standing(class) {
		return g.queues[class].newest
	}
	return g.queues[class].oldest
}

func (g *Gate[T]) last(class int) *Waiter[T] {
	if g.standing(class) {
		return g.queues[class].oldest
	}
	return g.queues[class].newest
}

// start starts whoever may start.
func (g *Gate[T]) start(settled *Chain[T]) {
	for c := Top; c >= 0; c-- {
		for g.length[c] > 0 && g.inflight < g.bound(c) {
			w := g.first(c)
			g.unlink(w)
			g.inflight++
			g.counts[c].Admitted++
			w.state, w.started = Started, g.now
			settled.push(w)
		}
	}
}

func (g *Gate[T]) drop(w *Waiter[T], reason Reason, settled *Chain[T]) {
	g.unlink(w)
	w.state, w.reason = Refused, reason
	g.counts[w.class].Refused[reason]++
	settled.push(w)
}

func (g *Gate[T]) unlink(w *Waiter[T]) {
	g.queues[w.class].remove(w)
	g.length[w.class]--
	g.waiting--
}
