package outbox

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// A Fake is a naive outbox in memory whose clock is that of the bubble. Several
// drainers may share it, as processes share a database.
type Fake struct {
	mu     sync.Mutex // never held while time passes
	nextID int64
	rows   []*fakeRow
	parked map[keyed]time.Time
	leases []*fakeLease
	owners []int64
	epoch  int64
	paused map[string]bool
	calls  map[string]int
	read   map[string]int

	// Upkeep is how many steps of upkeep are due.
	Upkeep int

	// Fail, if set, is asked before each operation, without the lock: it may
	// wait, and return an error. It is set before first use.
	Fail func(ctx context.Context, op string) error
	// Lost, if set, is asked after an operation that has changed something: the
	// answer of the database may be lost on its way. It is set before first use.
	Lost func(op string) error
}

type fakeRow struct {
	Message // Attempt is how many were made
	bucket  int
	table   string // "ready", "waiting", "dead" or "gone"
	due     time.Time
	byKey   bool // waits for its key
}

type fakeLease struct {
	epoch int64
	owner string
	until time.Time
}

// never is later than any time of a test.
var never = time.Unix(1<<40, 0)

// NewFake returns an empty outbox with some buckets.
func NewFake(buckets int) *Fake {
	return &Fake{parked: map[keyed]time.Time{}, calls: map[string]int{}, read: map[string]int{}, paused: map[string]bool{}, owners: make([]int64, buckets)}
}

// Add commits messages.
func (f *Fake) Add(msgs ...Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range msgs {
		f.nextID++
		m.ID, m.CreatedAt = f.nextID, time.Now()
		bucket := 0
		for _, c := range m.Key {
			bucket += int(c)
		}
		f.rows = append(f.rows, &fakeRow{Message: m, bucket: bucket % len(f.owners), table: "ready"})
	}
}

// Calls returns how often an operation was called.
func (f *Fake) Calls(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// Read returns how many messages an operation has returned.
func (f *Fake) Read(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.read[op]
}

// Table returns the payloads in a table.
func (f *Fake) Table(table string) (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.rows {
		if r.table == table {
			out = append(out, string(r.Payload))
		}
	}
	return out
}

// Attempts returns how many attempts at a payload were written down.
func (f *Fake) Attempts(payload string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.rows {
		if string(r.Payload) == payload {
			return r.Attempt
		}
	}
	return -1
}

// Shares returns how many buckets each living lease has, by epoch, and the newest
// epoch.
func (f *Fake) Shares() (shares map[int64]int, newest int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	shares = map[int64]int{}
	for _, l := range f.leases {
		if time.Now().Before(l.until) {
			shares[l.epoch] = 0
			for _, owner := range f.owners {
				if owner == l.epoch {
					shares[l.epoch]++
				}
			}
		}
	}
	return shares, f.epoch
}

// Pause pauses a topic, or resumes it.
func (f *Fake) Pause(topic string, paused bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paused[topic] = paused
}

// Replay makes all dead messages due again, and returns how many.
func (f *Fake) Replay() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.rows {
		if r.table == "dead" {
			r.table, r.due, r.byKey, r.Attempt = "waiting", time.Time{}, false, 0
			n++
		}
	}
	return n
}

// Steal ends all leases at once, as if their time had passed.
func (f *Fake) Steal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leases = nil
	clear(f.owners)
}

// ErrDatabase is an error of the database.
var ErrDatabase = errors.New("database is down")

// lost is for the end of an operation.
func (f *Fake) lost(op string) error {
	if f.Lost == nil {
		return nil
	}
	return f.Lost(op)
}

// begin counts and may fail; it returns with the lock held.
func (f *Fake) begin(ctx context.Context, op string) error {
	err := ctx.Err()
	if err == nil && f.Fail != nil {
		err = f.Fail(ctx, op)
	}
	f.mu.Lock()
	f.calls[op]++
	return err
}

func (f *Fake) check(ctx context.Context) error {
	defer f.mu.Unlock()
	return f.begin(ctx, "check")
}

func (f *Fake) order(ctx context.Context) (order, error) {
	defer f.mu.Unlock()
	return marked, f.begin(ctx, "order")
}

func (f *Fake) mark(ctx context.Context) (reading, error) {
	defer f.mu.Unlock()
	err := f.begin(ctx, "mark")
	return reading{newest: f.nextID}, err
}

