package coalescetest

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// A Subject is what [TestLease] tests.
type Subject struct {
	// Open returns two participants that use one store. They share nothing
	// else, as if they were in two processes. What they need is closed when t
	// ends.
	Open func(t testing.TB) (a, b Participant)

	// TTL is the time to live of their leases. Parts of the suite last two of
	// them. On a real server, choose one that is far longer than any pause of a
	// loaded machine, such as 5 s: the suite fails when a living holder loses.
	TTL time.Duration

	// Virtual says that the store is in memory: each part of the suite runs in a
	// testing/synctest bubble. Otherwise all parts run in parallel.
	Virtual bool
}

// A Participant is a lease as one process uses it, and what a test needs to know
// about that process.
type Participant struct {
	coalesce.Lease

	// Put and Get are the fenced store of results that goes with the lease. Put
	// returns an error that is coalesce.ErrFenced when the key has been granted
	// to another holder since.
	Put func(ctx context.Context, key string, token coalesce.Token, value []byte) error
	Get func(ctx context.Context, key string) (value []byte, found bool, err error)

	// Cut makes the participant unable to reach the store, without an end of its
	// connections that the store could notice. Heal makes it able again.
	Cut, Heal func()
}

// patience is how long the suite waits for what must happen. It is long, so that
// only what never happens fails.
const patience = 30 * time.Second

// TestLease runs the suite, each part as a subtest with participants of its own.
func TestLease(t *testing.T, s Subject) {
	for _, part := range []struct {
		name string
		f    func(*run)
	}{
		{"OneHolderAtATime", oneHolderAtATime},
		{"HeldIsErrHeld", heldIsErrHeld},
		{"AnyBytesAreAKey", anyBytesAreAKey},
		{"WaitReturnsWhenFree", waitReturnsWhenFree},
		{"WaitWakesAtRelease", waitWakesAtRelease},
		{"WaitEndsWithItsContext", waitEndsWithItsContext},
		{"AcquireEndsWithItsContext", acquireEndsWithItsContext},
		{"GrantOutlivesItsContext", grantOutlivesItsContext},
		{"RenewedBeyondItsTimeToLive", renewedBeyondItsTimeToLive},
		{"ReleaseTwice", releaseTwice},
		{"HolderThatIsCutOffIsSucceeded", holderThatIsCutOffIsSucceeded},
		{"LateHolderHurtsNobody", lateHolderHurtsNobody},
		{"ResultsAreShared", resultsAreShared},
		{"LeadWorksOnce", leadWorksOnce},
		{"LeadSucceedsTheDead", leadSucceedsTheDead},
	} {
		test := func(t *testing.T) {
			a, b := s.Open(t)
			part.f(&run{T: t, a: a, b: b, ttl: s.TTL})
		}
		t.Run(part.name, func(t *testing.T) {
			if s.Virtual {
				synctest.Test(t, test)
				return
			}
			t.Parallel()
			test(t)
		})
	}
}

// A run is one part of the suite as it runs.
type run struct {
	*testing.T
	a, b Participant
	ttl  time.Duration
}

// soon is a context for what must not take long.
func (r *run) soon() context.Context {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	r.Cleanup(cancel)
	return ctx
}

// acquire makes p the holder of a key that is free.
func (r *run) acquire(p Participant, key string) coalesce.Grant {
	r.Helper()
	g, err := p.Acquire(r.soon(), key)
	require.NoError(r, err)
	r.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = g.Release(ctx) // for what the part did not release
	})
	return g
}

// succeed makes p the holder of a key when its holder has gone.
func (r *run) succeed(p Participant, key string) coalesce.Grant {
	r.Helper()
	require.NoError(r, p.Wait(r.soon(), key))
	return r.acquire(p, key)
}

// isHeld requires that p cannot become the holder.
func (r *run) isHeld(p Participant, key string) {
	r.Helper()
	_, err := p.Acquire(r.soon(), key)
	require.ErrorIs(r, err, coalesce.ErrHeld)
}

// open requires that a grant has not ended.
func (r *run) open(g coalesce.Grant) {
	r.Helper()
	select {
	case <-g.Lost():
		r.Fatal("a grant that is renewed has ended")
	default:
	}
}

// ends requires that a grant ends.
func (r *run) ends(g coalesce.Grant) {
	r.Helper()
	select {
	case <-g.Lost():
	case <-time.After(patience):
		r.Fatal("a grant does not end")
	}
}

// each calls f for a few moments of the next d.
func (r *run) each(d time.Duration, f func()) {
	tick := time.NewTicker(d / 8)
	defer tick.Stop()
	for range 8 {
		<-tick.C
		f()
	}
}
