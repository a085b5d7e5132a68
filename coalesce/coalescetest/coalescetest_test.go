package coalescetest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/coalescetest"
)

const ttl = 10 * time.Second

func TestStorePassesTheSuite(t *testing.T) {
	participant := func(p *coalescetest.Process) coalescetest.Participant {
		return coalescetest.Participant{Lease: p, Put: p.Put, Get: p.Get, Cut: p.Pause, Heal: p.Resume}
	}
	coalescetest.TestLease(t, coalescetest.Subject{
		Open: func(testing.TB) (a, b coalescetest.Participant) {
			s := coalescetest.NewStore(ttl)
			return participant(s.Process()), participant(s.Process())
		},
		TTL: ttl, Virtual: true,
	})
}

func acquire(t *testing.T, p *coalescetest.Process) coalesce.Grant {
	t.Helper()
	g, err := p.Acquire(t.Context(), "key")
	require.NoError(t, err)
	return g
}

func isLost(g coalesce.Grant) bool {
	synctest.Wait()
	select {
	case <-g.Lost():
		return true
	default:
		return false
	}
}

func TestTheKilledAreSucceededAfterTheTimeToLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := coalescetest.NewStore(ttl)
		a, b := s.Process(), s.Process()
		g := acquire(t, a)
		time.Sleep(time.Hour)
		require.False(t, isLost(g))
		last := time.Hour / (ttl / 3) * (ttl / 3) // renewal

		a.Kill()
		a.Kill()
		require.True(t, isLost(g), "the work ends")
		start := time.Now()
		require.NoError(t, b.Wait(t.Context(), "key"))
		require.Equal(t, last+ttl-time.Hour, time.Since(start))
		next := acquire(t, b)
		require.Greater(t, next.Token(), g.Token())

		_, err := a.Acquire(t.Context(), "key")
		require.ErrorIs(t, err, coalescetest.ErrKilled)
		_, _, err = a.Get(t.Context(), "key")
		require.ErrorIs(t, err, coalescetest.ErrKilled)
		require.ErrorIs(t, a.Wait(t.Context(), "key"), coalescetest.ErrKilled)
		require.ErrorIs(t, a.Put(t.Context(), "key", g.Token(), nil), coalescetest.ErrKilled)
		require.ErrorIs(t, g.Release(t.Context()), coalescetest.ErrKilled)
		require.NoError(t, next.Release(t.Context()))
	})
}

func TestKillEndsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := coalescetest.NewStore(ttl)
		a, b := s.Process(), s.Process()
		g := acquire(t, a)
		ended := make(chan error, 2)
		go func() { ended <- b.Wait(t.Context(), "key") }()
		synctest.Wait()
		b.Pause()
		go func() { ended <- b.Put(t.Context(), "key", 1, nil) }()
		synctest.Wait()
		b.Kill()
		b.Pause() // the dead do not sleep
		require.ErrorIs(t, <-ended, coalescetest.ErrKilled)
		require.ErrorIs(t, <-ended, coalescetest.ErrKilled)
		require.NoError(t, g.Release(t.Context()))
	})
}

func TestThePausedNoticeNothingAndDoNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := coalescetest.NewStore(ttl)
		a := s.Process()
		g := acquire(t, a)
		a.Pause()
		a.Pause()
		put := make(chan error, 1)
		go func() { put <- a.Put(t.Context(), "key", g.Token(), []byte("late")) }()
		time.Sleep(time.Hour)
		require.False(t, isLost(g))
		require.Empty(t, put)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, a.Wait(ctx, "key"), context.DeadlineExceeded)

		a.Resume()
		a.Resume()
		require.True(t, isLost(g))
		require.ErrorIs(t, <-put, coalesce.ErrFenced, "nobody holds the lease")
		_, found, err := a.Get(t.Context(), "key")
		require.NoError(t, err)
		require.False(t, found)
	})
}

func TestAShortPauseLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := coalescetest.NewStore(ttl).Process()
		g := acquire(t, a)
		for range 10 {
			a.Pause()
			time.Sleep(ttl / 2)
			a.Resume()
			require.False(t, isLost(g))
		}
		require.NoError(t, g.Release(t.Context()))
	})
}

func TestReleaseAndCancellationTakeNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := coalescetest.NewStore(ttl)
		a, b := s.Process(), s.Process()
		g := acquire(t, a)
		start := time.Now()
		ended := make(chan error, 2)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { ended <- b.Wait(ctx, "key") }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		go func() { ended <- b.Wait(t.Context(), "key") }()
		synctest.Wait()
		require.NoError(t, g.Release(t.Context()))
		require.NoError(t, <-ended)
		require.Equal(t, start, time.Now())
	})
}

func TestNewStoreRefusesNoTimeToLive(t *testing.T) {
	require.PanicsWithValue(t, "coalescetest: NewStore: ttl is 0s, want more than 0", func() { coalescetest.NewStore(0) })
}
