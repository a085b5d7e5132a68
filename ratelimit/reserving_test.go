package ratelimit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// A want of nothing at all reserves nothing: what the place held before is not settled twice.
func TestAZeroWantEmptiesItsReservation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Per(10, time.Hour))
		r, err := l.Reserve(4, 0)
		require.NoError(t, err)
		require.True(t, ratelimit.All(ratelimit.Want{}.Reserving(&r)).Allowed)
		require.Zero(t, r)
		r.Cancel()
		require.Equal(t, int64(6), l.Peek(0).Remaining)
	})
}

func TestStatsCountReservations(t *testing.T) {
	k := newKeyed[int](t, ratelimit.Per(1, time.Hour).Burst(2), 1)
	_, err := k.Reserve(1, 2, 0)
	require.NoError(t, err)
	_, err = k.Reserve(1, 1, 0)
	require.ErrorIs(t, err, ratelimit.ErrLimited)
	require.Equal(t, ratelimit.Stats{Capacity: 7, Resident: 1, Live: 1, Allowed: 1, Denied: 1}, k.Stats())
	_, err = k.Reserve(2, 0, 0)
	require.NoError(t, err)
	require.Equal(t, 1, k.Stats().Resident, "nothing takes no slot")
}
