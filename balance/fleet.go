package balance

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// fleet is what a balancer knows of its backends together, and does about the
// failures of each. It is not generic: the nodes point to it.
//
// Nothing in it runs in the background. Whatever has to happen at a time happens in
// the first pick after it: due says when that is, and while it says anything, picks
// look at the clock.
type fleet struct {
	clock    func() time.Duration
	classify func(error) Outcome
	onChange func(id string, s State)
	health   Health
	decay    time.Duration // of latencies

	fading    scale // by decay
	forgiving scale // by health.Penalty
	pool      *pool // of Prequal

	// due is the time of the next thing to do, or never. Whoever makes something due
	// sets an earlier time; only attend, under mu, sets a later one.
	due atomic.Int64

	// penalised is the time when the last penalty will have faded.
	penalised atomic.Int64

	// mean is that of the latencies of members, in seconds.
	mean    sample
	members atomic.Pointer[[]reached] // those in this client's subset

	mu      sync.Mutex
	rebuild func(now time.Duration) // makes the set that is picked from; call with mu held
	changes []change                // to report once mu is free
}

const never = math.MaxInt64

type change struct {
	id    string
	state State
}

// record is the part of a node that few requests touch.
type record struct {
	fleet *fleet // immutable
	id    string // immutable

	// The fleet's mu guards what follows.
	reached  bool          // whether it is one of the fleet's members
	ejected  time.Duration // until when; 0 if it is not
	admitted time.Duration // when it was last ejected no longer
	backoff  int           // how many times BaseEjection the last ejection lasted
	warming  bool
	warmFrom time.Duration

	mu     sync.Mutex
	window window
}

// window counts the outcomes of one interval, by what the counts were at its start.
type window struct {
	start    time.Duration
	ended    int64
	failures int64
}

func (f *fleet) setDue(at time.Duration) {
	for {
		due := f.due.Load()
		if int64(at) >= due || f.due.CompareAndSwap(due, int64(at)) {
			return
		}
	}
}

// settle judges the end of a request.
func (f *fleet) settle(n *node, state pickState, err error) {
	now := f.clock()
	outcome := Success
	if err != nil {
		outcome = f.classify(err)
	}
	if state&timed != 0 {
		latency := max(now-state.start(), 1)
		if outcome == Success {
			f.learn(n, latency, now)
		} else {
			f.learnAtLeast(n, latency, now)
		}
	}
	switch outcome {
	case Success:
		if n.streak.Load() != 0 {
			n.streak.Store(0)
		}
	case Failure:
		f.failed(n, now, err)
	}
}

// failed counts a failure, and acts on it.
func (f *fleet) failed(n *node, now time.Duration, err error) {
	failures, streak := n.failures.Add(1), int(n.streak.Add(1))
	f.penalise(n, now)
	if f.pool != nil {
		f.pool.forget(n)
	}
	wish, c := max(retryAfter(err), 0), f.health.Consecutive
	if wish > 0 || c > 0 && streak%c == 0 || f.tooFewSucceed(n, failures, now) {
		f.eject(n, now, wish)
	}
}

func retryAfter(err error) time.Duration {
	type asker interface {
		error
		RetryAfter() time.Duration
	}
	if e, ok := errors.AsType[asker](err); ok {
		return e.RetryAfter()
	}
	return 0
}

// leastPenalty is what counts as none. A penalty of ten requests takes faded times its
// scale to become that.
const (
	leastPenalty = 0.01
	faded        = 7
)

// penalise adds a request to the load of a node, which fades.
//
// By Little's law a penalty that fades to 1/e in Penalty weighs, over all time, as
// much as a request that takes so long.
func (f *fleet) penalise(n *node, now time.Duration) {
	scale := f.health.Penalty
	if scale == 0 {
		return
	}
	for {
		word := n.penalty.word.Load()
		if n.penalty.word.CompareAndSwap(word, pack(1+f.penaltyOf(word, now), now)) {
			break
		}
	}
	// Setting the end anew for each failure would make all failures write to one line.
	if end := int64(now + faded*scale); f.penalised.Load() < end-int64(scale) {
		f.penalised.Store(end)
	}
	f.setDue(now + faded*scale)
}

func (f *fleet) penaltyOf(word uint64, now time.Duration) float64 {
	if word == 0 {
		return 0
	}
	return f.fadedPenalty(word, now)
}

