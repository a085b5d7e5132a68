package outbox

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"time"
)

// A session drains the buckets of a claim, until they change.
//
// One goroutine, that of run, decides everything and touches everything here. It
// starts two kinds of others and hears from them by channels: calls of Publish,
// as many as Options.Concurrency, and one step of the database at a time, beside
// which deliveries are acknowledged. So the next messages are read, and the last
// ones acknowledged, while the ones between are being published.
type session struct {
	*Outbox
	s     store
	p     Publisher
	claim claim
	once  bool // end when nothing is due

	*turns
	busy    map[keyed]struct{} // being published, or decided on and not written down
	failing map[keyed]struct{} // of these: those whose messages wait from now on
	pending []decision         // to be written down
	writing int                // decisions that are being written down
	acking  []decision         // those of an acknowledgement beside a step
	calls   map[int][]*entry   // that run, by a number of their own

	stepping   bool
	steps      chan outcome
	publishes  chan published
	serial     int  // of the last call
	exited     bool // the Publisher ended its goroutine
	delivered  int
	gone       chan struct{}   // closed when nobody listens to the channels any more
	ctx        context.Context // ends with Run's, or with the lease
	cancel     context.CancelCauseFunc
	patience   *time.Timer // ends ctx
	stopping   bool        // begins nothing more
	stopReason error

	pace
	knowledge
}

// A published is the result of a call of Publish.
type published struct {
	call    int
	q       *queue
	entries []*entry
	results []*diagnosis // nil if the Publisher ended its goroutine
	took    time.Duration
}

// errRebalance ends a session because the buckets should be shared anew.
var errRebalance = errors.New("outbox: buckets are shared anew")

// session drains the buckets of a claim and returns how many messages were
// delivered, and why it ended.
func (o *Outbox) session(ctx context.Context, st store, p Publisher, c claim, ord order, once bool) (int, error) {
	s := &session{Outbox: o, s: st, p: p, claim: c, once: once, turns: newTurns(&o.o)}
	s.order = ord
	s.rescanAt = time.Now().Add(rescanEvery)
	err := s.run(ctx)
	return s.delivered, err
}

// run drains until ctx ends, the lease is lost, an error lasts or, with once,
// nothing is due. It returns why, nil only for the last.
func (s *session) run(ctx context.Context) error {
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	defer s.cancel(nil)
	s.gone = make(chan struct{})
	defer close(s.gone)
	s.steps, s.publishes = make(chan outcome, 2), make(chan published, 1)
	s.busy, s.failing, s.calls = map[keyed]struct{}{}, map[keyed]struct{}{}, map[int][]*entry{}
	alarm := s.alarms.set()
	defer s.alarms.remove(alarm)
	timer := time.NewTimer(0)
	defer timer.Stop()
	done := s.ctx.Done()
	for {
		if s.ctx.Err() != nil {
			s.stop(context.Cause(s.ctx))
			done = nil
		}
		s.dispatch()
		s.step()
		if s.idle() && (s.stopping || s.once && s.nothingDue()) {
			return s.end()
		}
		timer.Reset(s.untilNext())
		select {
		case p := <-s.publishes:
			s.published(p)
		case o := <-s.steps:
			s.stepped(o)
		case <-timer.C:
		case <-alarm.c:
			s.woken = true
			s.alarmed = s.alarmed || alarm.waiting.Swap(false)
		case <-done:
		}
	}
}

// stop lets what has begun end, and begins nothing more.
func (s *session) stop(reason error) {
	if !s.stopping {
		s.stopping, s.stopReason = true, reason
	}
}

func (s *session) idle() bool { return !s.stepping && s.acking == nil && len(s.calls) == 0 }

// nothingDue reports that everything there is has been looked at, and nothing
// was found.
func (s *session) nothingDue() bool {
	if len(s.pending) > 0 {
		return false
	}
	for _, q := range s.queues {
		if len(q.entries) > 0 || q.more || q.waits {
			return false
		}
	}
	return true
}

// end writes down what is left, and ends the goroutine if the Publisher wanted
// to end its own.
func (s *session) end() error {
	if s.patience != nil {
		s.patience.Stop()
	}
	if err := s.flush(); err != nil && s.stopReason == nil {
		s.stopReason = err
	}
	if s.exited {
		runtime.Goexit()
	}
	return s.stopReason
}

// flush writes down decisions, however long the caller has ceased to wait: what
// was published should not be published again. It tries again after errors for
// as long as a lease lasts, then the messages will come again.
func (s *session) flush() error {
	if len(s.pending) == 0 || errors.Is(s.stopReason, errFenced) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.o.Lease)
	defer cancel()
	for n := 1; ; n++ {
		err := s.s.settle(ctx, s.claim.epoch, s.o.Lease, s.pending, s.archive())
		if err == nil {
			s.written(s.pending)
			s.pending = nil
			return nil
		}
		if errors.Is(err, errFenced) {
			return err
		}
		wait := backoff(rand.Int64N, 20*time.Millisecond, time.Second, n)
		s.o.Logger.Warn("outbox: acknowledge failed", "error", err, "next_try_in", wait)
		sleep(ctx, wait)
		if ctx.Err() != nil {
			return err
		}
	}
}

