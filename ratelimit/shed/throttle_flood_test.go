package shed_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// A flood of a low class takes no probes away from a higher one: what is critical comes
// back as soon with it as without it.
func TestAFloodDoesNotKeepTheCriticalAway(t *testing.T) {
	// recovery returns the seconds until all that is critical is sent again.
	recovery := func(flood int) (seconds int) {
		throttle := newThrottle(t, shed.ThrottleOptions{Window: time.Minute, Rand: rand.New(rand.NewPCG(1, 2)).Uint64})
		now, away := noon, true
		send := func(class shed.Class) bool {
			call, err := throttle.AllowAt(now, "a", class)
			call.Done(!away)
			return err == nil
		}
		second := func() (sent int) {
			for range 10 {
				for range flood / 10 {
					now = now.Add(100 * time.Millisecond / time.Duration(flood/10))
					send(shed.Background)
				}
				if flood == 0 {
					now = now.Add(100 * time.Millisecond)
				}
				if send(shed.Critical) {
					sent++
				}
			}
			return sent
		}
		for range 90 {
			second()
		}
		for away = false; second() < 10; seconds++ {
			require.Less(t, seconds, 1000)
		}
		return seconds
	}
	require.InDelta(t, recovery(0), recovery(500), 20)
}
