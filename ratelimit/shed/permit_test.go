package shed_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// oddError must not be compared.
type oddError struct{ s []int }

func (oddError) Error() string { return "odd" }

func TestOutcomeOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want shed.Outcome
	}{
		{nil, shed.Success},
		{errors.New("not found"), shed.Success},
		{oddError{[]int{1}}, shed.Success},
		{context.Canceled, shed.Ignore},
		{fmt.Errorf("query: %w", context.Canceled), shed.Ignore},
		{context.DeadlineExceeded, shed.Drop},
		{fmt.Errorf("query: %w", os.ErrDeadlineExceeded), shed.Drop},
		{&net.DNSError{IsTimeout: true}, shed.Drop},
		{&net.DNSError{UnwrapErr: context.DeadlineExceeded}, shed.Drop}, // its Timeout returns false
		{&net.DNSError{}, shed.Success},
		{fmt.Errorf("call: %w", &shed.Error{Reason: shed.Full}), shed.Drop},
	} {
		require.Equal(t, c.want, shed.OutcomeOf(c.err), "%v", c.err)
	}
}

func TestOutcomeString(t *testing.T) {
	require.Equal(t, "success drop ignore ignore",
		fmt.Sprint(shed.Success, " ", shed.Drop, " ", shed.Ignore, " ", shed.Outcome(9)))
}

// holder is what all gates with classes have in common.
type holder interface {
	Acquire(ctx context.Context, class shed.Class) (shed.Permit, error)
	TryAcquire(class shed.Class) (shed.Permit, error)
	Do(ctx context.Context, class shed.Class, f func(context.Context) error) error
}

// gates calls f with each kind of gate, and a function that returns its Stats.
func gates(t *testing.T, limit int, q shed.Queue, f func(t *testing.T, g holder, stats func() shed.ConcurrencyStats)) {
	t.Run("concurrency", func(t *testing.T) {
		c := newConcurrency(t, shed.ConcurrencyOptions{Limit: limit, Queue: q})
		f(t, c, c.Stats)
	})
	t.Run("adaptive", func(t *testing.T) {
		a := newAdaptive(t, shed.AdaptiveOptions{Min: limit, Max: limit, Queue: q})
		f(t, a, func() shed.ConcurrencyStats { return a.Stats().ConcurrencyStats })
	})
}

func TestPermitIsReleasedOnce(t *testing.T) {
	gates(t, 2, shed.Queue{}, func(t *testing.T, g holder, stats func() shed.ConcurrencyStats) {
		p, err := g.Acquire(t.Context(), shed.Default)
		require.NoError(t, err)
		other, err := g.TryAcquire(shed.Default)
		require.NoError(t, err)
		require.Equal(t, 2, stats().InFlight)
		p.Release(shed.Success)
		p.Release(shed.Drop)
		require.Equal(t, 1, stats().InFlight, "the second call does nothing")
		other.Release(shed.Outcome(200))
		require.Zero(t, stats().InFlight)
	})
	var zero shed.Permit
	zero.Release(shed.Success)
}

// Copies do not know of each other, but no count goes below zero.
func TestCopiesDoNotMakeCountsNegative(t *testing.T) {
	gates(t, 1, shed.Queue{}, func(t *testing.T, g holder, stats func() shed.ConcurrencyStats) {
		p, err := g.TryAcquire(shed.Default)
		require.NoError(t, err)
		forged := p
		p.Release(shed.Success)
		forged.Release(shed.Success)
		require.Zero(t, stats().InFlight)
		p, err = g.TryAcquire(shed.Default)
		require.NoError(t, err)
		_, err = g.TryAcquire(shed.Default)
		require.ErrorIs(t, err, shed.ErrShed)
		p.Release(shed.Success)
	})
}

func TestDoReleasesWhateverHappens(t *testing.T) {
	gates(t, 1, shed.Queue{}, func(t *testing.T, g holder, stats func() shed.ConcurrencyStats) {
		ctx := context.WithValue(t.Context(), t, "value")
		failure := errors.New("failure")
		require.Equal(t, failure, g.Do(ctx, shed.Critical, func(inner context.Context) error {
			require.Equal(t, ctx, inner)
			require.Equal(t, 1, stats().InFlight)
			err := g.Do(inner, shed.Critical, func(context.Context) error {
				t.Error("the second was let in")
				return nil
			})
			require.ErrorIs(t, err, shed.ErrShed)
			return failure
		}))
		require.Zero(t, stats().InFlight)

		require.PanicsWithValue(t, "boom", func() {
			_ = g.Do(ctx, shed.Default, func(context.Context) error { panic("boom") })
		})
		require.Zero(t, stats().InFlight, "after a panic")

		var wg sync.WaitGroup
		wg.Go(func() { _ = g.Do(ctx, shed.Default, func(context.Context) error { runtime.Goexit(); return nil }) })
		wg.Wait()
		require.Zero(t, stats().InFlight, "after a Goexit")
	})
}

func TestEndedContextIsRefusedAtOnce(t *testing.T) {
	gates(t, 1, shed.Queue{Max: 1}, func(t *testing.T, g holder, stats func() shed.ConcurrencyStats) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := g.Acquire(ctx, shed.Critical)
		require.Equal(t, context.Canceled, err)
		require.Equal(t, shed.ConcurrencyStats{Limit: 1}, stats())
	})
}

func TestGatesAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	ctx := t.Context()
	gates(t, 1, shed.Queue{Max: 1}, func(t *testing.T, g holder, _ func() shed.ConcurrencyStats) {
		require.Zero(t, testing.AllocsPerRun(1000, func() {
			p, _ := g.Acquire(ctx, shed.Default)
			_, _ = g.TryAcquire(shed.Critical) // refused
			p.Release(shed.Success)
		}))
	})
	gates(t, 1, shed.Queue{}, func(t *testing.T, g holder, _ func() shed.ConcurrencyStats) {
		require.Zero(t, testing.AllocsPerRun(1000, func() {
			p, _ := g.Acquire(ctx, shed.Default)
			_, _ = g.Acquire(ctx, shed.Default) // refused
			p.Release(shed.Success)
		}))
	})
	k, err := shed.NewKeyedConcurrency[string](1)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		p, _ := k.Acquire("user")
		_, _ = k.Acquire("user") // refused
		p.Release(shed.Success)
	}))
}