func (f *Fake) join(ctx context.Context, owner string, d time.Duration, alone bool) (claim, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "join"); err != nil {
		return claim{}, err
	}
	f.expire()
	if alone && len(f.leases) > 0 {
		return claim{}, errOthers
	}
	f.epoch++
	f.leases = append(f.leases, &fakeLease{f.epoch, owner, time.Now().Add(d)})
	return f.assign(f.epoch), f.lost("join")
}

func (f *Fake) expire() {
	f.leases = slices.DeleteFunc(f.leases, func(l *fakeLease) bool { return !time.Now().Before(l.until) })
	for i, owner := range f.owners {
		if f.lease(owner) == nil {
			f.owners[i] = 0
		}
	}
}

func (f *Fake) lease(epoch int64) *fakeLease {
	for _, l := range f.leases {
		if l.epoch == epoch {
			return l
		}
	}
	return nil
}

func (f *Fake) share(epoch int64) int {
	place := slices.IndexFunc(f.leases, func(l *fakeLease) bool { return l.epoch == epoch })
	share := len(f.owners) / len(f.leases)
	if place < len(f.owners)%len(f.leases) {
		share++
	}
	return share
}

func (f *Fake) assign(epoch int64) claim {
	c := claim{epoch: epoch, of: len(f.owners)}
	share := f.share(epoch)
	for b := range f.owners {
		if f.owners[b] == epoch && len(c.buckets) == share {
			f.owners[b] = 0
		}
		if f.owners[b] == epoch || f.owners[b] == 0 && f.count(epoch) < share && len(c.buckets) < share {
			f.owners[b] = epoch
			c.buckets = append(c.buckets, b)
		}
	}
	return c
}

func (f *Fake) count(epoch int64) (n int) {
	for _, owner := range f.owners {
		if owner == epoch {
			n++
		}
	}
	return n
}

func (f *Fake) rebalance(ctx context.Context, epoch int64, d time.Duration) (claim, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "rebalance"); err != nil {
		return claim{}, err
	}
	if err := f.fence(epoch, d); err != nil {
		return claim{}, err
	}
	f.expire()
	return f.assign(epoch), f.lost("rebalance")
}

func (f *Fake) renew(ctx context.Context, epoch int64, d time.Duration) error {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "renew"); err != nil {
		return err
	}
	return f.fence(epoch, d)
}

func (f *Fake) fence(epoch int64, d time.Duration) error {
	l := f.lease(epoch)
	if l == nil {
		return errFenced
	}
	l.until = time.Now().Add(d)
	return nil
}

func (f *Fake) leave(ctx context.Context, epoch int64) error {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "leave"); err != nil {
		return err
	}
	f.leases = slices.DeleteFunc(f.leases, func(l *fakeLease) bool { return l.epoch == epoch })
	f.expire()
	return nil
}

func (f *Fake) look(ctx context.Context, epoch int64) (v view, err error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "look"); err != nil {
		return v, err
	}
	if f.lease(epoch) == nil {
		return v, errFenced
	}
	f.expireLater(&v, epoch)
	for topic, paused := range f.paused {
		if paused {
			v.paused = append(v.paused, topic)
		}
	}
	v.parked = len(f.parked) > 0
	return v, nil
}

// expireLater says whether a rebalance would change anything, without doing it.
func (f *Fake) expireLater(v *view, epoch int64) {
	live := slices.DeleteFunc(slices.Clone(f.leases), func(l *fakeLease) bool { return !time.Now().Before(l.until) })
	now := &Fake{leases: live, owners: slices.Clone(f.owners)}
	if now.lease(epoch) == nil {
		return // about to be fenced
	}
	now.expire()
	before := now.count(epoch)
	v.unbalanced = len(now.assign(epoch).buckets) != before
}

func (f *Fake) advance(ctx context.Context, ack dialect.Ack, q dialect.Fetch, size int) ([]entry, bool, error) {
	op := "fetch"
	if len(ack.IDs) > 0 {
		op = "ack"
	}
	defer f.mu.Unlock()
	if err := f.begin(ctx, op); err != nil {
		return nil, false, err
	}
	if f.lease(ack.Epoch) == nil {
		return nil, false, errFenced
	}
	var all []entry
	for _, r := range f.rows {
		if r.table == "ready" && slices.Contains(ack.IDs, r.ID) {
			r.table = "gone"
		}
		if q.Limit == 0 {
			continue
		}
		if r.table != "ready" || r.ID <= q.After || slices.Contains(q.Except, r.ID) || !inBuckets(r, q) ||
			slices.Contains(q.Topics, r.Topic) == q.Not {
			continue
		}
		e := entry{Message: r.Message, bucket: r.bucket}
		if _, parked := f.parked[e.keyed()]; parked && q.Parked {
			e.state = blocked
		}
		if r.DeliverAt.After(time.Now()) {
			e.state = early
		}
		all = append(all, e)
	}
	entries, cut := cutOff(all, q.Limit, size)
	return entries, cut, f.lost(op)
}

