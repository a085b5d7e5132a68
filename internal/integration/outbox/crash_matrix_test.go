//go:build unix

package outbox_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// A crash is a step of a drainer at which its process is killed, or frozen for
// longer than its lease.
type crash struct {
	name string
	gate *gate
	// publish is after how many messages of a call, if there is no gate.
	publish   int
	retention outbox.Retention
	failFirst bool // some messages fail at first
	// second says that a second drainer comes, so that the first gives up
	// buckets; on servers only.
	second bool
	// begun says that a transaction has begun, which on SQLite locks the
	// database.
	begun bool
	only  []string // kinds, or nil for all
}

// The statements, as all dialects write them.
const (
	textJoin   = `^INSERT INTO outbox_leases`
	textLook   = `^SELECT topic FROM outbox_topics WHERE paused = 1`
	textAck    = `DELETE (m )?FROM .*outbox_messages`
	textHold   = `^INSERT INTO outbox_waiting`
	textShared = `^COMMIT.*UPDATE outbox_leases.*UPDATE outbox_buckets SET epoch = [$?]`
)

var crashes = []crash{
	{name: "before the lease is taken", gate: &gate{Text: `^UPDATE outbox_state`}, begun: true},
	{name: "while the lease is taken", gate: &gate{Text: textJoin, After: true}, begun: true},
	{name: "before the commit of the lease", gate: &gate{Text: `^COMMIT.*INSERT INTO outbox_leases`}, begun: true},
	{name: "after the lease is taken", gate: &gate{Text: textLook}},
	{name: "after reading", publish: 0},
	{name: "in the middle of publishing", publish: 5},
	{name: "after publishing", gate: &gate{Text: textAck}},
	{name: "after a later batch", gate: &gate{Text: textAck, Pass: 2}},
	{name: "after the acknowledgement", gate: &gate{Text: textAck, After: true}},
	{name: "before the commit of an acknowledgement", gate: &gate{Text: `^COMMIT.*` + textAck}, retention: outbox.Archive, only: []string{"mysql", "modernc"}, begun: true},
	{name: "after the commit of an acknowledgement", gate: &gate{Text: `^COMMIT.*` + textAck, After: true}, retention: outbox.Archive, only: []string{"mysql", "modernc"}},
	{name: "before a failure is settled", gate: &gate{Text: textHold}, failFirst: true, begun: true},
	{name: "while a failure is settled", gate: &gate{Text: textHold, After: true}, failFirst: true, begun: true},
	{name: "before the commit of a failure", gate: &gate{Text: `^COMMIT.*INSERT INTO outbox_waiting`}, failFirst: true, begun: true},
	{name: "after the commit of a failure", gate: &gate{Text: `^COMMIT.*INSERT INTO outbox_waiting`, After: true}, failFirst: true},
	{name: "before the commit of a retry", gate: &gate{Text: `^COMMIT.*DELETE .*outbox_parked`}, failFirst: true, begun: true},
	{name: "before buckets are shared", gate: &gate{Text: textShared}, second: true, begun: true, only: []string{"postgres", "mysql"}},
	{name: "after buckets are shared", gate: &gate{Text: textShared, After: true}, second: true, only: []string{"postgres", "mysql"}},
}

var matrixOptions = childOptions{Batch: 10, Lease: time.Second}

// TestCrash kills and freezes a process that drains at each of its steps.
func TestCrash(t *testing.T) {
	t.Parallel()
	underRace(t)
	third := rand.IntN(3)
	for kind, newSite := range siteKinds(t, some(2, "postgres", "mysql", "modernc")...) {
		t.Run(kind, func(t *testing.T) {
			for i, c := range crashes {
				if c.only != nil && !slices.Contains(c.only, kind) || !thorough && i%3 != third {
					continue
				}
				t.Run("killed "+c.name, func(t *testing.T) {
					t.Parallel()
					killed(t, newSite(t), c)
				})
				t.Run("frozen "+c.name, func(t *testing.T) {
					t.Parallel()
					frozen(t, newSite(t), c)
				})
			}
		})
	}
}

