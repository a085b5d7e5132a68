//go:build unix

package outbox_test

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var killOptions = childOptions{Batch: 20, Lease: 200 * time.Millisecond}

// TestKill kills and stops processes that add and drain, at random moments, and
// then looks for what was lost, invented or out of order.
func TestKill(t *testing.T) {
	t.Parallel()
	underRace(t)
	for kind, newSite := range siteKinds(t, some(2, "postgres", "mysql", "ncruces", "modernc")...) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			testKill(t, newSite(t))
		})
	}
}

func testKill(t *testing.T, s *site) {
	rounds := 12
	if !thorough {
		rounds = 4
	}
	o := orders{Site: *s, Options: killOptions, Drain: true, Add: true, Fail: 10, Publish: -1}
	children := [2]*process{start(t, o), start(t, o)}
	for range rounds {
		i := rand.IntN(2)
		c, other := children[i], children[1-i]
		c.hear(t, 1+rand.IntN(150), "")
		if rand.IntN(3) > 0 {
			c.kill()
			children[i] = start(t, o)
			continue
		}
		// A process that sleeps through its lease. It may hold the write lock
		// meanwhile, so the other one need not get anywhere.
		c.signal(t, syscall.SIGSTOP)
		other.heard(1000, "", time.After(2*killOptions.Lease))
		c.signal(t, syscall.SIGCONT)
	}
	children[0].kill()
	children[1].kill()

	// What is left is delivered by this process, after the leases have ended.
	file, err := s.file()
	require.NoError(t, err)
	s.drainRest(t, killOptions.options(), deliverTo(file, 10))
	require.NoError(t, file.Close())
	sum := s.check(t)
	t.Logf("%d messages, %d deliveries repeated, in %d kills and stops", sum.committed, sum.repeated, rounds)
}
