package outbox

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// A step is one turn of a session with the database: it writes down what was
// decided, and reads what there is room for. Parts that are not due are left out;
// in the common case one statement remains, which acknowledges and reads.
type step struct {
	decisions []decision
	plain     bool // all of them are deliveries of ready messages
	archive   int
	beside    bool // another one: this one only acknowledges

	look   bool     // at what others may have changed
	resume bool     // all topics but
	paused []string // these
	upkeep bool
	mark   bool // the watermark

	polled  bool // it is time to look again
	fetch   bool
	fetchOf dialect.Fetch
	size    int
	queues  []*queue // those for which it reads

	waiting   bool
	waitingOf dialect.Fetch
	waitingIn []*queue // those for which it reads them
}

// An outcome is what a step came to. The parts after one that failed did not
// happen.
type outcome struct {
	step
	err     error
	written bool // the decisions
	view    *view
	resumed bool
	reading *reading
	purging bool // there is more to do in the archive

	fetched  bool
	ready    []entry
	readyCut bool // there may be more
	waited   bool
	due      []entry
	dueCut   bool // there may be more
}

// pace is when a session does what.
type pace struct {
	woken     bool
	alarmed   bool          // others have changed something, of which we were told
	purging   bool          // the upkeep is not done
	poll      time.Duration // until the next look at an empty outbox
	pollAt    time.Time
	lookAt    time.Time
	waitingAt time.Time // earliest look at the waiting, while there are ready ones
	lively    bool      // there were ready ones since the last
	markAt    time.Time
	rescanAt  time.Time
	failures  int
	retryAt   time.Time // after an error
}

// knowledge is what a session knows of the tables.
type knowledge struct {
	order     order
	mark      watermark
	lag       int64           // from where the last read began to what it found
	flushed   int64           // the greatest id that was written down
	paused    map[string]bool // nil before the first look
	resumeDue bool
	parked    bool // some key may be
	archiveNo int
	meanSize  int // of payloads
}

const (
	// markEvery bounds what the watermark costs, about a millisecond each time.
	markEvery = 10 * time.Millisecond
	// rescanEvery is how often a drainer reads from the very front all the
	// same: rows that were inserted with old ids, by a restore for example,
	// were never promised, but neither should they be forgotten.
	rescanEvery = time.Minute
)

// step starts what is due of the database: a step, if none is under way, or an
// acknowledgement beside it.
func (s *session) step() {
	now := time.Now()
	if s.stopping || now.Before(s.retryAt) {
		return // end writes down what is left
	}
	if !s.once && s.paused != nil && s.acking == nil && len(s.pending) > 0 && !s.backlog() && plain(s.pending) {
		s.acking, s.pending = s.pending, nil
		s.begin(&step{decisions: s.acking, plain: true, archive: s.archive(), beside: true})
	}
	if s.stepping {
		return
	}
	if st := s.plan(now); st != nil {
		s.stepping = true
		s.begin(st)
	}
}

func (s *session) begin(st *step) {
	s.writing += len(st.decisions)
	go func() { s.steps <- s.perform(st) }()
}

// backlog reports whether there may be more to read. Then one statement
// acknowledges and reads, which is less work. Otherwise a message that is added
// now should not wait until others are acknowledged, which takes a write to disk.
func (s *session) backlog() bool {
	return slices.ContainsFunc(s.queues, func(q *queue) bool { return q.more })
}

// plain reports whether decisions are nothing but deliveries of ready messages.
func plain(decisions []decision) bool {
	return !slices.ContainsFunc(decisions, func(d decision) bool { return d.verdict != acked || d.place != inReady })
}

