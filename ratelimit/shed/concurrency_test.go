package shed_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

const ms = time.Millisecond

func TestNewConcurrencyNamesTheField(t *testing.T) {
	for want, o := range map[string]shed.ConcurrencyOptions{
		"shed: ConcurrencyOptions.Limit is 0, expected 1 or more":                         {},
		"shed: ConcurrencyOptions.Limit is -1, expected 1 or more":                        {Limit: -1},
		"shed: ConcurrencyOptions.Reserve is 1, expected 0 or more and below 1":           {Limit: 1, Reserve: 1},
		"shed: ConcurrencyOptions.Reserve is -0.1, expected 0 or more and below 1":        {Limit: 1, Reserve: -0.1},
		"shed: ConcurrencyOptions.Reserve is NaN, expected 0 or more and below 1":         {Limit: 1, Reserve: math.NaN()},
		"shed: ConcurrencyOptions.Queue.Max is -1, expected 0 or more":                    {Limit: 1, Queue: shed.Queue{Max: -1}},
		"shed: ConcurrencyOptions.Queue.Target is -1ns, expected 0 to 10000h0m0s":         {Limit: 1, Queue: shed.Queue{Target: -1}},
		"shed: ConcurrencyOptions.Queue.Interval is -1ns, expected 0 to 10000h0m0s":       {Limit: 1, Queue: shed.Queue{Interval: -1}},
		"shed: ConcurrencyOptions.Queue.Interval is 1s, expected the Target, 2s, or more": {Limit: 1, Queue: shed.Queue{Target: 2 * time.Second, Interval: time.Second}},
	} {
		_, err := shed.NewConcurrency(o)
		require.EqualError(t, err, want)
	}
	c := newConcurrency(t, shed.ConcurrencyOptions{Limit: 1})
	require.EqualError(t, c.SetLimit(0), "shed: the limit is 0, expected 1 or more")
	require.Equal(t, 1, c.Stats().Limit)
}

// refused asserts that err is a refusal for the reason.
func refused(t require.TestingT, err error, class shed.Class, reason shed.Reason) {
	var e *shed.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, shed.Error{Class: class, Reason: reason}, *e)
	require.ErrorIs(t, err, shed.ErrShed)
}

// Stripe's fleet usage load shedder.
func TestReserveIsForTheCritical(t *testing.T) {
	c := newConcurrency(t, shed.ConcurrencyOptions{Limit: 10, Reserve: 0.2})
	for range 8 {
		_, err := c.TryAcquire(shed.Default)
		require.NoError(t, err)
	}
	_, err := c.TryAcquire(shed.Default)
	refused(t, err, shed.Default, shed.Reserved)
	_, err = c.Acquire(t.Context(), shed.Class(-100))
	refused(t, err, shed.Background, shed.Reserved)
	for range 2 {
		_, err = c.Acquire(t.Context(), shed.Class(100))
		require.NoError(t, err)
	}
	_, err = c.TryAcquire(shed.Critical)
	refused(t, err, shed.Critical, shed.Full)
	s := c.Stats()
	require.Equal(t, shed.ConcurrencyStats{
		Limit: 10, InFlight: 10,
		Admitted: shed.Counts{0, 0, 8, 2},
		Full:     shed.Counts{0, 0, 0, 1},
		Reserved: shed.Counts{1, 0, 1, 0},
	}, s)
	require.Equal(t, shed.Counts{1, 0, 1, 1}, s.Refused())
}

// queued is a request that waits at a gate in a synctest bubble.
type queued struct {
	permit shed.Permit
	err    error
	waited time.Duration
	done   bool
}

func enqueue(ctx context.Context, g holder, class shed.Class) *queued {
	q := new(queued)
	start := time.Now()
	go func() {
		q.permit, q.err = g.Acquire(ctx, class)
		q.waited, q.done = time.Since(start), true
	}()
	synctest.Wait()
	return q
}

func TestWaitersExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConcurrency(t, shed.ConcurrencyOptions{Limit: 1, Queue: shed.Queue{Max: 10}})
		p, err := c.TryAcquire(shed.Default)
		require.NoError(t, err)
		first := enqueue(t.Context(), c, shed.Default)
		time.Sleep(97 * ms)
		second := enqueue(t.Context(), c, shed.Default)
		time.Sleep(time.Second)
		synctest.Wait()
		refused(t, first.err, shed.Default, shed.Expired)
		require.Equal(t, shed.DefaultInterval, first.waited)
		refused(t, second.err, shed.Default, shed.Expired)
		require.Equal(t, shed.DefaultTarget, second.waited)
		p.Release(shed.Success)
		require.Equal(t, shed.Counts{0, 0, 2, 0}, c.Stats().Expired)
		require.Zero(t, c.Stats().Waiting.Total())
	})
}

