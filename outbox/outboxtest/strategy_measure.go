package outboxtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// A Load is what Measure puts on a strategy. Zero fields are as written here.
type Load struct {
	Writers      int // at once; 4
	Drainers     int // at once; 1
	Transactions int // a writer, of which a fifth is rolled back; 100
	Keys         int // 8
	Batch        int // 10
}

// A Report is what became of a Load. Messages are counted once, but for
// Duplicates.
type Report struct {
	Committed  int
	Delivered  int
	Lost       int // committed and never delivered
	Phantoms   int // delivered and rolled back
	Duplicates int // deliveries beyond the first
	// Inversions are first deliveries after that of a later message of the
	// same key.
	Inversions int
}

// Measure has writers and drainers work on a new database at once, drains what
// is left, and counts.
//
// A transaction of a writer writes something, waits a little now and then, locks
// a key's row to give the key its next version, adds a message that says so,
// waits a little now and then, and commits, or rolls back.
func Measure(t testing.TB, d Database, s Strategy, l Load) Report {
	for _, f := range []struct {
		n   *int
		def int
	}{{&l.Writers, 4}, {&l.Drainers, 1}, {&l.Transactions, 100}, {&l.Keys, 8}, {&l.Batch, 10}} {
		if *f.n == 0 {
			*f.n = f.def
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	db := d.Open(t)
	o := outbox.Options{Batch: l.Batch, PollMin: time.Millisecond, PollMax: 10 * time.Millisecond}
	box := newDrainer(t, s, o)
	require.NoError(t, box.Migrate(ctx, db))
	execute(t, db, `CREATE TABLE strategy_versions (name VARCHAR(20) PRIMARY KEY, version INTEGER NOT NULL)`)
	execute(t, db, `CREATE TABLE strategy_begun (writer INTEGER NOT NULL)`)
	for k := range l.Keys {
		execute(t, db, fmt.Sprintf(`INSERT INTO strategy_versions (name, version) VALUES ('k%d', 0)`, k))
	}

	var seen ledger
	running, stop := context.WithCancel(ctx)
	var drains, writes sync.WaitGroup
	for range l.Drainers {
		drainer := newDrainer(t, s, o)
		drains.Go(func() {
			if err := drainer.Run(running, db, &seen); err != nil {
				t.Errorf("%s: Run: %v", s.Name, err)
			}
		})
	}
	for w := range l.Writers {
		writes.Go(func() {
			for n := 0; n < l.Transactions; n++ {
				name, err := writeOne(ctx, db, box, w, rand.IntN(l.Keys))
				switch {
				case err != nil && !d.Dialect.SQL().Busy(err):
					t.Errorf("%s: writer: %v", s.Name, err)
					return
				case err != nil:
					n-- // once more
				case name != "":
					seen.commit(name)
				}
			}
		})
	}
	writes.Wait()
	stop()
	drains.Wait()
	// What looks like nothing may be something that is not visible yet. A
	// message that does not come in so many looks is lost.
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for looks := 0; seen.missing() > 0 && looks < 40; looks++ {
		n, err := box.Drain(ctx, db, &seen)
		if err != nil && !errors.Is(err, outbox.ErrLeased) {
			require.NoError(t, err)
		}
		if n > 0 {
			looks = 0
		}
		<-look.C
	}
	return seen.report()
}

func newDrainer(t testing.TB, s Strategy, o outbox.Options) Drainer {
	box, err := s.New(o)
	require.NoError(t, err)
	return box
}

// writeOne is one transaction. It returns the name of the message if it
// committed, and "" if it was rolled back.
func writeOne(ctx context.Context, db *sql.DB, box Drainer, writer, k int) (name string, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(`INSERT INTO strategy_begun (writer) VALUES (%d)`, writer)); err != nil {
		return "", err
	}
	pause(ctx)
	key := "k" + strconv.Itoa(k)
	if _, err := tx.ExecContext(ctx, `UPDATE strategy_versions SET version = version + 1 WHERE name = '`+key+`'`); err != nil {
		return "", err
	}
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT version FROM strategy_versions WHERE name = '`+key+`'`).Scan(&n); err != nil {
		return "", err
	}
	name = version(key, n)
	if err := box.Add(ctx, tx, msg(key, name)); err != nil {
		return "", err
	}
	pause(ctx)
	if rand.IntN(5) == 0 {
		return "", tx.Rollback()
	}
	return name, tx.Commit()
}

// pause waits up to 3 ms, in three of ten cases.
func pause(ctx context.Context) {
	if rand.IntN(10) >= 3 {
		return
	}
	wait := time.NewTimer(rand.N(3 * time.Millisecond))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
}

// A ledger is a Publisher that notes what it gets, and knows what it should get.
type ledger struct {
	mu        sync.Mutex
	committed map[string]bool
	delivered map[string]int
	newest    map[string]int // version by key
	r         Report
}

func (l *ledger) Publish(ctx context.Context, batch []outbox.Message) []error {
	pause(ctx) // so that another drainer may come first
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.delivered == nil {
		l.delivered, l.newest = map[string]int{}, map[string]int{}
	}
	for _, m := range batch {
		name := string(m.Payload)
		if l.delivered[name]++; l.delivered[name] > 1 {
			l.r.Duplicates++
			continue
		}
		_, text, _ := strings.Cut(name, "/")
		n, err := strconv.Atoi(text)
		if err != nil {
			panic(err) // it is none of ours
		}
		if n < l.newest[m.Key] {
			l.r.Inversions++
		}
		l.newest[m.Key] = max(n, l.newest[m.Key])
	}
	return nil
}

func (l *ledger) commit(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.committed == nil {
		l.committed = map[string]bool{}
	}
	l.committed[name] = true
}

// missing is how many messages have not come yet.
func (l *ledger) missing() int { return l.report().Lost }

func (l *ledger) report() Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.r
	r.Committed, r.Delivered = len(l.committed), len(l.delivered)
	for name := range l.committed {
		if l.delivered[name] == 0 {
			r.Lost++
		}
	}
	for name := range l.delivered {
		if !l.committed[name] {
			r.Phantoms++
		}
	}
	return r
}

// HeldSnapshot opens a transaction in a new database that reads and then does
// nothing, as a backup or a report does, and drains so many messages again and
// again beside it. It returns the rows per second of each round. Where the
// database cannot clean up behind the drainer, each is slower than the one
// before.
func HeldSnapshot(t testing.TB, d Database, s Strategy, rounds, messages int) []float64 {
	ctx, f := t.Context(), flavorOf(d)
	db := d.Open(t)
	box := newDrainer(t, s, outbox.Options{})
	require.NoError(t, box.Migrate(ctx, db))
	execute(t, db, `CREATE TABLE strategy_held (id INTEGER)`)
	holder, err := db.Conn(ctx)
	require.NoError(t, err)
	defer func() { _ = holder.Close() }()
	_, err = holder.ExecContext(ctx, f.hold)
	require.NoError(t, err)
	require.NoError(t, holder.QueryRowContext(ctx, `SELECT count(*) FROM strategy_held`).Scan(new(int)))
	defer func() { _, _ = holder.ExecContext(context.WithoutCancel(ctx), `ROLLBACK`) }()
	out := make([]float64, rounds)
	for i := range out {
		fill(t, db, box, messages)
		started := time.Now()
		n, err := box.Drain(ctx, db, discard{})
		out[i] = float64(n) / time.Since(started).Seconds()
		require.NoError(t, err)
		require.Equal(t, messages, n)
	}
	return out
}

// fill commits n messages of 200 bytes, each with a key of its own.
func fill(t testing.TB, db *sql.DB, box Drainer, n int) {
	msgs := make([]outbox.Message, n)
	for i := range msgs {
		msgs[i] = outbox.Message{Topic: "orders", Key: "order/" + strconv.Itoa(i), Type: "order.paid", Payload: make([]byte, 200)}
	}
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, box.Add(t.Context(), tx, msgs...))
	require.NoError(t, tx.Commit())
}

// discard accepts everything and does nothing.
type discard struct{}

func (discard) Publish(context.Context, []outbox.Message) []error { return nil }
