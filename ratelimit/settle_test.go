package ratelimit_test

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// one is a limit by either kind: a Limiter, or a key of a Keyed.
type one interface {
	Take(n int64) ratelimit.Decision
	Reserve(n int64, maxWait time.Duration) (ratelimit.Reservation, error)
	Wait(ctx context.Context, n int64) error
}

type oneKey struct {
	*ratelimit.Keyed[int]
	key int
}

func (k oneKey) Take(n int64) ratelimit.Decision { return k.Keyed.Take(k.key, n) }
func (k oneKey) Reserve(n int64, maxWait time.Duration) (ratelimit.Reservation, error) {
	return k.Keyed.Reserve(k.key, n, maxWait)
}
func (k oneKey) Wait(ctx context.Context, n int64) error { return k.Keyed.Wait(ctx, k.key, n) }

// eachKind runs a test in a bubble with a Limiter, a Keyed and one of NewKeyedBy.
func eachKind(t *testing.T, limit ratelimit.Limit, test func(t *testing.T, l one)) {
	for name, make := range map[string]func(t *testing.T) one{
		"limiter": func(t *testing.T) one { return newLimiter(t, limit) },
		"keyed":   func(t *testing.T) one { return oneKey{newKeyed[int](t, limit, 10), 1} },
		"by key": func(t *testing.T) one {
			k, err := ratelimit.NewKeyedBy(func(int) ratelimit.Limit { return limit }, ratelimit.KeyedOptions{Capacity: 10})
			require.NoError(t, err)
			return oneKey{k, 1}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, make(t)) })
		})
	}
}

func TestSettleCorrectsAnEstimate(t *testing.T) {
	eachKind(t, ratelimit.Per(10, 10*time.Second), func(t *testing.T, l one) {
		reserve := func(n int64) ratelimit.Reservation {
			r, err := l.Reserve(n, 0)
			require.NoError(t, err)
			return r
		}
		r := reserve(6)
		r.Settle(2)
		require.Equal(t, int64(8), l.Take(0).Remaining, "what was not used is given back")
		r.Settle(0)
		r.Cancel()
		require.Equal(t, int64(8), l.Take(0).Remaining, "once")

		r = reserve(3)
		r.Settle(3)
		require.Equal(t, int64(5), l.Take(0).Remaining, "a good estimate")

		r = reserve(1)
		r.Settle(20)
		require.Zero(t, l.Take(0).Remaining)
		require.Equal(t, 25*time.Second, l.Take(0).ResetAfter, "a debt is charged whether it is there or not")
		require.Equal(t, 16*time.Second, l.Take(1).RetryAfter)
		time.Sleep(25 * time.Second)

		r = reserve(0)
		require.Zero(t, r.Delay())
		r.Settle(4)
		require.Equal(t, int64(6), l.Take(0).Remaining, "a cost that nobody could guess")

		r = reserve(2)
		r.Settle(-5)
		require.Equal(t, int64(6), l.Take(0).Remaining, "less than nothing is nothing")

		r = reserve(1)
		r.Settle(math.MaxInt64)
		require.False(t, l.Take(1).Allowed)
		require.Greater(t, l.Take(0).ResetAfter, 13*24*time.Hour)
	})
}

func TestTheZeroReservationSettlesNothing(*testing.T) {
	var r ratelimit.Reservation
	r.Settle(5)
	r.Settle(0)
}

// The definition of what may be given back, for both kinds: a ledger of all charges,
// where a settled one counts what it used in truth.
func TestSettlingAgainstALedger(t *testing.T) {
	for name, keyed := range map[string]bool{"limiter": false, "keyed": true} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, func(t *rapid.T) { settlingAgainstALedger(t, keyed) }) })
		})
	}
}

