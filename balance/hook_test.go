package balance_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
)

// A hook is called without a lock, so that it may do what any caller may.
func TestOnChangeMayCallTheBalancer(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		var b *balance.Balancer[string]
		var now time.Duration
		states := map[balance.State]int{}
		set := equals(10)
		b, err := balance.New[string](strategy, balance.Options{
			Clock: func() time.Duration { return now },
			OnChange: func(id string, s balance.State) {
				states[s]++
				require.Equal(t, s, stateOf(b, id), name)
				p, err := b.Pick()
				require.NoError(t, err)
				q, err := b.PickExcept(p.ID())
				require.NoError(t, err)
				q.Done(errTest)
				p.Done(nil)
				require.NoError(t, b.Update(set))
			},
		})
		require.NoError(t, err)
		require.NoError(t, b.Update(set))
		for range 400 {
			p, err := b.Pick()
			require.NoError(t, err)
			p.Done(errTest)
		}
		now += 30 * time.Second
		stateOf(b, "b0")
		now += 10 * time.Second
		stateOf(b, "b0")
		for _, s := range []balance.State{balance.Ejected, balance.Warming, balance.Healthy} {
			require.Positive(t, states[s], "%s: %s", name, s)
		}
	}
}

// Whatever panics in the end of a pick: it has ended.
func TestAPanicOfAHookLeavesNothingUnderWay(t *testing.T) {
	t.Parallel()
	boom := func() { panic("boom") }
	for name, o := range map[string]balance.Options{
		"Classify": {Classify: func(error) balance.Outcome { boom(); return balance.Failure }},
		"OnChange": {OnChange: func(string, balance.State) { boom() }, Health: balance.Health{Consecutive: 1}},
	} {
		b, err := balance.New[string](balance.LeastRequest(balance.LeastRequestOptions{}), o)
		require.NoError(t, err)
		require.NoError(t, b.Update(equals(2)))
		p, err := b.Pick()
		require.NoError(t, err)
		require.Panics(t, func() { p.Done(errors.New("failed")) }, name)
		p.Done(nil)
		for id, n := range inFlight(b) {
			require.Zero(t, n, "%s: %s", name, id)
		}
		_, err = b.Pick()
		require.NoError(t, err)
		require.NoError(t, b.Update(equals(3)))
	}
}
