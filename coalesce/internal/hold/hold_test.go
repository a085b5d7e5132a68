package hold_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce/internal/hold"
)

const ttl = 30 * time.Second

var errUnknown = errors.New("no answer")

func isLost(h *hold.Hold) bool {
	synctest.Wait()
	select {
	case <-h.Lost():
		return true
	default:
		return false
	}
}

func TestRenewedEachThird(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		h := hold.Start(ttl, start, func(context.Context) (bool, error) {
			at = append(at, time.Since(start))
			return true, nil
		}, func() { t.Error("not lost") })
		time.Sleep(ttl + time.Second)
		require.False(t, isLost(h))
		require.True(t, h.Stop(t.Context()))
		require.True(t, isLost(h))
		require.False(t, h.Stop(t.Context()))
		require.Equal(t, []time.Duration{ttl / 3, 2 * ttl / 3, ttl}, at)
	})
}

// The time counts from the sending of the last renewal that succeeded, however
// long its answer took.
func TestLostATimeToLiveAfterTheLastRenewalWasSent(t *testing.T) {
	for name, fail := range map[string]func(ctx context.Context) (bool, error){
		"error": func(context.Context) (bool, error) { return false, errUnknown },
		"hangs": func(ctx context.Context) (bool, error) { <-ctx.Done(); return false, ctx.Err() },
		"ignores its context": func(context.Context) (bool, error) {
			time.Sleep(time.Hour)
			return true, nil // too late: lost is lost
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				n := 0
				abandoned := make(chan struct{})
				h := hold.Start(ttl, start, func(ctx context.Context) (bool, error) {
					if n++; n > 1 {
						return fail(ctx)
					}
					time.Sleep(ttl / 4)
					return true, nil
				}, func() { close(abandoned) })
				<-h.Lost()
				require.Equal(t, ttl/3+ttl, time.Since(start))
				<-abandoned
				require.False(t, h.Stop(t.Context()))
			})
		})
	}
}

func TestAGrantThatTookTooLongIsLostAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold.Start(ttl, time.Now().Add(-ttl), func(context.Context) (bool, error) { panic("not reached") }, nil)
		require.True(t, isLost(h))
		require.False(t, h.Stop(t.Context()))
	})
}

func TestAnErrorIsTriedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		h := hold.Start(ttl, time.Now(), func(context.Context) (bool, error) {
			if n++; n%10 != 0 {
				return false, errUnknown
			}
			return true, nil
		}, nil)
		time.Sleep(20 * ttl)
		require.False(t, isLost(h), "nine of ten renewals may fail")
		require.True(t, h.Stop(t.Context()))
	})
}

func TestLostAtOnceWhenTheStoreSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		abandoned := false
		h := hold.Start(ttl, start, func(context.Context) (bool, error) { return false, nil }, func() { abandoned = true })
		<-h.Lost()
		require.Equal(t, ttl/3, time.Since(start))
		require.False(t, h.Stop(t.Context()))
		require.True(t, abandoned)
	})
}

func TestStopWaitsForTheRenewalUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		running := false
		h := hold.Start(ttl, start, func(ctx context.Context) (bool, error) {
			running = true
			defer func() { running = false }()
			select {
			case <-time.After(5 * time.Second):
				return true, nil
			case <-ctx.Done():
				return false, ctx.Err()
			}
		}, nil)
		time.Sleep(ttl/3 + time.Second)
		require.True(t, h.Stop(t.Context()))
		require.False(t, running)
		require.Equal(t, ttl/3+5*time.Second, time.Since(start))
	})
}

func TestStopEndsTheRenewalWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		h := hold.Start(ttl, start, func(ctx context.Context) (bool, error) { <-ctx.Done(); return false, ctx.Err() }, nil)
		time.Sleep(ttl/3 + time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.True(t, h.Stop(ctx))
		require.Equal(t, ttl/3+2*time.Second, time.Since(start))
	})
}
