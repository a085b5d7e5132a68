package ratelimit_test

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

func TestEveryKeyHasALimitOfItsOwn(t *testing.T) {
	plans := map[string]ratelimit.Limit{"free": ratelimit.Per(2, time.Minute), "pro": ratelimit.Per(100, time.Second).Burst(500)}
	k, err := ratelimit.NewKeyedBy(func(key string) ratelimit.Limit { return plans[key] }, ratelimit.KeyedOptions{Capacity: 10})
	require.NoError(t, err)
	require.Equal(t, ratelimit.Limit{}, k.Limit())
	require.Equal(t, plans["pro"], k.LimitOf("pro"))
	require.Equal(t, ratelimit.Decision{Allowed: true, Limit: 2, Remaining: 1, ResetAfter: 30 * time.Second}, k.TakeAt("free", origin, 1))
	require.Equal(t, ratelimit.Decision{Allowed: true, Limit: 500, Remaining: 100, ResetAfter: 4 * time.Second}, k.TakeAt("pro", origin, 400))
	require.True(t, k.Allow("pro"))

	d := k.TakeAt("nobody", origin, 1)
	require.Equal(t, ratelimit.Decision{RetryAfter: -1}, d, "a limit that cannot be kept grants nothing")
	require.False(t, k.Allow("nobody"))
	require.False(t, ratelimit.All(k.Want("pro", 1), k.Want("nobody", 1)).Allowed)
	require.Negative(t, k.Peek("nobody", 1).RetryAfter)
	n, d := k.TakeUpTo("nobody", 5)
	require.Zero(t, n)
	require.Negative(t, d.RetryAfter)
	_, err = k.Reserve("nobody", 1, 0)
	require.ErrorIs(t, err, ratelimit.ErrInvalidLimit)
	require.ErrorIs(t, k.Wait(t.Context(), "nobody", 1), ratelimit.ErrInvalidLimit)
}

func TestNewKeyedByRefusesWhatCannotWork(t *testing.T) {
	_, err := ratelimit.NewKeyedBy[int](nil, ratelimit.KeyedOptions{})
	require.ErrorIs(t, err, ratelimit.ErrInvalidLimit)
	require.ErrorContains(t, err, "limitOf is nil")
	limitOf := func(int) ratelimit.Limit { return ratelimit.Per(1, time.Second) }
	_, err = ratelimit.NewKeyedBy(limitOf, ratelimit.KeyedOptions{Capacity: -1})
	require.ErrorIs(t, err, ratelimit.ErrInvalidCapacity)
	for _, labels := range []int{-1, 256} {
		_, err = ratelimit.NewKeyedBy(limitOf, ratelimit.KeyedOptions{Labels: labels})
		require.ErrorContains(t, err, fmt.Sprintf("Labels is %d, expected 0 to 255", labels))
	}
}

// Limits by key, never rounded up, in one set that is far too small: no key exceeds the
// limit that it has.
func TestNoKeyExceedsItsOwnLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := map[int]ratelimit.Limit{}
		for key := range rapid.IntRange(1, 16).Draw(t, "keys") {
			d := rapid.OneOf(rapid.Int64Range(1, 1000), rapid.Int64Range(1, 1e12)).Draw(t, "d")
			limits[key] = ratelimit.Per(rapid.Int64Range(1, min(d, 1e6)).Draw(t, "n"), time.Duration(d)).Burst(rapid.Int64Range(1, 20).Draw(t, "burst"))
		}
		k, err := ratelimit.NewKeyedBy(func(key int) ratelimit.Limit { return limits[key] }, ratelimit.KeyedOptions{Capacity: 1})
		require.NoError(t, err)
		grants := map[int][]grant{}
		now := origin
		for range rapid.IntRange(1, 100).Draw(t, "calls") {
			key := rapid.IntRange(0, len(limits)-1).Draw(t, "key")
			n := rapid.Int64Range(1, 20).Draw(t, "n")
			at := now.Add(time.Duration(rapid.Int64Range(-1e9, 1e9).Draw(t, "off")))
			if k.TakeAt(key, at, n).Allowed {
				grants[key] = append(grants[key], grant{at, n})
			}
			now = now.Add(time.Duration(rapid.Int64Range(0, 1e10).Draw(t, "step")))
		}
		for key, of := range grants {
			requireBound(t, limits[key], of)
		}
	})
}

func TestALimitThatChangesGrantsNothingExtra(t *testing.T) {
	var limit atomic.Value
	limit.Store(ratelimit.Per(10, 10*time.Second))
	k, err := ratelimit.NewKeyedBy(func(int) ratelimit.Limit { return limit.Load().(ratelimit.Limit) }, ratelimit.KeyedOptions{Capacity: 1})
	require.NoError(t, err)
	require.True(t, k.TakeAt(1, origin, 10).Allowed)
	limit.Store(ratelimit.Per(100, 10*time.Second)) // ten times the rate: the debt takes as long as before
	require.Equal(t, 10*time.Second, k.TakeAt(1, origin, 0).ResetAfter)
	require.False(t, k.TakeAt(1, origin, 1).Allowed)
	limit.Store(ratelimit.Per(10, 10*time.Second).Burst(15))
	require.Equal(t, int64(5), k.TakeAt(1, origin, 0).Remaining, "the new burst less what it owes")
	limit.Store(ratelimit.Per(10, 10*time.Second).Burst(5))
	require.False(t, k.TakeAt(1, origin, 1).Allowed)
	require.Equal(t, 6*time.Second, k.TakeAt(1, origin, 1).RetryAfter)
}