func settlingAgainstALedger(t *rapid.T, keyed bool) {
	interval := rapid.SampledFrom([]time.Duration{1, time.Millisecond, 100 * time.Millisecond}).Draw(t, "interval")
	burst := rapid.Int64Range(1, 8).Draw(t, "burst")
	limit := ratelimit.Per(1, interval).Burst(burst)
	var l one
	if keyed {
		k, err := ratelimit.NewKeyed[int](limit, ratelimit.KeyedOptions{Capacity: 1})
		require.NoError(t, err)
		l = oneKey{k, 1}
	} else {
		var err error
		l, err = ratelimit.NewLimiter(limit)
		require.NoError(t, err)
	}
	m := &ledger{interval: interval}
	inOrder := true // only the last charge was ever lowered
	n := rapid.Int64Range(1, burst)
	actions := m.actions(l, burst, &inOrder)
	actions["reserve"] = func(t *rapid.T) {
		n := n.Draw(t, "n")
		r, err := l.Reserve(n, interval*time.Duration(rapid.Int64Range(0, 4*burst).Draw(t, "maxWait")))
		if err == nil {
			m.charges = append(m.charges, charge{at: time.Now().Add(r.Delay()), n: n, token: r})
		}
	}
	actions["settle"] = func(t *rapid.T) {
		if len(m.charges) == 0 {
			return
		}
		i := rapid.IntRange(0, len(m.charges)-1).Draw(t, "which")
		c := &m.charges[i]
		if c.token == (ratelimit.Reservation{}) {
			return
		}
		used := rapid.Int64Range(0, 2*c.n).Draw(t, "used")
		c.token.Settle(used)
		c.token = ratelimit.Reservation{}
		if used < c.n {
			for _, later := range m.charges[i+1:] {
				inOrder = inOrder && later.n == 0
			}
			c.n, c.cancelled = used, used == 0
		} else if used > c.n {
			m.charges = append(m.charges, charge{at: time.Now(), n: used - c.n})
		}
	}
	t.Repeat(actions)
}

// Keys that push each other out, reserve, settle and come back: what each used in truth
// stays within its bound, whatever the others do.
func TestSettlingGivesNoKeyMoreThanItsBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			burst := rapid.Int64Range(1, 6).Draw(t, "burst")
			limit := ratelimit.Per(1, time.Second).Burst(burst)
			k, err := ratelimit.NewKeyed[int](limit, ratelimit.KeyedOptions{Capacity: 1})
			require.NoError(t, err)
			type open struct {
				key int
				at  int // in grants
				r   ratelimit.Reservation
			}
			grants := map[int][]grant{}
			var opened []open
			key := rapid.IntRange(0, rapid.SampledFrom([]int{6, 9, 14}).Draw(t, "keys"))
			for range rapid.IntRange(1, 120).Draw(t, "calls") {
				key, n := key.Draw(t, "key"), rapid.Int64Range(1, burst).Draw(t, "n")
				switch rapid.IntRange(0, 3).Draw(t, "what") {
				case 0:
					time.Sleep(time.Duration(rapid.IntRange(0, 1500).Draw(t, "ms")) * time.Millisecond)
				case 1:
					if k.Take(key, n).Allowed {
						grants[key] = append(grants[key], grant{time.Now(), n})
					}
				case 2:
					if r, err := k.Reserve(key, n, 2*time.Second); err == nil {
						grants[key] = append(grants[key], grant{time.Now().Add(r.Delay()), n})
						opened = append(opened, open{key, len(grants[key]) - 1, r})
					}
				case 3:
					if len(opened) > 0 {
						i := rapid.IntRange(0, len(opened)-1).Draw(t, "which")
						o := &opened[i]
						g := &grants[o.key][o.at]
						used := rapid.Int64Range(0, g.n).Draw(t, "used")
						if o.r.Delay() > 0 {
							used = 0 // it was not used yet
						}
						o.r.Settle(used)
						g.n = used
						opened = append(opened[:i], opened[i+1:]...)
					}
				}
			}
			for _, of := range grants {
				requireBound(t, limit, of)
			}
		})
	})
}

// What a key gives back must not lower the word that a key which lost its slot in the
// meantime will inherit.
func TestARefundDoesNotLowerWhatAnotherInherits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeyed[int](t, ratelimit.Per(1, time.Hour).Burst(10), 1)
		for key := range ratelimit.Ways {
			require.True(t, k.Take(key, 5).Allowed)
		}
		r, err := k.Reserve(100, 1, 0) // pushes one out, and owes six
		require.NoError(t, err)
		require.Equal(t, 6*time.Hour, k.Take(100, 0).ResetAfter)
		r.Cancel()
		require.Equal(t, 5*time.Hour, k.Take(100, 0).ResetAfter, "what was lost stays lost")

		again, err := k.Reserve(100, 4, 0)
		require.NoError(t, err)
		for key := range ratelimit.Ways { // one of them takes a slot of another
			k.Take(key, 5)
		}
		again.Cancel()
		total := int64(0)
		for key := range ratelimit.Ways {
			granted, _ := k.TakeUpTo(key, 10)
			total += granted
			require.LessOrEqual(t, granted, int64(5))
		}
		require.LessOrEqual(t, total, int64(5*ratelimit.Ways))
	})
}

func TestAReservationOfALostSlotGivesNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeyed[int](t, ratelimit.Per(1, time.Second).Burst(10), 1)
		r, err := k.Reserve(0, 10, 0)
		require.NoError(t, err)
		time.Sleep(11 * time.Second)
		for key := range ratelimit.Ways { // takes over all slots, which owe nothing
			require.True(t, k.Take(100+key, 10).Allowed)
		}
		r.Cancel()
		for key := range ratelimit.Ways {
			require.Zero(t, k.Take(100+key, 0).Remaining)
		}
	})
}

func TestASettledKeyAcrossAFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := ratelimit.Per(1023, 10*time.Hour).Burst(4)
		k := newKeyed[int](t, limit, 1)
		time.Sleep(limit.Frame() - time.Second)
		r, err := k.Reserve(1, 3, 0)
		require.NoError(t, err)
		time.Sleep(2 * time.Second) // another frame
		require.True(t, k.Take(2, 1).Allowed)
		require.Equal(t, int64(1), k.Take(1, 0).Remaining)
		r.Settle(1)
		require.Equal(t, int64(3), k.Take(1, 0).Remaining)
	})
}

func TestWaitingForAKey(t *testing.T) {
	eachKind(t, ratelimit.Per(10, time.Second).Burst(2), func(t *testing.T, l one) {
		require.True(t, l.Take(2).Allowed)
		started := time.Now()
		var order []int
		var mu sync.Mutex
		for i := range 3 {
			go func() {
				assertNil(t, l.Wait(t.Context(), 1))
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i, int(time.Since(started)/time.Millisecond))
			}()
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, l.Wait(ctx, 2), ratelimit.ErrLimited, "the deadline cannot be met")
		require.Zero(t, time.Since(started))
		time.Sleep(time.Second)
		mu.Lock()
		require.Equal(t, []int{0, 100, 1, 200, 2, 300}, order)
		mu.Unlock()

		require.True(t, l.Take(2).Allowed)
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		require.ErrorIs(t, l.Wait(ctx, 2), context.Canceled)
		require.Equal(t, 150*time.Millisecond, l.Take(0).ResetAfter, "given back")
		require.ErrorIs(t, l.Wait(ctx, 1), context.Canceled, "before anything is charged")
		require.ErrorIs(t, l.Wait(t.Context(), 3), ratelimit.ErrExceedsBurst)
		require.ErrorIs(t, l.Wait(t.Context(), -1), ratelimit.ErrNegative)
	})
}

func assertNil(t *testing.T, err error) {
	if err != nil {
		t.Error(err)
	}
}

func TestSettlingKeysUnderContention(t *testing.T) {
	const burst = 100
	limit := ratelimit.Per(1, 100*time.Hour).Burst(burst)
	k := newKeyed[int](t, limit, 1)
	const keys = 12
	var used [keys]atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				key := (i*(g+1) + i/7) % keys
				r, err := k.Reserve(key, 3, 0)
				if err != nil {
					continue
				}
				spent := int64((i + g) % 4) // 3 or less
				r.Settle(spent)
				used[key].Add(spent)
			}
		})
	}
	wg.Wait()
	for key := range used {
		require.LessOrEqual(t, used[key].Load(), int64(burst), "key %d", key)
	}
}

// With a burst of 1, Wait spaces the units evenly and forgives no pause: whoever comes
// late has not saved anything.
func TestABurstOfOneShapes(t *testing.T) {
	eachKind(t, ratelimit.Per(10, time.Second).Burst(1), func(t *testing.T, l one) {
		var last time.Time
		for i := range 20 {
			require.NoError(t, l.Wait(t.Context(), 1))
			if i > 0 {
				require.GreaterOrEqual(t, time.Since(last), 100*time.Millisecond)
			}
			last = time.Now()
			if i%5 == 0 {
				time.Sleep(250 * time.Millisecond)
			}
		}
	})
}
