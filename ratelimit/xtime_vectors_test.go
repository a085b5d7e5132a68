package ratelimit_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// The cases that golang.org/x/time/rate tests itself with (rate_test.go of v0.16.0), and
// what this package answers. In units of 100 ms, a tenth of a second at 10 units a second.
// Where the two differ on purpose, the case says why.
const tick = 100 * time.Millisecond

type asked struct {
	at      int
	left, n int64
	ok      bool
}

func TestTakesOfXTime(t *testing.T) {
	for name, tc := range map[string]struct {
		burst int64
		asked []asked
	}{
		"burst 1": {1, []asked{
			{0, 1, 1, true},
			{0, 0, 1, false},
			{1, 1, 1, true},
			{1, 0, 1, false},
			{2, 1, 2, false},
			{2, 1, 1, true},
			{2, 0, 1, false},
		}},
		"burst 3": {3, []asked{
			{0, 3, 2, true},
			{0, 1, 2, false},
			{0, 1, 1, true},
			{0, 0, 1, false},
			{1, 1, 4, false},
			{2, 2, 1, true},
			{3, 2, 1, true},
			{4, 2, 1, true},
			{4, 1, 1, true},
			{4, 0, 1, false},
			{9, 3, 3, true},
			{9, 0, 0, true},
		}},
		// x/time admits 3 at tick 0 or before tick 1, and 4 by tick 1: it has counted the
		// time from 0 to 1 twice. Here the unit of tick 1 is used up at tick 0, which is
		// what the clock that went back asks for.
		"a jump back": {3, []asked{
			{1, 3, 1, true},
			{0, 1, 1, true},
			{0, 0, 1, false},
			{1, 1, 1, true},
			{1, 0, 1, false},
			{2, 1, 1, true},
			{2, 0, 1, false},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLimiter(t, ratelimit.Per(10, time.Second).Burst(tc.burst))
			for i, a := range tc.asked {
				at := origin.Add(time.Duration(a.at) * tick)
				require.Equal(t, a.left, l.TakeAt(at, 0).Remaining, "step %d", i)
				require.Equal(t, a.ok, l.TakeAt(at, a.n).Allowed, "step %d", i)
			}
		})
	}
}

// reserved is a reservation at a tick, and the tick at which its units may be used, or -1
// if it is refused.
type reserved struct {
	at  int
	n   int64
	act int
}

// step is a reservation at its tick, or a func that is given what was reserved before.
type step struct {
	reserve reserved
	do      func(l *ratelimit.Limiter, rs []ratelimit.Reservation)
	at      int
}

func at(tick int, do func(l *ratelimit.Limiter, rs []ratelimit.Reservation)) step {
	return step{do: do, at: tick}
}

func res(tick int, n int64, act int) step {
	return step{reserve: reserved{tick, n, act}, at: tick}
}

func cancel(i int) func(*ratelimit.Limiter, []ratelimit.Reservation) {
	return func(_ *ratelimit.Limiter, rs []ratelimit.Reservation) { rs[i].Cancel() }
}

func setLimit(limit ratelimit.Limit) func(*ratelimit.Limiter, []ratelimit.Reservation) {
	return func(l *ratelimit.Limiter, _ []ratelimit.Reservation) {
		if err := l.SetLimit(limit); err != nil {
			panic(err)
		}
	}
}

