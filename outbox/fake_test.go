package outbox

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// A Fake is a naive outbox in memory whose clock is that of the bubble. Several
// drainers may share it, as processes share a database.
type Fake struct {
	mu     sync.Mutex // never held while time passes
	nextID int64
	rows   []*fakeRow
	parked map[string]time.Time
	epoch  int64
	until  time.Time
	owner  string
	calls  map[string]int

	// Fail, if set, is asked before each operation, without the lock: it may
	// wait, and return an error. It is set before first use.
	Fail func(ctx context.Context, op string) error
}

type fakeRow struct {
	Message        // Attempt is how many were made
	table   string // "ready", "waiting", "dead" or "gone"
	due     time.Time
	byKey   bool // waits for its key
}

// NewFake returns an empty outbox.
func NewFake() *Fake {
	return &Fake{parked: map[string]time.Time{}, calls: map[string]int{}}
}

// Add commits messages.
func (f *Fake) Add(msgs ...Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range msgs {
		f.nextID++
		m.ID, m.CreatedAt = f.nextID, time.Now()
		f.rows = append(f.rows, &fakeRow{Message: m, table: "ready"})
	}
}

// Calls returns how often an operation was called.
func (f *Fake) Calls(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
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

// Lease returns who has the lease, "" if nobody, and its epoch.
func (f *Fake) Lease() (owner string, epoch int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !time.Now().Before(f.until) {
		return "", f.epoch
	}
	return f.owner, f.epoch
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

func (f *Fake) acquire(ctx context.Context, owner string, d time.Duration) (int64, time.Duration, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "acquire"); err != nil {
		return 0, 0, err
	}
	if left := time.Until(f.until); left > 0 {
		return 0, left, nil
	}
	f.epoch++
	f.owner, f.until = owner, time.Now().Add(d)
	return f.epoch, 0, nil
}

func (f *Fake) renew(ctx context.Context, epoch int64, d time.Duration) error {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "renew"); err != nil {
		return err
	}
	return f.fence(epoch, d)
}

func (f *Fake) fence(epoch int64, d time.Duration) error {
	if epoch != f.epoch {
		return errFenced
	}
	f.until = time.Now().Add(d)
	return nil
}

func (f *Fake) release(ctx context.Context, epoch int64) error {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "release"); err != nil {
		return err
	}
	if epoch == f.epoch {
		f.until = time.Time{}
	}
	return nil
}

func (f *Fake) ready(ctx context.Context, limit, size int) ([]entry, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "ready"); err != nil {
		return nil, err
	}
	var all []entry
	for _, r := range f.rows {
		if r.table != "ready" {
			continue
		}
		e := entry{Message: r.Message}
		if _, parked := f.parked[r.Key]; parked {
			e.state = blocked
		}
		if r.DeliverAt.After(time.Now()) {
			e.state = early
		}
		all = append(all, e)
	}
	return cut(all, limit, size), nil
}

func (f *Fake) waiting(ctx context.Context, limit, size int) ([]entry, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "waiting"); err != nil {
		return nil, err
	}
	var all []entry
	for _, r := range f.rows {
		if r.table != "waiting" {
			continue
		}
		due, parked := f.parked[r.Key]
		e := entry{Message: r.Message, place: inDue}
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
	return cut(all, limit, size), nil
}

func cut(all []entry, limit, size int) []entry {
	for i := range all {
		all[i].Attempt++
		size -= len(all[i].Payload)
		if i+1 == limit || size <= 0 {
			return all[:i+1]
		}
	}
	return all
}

func (f *Fake) settle(ctx context.Context, epoch int64, d time.Duration, decisions []decision) error {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "settle"); err != nil {
		return err
	}
	if err := f.fence(epoch, d); err != nil {
		return err
	}
	freed := map[string]bool{}
	for _, d := range decisions {
		i := slices.IndexFunc(f.rows, func(r *fakeRow) bool { return r.ID == d.ID })
		r := f.rows[i]
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
		case failed:
			r.table = "waiting"
			if r.byKey = d.Key != ""; r.byKey {
				f.parked[d.Key] = time.Now().Add(d.delay)
				delete(freed, d.Key)
			} else {
				r.due = time.Now().Add(d.delay)
			}
		}
		if d.place == inParked && (d.verdict == acked || d.verdict == dead) {
			freed[d.Key] = true
		}
	}
	for key := range freed {
		f.parked[key] = time.Now()
		if !slices.ContainsFunc(f.rows, func(r *fakeRow) bool { return r.table == "waiting" && r.byKey && r.Key == key }) {
			delete(f.parked, key)
		}
	}
	return nil
}

// ErrDatabase is an error of the database.
var ErrDatabase = errors.New("database is down")

// Steal takes the lease over at once, as if its time had passed.
func (f *Fake) Steal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch++
	f.owner, f.until = "thief", time.Time{}
}