func TestQueueTimesHaveDefaults(t *testing.T) {
	for _, c := range []struct {
		q    shed.Queue
		want time.Duration // that the first may wait
	}{
		{shed.Queue{Max: 1}, 100 * ms},
		{shed.Queue{Max: 1, Interval: 2 * ms}, 2 * ms},
		{shed.Queue{Max: 1, Target: 200 * ms}, 200 * ms},
		{shed.Queue{Max: 1, Target: ms, Interval: 7 * ms}, 7 * ms},
	} {
		synctest.Test(t, func(t *testing.T) {
			gate := newConcurrency(t, shed.ConcurrencyOptions{Limit: 1, Queue: c.q})
			_, err := gate.TryAcquire(shed.Default)
			require.NoError(t, err)
			start := time.Now()
			_, err = gate.Acquire(t.Context(), shed.Default)
			refused(t, err, shed.Default, shed.Expired)
			require.Equal(t, c.want, time.Since(start))
		})
	}
}

// When the time in the queue and the context end in the same moment, one of them counts.
func TestCancelRacesWithExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 100 {
			c := newConcurrency(t, shed.ConcurrencyOptions{Limit: 1, Queue: shed.Queue{Max: 9}})
			_, err := c.TryAcquire(shed.Default)
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), shed.DefaultInterval)
			var all []*queued
			for range 6 {
				all = append(all, enqueue(ctx, c, shed.Default))
			}
			time.Sleep(shed.DefaultInterval)
			synctest.Wait()
			expired, gone := uint64(0), uint64(0)
			for _, q := range all {
				require.True(t, q.done)
				if errors.Is(q.err, shed.ErrShed) {
					expired++
				} else {
					require.Equal(t, context.DeadlineExceeded, q.err)
					gone++
				}
			}
			s := c.Stats()
			require.Equal(t, expired, s.Expired.Total())
			require.Equal(t, gone, s.Cancelled.Total())
			require.Equal(t, 1, s.InFlight)
			cancel()
		}
	})
}

func TestCancelRacesWithEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outranked := 0
		for range 100 {
			c := newConcurrency(t, shed.ConcurrencyOptions{Limit: 1, Queue: shed.Queue{Max: 1}})
			_, err := c.TryAcquire(shed.Default)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			low := enqueue(ctx, c, shed.Default)
			cancel()
			_, err = c.Acquire(t.Context(), shed.Critical) // before low runs, most times
			refused(t, err, shed.Critical, shed.Expired)
			synctest.Wait()
			require.True(t, low.done)
			s := c.Stats()
			if errors.Is(low.err, context.Canceled) {
				require.Equal(t, shed.Counts{0, 0, 1, 0}, s.Cancelled)
				require.Zero(t, s.Outranked)
			} else {
				outranked++
				refused(t, low.err, shed.Default, shed.Outranked)
				require.Equal(t, shed.Counts{0, 0, 1, 0}, s.Outranked)
				require.Zero(t, s.Cancelled)
			}
		}
		require.Positive(t, outranked)
	})
}

func TestReleaseLetsTheHighestClassIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConcurrency(t, shed.ConcurrencyOptions{Limit: 1, Queue: shed.Queue{Max: 10}})
		p, err := c.TryAcquire(shed.Default)
		require.NoError(t, err)
		low, lower := enqueue(t.Context(), c, shed.Sheddable), enqueue(t.Context(), c, shed.Background)
		high, low2 := enqueue(t.Context(), c, shed.Critical), enqueue(t.Context(), c, shed.Sheddable)
		for _, q := range []*queued{high, low, low2, lower} {
			require.False(t, q.done)
			p.Release(shed.Success)
			synctest.Wait()
			require.True(t, q.done)
			require.NoError(t, q.err)
			p = q.permit
		}
		p.Release(shed.Success)
		require.Zero(t, c.Stats().InFlight)
	})
}

func TestFullQueueDropsTheLowestClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConcurrency(t, shed.ConcurrencyOptions{Limit: 1, Queue: shed.Queue{Max: 2}})
		p, err := c.TryAcquire(shed.Default)
		require.NoError(t, err)
		first, last := enqueue(t.Context(), c, shed.Sheddable), enqueue(t.Context(), c, shed.Sheddable)
		same := enqueue(t.Context(), c, shed.Sheddable)
		refused(t, same.err, shed.Sheddable, shed.Full)
		lower := enqueue(t.Context(), c, shed.Background)
		refused(t, lower.err, shed.Background, shed.Full)
		high := enqueue(t.Context(), c, shed.Critical)
		refused(t, last.err, shed.Sheddable, shed.Outranked)
		require.False(t, first.done)
		for _, q := range []*queued{high, first} {
			p.Release(shed.Success)
			synctest.Wait()
			require.NoError(t, q.err)
			p = q.permit
		}
		require.Equal(t, shed.Counts{0, 1, 0, 0}, c.Stats().Outranked)
	})
}

func TestCancelledWaiterLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConcurrency(t, shed.ConcurrencyOptions{Limit: 1, Queue: shed.Queue{Max: 1}})
		p, err := c.TryAcquire(shed.Default)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 3*ms)
		defer cancel()
		q := enqueue(ctx, c, shed.Default)
		time.Sleep(4 * ms)
		synctest.Wait()
		require.Equal(t, context.DeadlineExceeded, q.err)
		require.Equal(t, 3*ms, q.waited)
		require.Equal(t, shed.Counts{0, 0, 1, 0}, c.Stats().Cancelled)
		next := enqueue(t.Context(), c, shed.Default)
		p.Release(shed.Success)
		synctest.Wait()
		require.NoError(t, next.err)
		require.True(t, next.done)
	})
}

