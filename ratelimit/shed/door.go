package shed

import (
	"context"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed/internal/gate"
)

type (
	waiter = gate.Waiter[chan struct{}]
	chain  = gate.Chain[chan struct{}]
)

// door is what Concurrency and Adaptive have in common: the engine, its lock, and
// goroutines that wait at it.
type door struct {
	epoch time.Time // immutable

	// refusals has an error for every class and reason, so that to refuse allocates
	// nothing. Immutable.
	refusals [classes][Outranked + 1]Error

	mu     sync.Mutex
	engine *gate.Gate[chan struct{}]
	queue  bool // immutable
}

func (d *door) init(limit int, reserve float64, q Queue) {
	d.epoch = time.Now()
	d.queue = q.Max > 0
	d.engine = gate.New[chan struct{}](gate.Options{
		Limit: limit, Reserve: reserve, Max: q.Max, Target: q.Target, Interval: q.Interval,
	})
	for class := range d.refusals {
		for reason := range d.refusals[class] {
			d.refusals[class][reason] = Error{Class: Class(class) + Background, Reason: Reason(reason)}
		}
	}
}

// now must not be called before init.
func (d *door) now() time.Duration { return time.Since(d.epoch) }

func (d *door) refusal(class int, reason gate.Reason) error { return &d.refusals[class][reason] }

// tryEnter lets a request in, or refuses it.
func (d *door) tryEnter(class int) error {
	d.mu.Lock()
	if d.engine.Admit(class) {
		d.mu.Unlock()
		return nil
	}
	reason := d.engine.Refuse(class)
	d.mu.Unlock()
	return d.refusal(class, reason)
}

// enter is tryEnter for a request that would wait.
func (d *door) enter(ctx context.Context, class int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !d.queue {
		return d.tryEnter(class)
	}
	d.mu.Lock()
	if d.engine.Admit(class) {
		d.mu.Unlock()
		return nil
	}
	d.mu.Unlock()
	return d.wait(ctx, class)
}

// wait puts a request into the queue and waits for what becomes of it.
func (d *door) wait(ctx context.Context, class int) error {
	gone := ctx.Done() // before the request is queued: it is foreign code
	d.mu.Lock()
	if d.engine.Admit(class) { // something got free between the locks
		d.mu.Unlock()
		return nil
	}
	now := d.now()
	reason, settled := d.engine.Room(now, class)
	if reason != gate.None {
		wake(settled)
		d.mu.Unlock()
		return d.refusal(class, reason)
	}
	w := &waiter{Value: make(chan struct{}, 1)}
	d.engine.Enqueue(now, class, w)
	wake(settled)
	d.mu.Unlock()

	timer := time.NewTimer(w.Deadline() - now)
	defer timer.Stop()
	select {
	case <-w.Value:
		return d.verdict(w)
	case <-timer.C:
		d.expire(w)
		return d.verdict(w)
	case <-gone:
		if !d.abandon(w) {
			return d.verdict(w)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return context.Canceled // foreign code: without an error this would be a permit
	}
}

// verdict is the answer to a waiter that was settled.
func (d *door) verdict(w *waiter) error {
	if w.State() == gate.Started {
		return nil
	}
	return d.refusal(w.Class(), w.Reason())
}

// expire settles w, whose time is over, unless something else was faster.
func (d *door) expire(w *waiter) {
	d.mu.Lock()
	wake(d.engine.Expire(max(d.now(), w.Deadline())))
	d.mu.Unlock()
}

// abandon takes w out of the queue because its caller went away. When it has started
// just now, its place goes to the next one. It reports false when w was refused first.
func (d *door) abandon(w *waiter) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.engine.Remove(w) {
		return true
	}
	if w.State() != gate.Started {
		return false
	}
	wake(d.engine.Leave(d.now()))
	return true
}

// leave ends a request in progress.
func (d *door) leave() {
	d.mu.Lock()
	if d.engine.Waiting() == 0 {
		d.engine.Leave(0) // nobody waits, so the time does not matter
	} else {
		wake(d.engine.Leave(d.now()))
	}
	d.mu.Unlock()
}

// wake tells the waiters that they are settled. It runs under mu; their channels have
// room.
func wake(settled chain) {
	for w := settled.Pop(); w != nil; w = settled.Pop() {
		w.Value <- struct{}{}
	}
}
