package gather

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"

	"github.com/evenkeel-go/evenkeel/shard"
)

const mostBuckets = 16 // that NewestFirst asks at once

// NewestFirst returns the newest rows of something that is kept in time buckets, at
// most limit of them, newest first: one page of a channel's messages, say. Buckets
// come newest first from [shard.Buckets.Back], and fetch returns the newest rows of
// one, at most limit, newest first.
//
// It asks the newest bucket alone, which for a busy channel holds the page. After each
// round that has not filled the page, it asks twice as many buckets at once, up to
// 16, for the rows that are still missing: the n-th bucket is reached after about
// log2(n) round trips, and n/16 when they are many. So fetch must be safe for
// several calls at once, and a few of them may be in vain. A page that ends before
// limit rows has seen all buckets. Rows that fetch returns beyond its limit are not used.
//
// The first call to fail ends the context of the others and its error is returned,
// with the number of its bucket and without rows. When ctx ends, that is what fetch
// returns then.
// NewestFirst returns when every call that it made has returned. It returns a plain
// error if limit is below 1 or buckets or fetch is nil, and treats a panic in fetch as
// [Scatter] does. It is safe for concurrent use.
func NewestFirst[T any](ctx context.Context, buckets iter.Seq[int64], limit int, fetch func(ctx context.Context, bucket int64, limit int) ([]T, error)) ([]T, error) {
	if buckets == nil || fetch == nil {
		return nil, errors.New("gather: buckets or fetch is nil, expected a sequence and a function")
	}
	if limit < 1 {
		return nil, fmt.Errorf("gather: limit is %d, expected 1 or more", limit)
	}
	next, stop := iter.Pull(buckets)
	defer stop()
	var rows []T
	for width := 1; ; width = min(2*width, mostBuckets) {
		round := takeBuckets(next, width)
		if len(round) == 0 {
			return rows, nil
		}
		parts, err := fetchRound(ctx, round, limit-len(rows), fetch)
		if err != nil {
			return nil, err
		}
		for _, part := range parts {
			rows = append(rows, part[:min(len(part), limit-len(rows))]...)
		}
		if len(rows) == limit {
			return rows, nil
		}
	}
}

// takeBuckets reads up to n values.
func takeBuckets(next func() (int64, bool), n int) []int64 {
	var values []int64
	for len(values) < n {
		v, ok := next()
		if !ok {
			break
		}
		values = append(values, v)
	}
	return values
}

// fetchRound asks the buckets at once. A bucket travels as a shard of its own, so
// that failures, panics and the end of ctx are what they are in Scatter.
func fetchRound[T any](ctx context.Context, buckets []int64, limit int, fetch func(context.Context, int64, int) ([]T, error)) ([][]T, error) {
	shards := make([]*shard.Shard, len(buckets))
	of := make(map[*shard.Shard]int64, len(buckets))
	for i, b := range buckets {
		name := "bucket " + strconv.FormatInt(b, 10)
		shards[i] = &shard.Shard{Name: name, Node: name}
		of[shards[i]] = b
	}
	found, err := Scatter(ctx, slices.Values(shards), func(ctx context.Context, s *shard.Shard) ([]T, error) {
		return fetch(ctx, of[s], limit)
	}, Options{Concurrency: mostBuckets})
	if err != nil {
		if partial, ok := errors.AsType[*PartialError](err); ok && len(partial.Failed) > 0 {
			failed := partial.Failed[0]
			err = fmt.Errorf("gather: bucket %d: %w", of[failed.Shard], failed.Err)
		}
		return nil, err
	}
	parts := make([][]T, len(found.Results))
	for i, r := range found.Results {
		parts[i] = r.Value
	}
	return parts, nil
}