func TestReservationsOfXTime(t *testing.T) {
	ten := ratelimit.Per(10, time.Second)
	for name, tc := range map[string]struct {
		limit ratelimit.Limit
		steps []step
	}{
		"simple": {ten.Burst(2), []step{res(0, 2, 0), res(0, 2, 2), res(3, 2, 4)}},
		"mixed with takes": {ten.Burst(2), []step{
			res(0, 3, -1), res(0, 2, 0),
			at(1, func(l *ratelimit.Limiter, _ []ratelimit.Reservation) { refuse(l.Take(2)) }),
			res(1, 2, 2),
			at(1, func(l *ratelimit.Limiter, _ []ratelimit.Reservation) { refuse(l.Take(1)) }),
			at(3, func(l *ratelimit.Limiter, _ []ratelimit.Reservation) { admit(l.Take(1)) }),
		}},
		"cancel what was refused": {ten.Burst(2), []step{res(0, 2, 0), res(0, 3, -1), at(0, cancel(1)), res(0, 2, 2)}},
		"cancel the last":         {ten.Burst(2), []step{res(0, 2, 0), res(0, 2, 2), at(1, cancel(1)), res(1, 2, 2)}},
		// x/time calls it too late and gives nothing back. Nothing was taken since, so here
		// it is as if it had never been.
		"cancel when its time has passed": {ten.Burst(2), []step{res(0, 2, 0), res(0, 2, 2), at(3, cancel(1)), res(3, 2, 3)}},
		// x/time gives nothing back. The one behind it comes at tick 2 all the same, and then
		// another one can: that is a burst.
		"cancel one of two":  {ten.Burst(2), []step{res(0, 2, 0), res(0, 1, 1), res(0, 1, 2), at(0, cancel(1)), res(0, 1, 2)}},
		"cancel at its time": {ten.Burst(2), []step{res(0, 2, 0), res(0, 2, 2), res(0, 1, 3), at(2, cancel(1)), res(2, 2, 4)}},
		// x/time gives 2 of 3 back, and the last comes at tick 5. All 3 can be had: with them
		// 4 are used at tick 4, which is a burst, and 8 from tick 0 to 4.
		"cancel several": {ten.Burst(4), []step{res(0, 4, 0), res(0, 3, 3), res(0, 1, 4), res(0, 1, 5), at(1, cancel(3)), at(1, cancel(1)), res(1, 3, 4)}},
		// x/time: "violates limit and burst". Here what was promised for tick 4 stands, and
		// the unit behind it comes one new interval later.
		"a higher limit": {ratelimit.Per(5, time.Second).Burst(2), []step{
			res(0, 2, 0), res(0, 2, 4), at(2, setLimit(ten.Burst(2))), res(2, 1, 4),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runSteps(t, newLimiter(t, tc.limit), tc.steps) })
		})
	}
}

func refuse(d ratelimit.Decision) {
	if d.Allowed {
		panic("granted")
	}
}

func admit(d ratelimit.Decision) {
	if !d.Allowed {
		panic("refused")
	}
}

func runSteps(t *testing.T, l *ratelimit.Limiter, steps []step) {
	start := time.Now()
	var rs []ratelimit.Reservation
	for i, s := range steps {
		time.Sleep(time.Until(start.Add(time.Duration(s.at) * tick)))
		if s.do != nil {
			s.do(l, rs)
			continue
		}
		r, err := l.Reserve(s.reserve.n, time.Hour)
		rs = append(rs, r)
		if s.reserve.act < 0 {
			require.ErrorIs(t, err, ratelimit.ErrExceedsBurst, "step %d", i)
			continue
		}
		require.NoError(t, err)
		got := time.Since(start) + r.Delay()
		require.Equal(t, time.Duration(s.reserve.act)*tick, got, "step %d", i)
	}
}

func TestWaitsOfXTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		l := newLimiter(t, ratelimit.Per(10, time.Second).Burst(3))
		waits := func(ctx context.Context, n int64, ticks int, ok bool) {
			t.Helper()
			started := time.Now()
			require.Equal(t, ok, l.Wait(ctx, n) == nil)
			require.Equal(t, time.Duration(ticks)*tick, time.Since(started))
		}
		waits(ended, 1, 0, false)
		waits(t.Context(), 4, 0, false)
		waits(t.Context(), 2, 0, true)
		waits(t.Context(), 3, 2, true)

		l = newLimiter(t, ratelimit.Per(10, time.Second).Burst(3))
		waits(t.Context(), 2, 0, true)
		soon, cancel := context.WithCancel(t.Context())
		time.AfterFunc(tick, cancel)
		waits(soon, 3, 1, false)       // cancelled at tick 1, and given back
		waits(t.Context(), 2, 0, true) // 1 + 1 are there
		waits(t.Context(), 1, 1, true)

		l = newLimiter(t, ratelimit.Per(10, time.Second).Burst(3))
		short, cancel := context.WithTimeout(t.Context(), tick)
		defer cancel()
		waits(short, 2, 0, true)
		waits(short, 1, 0, true)
		waits(short, 1, 0, false) // it would come at the deadline: refused at once
	})
}
