package shed_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

func BenchmarkThrottle(b *testing.B) {
	// What any throttle by backend pays: a reading of the clock, a look-up, and two
	// additions, to a part of the window and to the whole.
	epoch := time.Now()
	sums := map[string]*[2]atomic.Uint64{"backend": {}, "other": {}}
	bench(b, "backend=floor", func() {
		if sum := sums["backend"]; int64(time.Since(epoch)) >= 0 {
			sum[0].Add(1)
			sum[1].Add(1)
		}
	})
	for _, bm := range []struct {
		name     string
		accepted bool
	}{{"backend=well", true}, {"backend=gone", false}} {
		throttle := newThrottle(b, shed.ThrottleOptions{})
		bench(b, bm.name, func() {
			if call, err := throttle.Allow("backend", shed.Default); err == nil {
				call.Done(bm.accepted)
			}
		})
	}
}
