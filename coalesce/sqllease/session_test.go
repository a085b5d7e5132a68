package sqllease_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/sqllease"
)

const ttl = 30 * time.Second

var dialects = map[string]sqllease.Dialect{"postgres": sqllease.PostgreSQL, "mysql": sqllease.MySQL}

// inBubble runs a test with each dialect, on virtual time.
func inBubble(t *testing.T, test func(t *testing.T, s *server)) {
	for name, d := range dialects {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, newServer(d)) })
		})
	}
}

func acquire(t *testing.T, l coalesce.Lease) coalesce.Grant {
	t.Helper()
	g, err := l.Acquire(t.Context(), "key")
	require.NoError(t, err)
	return g
}

// requireClean requires that the pool has no connection in use, and the server
// neither a lock nor a session with the lease's timeouts.
func requireClean(t *testing.T, s *server, db *sql.DB) {
	t.Helper()
	held, changed := s.leftovers()
	require.Zero(t, held, "locks")
	require.Zero(t, changed, "sessions that are not as before")
	require.Zero(t, db.Stats().InUse)
}

// Whichever statement of a lease fails, and however, nothing is left behind:
// neither in the server nor in the pool.
func TestFailedStatementsLeaveNothing(t *testing.T) {
	for _, how := range []fault{refuse, lose, hang, mute} {
		for _, forever := range []bool{false, true} {
			for n := 1; n <= 8; n++ {
				t.Run(fmt.Sprintf("%s/forever=%t/n=%d", how, forever, n), func(t *testing.T) {
					inBubble(t, func(t *testing.T, s *server) { failAt(t, s, n, how, forever) })
				})
			}
		}
	}
}

// statements are those of Acquire, of which the first can be tried again with
// another session, and of Release.
var statements = map[sqllease.Dialect]struct{ first, acquire, all int }{
	sqllease.PostgreSQL: {first: 1, acquire: 3, all: 5},
	sqllease.MySQL:      {first: 2, acquire: 4, all: 6},
}

func failAt(t *testing.T, s *server, n int, how fault, forever bool) {
	db, l := s.open(t)
	s.breaks(func(i int, _ string) fault {
		if i == n || forever && i > n {
			return how
		}
		return none
	})
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	g, err := l.Acquire(ctx, "key")
	if err == nil {
		require.Equal(t, 1, db.Stats().InUse)
		err = g.Release(ctx)
		<-g.Lost()
		require.NoError(t, g.Release(ctx), "a second time")
	}
	want := statements[s.dialect]
	switch {
	case n > want.all, (how == refuse || how == lose) && !forever && n <= want.first:
		require.NoError(t, err)
	case how == hang, how == mute && n <= want.acquire:
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
	default:
		require.ErrorIs(t, err, errBroken)
	}
	require.Equal(t, n > want.acquire || err == nil, g != nil)
	requireClean(t, s, db)

	s.breaks(func(int, string) fault { return none })
	require.NoError(t, acquire(t, l).Release(t.Context()), "the lease is as good as new")
	requireClean(t, s, db)
}

// One that does not get the lease has changed its session in vain, too.
func TestFailedStatementsOfALoserLeaveNothing(t *testing.T) {
	for n := 1; n <= 4; n++ {
		t.Run(fmt.Sprint("n=", n), func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *server) {
				_, holder := s.open(t)
				db, l := s.open(t)
				g := acquire(t, holder)
				s.breaks(func(i int, _ string) fault {
					if i >= n {
						return refuse
					}
					return none
				})
				_, err := l.Acquire(t.Context(), "key")
				if last := map[sqllease.Dialect]int{sqllease.PostgreSQL: 1, sqllease.MySQL: 3}; n > last[s.dialect] {
					require.Equal(t, coalesce.ErrHeld, err)
				} else {
					require.ErrorIs(t, err, errBroken)
				}
				s.breaks(func(int, string) fault { return none })
				require.NoError(t, g.Release(t.Context()))
				requireClean(t, s, db)
			})
		})
	}
}