// plan returns what is due now, or nil. The first step only looks: what may be
// read depends on what it finds.
func (s *session) plan(now time.Time) *step {
	st := &step{archive: s.archive(), plain: true}
	if s.paused == nil {
		st.look = true
		return st
	}
	if s.alarmed {
		s.alarmed, s.lookAt = false, time.Time{}
		s.mayWait()
	}
	st.decisions, s.pending = s.pending, nil
	st.plain = plain(st.decisions)
	st.look = !now.Before(s.lookAt)
	st.resume, st.paused = s.resumeDue, slices.Sorted(maps.Keys(s.paused))
	st.upkeep = (st.look || s.purging) && s.o.Retention != Delete && s.claim.buckets[0] == 0
	st.mark = s.order == marked && !now.Before(s.markAt) && (s.mark.safe == 0 || s.lag > int64(10*s.o.Batch) || st.look)
	s.planFetch(st, now)
	s.planWaiting(st, now)
	if len(st.decisions) == 0 && !st.look && !st.resume && !st.upkeep && !st.fetch && !st.waiting {
		return nil
	}
	s.woken = false
	return st
}

// mayWait says that messages that wait may have become due.
func (s *session) mayWait() {
	for _, q := range s.queues {
		q.waits = true
	}
}

// planWaiting fills in what to read of the messages that waited: those of all
// queues with room.
func (s *session) planWaiting(st *step, now time.Time) {
	due := s.waitingDue(st, now)
	for _, q := range s.queues {
		if q.fullOfWaited(&s.o) {
			q.waits = q.waits || due // since nobody will look
			continue
		}
		st.waiting = st.waiting || due || q.waits
		st.waitingIn = append(st.waitingIn, q)
	}
	if !st.waiting {
		return
	}
	// Not excepted are those that are decided on: they are written down before
	// this is read, and may be due again, ahead of others.
	f := dialect.Fetch{Epoch: s.claim.epoch, Buckets: s.filter(), Except: s.held(false, 0), Limit: s.limit()}
	f.Topics, f.Not = s.topicsOf(st.waitingIn)
	st.waitingOf = f
}

// waitingDue reports whether it is time to look at the messages that waited. While
// ready ones come, this is a step of its own, so that they need not wait for it.
func (s *session) waitingDue(st *step, now time.Time) bool {
	switch {
	case st.polled && st.fetch:
		return true
	case st.fetch:
		return !now.Before(s.waitingAt.Add(s.o.PollMin / 2))
	default:
		return s.lively && !now.Before(s.waitingAt)
	}
}

// planFetch fills in what to read of the ready messages: those of all queues
// with room, if they may have more, or if it is time to look again.
func (s *session) planFetch(st *step, now time.Time) {
	st.polled = !now.Before(s.pollAt)
	if !now.Before(s.rescanAt) {
		s.rescan(now)
	}
	more := false
	for _, q := range s.queues {
		if q.full(&s.o) {
			q.more = true // since nobody will look
			continue
		}
		more = more || q.more
		st.queues = append(st.queues, q)
	}
	if len(st.queues) == 0 || !more && !st.polled && !s.woken && len(st.decisions) == 0 {
		st.queues = nil
		return
	}
	st.fetch = true
	st.size = s.o.BatchBytes
	f := dialect.Fetch{Epoch: s.claim.epoch, Buckets: s.filter(), Limit: s.limit(), Parked: s.parked || !st.plain}
	f.Topics, f.Not = s.topicsOf(st.queues)
	f.After = st.queues[0].after
	for _, q := range st.queues {
		f.After = min(f.After, q.after)
	}
	f.Except = s.held(true, f.After)
	for _, decisions := range [][]decision{st.decisions, s.acking} {
		for i := range decisions {
			if d := &decisions[i]; d.place == inReady && d.ID > f.After {
				f.Except = append(f.Except, d.ID)
			}
		}
	}
	st.fetchOf = f
}

// topicsOf returns which topics to select for some queues, or, if not, which to
// leave out. The last queue is for all that have none of their own.
func (s *session) topicsOf(queues []*queue) (topics []string, not bool) {
	last := len(s.queues) - 1
	not = slices.Contains(queues, s.queues[last])
	for _, q := range s.queues[:last] {
		if slices.Contains(queues, q) != not {
			topics = append(topics, q.name)
		}
	}
	return topics, not
}

