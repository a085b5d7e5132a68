// Package pause keeps clients away from servers that asked for it.
package pause

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// Table remembers until when keys are to be left alone. The zero value is ready. It is
// safe for concurrent use by multiple goroutines.
type Table struct {
	mu   sync.Mutex
	ends map[string]time.Time // guarded by mu; at most Max
}

// Max is how many keys are remembered. Of more, those that end first are forgotten.
const Max = 1024

// Left returns how long a key is still to be left alone.
func (t *Table) Left(key string) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	end, ok := t.ends[key]
	if !ok {
		return 0
	}
	left := time.Until(end)
	if left <= 0 {
		delete(t.ends, key)
	}
	return left
}

// Wait returns when a request with a key may be sent: when the key is not to be left
// alone any more, and when the limiter, if there is one, has a unit for it. If ctx would
// end before the pause does, Wait returns at once how long that would have lasted. Other
// errors are those of the limiter and of ctx.
func (t *Table) Wait(ctx context.Context, limiter *ratelimit.Keyed[string], key string) (late time.Duration, err error) {
	charged := limiter == nil
	for {
		// A pause may begin while the limiter is waited for, so look last.
		if left := t.Left(key); left > 0 {
			if late, err := sleep(ctx, left); late > 0 || err != nil {
				return late, err
			}
			continue
		}
		if charged {
			return 0, ctx.Err()
		}
		if err := limiter.Wait(ctx, key, 1); err != nil {
			return 0, err
		}
		charged = true
	}
}

func sleep(ctx context.Context, d time.Duration) (late time.Duration, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return d, nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return 0, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Until makes a key be left alone for d from now, but for most at the most, or longer if it
// is already. A most of 0 means one minute. Nothing happens if d is not positive.
func (t *Table) Until(key string, now time.Time, d, most time.Duration) {
	if d = min(d, cmp.Or(most, time.Minute)); d <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	end := now.Add(d)
	if old, ok := t.ends[key]; ok {
		if end.After(old) {
			t.ends[key] = end
		}
		return
	}
	if t.ends == nil {
		t.ends = map[string]time.Time{}
	}
	if len(t.ends) >= Max {
		t.forget(now)
	}
	t.ends[key] = end
}

// forget makes room: for what is over, or else of what will be first.
func (t *Table) forget(now time.Time) {
	var first string
	var soonest time.Time
	for key, end := range t.ends {
		if !end.After(now) {
			delete(t.ends, key)
		} else if soonest.IsZero() || end.Before(soonest) {
			first, soonest = key, end
		}
	}
	if len(t.ends) >= Max {
		delete(t.ends, first)
	}
}

// Len returns the number of keys that are remembered.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.ends)
}
