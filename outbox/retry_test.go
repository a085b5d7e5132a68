package outbox_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/outbox"
)

func backoffStaysInRange(t *rapid.T) {
	base := time.Duration(rapid.Int64Range(1, 1<<63-1).Draw(t, "base"))
	limit := time.Duration(rapid.Int64Range(int64(base), 1<<63-1).Draw(t, "limit"))
	attempt := rapid.OneOf(rapid.IntRange(-1, 70), rapid.IntRange(0, 1_000_000)).Draw(t, "attempt")
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
	d := outbox.Backoff(r, base, limit, attempt)
	require.GreaterOrEqual(t, d, time.Duration(0))
	require.LessOrEqual(t, d, limit)
	// The ceiling doubles: computed here the slow way.
	ceiling := base
	for range min(attempt-1, 100) {
		if ceiling > limit/2 {
			ceiling = limit
			break
		}
		ceiling *= 2
	}
	require.LessOrEqual(t, d, ceiling)
}

func TestBackoffStaysInRange(t *testing.T) { rapid.Check(t, backoffStaysInRange) }

func FuzzBackoffStaysInRange(f *testing.F) { f.Fuzz(rapid.MakeFuzz(backoffStaysInRange)) }

func TestBackoffUsesItsWholeRange(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for attempt, ceiling := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 6: 30 * time.Second, 64: 30 * time.Second, 1000: 30 * time.Second,
	} {
		var low, high int
		for range 1000 {
			d := outbox.Backoff(r, time.Second, 30*time.Second, attempt)
			require.LessOrEqual(t, d, ceiling)
			if d < ceiling/4 {
				low++
			}
			if d > ceiling*3/4 {
				high++
			}
		}
		require.InDelta(t, 250, low, 80, "full jitter begins at nothing")
		require.InDelta(t, 250, high, 80, "and reaches the ceiling, attempt %d", attempt)
	}
}

func TestJitterIsHalf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, 1<<62).Draw(t, "d"))
		j := outbox.Jitter(d)
		require.LessOrEqual(t, j, d)
		require.GreaterOrEqual(t, j, d/2-1)
	})
}

func TestMarksAreTransparent(t *testing.T) {
	require.NoError(t, outbox.Permanent(nil))
	require.NoError(t, outbox.RetryAfter(nil, time.Second))
	for _, err := range []error{outbox.Permanent(io.EOF), outbox.RetryAfter(io.EOF, time.Second), outbox.Permanent(outbox.RetryAfter(io.EOF, -1))} {
		require.ErrorIs(t, err, io.EOF)
		require.ErrorContains(t, err, "EOF")
		require.False(t, errors.Is(err, io.ErrUnexpectedEOF))
	}
}
