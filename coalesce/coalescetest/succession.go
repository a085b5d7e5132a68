package coalescetest

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

func waitReturnsWhenFree(r *run) {
	require.NoError(r, r.a.Wait(r.soon(), "key"), "never held")
	require.NoError(r, r.acquire(r.a, "key").Release(r.soon()))
	require.NoError(r, r.b.Wait(r.soon(), "key"), "held before")
}

// inBackground starts a Wait of p, and waits until it has begun.
func (r *run) inBackground(ctx context.Context, p Participant, key string) <-chan error {
	waited := make(chan error, 1)
	go func() {
		for ctx.Err() == nil { // Wait may be early
			if err := p.Wait(ctx, key); err != nil {
				waited <- err
				return
			}
			if g, err := p.Acquire(ctx, key); err == nil {
				waited <- g.Release(ctx)
				return
			}
		}
		waited <- ctx.Err()
	}()
	<-time.After(r.ttl / 10) // it need not have begun: then this tests less
	return waited
}

func waitWakesAtRelease(r *run) {
	g := r.acquire(r.a, "key")
	ctx := r.soon()
	waiters := []<-chan error{
		r.inBackground(ctx, r.b, "key"), r.inBackground(ctx, r.b, "key"), r.inBackground(ctx, r.a, "key"),
	}
	require.NoError(r, g.Release(ctx))
	for _, w := range waiters {
		require.NoError(r, <-w)
	}
}

func waitEndsWithItsContext(r *run) {
	g := r.acquire(r.a, "key")
	ctx, cancel := context.WithCancel(r.Context())
	waiters := []<-chan error{r.inBackground(ctx, r.a, "key"), r.inBackground(ctx, r.b, "key")}
	cancel()
	for _, w := range waiters {
		require.ErrorIs(r, <-w, context.Canceled)
	}
	require.ErrorIs(r, r.b.Wait(ctx, "key"), context.Canceled)
	r.open(g)
	require.NoError(r, g.Release(r.soon()))
}

func holderThatIsCutOffIsSucceeded(r *run) {
	first := r.acquire(r.a, "key")
	r.a.Cut()
	second := r.succeed(r.b, "key")
	require.Greater(r, second.Token(), first.Token())
	r.each(r.ttl/2, func() { r.isHeld(r.b, "key") })
	r.open(second)
	require.NoError(r, second.Release(r.soon()))
	r.a.Heal()
}

func lateHolderHurtsNobody(r *run) {
	first := r.acquire(r.a, "key")
	require.NoError(r, r.a.Put(r.soon(), "key", first.Token(), []byte("first")))
	r.a.Cut()
	second := r.succeed(r.b, "key")
	require.NoError(r, r.b.Put(r.soon(), "key", second.Token(), []byte("second")))
	r.a.Heal()

	r.ends(first)
	require.ErrorIs(r, r.a.Put(r.soon(), "key", first.Token(), []byte("late")), coalesce.ErrFenced)
	require.ErrorIs(r, first.Release(r.soon()), coalesce.ErrFenced)
	require.NoError(r, first.Release(r.soon()), "the second release does nothing")

	r.open(second)
	r.isHeld(r.a, "key")
	value, found, err := r.a.Get(r.soon(), "key")
	require.NoError(r, err)
	require.True(r, found)
	require.Equal(r, "second", string(value))
	require.NoError(r, second.Release(r.soon()))

	third := r.acquire(r.a, "key")
	require.Greater(r, third.Token(), second.Token())
	require.ErrorIs(r, r.b.Put(r.soon(), "key", second.Token(), []byte("late")), coalesce.ErrFenced)
	require.NoError(r, third.Release(r.soon()))
}

func resultsAreShared(r *run) {
	_, found, err := r.b.Get(r.soon(), "key")
	require.NoError(r, err)
	require.False(r, found)
	g := r.acquire(r.a, "key")
	for _, value := range []string{"\x00 any \xff bytes", "", "again"} {
		require.NoError(r, r.a.Put(r.soon(), "key", g.Token(), []byte(value)))
		got, found, err := r.b.Get(r.soon(), "key")
		require.NoError(r, err)
		require.True(r, found, "%q", value)
		require.Equal(r, value, string(got))
	}
	require.ErrorIs(r, r.a.Put(r.soon(), "key", g.Token()+1, []byte("of no grant")), coalesce.ErrFenced)
	require.NoError(r, g.Release(r.soon()))
	got, _, err := r.b.Get(r.soon(), "key")
	require.NoError(r, err)
	require.Equal(r, "again", string(got), "the value outlives the lease")
}

// lead is coalesce.Lead of a participant on the store of results.
func (r *run) lead(ctx context.Context, p Participant, key string, work func(context.Context) ([]byte, error)) (string, error) {
	value, err := coalesce.Lead(ctx, p, key,
		func(ctx context.Context) ([]byte, bool, error) { return p.Get(ctx, key) },
		func(ctx context.Context, token coalesce.Token) ([]byte, error) {
			value, err := work(ctx)
			if err != nil {
				return nil, err
			}
			return value, p.Put(ctx, key, token, value)
		})
	return string(value), err
}

func leadWorksOnce(r *run) {
	var executions atomic.Int32
	ctx := r.soon()
	results := make(chan error, 8)
	for i := range cap(results) {
		p := r.a
		if i%2 == 1 {
			p = r.b
		}
		go func() {
			value, err := r.lead(ctx, p, "key", func(context.Context) ([]byte, error) {
				executions.Add(1)
				<-time.After(r.ttl / 10) // the others come meanwhile
				return []byte("value"), nil
			})
			if err == nil && value != "value" {
				err = fmt.Errorf("value %q", value)
			}
			results <- err
		}()
	}
	for range cap(results) {
		require.NoError(r, <-results)
	}
	require.EqualValues(r, 1, executions.Load())
}

func leadSucceedsTheDead(r *run) {
	working, ended := make(chan struct{}), make(chan error, 1)
	ctx := r.soon()
	go func() {
		_, err := r.lead(ctx, r.a, "key", func(ctx context.Context) ([]byte, error) {
			close(working)
			<-ctx.Done() // the grant is lost
			return []byte("late"), nil
		})
		ended <- err
	}()
	<-working
	r.a.Cut()
	value, err := r.lead(ctx, r.b, "key", func(context.Context) ([]byte, error) { return []byte("value"), nil })
	require.NoError(r, err)
	require.Equal(r, "value", value)

	r.a.Heal()
	require.NoError(r, <-ended, "the late holder is fenced and finds the value of its successor")
	value, err = r.lead(ctx, r.a, "key", func(context.Context) ([]byte, error) { return []byte("again"), nil })
	require.NoError(r, err)
	require.Equal(r, "value", value)
}