func TestALimitByKeyTakesAtMost208Days(t *testing.T) {
	const day = 24 * time.Hour
	for refill, ok := range map[time.Duration]bool{208 * day: true, 209 * day: false} {
		k, err := ratelimit.NewKeyedBy(func(int) ratelimit.Limit { return ratelimit.Per(1, refill) }, ratelimit.KeyedOptions{Capacity: 1})
		require.NoError(t, err)
		require.Equal(t, ok, k.Take(1, 1).Allowed)
		if !ok {
			_, err := k.Reserve(1, 1, 0)
			require.ErrorContains(t, err, "as a limit by key")
		}
	}
}

func TestAllYieldsThoseWhoOwe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, err := ratelimit.NewKeyed[string](ratelimit.Per(1, time.Second).Burst(10), ratelimit.KeyedOptions{Capacity: 100, Labels: 8})
		require.NoError(t, err)
		k.Take("ann", 3)
		k.Take("a long name", 1)
		k.Take("paid", 2)
		require.True(t, ratelimit.All(k.Want("bob", 5)).Allowed)
		_, err = k.Reserve("eve", 4, 0)
		require.NoError(t, err)
		k.Take("refused", 11)
		k.TakeUpTo("", 6)
		require.Equal(t, int64(8), k.Peek("paid", 1).Remaining)
		time.Sleep(2 * time.Second)
		got := maps.Collect(k.All())
		require.Len(t, got, 4)
		require.Equal(t, time.Second, got["ann"])
		require.Equal(t, 3*time.Second, got["bob"])
		require.Equal(t, 2*time.Second, got["eve"])
		delete(got, "ann")
		delete(got, "bob")
		delete(got, "eve")
		for label, left := range got {
			require.Regexp(t, "^#[0-9a-f]{16}$", label, "the empty key has no label")
			require.Equal(t, 4*time.Second, left)
		}
		k.Take("a long name", 1)
		require.Contains(t, slices.Collect(maps.Keys(maps.Collect(k.All()))), "a long n")
		for range k.All() {
			break
		}
	})
}

func TestLabelsFollowTheirSlots(t *testing.T) {
	k, err := ratelimit.NewKeyed[int](ratelimit.Per(1, time.Second), ratelimit.KeyedOptions{Capacity: 1, Labels: 4})
	require.NoError(t, err)
	now := time.Now()
	for round := range 3 {
		for key := range ratelimit.Ways {
			k.TakeAt(10*round+key, now.Add(time.Duration(round)*time.Hour), 1)
		}
	}
	var labels []string
	for label := range k.All() {
		labels = append(labels, label)
	}
	slices.Sort(labels)
	require.Equal(t, []string{"20", "21", "22", "23", "24", "25", "26"}, labels)
}

func TestPeekChargesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Per(10, 10*time.Second))
		k := newKeyed[int](t, ratelimit.Per(10, 10*time.Second), 1)
		for range 3 {
			require.Equal(t, ratelimit.Decision{Allowed: true, Limit: 10, Remaining: 10}, l.Peek(10))
			require.Equal(t, ratelimit.Decision{Allowed: true, Limit: 10, Remaining: 10}, k.Peek(1, 10))
		}
		require.Zero(t, k.Stats().Resident+int(k.Stats().Allowed))
		l.Take(7)
		k.Take(1, 7)
		want := ratelimit.Decision{Limit: 10, Remaining: 3, RetryAfter: 2 * time.Second, ResetAfter: 7 * time.Second}
		require.Equal(t, want, l.Peek(5))
		require.Equal(t, want, k.Peek(1, 5))
		require.True(t, l.Peek(0).Allowed)
		require.Equal(t, time.Duration(-1), l.Peek(11).RetryAfter)
		require.Equal(t, time.Duration(-1), k.Peek(1, -1).RetryAfter)
		time.Sleep(2 * time.Second)
		require.True(t, l.Peek(5).Allowed)
		require.True(t, k.Peek(1, 5).Allowed)
	})
}

func TestTakeUpToTakesWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Per(10, 10*time.Second))
		k := newKeyed[int](t, ratelimit.Per(10, 10*time.Second), 1)
		both := func(n, granted int64, want ratelimit.Decision) {
			t.Helper()
			got, d := l.TakeUpTo(n)
			require.Equal(t, granted, got)
			require.Equal(t, want, d)
			got, d = k.TakeUpTo(1, n)
			require.Equal(t, granted, got)
			require.Equal(t, want, d)
		}
		both(4, 4, ratelimit.Decision{Allowed: true, Limit: 10, Remaining: 6, ResetAfter: 4 * time.Second})
		both(100, 6, ratelimit.Decision{Allowed: true, Limit: 10, ResetAfter: 10 * time.Second})
		both(100, 0, ratelimit.Decision{Limit: 10, RetryAfter: time.Second, ResetAfter: 10 * time.Second})
		both(0, 0, ratelimit.Decision{Allowed: true, Limit: 10, ResetAfter: 10 * time.Second})
		both(-1, 0, ratelimit.Decision{Limit: 10, RetryAfter: -1, ResetAfter: 10 * time.Second})
		time.Sleep(1500 * time.Millisecond) // redis_rate takes the half unit too, and grants one
		both(9, 1, ratelimit.Decision{Allowed: true, Limit: 10, ResetAfter: 9500 * time.Millisecond})
		time.Sleep(500 * time.Millisecond)
		both(9, 1, ratelimit.Decision{Allowed: true, Limit: 10, ResetAfter: 10 * time.Second})
	})
}