func inBuckets(r *fakeRow, q dialect.Fetch) bool {
	return q.Buckets == nil || slices.Contains(q.Buckets, r.bucket)
}

func (f *Fake) waiting(ctx context.Context, q dialect.Fetch, size int) ([]entry, bool, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "waiting"); err != nil {
		return nil, false, err
	}
	var all []entry
	for _, r := range f.rows {
		if r.table != "waiting" || slices.Contains(q.Except, r.ID) || !inBuckets(r, q) ||
			slices.Contains(q.Topics, r.Topic) == q.Not {
			continue
		}
		e := entry{Message: r.Message, bucket: r.bucket, place: inDue}
		due, parked := f.parked[e.keyed()]
		switch {
		case r.byKey && due.After(time.Now()), !r.byKey && r.due.After(time.Now()):
			continue
		case r.byKey:
			e.place = inParked
		case parked:
			e.state = blocked
		}
		all = append(all, e)
	}
	entries, cut := cutOff(all, q.Limit, size)
	f.read["waiting"] += len(entries)
	return entries, cut, nil
}

func cutOff(all []entry, limit, size int) (entries []entry, cut bool) {
	for i := range all {
		all[i].Attempt++
		size -= len(all[i].Payload)
		if i+1 == limit || size <= 0 {
			return all[:i+1], true
		}
	}
	return all, false
}

func (f *Fake) settle(ctx context.Context, epoch int64, d time.Duration, decisions []decision, _ int) error {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "settle"); err != nil {
		return err
	}
	if err := f.fence(epoch, d); err != nil {
		return err
	}
	freed := map[keyed]bool{}
	for i := range decisions {
		f.apply(&decisions[i], freed)
	}
	for key := range freed {
		f.parked[key] = time.Now()
		if !slices.ContainsFunc(f.rows, func(r *fakeRow) bool {
			return r.table == "waiting" && r.byKey && keyed{r.Topic, r.Key} == key
		}) {
			delete(f.parked, key)
		}
	}
	return f.lost("settle")
}

func (f *Fake) apply(d *decision, freed map[keyed]bool) {
	r := f.rows[slices.IndexFunc(f.rows, func(r *fakeRow) bool { return r.ID == d.ID })]
	if d.verdict == untouched || r.table == "gone" {
		return
	}
	r.Attempt, r.LastError = d.attempts, d.reason
	switch d.verdict {
	case acked:
		r.table = "gone"
	case dead:
		r.table = "dead"
	case held:
		r.table, r.byKey = "waiting", true
	case delayed:
		r.table, r.due = "waiting", r.DeliverAt
	case failed, paused:
		r.table = "waiting"
		due := time.Now().Add(d.delay)
		if d.verdict == paused {
			due = never
		}
		if r.byKey = d.Key != ""; r.byKey {
			f.parked[d.keyed()] = due
			delete(freed, d.keyed())
		} else {
			r.due = due
		}
	}
	if d.place == inParked && (d.verdict == acked || d.verdict == dead) {
		freed[d.keyed()] = true
	}
}

func (f *Fake) resume(ctx context.Context, paused []string) error {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "resume"); err != nil {
		return err
	}
	for key, due := range f.parked {
		if due.Equal(never) && !slices.Contains(paused, key.Topic) {
			f.parked[key] = time.Now()
		}
	}
	for _, r := range f.rows {
		if r.table == "waiting" && !r.byKey && r.due.Equal(never) && !slices.Contains(paused, r.Topic) {
			r.due = time.Now()
		}
	}
	return nil
}

func (f *Fake) upkeep(ctx context.Context, _ Retention, _ time.Duration) (more bool, err error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "upkeep"); err != nil {
		return false, err
	}
	f.Upkeep = max(0, f.Upkeep-1)
	return f.Upkeep > 0, nil
}
