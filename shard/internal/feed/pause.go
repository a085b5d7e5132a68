package feed

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

// Pauses after failures: they double from the first to the last.
const (
	FirstPause = 100 * time.Millisecond
	LastPause  = 5 * time.Second
)

// A Backoff counts the failures in a row. The zero value has seen none.
type Backoff struct{ pause time.Duration }

// Next returns the pause after one more failure.
func (b *Backoff) Next() time.Duration {
	b.pause = min(max(FirstPause, 2*b.pause), LastPause)
	return Jitter(b.pause)
}

// Reset forgets the failures.
func (b *Backoff) Reset() { b.pause = 0 }

// Jitter returns between three and five quarters of d, so that a fleet that starts
// together does not ask together.
func Jitter(d time.Duration) time.Duration {
	d = min(d, math.MaxInt64/2) // five quarters of more would be negative
	return d - d/4 + rand.N(d/2+1)
}

// Sleep waits for d, and reports false if ctx ends first.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
