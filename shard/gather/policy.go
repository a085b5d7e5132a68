package gather

import (
	"fmt"
	"math"
	"time"
)

// Options are the knobs of [Scatter], [ScatterNodes] and [Stream]. The zero value
// asks for everything: every shard must answer.
type Options struct {
	// Concurrency is the most calls in flight at once. 0 means 32. The second calls
	// that Hedge makes come on top.
	//
	// For a Stream without Limit, which must have all its queries open, it is the
	// number of shards from which rows are being read at the same moment.
	Concurrency int

	// ShardTimeout bounds the context of each call, inside the caller's own deadline:
	// with Hedge, both attempts together. 0 means no bound of its own. The error of a call that
	// it ended says so and wraps what the call returned.
	//
	// For a Stream without Limit it bounds the wait for each row of a shard, and not the time
	// that the consumer takes.
	ShardTimeout time.Duration

	// MinFraction is the least share of the shards that must answer for the call
	// to succeed, above 0 and up to 1. 0 means 1: all of them. However small it is,
	// at least one must. A node counts for as many shards as it has.
	MinFraction float64

	// Quorum asks for the first k of n: the call succeeds as soon as that many shards have answered,
	// and the others are ended. 0 means off. It excludes MinFraction, and must not be
	// more than the shards that are asked. A Stream refuses it.
	Quorum int

	// Limit is for Stream alone: the most rows that it yields, and that it reads of
	// each shard. 0 means no limit. Scatter and ScatterNodes refuse it.
	Limit int

	// Bulkhead bounds the calls at each node over all scatters that are given the same
	// one. nil means no bound.
	Bulkhead *Bulkhead

	// Hedge makes a slow call a second time. It is for reads that may be repeated, and
	// is shared by the scatters that share its budget. nil means off. A Stream takes it
	// only with Limit.
	Hedge *Hedge
}

const defaultConcurrency = 32

func (o Options) validate() error {
	switch {
	case o.Concurrency < 0:
		return fmt.Errorf("gather: Options.Concurrency is %d, expected 0 or more", o.Concurrency)
	case o.ShardTimeout < 0:
		return fmt.Errorf("gather: Options.ShardTimeout is %v, expected 0 or more", o.ShardTimeout)
	case !(o.MinFraction >= 0 && o.MinFraction <= 1): // refuses NaN as well
		return fmt.Errorf("gather: Options.MinFraction is %v, expected 0 to 1", o.MinFraction)
	case o.Quorum < 0:
		return fmt.Errorf("gather: Options.Quorum is %d, expected 0 or more", o.Quorum)
	case o.Quorum > 0 && o.MinFraction > 0:
		return fmt.Errorf("gather: Options.Quorum is %d and Options.MinFraction %v, expected one of them to be 0", o.Quorum, o.MinFraction)
	case o.Limit < 0:
		return fmt.Errorf("gather: Options.Limit is %d, expected 0 or more", o.Limit)
	}
	if err := o.Bulkhead.validate(); err != nil {
		return err
	}
	return o.Hedge.validate()
}

// validateScatter is validate for what is no stream.
func (o Options) validateScatter() error {
	if o.Limit > 0 {
		return fmt.Errorf("gather: Options.Limit is %d, expected 0: only a Stream has a limit", o.Limit)
	}
	return o.validate()
}

// validateStream is validate for Stream.
func (o Options) validateStream() error {
	switch {
	case o.Quorum != 0:
		return fmt.Errorf("gather: Options.Quorum is %d, expected 0: a Stream has no quorum", o.Quorum)
	case o.Hedge != nil && o.Limit == 0:
		return fmt.Errorf("gather: Options.Hedge is set and Options.Limit 0, expected a limit: a Stream without one is not hedged")
	}
	return o.validate()
}

// concurrency is how many of n calls may run at once.
func (o Options) concurrency(n int) int {
	if o.Concurrency == 0 {
		return min(n, defaultConcurrency)
	}
	return min(n, o.Concurrency)
}

// need is how many of n shards must answer.
func (o Options) need(n int) (int, error) {
	switch {
	case o.Quorum > n:
		return 0, fmt.Errorf("gather: Options.Quorum is %d, expected at most the number of shards that are asked, %d", o.Quorum, n)
	case o.Quorum > 0:
		return o.Quorum, nil
	case o.MinFraction == 0:
		return n, nil
	}
	// The fraction is often a quotient: 2.0/3 of 3 shards are 2 and not 3.
	least := int(math.Ceil(float64(n)*o.MinFraction - 1e-9))
	return min(n, max(1, least)), nil
}
