package httpbalance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/balance"
)

// Resolver finds the backends of a service, once. [DNS] and [SRV] are resolvers.
type Resolver interface {
	Resolve(ctx context.Context) ([]balance.Backend[*url.URL], error)
}

// ResolverFunc makes a function a [Resolver]: for another registry, or to add zones and
// weights to what a resolver returns.
type ResolverFunc func(ctx context.Context) ([]balance.Backend[*url.URL], error)

// Resolve calls f.
func (f ResolverFunc) Resolve(ctx context.Context) ([]balance.Backend[*url.URL], error) {
	return f(ctx)
}

// FollowOptions are the knobs of [Follow].
type FollowOptions struct {
	// Interval is the time between two lookups, give or take a tenth, so that many
	// clients do not ask at once. The package net does not tell the TTL of an answer. 0
	// means 30 seconds.
	Interval time.Duration

	// Log hears of changes (Info) and of lookups that failed (Warn). Nil means silence.
	Log *slog.Logger
}

const (
	defaultInterval = 30 * time.Second
	firstBackoff    = time.Second // after a failed lookup; doubled up to Interval
	lookupTimeout   = 10 * time.Second
)

// Follow keeps the backends of b up to date: it resolves at once, then every Interval,
// and calls b's Update when something has changed. It returns nil when ctx has ended,
// and has then no goroutine left.
//
// An error, an answer without backends and one that Update refuses change nothing: the
// last good one stays. A backend that was removed and is still asked fails and is then
// ejected, while no backends at all would fail every request. After such a failure the
// next lookup comes after a second, then 2, 4 and so on up to Interval, each give or
// take a tenth. A lookup is given up after 10 seconds, or Interval if that is less.
//
// To have backends before the first request, resolve and Update once before.
//
// Returns an error at once if b or r is nil or Interval is negative.
func Follow(ctx context.Context, b *balance.Balancer[*url.URL], r Resolver, o FollowOptions) error {
	switch {
	case b == nil:
		return errors.New("httpbalance: the balancer to follow with is nil, expected one from balance.New")
	case r == nil:
		return errors.New("httpbalance: the resolver to follow is nil, expected one such as DNS")
	case o.Interval < 0:
		return fmt.Errorf("httpbalance: FollowOptions.Interval is %v, expected 0 (for %v) or a positive time", o.Interval, defaultInterval)
	case o.Interval == 0:
		o.Interval = defaultInterval
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f := &follower{balancer: b, resolver: r, options: o}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if ctx.Err() != nil {
			return nil
		}
		timer.Reset(jitter(f.step(ctx)))
	}
}

// follower is the state of one Follow.
type follower struct {
	balancer *balance.Balancer[*url.URL]
	resolver Resolver
	options  FollowOptions
	last     []balance.Backend[*url.URL]
	backoff  time.Duration // 0 after a success
}

// step resolves once and returns the time until the next.
func (f *follower) step(ctx context.Context) time.Duration {
	if err := f.refresh(ctx); err != nil {
		f.backoff = min(max(firstBackoff, 2*f.backoff), f.options.Interval)
		if ctx.Err() == nil {
			f.options.Log.WarnContext(ctx, "httpbalance: lookup failed, the backends stay", "error", err, "backends", len(f.last), "next", f.backoff)
		}
		return f.backoff
	}
	f.backoff = 0
	return f.options.Interval
}

func (f *follower) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, min(lookupTimeout, f.options.Interval))
	defer cancel()
	set, err := f.resolver.Resolve(ctx)
	if err != nil {
		return err
	}
	if len(set) == 0 {
		return balance.ErrNoBackends
	}
	if slices.EqualFunc(set, f.last, same) {
		return nil
	}
	if err := f.balancer.Update(set); err != nil {
		return err
	}
	f.options.Log.InfoContext(ctx, "httpbalance: backends changed", "before", len(f.last), "backends", len(set))
	f.last = slices.Clone(set)
	return nil
}

func same(a, b balance.Backend[*url.URL]) bool {
	return a.ID == b.ID && a.Weight == b.Weight && a.Zone == b.Zone &&
		(a.Value == b.Value || a.Value != nil && b.Value != nil && *a.Value == *b.Value)
}

// jitter returns d give or take a tenth. A time of centuries, for never again, does not
// overflow.
func jitter(d time.Duration) time.Duration {
	d = min(d, math.MaxInt64/2)
	return d - d/10 + time.Duration(rand.Int64N(int64(d/5)+1))
}
