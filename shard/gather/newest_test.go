package gather_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// history is a channel: its messages by bucket, newest first.
type history map[int64][]uint64

func (h history) fetch(_ context.Context, bucket int64, limit int) ([]uint64, error) {
	return h[bucket][:min(limit, len(h[bucket]))], nil
}

// Paging back with the last row's id visits all messages in order, as one list would.
func TestNewestFirstEqualsOneList(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b, err := shard.NewBuckets(time.Time{}, time.Duration(rapid.SampledFrom([]int64{1, 10, 1000}).Draw(t, "width"))*time.Millisecond)
		require.NoError(t, err)
		all := rapid.SliceOfDistinct(rapid.Uint64Range(0, 600<<22), func(id uint64) uint64 { return id }).Draw(t, "ids")
		slices.Sort(all)
		slices.Reverse(all)
		h := history{}
		for _, id := range all {
			h[b.Of(id)] = append(h[b.Of(id)], id)
		}
		oldest := uint64(0)
		if len(all) > 0 {
			oldest = all[len(all)-1]
		}
		limit := rapid.IntRange(1, 20).Draw(t, "limit")
		before := uint64(600<<22 + 1)
		var got []uint64
		for {
			page, err := gather.NewestFirst(t.Context(), b.Back(before, oldest), limit,
				func(ctx context.Context, bucket int64, limit int) ([]uint64, error) {
					rows := slices.DeleteFunc(slices.Clone(h[bucket]), func(id uint64) bool { return id >= before })
					return rows[:min(limit, len(rows))], nil
				})
			require.NoError(t, err)
			require.LessOrEqual(t, len(page), limit)
			got = append(got, page...)
			if len(page) < limit {
				break
			}
			before = page[limit-1]
		}
		require.True(t, slices.Equal(all, got))
	})
}

// rounds runs NewestFirst where each call takes a second, and reports how many calls
// each second made and what they were asked for.
func rounds(t *testing.T, limit int, h history, oldest int64) (calls [][]int64, limits []int, rows []uint64) {
	started := time.Now()
	var mu sync.Mutex
	back := func(yield func(int64) bool) {
		for b := int64(100); b >= oldest && yield(b); b-- {
		}
	}
	rows, err := gather.NewestFirst(t.Context(), back, limit, func(ctx context.Context, bucket int64, limit int) ([]uint64, error) {
		mu.Lock()
		round := int(time.Since(started) / time.Second)
		if round == len(calls) {
			calls, limits = append(calls, nil), append(limits, limit)
		}
		calls[round] = append(calls[round], bucket)
		mu.Unlock()
		time.Sleep(time.Second)
		return h.fetch(ctx, bucket, limit)
	})
	require.NoError(t, err)
	for _, c := range calls {
		slices.Sort(c)
		slices.Reverse(c)
	}
	return calls, limits, rows
}

func TestNewestFirstAsksTwiceAsManyEachRound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls, limits, rows := rounds(t, 3, history{100: {9}, 98: {8}, 60: {7, 6, 5}}, 1)
		require.Equal(t, []uint64{9, 8, 7}, rows)
		require.Equal(t, []int64{100}, calls[0])
		require.Equal(t, []int64{99, 98}, calls[1])
		require.Equal(t, []int64{97, 96, 95, 94}, calls[2])
		sizes := make([]int, len(calls))
		for i, c := range calls {
			sizes[i] = len(c)
		}
		require.Equal(t, []int{1, 2, 4, 8, 16, 16}, sizes)
		require.Equal(t, []int{3, 2, 1, 1, 1, 1}, limits)

		calls, _, rows = rounds(t, 3, history{100: {9, 8, 7, 6}}, 1)
		require.Equal(t, [][]int64{{100}}, calls, "a busy channel costs one call")
		require.Equal(t, []uint64{9, 8, 7}, rows)

		calls, _, rows = rounds(t, 3, history{}, 97)
		require.Equal(t, [][]int64{{100}, {99, 98}, {97}}, calls)
		require.Empty(t, rows)
	})
}

func TestNewestFirstUsesNoMoreThanItsLimit(t *testing.T) {
	t.Parallel()
	rows, err := gather.NewestFirst(t.Context(), slices.Values([]int64{3, 2, 1}), 4,
		func(_ context.Context, bucket int64, _ int) ([]int64, error) {
			return []int64{bucket, bucket, bucket}, nil
		})
	require.NoError(t, err)
	require.Equal(t, []int64{3, 3, 3, 2}, rows)
}

func TestNewestFirstReturnsTheCauseAndEndsTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		rows, err := gather.NewestFirst(t.Context(), slices.Values([]int64{9, 8, 7, 6}), 5, func(ctx context.Context, bucket int64, _ int) ([]int, error) {
			switch bucket {
			case 9:
				return []int{1}, nil
			case 7:
				time.Sleep(time.Second)
				return nil, errBoom
			}
			<-ctx.Done()
			return nil, ctx.Err()
		})
		require.ErrorIs(t, err, errBoom)
		require.NotErrorIs(t, err, context.Canceled)
		require.EqualError(t, err, "gather: bucket 7: boom")
		require.Nil(t, rows)
		require.Equal(t, time.Second, time.Since(started))
	})
}

func TestNewestFirstEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var calls atomic.Int64
		everything := func(yield func(int64) bool) {
			for b := int64(math.MaxInt64); yield(b); b-- {
			}
		}
		started := time.Now()
		_, err := gather.NewestFirst(ctx, everything, 5, func(ctx context.Context, _ int64, _ int) ([]int, error) {
			if calls.Add(1) == 20 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return nil, nil
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(started))

		_, err = gather.NewestFirst(ctx, everything, 5, func(context.Context, int64, int) ([]int, error) { panic("called") })
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestNewestFirstPanicsOnTheCallersGoroutine(t *testing.T) {
	t.Parallel()
	stopped := false
	buckets := func(yield func(int64) bool) {
		defer func() { stopped = true }()
		for yield(1) {
		}
	}
	defer func() {
		p, ok := recover().(error)
		require.True(t, ok)
		require.ErrorIs(t, p, errBoom)
		require.ErrorContains(t, p, "bucket 1")
		require.True(t, stopped)
	}()
	_, err := gather.NewestFirst(t.Context(), buckets, 1, func(context.Context, int64, int) ([]int, error) { panic(errBoom) })
	t.Errorf("returned %v", err)
}

func TestNewestFirstRefusesWhatItCannotUse(t *testing.T) {
	t.Parallel()
	none := func(context.Context, int64, int) ([]int, error) { return nil, errors.New("called") }
	for _, limit := range []int{0, -1, math.MinInt} {
		_, err := gather.NewestFirst(t.Context(), slices.Values([]int64{1}), limit, none)
		require.ErrorContains(t, err, "gather: limit is")
	}
	_, err := gather.NewestFirst(t.Context(), nil, 1, none)
	require.ErrorContains(t, err, "nil")
	_, err = gather.NewestFirst[int](t.Context(), slices.Values([]int64{1}), 1, nil)
	require.ErrorContains(t, err, "nil")
	rows, err := gather.NewestFirst(t.Context(), slices.Values([]int64(nil)), 1, none)
	require.NoError(t, err)
	require.Empty(t, rows)
}