// rescan lets the next read begin at the very front.
func (s *session) rescan(now time.Time) {
	s.rescanAt = now.Add(rescanEvery)
	for _, q := range s.queues {
		q.after = 0
	}
}

// held returns the ids above after of the messages that are in memory and not
// decided on, of one of the two tables.
func (s *session) held(ready bool, after int64) []int64 {
	var ids []int64
	note := func(e *entry) {
		if (e.place == inReady) == ready && e.ID > after {
			ids = append(ids, e.ID)
		}
	}
	for _, q := range s.queues {
		for _, e := range q.entries {
			note(e)
		}
	}
	for _, entries := range s.calls {
		for _, e := range entries {
			note(e)
		}
	}
	for i := range s.pending {
		note(s.pending[i].entry)
	}
	return ids
}

// filter returns the buckets to select, nil for all there are.
func (s *session) filter() []int {
	if len(s.claim.buckets) == s.claim.of {
		return nil
	}
	return s.claim.buckets
}

// limit is how many messages to ask for: a batch, or as many as their usual size
// lets through, since what is selected beyond that was read in vain.
func (s *session) limit() int {
	if s.meanSize == 0 {
		return s.o.Batch
	}
	return min(s.o.Batch-1, s.o.BatchBytes/s.meanSize) + 1
}

func (s *session) archive() int {
	if s.o.Retention == Delete {
		return -1
	}
	return s.archiveNo
}

// perform talks to the database. It touches nothing of the session that changes.
func (s *session) perform(st *step) (o outcome) {
	o.step = *st
	ctx, epoch := s.ctx, s.claim.epoch
	ack := dialect.Ack{Epoch: epoch, Archive: st.archive}
	if st.plain {
		for i := range st.decisions {
			ack.IDs = append(ack.IDs, st.decisions[i].ID)
		}
	} else {
		if o.err = s.s.settle(ctx, epoch, s.o.Lease, st.decisions, st.archive); o.err != nil {
			return o
		}
		o.written = true
	}
	if st.look {
		var v view
		if v, o.err = s.s.look(ctx, epoch); o.err != nil {
			return o
		}
		o.view = &v
	}
	if st.resume {
		if o.err = s.s.resume(ctx, st.paused); o.err != nil {
			return o
		}
		o.resumed = true
	}
	if st.upkeep {
		var err error
		if o.purging, err = s.s.upkeep(ctx, s.o.Retention, s.o.Keep); err != nil && ctx.Err() == nil {
			s.o.Logger.Warn("outbox: clearing the archive failed", "error", err)
		}
	}
	if st.mark {
		var r reading
		if r, o.err = s.s.mark(ctx); o.err != nil {
			return o
		}
		o.reading = &r
	}
	if st.fetch || len(ack.IDs) > 0 {
		if o.ready, o.readyCut, o.err = s.s.advance(ctx, ack, st.fetchOf, st.size); o.err != nil {
			return o
		}
		o.written, o.fetched = true, st.fetch
	}
	if st.waiting {
		if o.due, o.dueCut, o.err = s.s.waiting(ctx, st.waitingOf, s.o.BatchBytes); o.err != nil {
			return o
		}
		o.waited = true
	}
	return o
}

// stepped takes what a step came to.
func (s *session) stepped(o outcome) {
	now := time.Now()
	s.writing -= len(o.decisions)
	if o.beside {
		s.acking = nil
	} else {
		s.stepping = false
	}
	if o.written {
		s.written(o.decisions)
	} else {
		s.pending = append(o.decisions, s.pending...)
	}
	if !o.plain {
		s.mayWait() // keys may have become due
	}
	if o.upkeep {
		s.purging = o.purging
	}
	if o.resumed {
		s.resumeDue = false
		s.mayWait()
	}
	if o.view != nil { // which may want to resume what was left out just now
		s.seen(o.view, now)
	}
	if o.reading != nil {
		s.mark.step(*o.reading)
		s.markAt = now.Add(markEvery)
	}
	if o.fetched {
		s.fetched(&o)
	}
	if o.waited {
		s.waitingAt, s.lively = now.Add(s.o.PollMin/2), false // below any poll
		for _, q := range o.waitingIn {
			q.waits = o.dueCut
		}
		for i := range o.due {
			s.arrives(&o.due[i])
			s.accept(&o.due[i])
		}
	}
	s.holdUp()
	s.setPace(&o, now)
}