// The session of a holder is never idle for more than a third of the time to
// live, and is used again when the lease was released.
func TestSessionsOfHoldersAreNotIdle(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server) {
		db, l := s.open(t)
		for range 3 {
			g := acquire(t, l)
			time.Sleep(5 * ttl)
			require.NoError(t, g.Release(t.Context()))
		}
		require.Len(t, s.sessions, 1)
		for c := range s.sessions {
			require.Equal(t, ttl/3, c.idle)
		}
		requireClean(t, s, db)
		sent := s.sent
		time.Sleep(5 * ttl)
		require.Equal(t, sent, s.sent, "nothing is sent for a lease that has ended")
	})
}

// A heartbeat that fails is the end, at once; one without an answer is the end
// when the server may have ended the session.
func TestLostWithAHeartbeat(t *testing.T) {
	for how, after := range map[fault]time.Duration{refuse: ttl / 3, lose: ttl / 3, hang: ttl} {
		t.Run(string(how), func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *server) {
				db, l := s.open(t)
				g := acquire(t, l)
				start := time.Now()
				s.breaks(func(int, string) fault { return how })
				<-g.Lost()
				require.Equal(t, after, time.Since(start))
				synctest.Wait()
				requireClean(t, s, db)
				require.Empty(t, s.sessions, "the session is not kept")
				require.Equal(t, coalesce.ErrFenced, g.Release(t.Context()))
				require.NoError(t, g.Release(t.Context()), "a second time")
			})
		})
	}
}

// Behind a pooler that gives each statement another session, there is no lease.
func TestAnotherSessionIsNoticed(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server) {
		db, l := s.open(t)
		g := acquire(t, l)
		s.breaks(func(int, string) fault { return other })
		<-g.Lost()
		synctest.Wait()
		requireClean(t, s, db)
		_, err := l.Acquire(t.Context(), "key")
		require.EqualError(t, err, "sqllease: acquire: the connection has changed its session: is there a pooler in transaction mode between?")
		requireClean(t, s, db)
	})
}

// Waiting holds no connection between two looks, looks seldom, and not later
// than Options.Poll after the lease was released.
func TestWaitHoldsNoConnection(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server) {
		_, holder := s.open(t)
		db, l := s.open(t)
		g := acquire(t, holder)
		waited := make(chan error, 1)
		go func() { waited <- l.Wait(t.Context(), "key") }()
		synctest.Wait()
		for range 1000 {
			require.Zero(t, db.Stats().InUse)
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
		}
		require.Less(t, len(s.looks), 60, "in 10 s")
		require.NoError(t, g.Release(t.Context()))
		require.NoError(t, <-waited)
		for i, look := range s.looks[1:] {
			require.LessOrEqual(t, look.Sub(s.looks[i]), 500*time.Millisecond)
		}
	})
}

func TestWaitGoesOnAfterTwoFailures(t *testing.T) {
	for failures, want := range map[int]error{2: context.DeadlineExceeded, 3: errBroken} {
		t.Run(fmt.Sprint(failures), func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *server) {
				_, holder := s.open(t)
				db, l := s.open(t)
				g := acquire(t, holder)
				s.breaks(func(n int, _ string) fault {
					if n%(failures+1) != 0 { // the others succeed
						return refuse
					}
					return none
				})
				ctx, cancel := context.WithTimeout(t.Context(), ttl/4) // before a heartbeat
				defer cancel()
				require.ErrorIs(t, l.Wait(ctx, "key"), want)
				s.breaks(func(int, string) fault { return none })
				require.NoError(t, g.Release(t.Context()))
				requireClean(t, s, db)
			})
		})
	}
}

// A Wait without an answer ends with its context, at that moment.
func TestWaitEndsWithItsContextWhateverTheServerDoes(t *testing.T) {
	for _, how := range []fault{hang, mute} {
		t.Run(string(how), func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *server) {
				db, l := s.open(t)
				s.breaks(func(n int, _ string) fault {
					if n < 3 {
						return refuse
					}
					return how
				})
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.Equal(t, context.DeadlineExceeded, l.Wait(ctx, "key"))
				require.Equal(t, time.Second, time.Since(start))
				requireClean(t, s, db)
			})
		})
	}
}