// dispatch gives messages to the Publisher, as long as there are calls left.
func (s *session) dispatch() {
	s.setAside()
	for !s.stopping && len(s.calls) < s.o.Concurrency && s.writing+len(s.pending) <= s.o.Batch {
		q := s.next(s.can)
		if q == nil {
			return
		}
		s.publish(q, s.batch(q))
	}
}

// setAside decides on messages of paused topics.
func (s *session) setAside() {
	if len(s.paused) == 0 || s.stopping {
		return
	}
	for _, q := range s.queues {
		aside := q.take(func(e *entry) bool { return !s.paused[e.Topic] || s.isBusy(e) })
		for _, e := range aside {
			s.decide(e, paused)
			s.block(e)
		}
	}
	s.holdUp() // what is behind those whose key was busy
}

// block makes the messages behind e wait, from now on and, when the decision on
// e is written down, by what the tables say.
func (s *session) block(e *entry) {
	if e.Key != "" {
		s.busy[e.keyed()] = struct{}{}
		s.failing[e.keyed()] = struct{}{}
	}
}

// decide notes a decision on a message that was not published.
func (s *session) decide(e *entry, v verdict) {
	s.leaves(e)
	s.pending = append(s.pending, decide(e, v))
}

// arrives and leaves count the messages that had waited.
func (s *session) arrives(e *entry) {
	q := s.queueOf(e.Topic)
	q.waited++
	q.waitedBytes += len(e.Payload)
}

func (s *session) leaves(e *entry) {
	if e.place != inReady {
		q := s.queueOf(e.Topic)
		q.waited--
		q.waitedBytes -= len(e.Payload)
	}
}

func (s *session) isBusy(e *entry) bool {
	if e.Key == "" {
		return false
	}
	_, busy := s.busy[e.keyed()]
	return busy
}

// can says whether q could send now, or is worth waiting for.
func (s *session) can(q *queue) (send, wait bool) {
	if q.running >= q.concurrency {
		return false, false
	}
	for _, e := range q.entries {
		if !s.isBusy(e) {
			return true, false
		}
	}
	return false, q.more && len(q.entries) == 0
}

// batch takes the next messages of a queue. Publishers may send the messages of
// one call in any order, and some may fail where others do not: so no call has
// two of one key, and no two calls at once have messages of the same key.
func (s *session) batch(q *queue) []*entry {
	n, size := min(s.o.Batch, q.deficit), s.o.BatchBytes
	batch := q.take(func(e *entry) bool {
		if n == 0 || size <= 0 || s.isBusy(e) {
			return true
		}
		if e.Key != "" {
			s.busy[e.keyed()] = struct{}{}
		}
		n--
		size -= len(e.Payload)
		return false
	})
	q.deficit -= len(batch)
	return batch
}

func (s *session) publish(q *queue, entries []*entry) {
	s.serial++
	s.calls[s.serial] = entries
	q.running++
	batch := make([]Message, len(entries))
	for i, e := range entries {
		batch[i] = e.Message
	}
	call := s.serial
	go func() {
		p := published{call: call, q: q, entries: entries}
		start := time.Now()
		defer func() { // also if the Publisher ends this goroutine
			p.took = time.Since(start)
			select {
			case s.publishes <- p:
			case <-s.gone:
			}
		}()
		p.results = publish(s.ctx, s.p, batch)
	}()
}

// published takes the result of a call.
func (s *session) published(p published) {
	delete(s.calls, p.call)
	p.q.running--
	if p.results == nil {
		s.exited = true
		s.stop(nil)
		s.cancel(nil) // of other calls
		return
	}
	first := len(s.pending)
	failures := 0
	for i, e := range p.entries {
		s.leaves(e)
		d := s.judge(s.ctx, e, p.results[i])
		s.pending = append(s.pending, d)
		switch d.verdict {
		case acked:
			delete(s.busy, e.keyed()) // the key goes on before this is written down
			continue
		case failed:
			s.block(e)
		case dead, untouched:
			// The key goes on when the death is written down: before that, a
			// crash would bring the dead one back.
		}
		failures++
	}
	s.meter.add(time.Now(), len(p.entries)-failures, failures)
	s.report(s.pending[first:])
	if f := s.o.Trace.Published; f != nil {
		f(p.q.name, len(p.entries), failures, p.took)
	}
	if failures > 0 {
		s.holdUp()
	}
}

// holdUp decides on the messages behind one that failed.
func (s *session) holdUp() {
	if len(s.failing) == 0 {
		return
	}
	for _, q := range s.queues {
		behind := q.take(func(e *entry) bool {
			_, failing := s.failing[e.keyed()]
			return e.Key == "" || !failing
		})
		for _, e := range behind {
			s.decide(e, held)
		}
	}
}

// written notes that decisions are written down, and lets their keys go on.
func (s *session) written(decisions []decision) {
	now := time.Now()
	acknowledged, oldest := 0, time.Duration(0)
	for i := range decisions {
		d := &decisions[i]
		s.flushed = max(s.flushed, d.ID)
		switch d.verdict {
		case acked:
			acknowledged++
			oldest = max(oldest, now.Sub(d.CreatedAt))
		case failed, paused, dead:
			delete(s.busy, d.keyed())
			delete(s.failing, d.keyed())
		}
		s.parked = s.parked || d.verdict == failed || d.verdict == paused
	}
	s.delivered += acknowledged
	s.mourn(decisions)
	if f := s.o.Trace.Acknowledged; f != nil && acknowledged > 0 {
		f(acknowledged, oldest)
	}
}
