package outboxtest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

func shutdownAcknowledges(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{})
	add(t, db, box, msg("a", "a/1"), msg("b", "b/1"), msg("a", "a/2"), msg("c", "c/1"), msg("d", "d/1"))
	ctx, stop := context.WithCancel(t.Context())
	calls := 0
	require.NoError(t, box.Run(ctx, db, publisher(func(ctx context.Context, batch []outbox.Message) []error {
		calls++
		errs := make([]error, len(batch))
		for i, m := range batch {
			switch m.Key {
			case "c":
				stop()
				<-ctx.Done() // the publisher is told
				errs[i] = ctx.Err()
			case "d":
				errs[i] = outbox.Permanent(errDown)
			}
		}
		return errs
	})))
	require.Equal(t, 1, calls, "no second round")
	require.Equal(t, []string{"a/2", "c/1"}, names(t, db, "outbox_messages"), "what succeeded is gone, the rest is as it was")
	require.Equal(t, []string{"d/1"}, names(t, db, "outbox_dead"))
	require.Zero(t, count(t, db, `SELECT count(*) FROM outbox_waiting`))
	checkTables(t, db)
	require.Equal(t, 2, drain(t, db, box, &recorder{}), "the lease was given back")

	// The same for Drain, which says that it did not finish.
	add(t, db, box, msg("a", "a/3"), msg("a", "a/4"))
	ctx, stop = context.WithCancel(t.Context())
	n, err := box.Drain(ctx, db, outbox.PublisherFunc(func(context.Context, outbox.Message) error {
		stop()
		return nil
	}))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 1, n)
	require.Equal(t, []string{"a/4"}, names(t, db, "outbox_messages"))
}

func drainRefusesWhileLeased(t *testing.T, d Database) {
	db, first := setUp(t, d, outbox.Options{})
	second := newOutbox(t, d, outbox.Options{})
	add(t, db, first, msg("k", "1"))
	n := drain(t, db, first, publisher(func(context.Context, []outbox.Message) []error {
		_, err := second.Drain(t.Context(), db, &recorder{fail: func(outbox.Message) error {
			t.Error("two drainers at once")
			return nil
		}})
		require.ErrorIs(t, err, outbox.ErrLeased)
		st, err := second.Stats(t.Context(), db)
		require.NoError(t, err)
		require.Len(t, st.Leases, 1)
		require.NotEmpty(t, st.Leases[0].Owner)
		require.Equal(t, d.Dialect.SQL().Buckets, st.Leases[0].Buckets)
		return nil
	}))
	require.Equal(t, 1, n)
	require.Zero(t, drain(t, db, second, &recorder{}), "the lease was given back")
	st, err := second.Stats(t.Context(), db)
	require.NoError(t, err)
	require.Empty(t, st.Leases)
}

// fencedDrainer lets a drainer sleep through its lease in the middle of
// publishing. What it says afterwards must not count.
func fencedDrainer(t *testing.T, d Database) {
	for name, result := range map[string]error{
		"success":   nil,
		"failure":   errDown,
		"permanent": outbox.Permanent(errDown),
	} {
		t.Run(name, func(t *testing.T) {
			db, zombie := setUp(t, d, outbox.Options{Batch: 2})
			successor := newOutbox(t, d, outbox.Options{Batch: 1})
			add(t, db, zombie, msg("k", "1"), msg("k", "2"), msg("", "3"))
			good := &recorder{fail: failing("1")}
			n, err := zombie.Drain(t.Context(), db, publisher(func(_ context.Context, batch []outbox.Message) []error {
				expireLease(t, db)
				drain(t, db, successor, good) // takes over, and fails for "1"
				errs := make([]error, len(batch))
				for i := range errs {
					errs[i] = result
				}
				return errs
			}))
			require.ErrorIs(t, err, outbox.ErrLeased)
			require.Zero(t, n)
			checkTables(t, db)
			require.Equal(t, []string{"3"}, good.take())
			require.Equal(t, []string{"1", "2"}, names(t, db, "outbox_waiting"))
			require.Equal(t, 1, count(t, db, `SELECT max(attempt) FROM outbox_waiting`))
			require.Zero(t, count(t, db, `SELECT count(*) FROM outbox_dead`))
			good.fail = nil
			makeDue(t, db)
			drain(t, db, successor, good)
			require.Equal(t, []string{"1", "2"}, good.take())
		})
	}
}

// fencedDrainerMovesNothing: a lease that is gone is enough, also if nobody has
// taken over yet.
func fencedDrainerMovesNothing(t *testing.T, d Database) {
	for name, result := range map[string]error{"failure": errDown, "permanent": outbox.Permanent(errDown)} {
		t.Run(name, func(t *testing.T) {
			db, zombie := setUp(t, d, outbox.Options{})
			add(t, db, zombie, msg("k", "1"), msg("", "2"))
			n, err := zombie.Drain(t.Context(), db, publisher(func(_ context.Context, batch []outbox.Message) []error {
				execute(t, db, `DELETE FROM outbox_leases`)
				return []error{result, result}
			}))
			require.ErrorIs(t, err, outbox.ErrLeased)
			require.Zero(t, n)
			require.Equal(t, []string{"1", "2"}, names(t, db, "outbox_messages"))
			require.Zero(t, count(t, db, `SELECT count(*) FROM outbox_parked`))
		})
	}
}

