package coalesce

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// releaseTimeout bounds how long Lead waits for the release of a lease. It
	// needs one round trip. If that fails, the lease ends by itself.
	releaseTimeout = time.Second

	// maxFenced is how often in one call the work may lose its lease. A process
	// is seldom paused for longer than a time to live, and hardly ever three
	// times in a row: rather the work uses a wrong token, or its store has come
	// back from a backup, and would be refused for ever.
	maxFenced = 3
)

// Lead returns the value of key that lookup finds in a store which all processes
// share, and if there is none, sees to it that one process does the work that
// puts it there. Those that wait for that process then find it. It is for work
// that is expensive enough to be worth some round trips to the lease: one that
// finds no value takes a lease, looks once more, works and releases.
//
// Call Lead on a [Group], so that a process asks once, and has one waiter for a
// key, however many callers it has:
//
//	g.Do(ctx, key, func(ctx context.Context) (V, error) {
//		return coalesce.Lead(ctx, lease, key, lookup, work)
//	})
//
// lookup returns a value and whether there is one. It is called before each try
// to become the holder, and again as the holder, since the one before may have
// finished in between.
//
// work makes the value and stores it by a fenced write with its token, such as
// Put of redislease and Fence of sqllease. Its context ends when ctx does, or,
// with the cause [ErrFenced], when the lease is lost. Returning a value without
// storing it is allowed: then each process that asks does the work, one after
// the other.
//
// # Errors
//
// The error of lookup, of the lease or of work is returned as it is, and no
// other process learns of it: each of those that wait does the work in its turn.
// Store failures as values if they should not.
//
// When work returns an error that is ErrFenced, or the end of its context after
// the lease was lost, another holder is at work or has finished, and Lead begins
// again, so that it returns that one's value. At the third time in one call it
// returns the error. The lease is released however work ends, also by a panic or
// by Goexit, and also when ctx has ended; that is waited for, for at most a
// second. Its failure is no error: the lease then ends with its time to live.
//
// Lead is safe for concurrent use by multiple goroutines.
func Lead[V any](
	ctx context.Context, l Lease, key string,
	lookup func(context.Context) (V, bool, error),
	work func(context.Context, Token) (V, error),
) (V, error) {
	for fenced := 0; ; {
		v, found, err := lookup(ctx)
		if found || err != nil {
			return v, err
		}
		g, err := l.Acquire(ctx, key)
		switch {
		case errors.Is(err, ErrHeld):
			if err := l.Wait(ctx, key); err != nil {
				return v, err
			}
			continue
		case err != nil:
			return v, err
		}
		v, err = hold(ctx, g, lookup, work)
		if fenced++; !errors.Is(err, ErrFenced) || fenced == maxFenced {
			return v, err
		}
	}
}

// hold works under a grant and releases it.
func hold[V any](
	ctx context.Context, g Grant,
	lookup func(context.Context) (V, bool, error),
	work func(context.Context, Token) (V, error),
) (V, error) {
	defer func() {
		// The caller's context may have ended, which is a reason to release.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		_ = g.Release(ctx)
	}()
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-g.Lost():
			cancel(ErrFenced)
		case <-working.Done():
		}
	}()

	v, found, err := lookup(working)
	if !found && err == nil {
		v, err = work(working, g.Token())
	}
	if err != nil && context.Cause(working) == ErrFenced && errors.Is(err, working.Err()) {
		err = fmt.Errorf("%w: %w", ErrFenced, err)
	}
	return v, err
}