// When the grant and the cancel come in the same moment, one of them counts, and
// a place that was granted to one who is gone goes to the next.
func TestCancelRacesWithGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		granted, gone := 0, 0
		for round := range 300 {
			c := newConcurrency(t, shed.ConcurrencyOptions{Limit: 1, Queue: shed.Queue{Max: 2}})
			p, err := c.TryAcquire(shed.Default)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			first := enqueue(ctx, c, shed.Critical)
			second := enqueue(t.Context(), c, shed.Default)
			if round%2 == 0 { // both before the waiter runs, most times
				p.Release(shed.Success)
				cancel()
			} else {
				cancel()
				p.Release(shed.Success)
			}
			synctest.Wait()
			require.True(t, first.done)
			if first.err == nil {
				granted++
				require.False(t, second.done)
				first.permit.Release(shed.Success)
				synctest.Wait()
			} else {
				gone++
				require.Equal(t, context.Canceled, first.err)
			}
			require.True(t, second.done)
			require.NoError(t, second.err)
			require.Equal(t, 1, c.Stats().InFlight)
			second.permit.Release(shed.Success)
			require.Zero(t, c.Stats().InFlight)
		}
		require.Positive(t, granted)
		require.Positive(t, gone)
	})
}

func TestRaisedLimitLetsWaitersIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConcurrency(t, shed.ConcurrencyOptions{Limit: 1, Queue: shed.Queue{Max: 10}})
		p, err := c.TryAcquire(shed.Default)
		require.NoError(t, err)
		a, b := enqueue(t.Context(), c, shed.Default), enqueue(t.Context(), c, shed.Critical)
		require.NoError(t, c.SetLimit(3))
		synctest.Wait()
		require.True(t, a.done && b.done)
		require.NoError(t, c.SetLimit(1))
		require.Equal(t, 3, c.Stats().InFlight)
		p.Release(shed.Success)
		a.permit.Release(shed.Success)
		_, err = c.TryAcquire(shed.Critical)
		refused(t, err, shed.Critical, shed.Full)
		b.permit.Release(shed.Success)
		_, err = c.TryAcquire(shed.Background)
		require.NoError(t, err)
	})
}

// Everything at once, under the race detector: never more than the limit, nobody lost, and
// everything counted.
func TestNeverMoreThanTheLimit(t *testing.T) {
	const limit = 5
	c := newConcurrency(t, shed.ConcurrencyOptions{
		Limit:   limit,
		Reserve: 0.2,
		Queue:   shed.Queue{Max: 4, Target: 100 * time.Microsecond, Interval: ms},
	})
	var inflight, admitted, shedded, cancelled atomic.Int64
	var wg sync.WaitGroup
	const workers, rounds = 16, 300
	for worker := range uint64(workers) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(worker, 0))
			for range rounds {
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(4) == 0 {
					wg.Go(cancel)
				}
				err := c.Do(ctx, shed.Class(random.IntN(4)-2), func(context.Context) error {
					if inflight.Add(1) > limit {
						t.Error("more than the limit")
					}
					admitted.Add(1)
					inflight.Add(-1)
					return nil
				})
				switch {
				case errors.Is(err, shed.ErrShed):
					shedded.Add(1)
				case err != nil:
					cancelled.Add(1)
				}
				if random.IntN(8) == 0 {
					require.NoError(t, c.SetLimit(1+random.IntN(limit)))
				}
				cancel()
			}
		})
	}
	wg.Wait()
	s := c.Stats()
	require.Equal(t, int64(workers*rounds), admitted.Load()+shedded.Load()+cancelled.Load())
	require.Zero(t, s.InFlight)
	require.Zero(t, s.Waiting.Total())
	require.EqualValues(t, shedded.Load(), s.Refused().Total())
	// A place that was granted to one who was gone was admitted for the engine.
	require.GreaterOrEqual(t, s.Admitted.Total(), uint64(admitted.Load()))
}

// brokenContext ends without an error.
type brokenContext struct {
	context.Context
	done chan struct{}
}

func (c brokenContext) Done() <-chan struct{} { return c.done }

// A context that breaks its contract must not make a permit of a place that nobody gave.
func TestAContextThatEndsWithoutAnErrorIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConcurrency(t, shed.ConcurrencyOptions{Limit: 1, Queue: shed.Queue{Max: 1}})
		p, err := c.TryAcquire(shed.Default)
		require.NoError(t, err)
		ctx := brokenContext{context.Background(), make(chan struct{})}
		q := enqueue(ctx, c, shed.Default)
		close(ctx.done)
		synctest.Wait()
		require.Equal(t, context.Canceled, q.err)
		q.permit.Release(shed.Success)
		require.Equal(t, 1, c.Stats().InFlight)
		p.Release(shed.Success)
		require.Zero(t, c.Stats().InFlight)
	})
}