// writersAndDrainers has several processes add and several drain, while the
// lease is torn from whoever has it, and publishing fails at random.
func writersAndDrainers(t *testing.T, d Database) {
	const writers, drainers, keys = 4, 3, 5
	transactions := 80
	if testing.Short() {
		transactions = 30
	}
	o := outbox.Options{
		Batch: 7, Lease: 200 * time.Millisecond, PollMin: time.Millisecond, PollMax: 20 * time.Millisecond,
		RetryBase: time.Millisecond, RetryMax: 5 * time.Millisecond, MaxAttempts: -1,
	}
	db, box := setUp(t, d, o)
	execute(t, db, `CREATE TABLE versions (name VARCHAR(20) PRIMARY KEY, version INTEGER NOT NULL)`)
	for k := range keys {
		execute(t, db, `INSERT INTO versions (name, version) VALUES ('`+string(rune('a'+k))+`', 0)`)
	}

	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	var mu sync.Mutex
	var first []string             // deliveries, in order, without repetitions
	seen := map[string]int{}       // how often each was delivered
	committed := map[string]bool{} // what must come, filled in after commits
	var drains, adds sync.WaitGroup
	for range drainers {
		box := newOutbox(t, d, o)
		drains.Go(func() {
			require.NoError(t, box.Run(ctx, db, publisher(func(_ context.Context, batch []outbox.Message) []error {
				errs := make([]error, len(batch))
				for i, m := range batch {
					if rand.IntN(8) == 0 {
						errs[i] = errors.New("unlucky")
						continue
					}
					mu.Lock()
					if seen[string(m.Payload)]++; seen[string(m.Payload)] == 1 {
						first = append(first, string(m.Payload))
					}
					mu.Unlock()
				}
				if rand.IntN(10) == 0 {
					expireLease(t, db)
				}
				return errs
			})))
		})
	}
	for range writers {
		adds.Go(func() {
			for range transactions {
				key := string(rune('a' + rand.IntN(keys)))
				tx, err := db.BeginTx(ctx, nil)
				require.NoError(t, err)
				_, err = tx.ExecContext(ctx, `UPDATE versions SET version = version + 1 WHERE name = '`+key+`'`)
				require.NoError(t, err)
				var n int
				require.NoError(t, tx.QueryRowContext(ctx, `SELECT version FROM versions WHERE name = '`+key+`'`).Scan(&n))
				name := version(key, n)
				require.NoError(t, box.Add(ctx, tx, msg(key, name), msg("", "nokey-"+name)))
				if rand.IntN(5) == 0 {
					require.NoError(t, tx.Rollback())
					continue
				}
				require.NoError(t, tx.Commit())
				mu.Lock()
				committed[name], committed["nokey-"+name] = true, true
				mu.Unlock()
			}
		})
	}
	adds.Wait()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for range look.C { // until the tables are empty
		st, err := box.Stats(ctx, db)
		require.NoError(t, err, "or draining does not end")
		if st.Ready+st.Waiting == 0 {
			break
		}
	}
	cancel()
	drains.Wait()

	checkTables(t, db)
	require.Len(t, seen, len(committed))
	for name := range committed {
		require.NotZero(t, seen[name], "lost: %s", name)
	}
	next := map[string]int{}
	for _, name := range first {
		if key := keyOf(name); len(key) == 1 {
			next[key]++
			require.Equal(t, version(key, next[key]), name, "first deliveries of a key are in order")
		}
	}
}

func wakeReachesRun(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{PollMin: time.Hour, PollMax: time.Hour})
	ctx, stop := context.WithTimeout(t.Context(), timeout)
	defer stop()
	got := make(chan string)
	var wg sync.WaitGroup
	add(t, db, box, msg("k", "dead"))
	_, err := box.Drain(ctx, db, outbox.PublisherFunc(func(context.Context, outbox.Message) error { return outbox.Permanent(errDown) }))
	require.NoError(t, err)
	wg.Go(func() {
		require.NoError(t, box.Run(ctx, db, outbox.PublisherFunc(func(ctx context.Context, m outbox.Message) error {
			select {
			case got <- string(m.Payload):
			case <-ctx.Done():
			}
			return nil
		})))
	})
	for _, name := range []string{"1", "2", "3", "dead"} {
		if name == "dead" {
			for m, err := range box.Dead(ctx, db) {
				require.NoError(t, err)
				_, err := box.Replay(ctx, db, m.ID) // wakes by itself
				require.NoError(t, err)
			}
		} else {
			add(t, db, box, msg("k", name))
			box.Wake()
		}
		select {
		case g := <-got:
			require.Equal(t, name, g)
		case <-ctx.Done():
			t.Fatal("not delivered: Wake did nothing")
		}
	}
	stop()
	wg.Wait()
}

func stats(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{})
	st, err := box.Stats(t.Context(), db)
	require.NoError(t, err)
	require.Equal(t, outbox.Stats{}, st)

	later := msg("", "later")
	later.DeliverAt = time.Now().Add(time.Hour)
	add(t, db, box, msg("a", "fails"), msg("a", "behind"), msg("", "dies"), later)
	drain(t, db, box, &recorder{fail: func(m outbox.Message) error {
		if string(m.Payload) == "dies" {
			return outbox.Permanent(errDown)
		}
		return errDown
	}})
	execute(t, db, `UPDATE outbox_waiting SET created_at = created_at - 60000000`)
	add(t, db, box, msg("b", "ready"), later)
	st, err = box.Stats(t.Context(), db)
	require.NoError(t, err)
	require.GreaterOrEqual(t, st.Oldest, time.Minute)
	require.Less(t, st.Oldest, time.Hour)
	st.Oldest, st.Rate = 0, 0
	require.Equal(t, outbox.Stats{
		Ready: 2, Waiting: 3, ParkedKeys: 1, Dead: 1, Failed: 2,
		Topics: []outbox.TopicStats{{Topic: "test", Ready: 2, Waiting: 3, Dead: 1}},
	}, st)
}