// seen takes a look at what others may have changed. Topics that were paused and
// are not any more are resumed in the next step, when everything that was set
// aside for them until now is written down.
func (s *session) seen(v *view, now time.Time) {
	paused := make(map[string]bool, len(v.paused))
	for _, topic := range v.paused {
		paused[topic] = true
	}
	if s.paused == nil || !maps.Equal(paused, s.paused) {
		s.resumeDue = true
	}
	s.paused, s.parked, s.archiveNo = paused, v.parked, v.archive
	s.lookAt = now.Add(jitter(s.o.PollMax))
	if v.unbalanced && !s.once && !s.stopping {
		// A call that hangs would keep buckets from others, and would keep all
		// messages from everybody: new ones are not begun any more.
		s.stop(errRebalance)
		s.patience = time.AfterFunc(s.o.Lease, func() { s.cancel(errRebalance) })
	}
}

// fetched takes the ready messages that were read.
func (s *session) fetched(o *outcome) {
	var last int64
	for i := range o.ready {
		e := &o.ready[i]
		last = e.ID
		s.meanSize += (len(e.Payload) - s.meanSize) / 8
		s.accept(e)
	}
	if len(o.ready) > 0 {
		s.lag = o.ready[0].ID - o.fetchOf.After
	}
	reached := s.mark.reached(s.order, last, s.flushed, o.readyCut)
	for _, q := range o.queues {
		q.after = max(q.after, reached)
		q.more = o.readyCut
	}
}

// accept puts a message that was read into its queue, if it may be published.
func (s *session) accept(e *entry) {
	switch e.state {
	case blocked:
		s.decide(e, held)
	case early:
		s.decide(e, delayed)
	default:
		s.queueOf(e.Topic).push(e)
	}
}

// setPace says when the next step is due: at once while there is something to
// do, after a while when nothing was found, and later and later after errors.
func (s *session) setPace(o *outcome, now time.Time) {
	if o.err == nil {
		s.failures, s.retryAt = 0, time.Time{}
		if len(o.ready)+len(o.due)+len(o.decisions) > 0 {
			s.poll, s.lively = 0, true
		}
		if o.fetched {
			s.poll = min(max(s.o.PollMin, 2*s.poll), s.o.PollMax)
			s.pollAt = now.Add(jitter(s.poll))
		}
		return
	}
	switch {
	case s.ctx.Err() != nil:
	case s.once, errors.Is(o.err, errFenced):
		s.stop(o.err)
	default:
		// It may be another server now, which knows less than the one before.
		s.mark, s.flushed = watermark{}, 0
		s.rescan(now)
		s.mayWait()
		s.woken = true // which may have been why
		s.failures++
		wait := backoff(rand.Int64N, 100*time.Millisecond, 10*time.Second, s.failures)
		s.retryAt = now.Add(wait)
		s.o.Logger.Warn("outbox: database failed", "error", o.err, "next_try_in", wait)
	}
}

// untilNext is how long nothing is due.
func (s *session) untilNext() time.Duration {
	if s.stepping || s.stopping {
		return time.Hour // something else will happen before
	}
	if wait := time.Until(s.retryAt); wait > 0 {
		return wait // and then whatever was due before
	}
	at := s.lookAt
	room := slices.ContainsFunc(s.queues, func(q *queue) bool { return !q.full(&s.o) })
	if room && s.pollAt.Before(at) {
		at = s.pollAt
	}
	return max(0, time.Until(at))
}

// jitter returns a time in [d/2, d], so that processes that started together do
// not poll together.
func jitter(d time.Duration) time.Duration {
	return d - rand.N(d/2+1)
}
