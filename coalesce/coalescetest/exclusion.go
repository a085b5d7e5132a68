package coalescetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

func oneHolderAtATime(r *run) {
	const (
		workers = 3 // a participant
		rounds  = 5
	)
	var holders atomic.Int32
	var tokens []coalesce.Token // guarded by the lease
	var all sync.WaitGroup
	work := func(p Participant) error {
		for done := 0; done < rounds; {
			g, err := p.Acquire(r.soon(), "key")
			if errors.Is(err, coalesce.ErrHeld) {
				err = p.Wait(r.soon(), "key")
				if err == nil {
					continue
				}
			}
			if err != nil {
				return err
			}
			if holders.Add(1) != 1 {
				return errors.New("two holders")
			}
			tokens = append(tokens, g.Token())
			holders.Add(-1)
			if err := g.Release(r.soon()); err != nil {
				return err
			}
			done++
		}
		return nil
	}
	failed := make(chan error, 2*workers)
	for _, p := range []Participant{r.a, r.b} {
		for range workers {
			all.Go(func() { failed <- work(p) })
		}
	}
	all.Wait()
	for range 2 * workers {
		require.NoError(r, <-failed)
	}
	require.Len(r, tokens, 2*workers*rounds)
	for i := range tokens[1:] {
		require.Greater(r, tokens[i+1], tokens[i], "tokens grow")
	}
}

func heldIsErrHeld(r *run) {
	g := r.acquire(r.a, "key")
	r.isHeld(r.b, "key")
	r.isHeld(r.a, "key")
	other := r.acquire(r.b, "another key")
	r.open(g)
	r.open(other)
	require.NoError(r, g.Release(r.soon()))
	require.NoError(r, other.Release(r.soon()))
}

// keys are hard for one store or another: as text, as a part of a name, as a hash
// tag of Redis Cluster, as a number of bytes.
var keys = []string{
	"", " ", "\x00", "a\x00b", "\xff\xfe", "ключ 🔑", "Key", "key", "key ", "'; DROP TABLE evenkeel_lease; --", `"\`,
	"%s%_", "{", "}", "{}", "{a}b", "a{b}c", "line\nline", strings.Repeat("k", 65), strings.Repeat("x", 10_000),
	strings.Repeat("x", 9_999) + "y",
}

func anyBytesAreAKey(r *run) {
	held := map[string]coalesce.Grant{}
	for _, key := range keys {
		held[key] = r.acquire(r.a, key)
		require.NoError(r, r.a.Put(r.soon(), key, held[key].Token(), []byte("of "+key)))
	}
	for _, key := range keys {
		r.isHeld(r.b, key)
		value, found, err := r.b.Get(r.soon(), key)
		require.NoError(r, err)
		require.True(r, found, "%q", key)
		require.Equal(r, "of "+key, string(value))
	}
	for _, key := range keys {
		require.NoError(r, held[key].Release(r.soon()), "%q", key)
		require.NoError(r, r.b.Wait(r.soon(), key), "%q", key)
	}
}

func releaseTwice(r *run) {
	first := r.acquire(r.a, "key")
	r.open(first)
	require.NoError(r, first.Release(r.soon()))
	r.ends(first)
	require.NoError(r, first.Release(r.soon()))

	second := r.acquire(r.b, "key")
	require.Greater(r, second.Token(), first.Token())
	require.NoError(r, first.Release(r.soon()))
	r.isHeld(r.a, "key")
	r.open(second)
	require.NoError(r, second.Release(r.soon()))

	var once sync.WaitGroup
	third := r.acquire(r.a, "key")
	failed := make(chan error, 4)
	for range cap(failed) {
		once.Go(func() { failed <- third.Release(r.soon()) })
	}
	once.Wait()
	for range cap(failed) {
		require.NoError(r, <-failed)
	}
	require.NoError(r, r.succeed(r.b, "key").Release(r.soon()))
}

func grantOutlivesItsContext(r *run) {
	ctx, cancel := context.WithCancel(r.Context())
	g, err := r.a.Acquire(ctx, "key")
	require.NoError(r, err)
	cancel()
	r.each(r.ttl, func() { r.isHeld(r.b, "key") })
	r.open(g)
	require.NoError(r, g.Release(r.soon()))
}

func renewedBeyondItsTimeToLive(r *run) {
	g := r.acquire(r.a, "key")
	r.each(3*r.ttl/2, func() {
		r.isHeld(r.b, "key")
		r.open(g)
		require.NoError(r, r.a.Put(r.soon(), "key", g.Token(), nil))
	})
	require.NoError(r, g.Release(r.soon()))
}

func acquireEndsWithItsContext(r *run) {
	ctx, cancel := context.WithCancel(r.Context())
	cancel()
	for range 10 {
		_, err := r.a.Acquire(ctx, "key")
		require.ErrorIs(r, err, context.Canceled)
	}
	require.NoError(r, r.succeed(r.b, "key").Release(r.soon()), "nobody holds what was not granted")

	// A store that cannot be reached: an error, and not for ever.
	r.a.Cut()
	ctx, cancel = context.WithTimeout(r.Context(), r.ttl/4)
	defer cancel()
	_, err := r.a.Acquire(ctx, "key")
	require.ErrorIs(r, err, context.DeadlineExceeded)
	err = r.a.Wait(ctx, "key")
	require.ErrorIs(r, err, context.DeadlineExceeded)
	r.a.Heal()
	require.NoError(r, r.succeed(r.b, "key").Release(r.soon()))
}