func (f *fleet) fadedPenalty(word uint64, now time.Duration) float64 {
	value, age := unpack(word, now)
	if value *= f.forgiving.left(age); value < leastPenalty {
		return 0 // or it would lose ties for ever
	}
	return value
}

// tooFewSucceed reports whether the success rate of a node, one more of whose
// requests failed, is too low.
func (f *fleet) tooFewSucceed(n *node, failures int64, now time.Duration) bool {
	if f.health.SuccessRate == 0 {
		return false
	}
	ended := n.ended() + 1 // this one is about to
	n.mu.Lock()
	defer n.mu.Unlock()
	w := &n.window
	if now-w.start >= f.health.Interval || ended < w.ended {
		*w = window{start: now, ended: ended - 1, failures: failures - 1}
	}
	of, bad := ended-w.ended, failures-w.failures
	return of >= int64(f.health.Volume) && float64(of-bad) < f.health.SuccessRate*float64(of)
}

// eject takes a node out of the set, if the bounds allow it: for d or, if that is 0,
// for as long as its history asks.
func (f *fleet) eject(n *node, now, d time.Duration) {
	f.mu.Lock()
	if !n.reached || n.ejected > now || f.ejected(now) >= f.health.maxEjected(len(*f.members.Load())) {
		f.mu.Unlock()
		return
	}
	h := &f.health
	if d == 0 {
		longest := int((h.MaxEjection + h.BaseEjection - 1) / h.BaseEjection)
		forgiven := int((now - n.admitted) / h.BaseEjection)
		n.backoff = min(max(0, n.backoff-forgiven)+1, longest)
		d = h.BaseEjection * time.Duration(n.backoff)
	}
	n.ejected = now + min(d, h.MaxEjection)
	n.warming = false
	f.changes = append(f.changes, change{n.id, Ejected})
	f.refresh(now, true)
	f.unlock()
}

// ejected is the number of members that are ejected; call it with mu held.
func (f *fleet) ejected(now time.Duration) (count int) {
	for _, n := range *f.members.Load() {
		if n.ejected > now {
			count++
		}
	}
	return count
}

// now returns the time, having done what is due, if anything will be or the caller
// needs to know, and otherwise calm.
func (f *fleet) now(needed bool) time.Duration {
	due := f.due.Load()
	if due == never && !needed {
		return calm
	}
	now := f.clock()
	if int64(now) >= due {
		f.attend(now)
	}
	return now
}

// attend does what is due. Of several picks that find something due one does it; the
// others go on with what is there.
func (f *fleet) attend(now time.Duration) {
	if !f.mu.TryLock() {
		return
	}
	if int64(now) >= f.due.Load() {
		f.refresh(now, false)
	}
	f.unlock()
}

// refresh does what is due, makes the set that is picked from anew if that or the
// caller changed anything, and finds what is due next. Call it with mu held.
func (f *fleet) refresh(now time.Duration, changed bool) {
	next := int64(never)
	for _, n := range *f.members.Load() {
		if n.ejected != 0 && n.ejected <= now {
			f.admit(n.node, now)
			changed = true
		}
		if n.warming && now-n.warmFrom >= f.health.SlowStart {
			n.warming = false
			f.changes = append(f.changes, change{n.id, Healthy})
			changed = true
		}
		if n.ejected != 0 {
			next = min(next, int64(n.ejected))
		}
		if n.warming {
			next = min(next, int64(n.warmFrom+f.health.SlowStart))
		}
	}
	if changed {
		f.rebuild(now)
	}
	f.due.Store(next)
	// Only now: a failure that came in between has set another end, and found something
	// due.
	if end := f.penalised.Load(); end > int64(now) {
		f.setDue(time.Duration(end))
	}
}

// admit ends an ejection; call it with mu held.
func (f *fleet) admit(n *node, now time.Duration) {
	n.ejected, n.admitted = 0, now
	n.streak.Store(0)
	n.mu.Lock()
	n.window = window{start: now, ended: n.ended(), failures: n.failures.Load()}
	n.mu.Unlock()
	state := Healthy
	if f.health.SlowStart > 0 {
		n.warming, n.warmFrom = true, now
		state = Warming
	}
	f.changes = append(f.changes, change{n.id, state})
}

// unlock unlocks mu and reports what has changed.
func (f *fleet) unlock() {
	changes := f.changes
	f.changes = nil
	f.mu.Unlock()
	if f.onChange == nil {
		return
	}
	for _, c := range changes {
		f.onChange(c.id, c.state)
	}
}