// toTheGate starts a process that drains, and returns when it has stopped there.
func (c *crash) toTheGate(t *testing.T, s *site) *process {
	some := 2
	if c.gate != nil {
		some += c.gate.Pass // a batch has one message of a key: so many batches there are
	}
	s.addSome(t, some)
	o := orders{Site: *s, Options: matrixOptions, Drain: true, FailFirst: c.failFirst, Gate: c.gate, Publish: -1}
	o.Options.Retention = c.retention
	if c.gate == nil {
		o.Publish = c.publish
	}
	p := start(t, o)
	if c.second {
		p.hear(t, 1, saidLeased)
		o.Gate = nil
		other := start(t, o)
		defer other.kill() // it has asked for its share
	}
	p.hear(t, 1, saidStopped)
	if !c.locked(s) {
		s.addSome(t, 1)
	}
	return p
}

// locked says that nobody else can write while the process is at the gate.
func (c *crash) locked(s *site) bool { return c.begun && !s.Server }

func killed(t *testing.T, s *site, c crash) {
	p := c.toTheGate(t, s)
	p.kill()
	s.finish(t, c.retention)
	s.checkRepeated(t, s.joins(t)-1) // all but the last one, which ended well
}

// checkRepeated checks all, and that no more was repeated than crashes explain.
// On a slow machine a drainer may lose its lease without one, which counts.
func (s *site) checkRepeated(t *testing.T, crashes int) {
	t.Helper()
	sum := s.check(t)
	require.LessOrEqual(t, sum.repeated, max(1, crashes)*2*matrixOptions.Batch, "a batch in acknowledgement, and one in the call")
}

func (s *site) finish(t *testing.T, r outbox.Retention) {
	file, err := s.file()
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	o := matrixOptions
	o.Retention = r
	s.drainRest(t, o.options(), deliverTo(file, 0))
}

// A holder is a publisher that holds its first call until it is let go.
type holder struct {
	outbox.Publisher
	entered, release chan struct{}
	first            sync.Once
}

func hold(p outbox.Publisher) *holder {
	return &holder{Publisher: p, entered: make(chan struct{}), release: make(chan struct{})}
}

func (h *holder) Publish(ctx context.Context, batch []outbox.Message) []error {
	h.first.Do(func() {
		close(h.entered)
		<-h.release
	})
	return h.Publisher.Publish(ctx, batch)
}

func frozen(t *testing.T, s *site, c crash) {
	p := c.toTheGate(t, s)
	p.signal(t, syscall.SIGSTOP)
	defer func() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }()
	if c.locked(s) {
		// It holds the lock of the whole file, as any writer of SQLite does.
		elapse(matrixOptions.Lease * 3 / 2)
		p.proceed(t)
		p.signal(t, syscall.SIGCONT)
		p.hear(t, 1, "")
		s.settled(t)
		p.kill()
		s.checkRepeated(t, s.joins(t)-1)
		return
	}

	// The successor takes over, and is in the middle of publishing when the
	// other one comes back: what that one says must not count.
	file, err := s.file()
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	o := matrixOptions
	o.Retention = c.retention
	h := hold(deliverTo(file, 0))
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.box(t, o.options()).Run(ctx, s.db, h) }()
	var released atomic.Bool
	release := func() {
		if !released.Swap(true) {
			close(h.release)
		}
	}
	defer release()
	select {
	case <-h.entered:
	case <-time.After(15 * matrixOptions.Lease):
		require.FailNow(t, "nobody takes over from a frozen drainer", s.locks(t))
	}
	there := s.stored(t)
	p.proceed(t)
	p.signal(t, syscall.SIGCONT)
	p.hear(t, 1, saidLeased) // it lost its lease, or came too late to take one
	require.Equal(t, there, s.stored(t), "a late acknowledgement is refused")
	release()
	s.settled(t)
	p.kill()
	stop()
	require.NoError(t, <-ended)
	s.checkRepeated(t, s.joins(t)-2) // the successor, and the one that came back
}

// locks describes who waits for whom.
func (s *site) locks(t testing.TB) []string {
	switch s.Kind {
	case "postgres":
		return s.names(t, `SELECT format('%s %s %s: %s', pid, state, pg_blocking_pids(pid), query) FROM pg_stat_activity WHERE datname = current_database()`)
	case "mysql":
		return s.names(t, `SELECT CONCAT_WS(' ', trx_mysql_thread_id, trx_state, trx_query) FROM information_schema.innodb_trx`)
	}
	return nil
}
