package shard_test

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
)

// The id and time of Discord's own documentation ("Snowflakes" in its API reference).
func TestBucketsOfDiscord(t *testing.T) {
	t.Parallel()
	var b shard.Buckets
	const id = 175928847299117063
	require.Equal(t, "2016-04-30T11:18:25.796Z", b.Time(id).Format(time.RFC3339Nano))
	require.Equal(t, int64(48), b.Of(id)) // 41944705796 ms / 864000000 ms
	require.Equal(t, 240*time.Hour, b.Width())
	require.Equal(t, "2015-01-01T00:00:00Z", b.Epoch().Format(time.RFC3339Nano))
}

// The id of Wikipedia's article "Snowflake ID", a post of the Wikipedia account.
func TestBucketsOfTwitter(t *testing.T) {
	t.Parallel()
	b, err := shard.NewBuckets(time.UnixMilli(shard.TwitterEpoch), 24*time.Hour)
	require.NoError(t, err)
	require.Equal(t, "2022-06-28T16:07:40.105Z", b.Time(1541815603606036480).Format(time.RFC3339Nano))
	require.Equal(t, 24*time.Hour, b.Width())
}

func anyBuckets() *rapid.Generator[shard.Buckets] {
	return rapid.Custom(func(t *rapid.T) shard.Buckets {
		epoch := rapid.SampledFrom([]time.Time{
			{}, time.UnixMilli(shard.TwitterEpoch), time.UnixMilli(-1), time.Date(-999_000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(999_000, 1, 1, 0, 0, 0, 0, time.UTC),
		}).Draw(t, "epoch")
		width := rapid.OneOf(rapid.SampledFrom([]int64{0, 1, math.MaxInt64 / 1_000_000}), rapid.Int64Range(1, math.MaxInt64/1_000_000)).Draw(t, "width")
		b, err := shard.NewBuckets(epoch, time.Duration(width)*time.Millisecond)
		require.NoError(t, err)
		if !epoch.IsZero() {
			require.True(t, epoch.Equal(b.Epoch()))
		}
		return b
	})
}

func anySnowflake() *rapid.Generator[uint64] {
	return rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, 1, 1<<22 - 1, 1 << 22, math.MaxUint64 - 1, math.MaxUint64}))
}

// A bucket is the whole-number quotient of the time since the epoch and the width,
// and First bounds exactly what Of puts in.
func bucketsTileTheSnowflakes(t *rapid.T) {
	b, id := anyBuckets().Draw(t, "buckets"), anySnowflake().Draw(t, "id")
	n := b.Of(id)
	quotient := new(big.Int).Quo(new(big.Int).SetUint64(id>>22), big.NewInt(b.Width().Milliseconds()))
	require.Equal(t, quotient.Int64(), n)

	require.LessOrEqual(t, b.First(n), id)
	if id != math.MaxUint64 {
		require.Less(t, id, b.First(n+1))
	}
	require.Equal(t, n, b.Of(b.First(n)))
	require.Equal(t, n, b.At(b.Time(id)))
	require.Equal(t, n, b.At(b.Time(id).Add(999*time.Microsecond)), "the millisecond is not over")
	require.Equal(t, id>>22<<22, b.Since(b.Time(id)))
	require.GreaterOrEqual(t, b.Since(b.Time(id).Add(1)), id)
}

func TestBucketsTileTheSnowflakes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, bucketsTileTheSnowflakes)
}

func FuzzBuckets(f *testing.F) { f.Fuzz(rapid.MakeFuzz(bucketsTileTheSnowflakes)) }

func TestBucketsAtTheEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := anyBuckets().Draw(t, "buckets")
		last := b.Of(math.MaxUint64)
		for _, n := range []int64{math.MinInt64, -1, 0} {
			require.Zero(t, b.First(n))
		}
		for _, n := range []int64{last + 1, last + 2, math.MaxInt64} {
			require.Equal(t, uint64(math.MaxUint64), b.First(n))
		}
		for _, early := range []time.Time{b.Epoch().Add(-1), {}, time.Unix(math.MinInt64, 0)} {
			if early.Before(b.Epoch()) {
				require.Zero(t, b.Since(early))
				require.Zero(t, b.At(early))
			}
		}
		for _, late := range []time.Time{b.Time(math.MaxUint64).Add(time.Millisecond), b.Epoch().AddDate(500, 0, 0), time.Unix(1<<62, 0)} {
			require.Equal(t, uint64(math.MaxUint64), b.Since(late))
			require.Equal(t, last, b.At(late))
		}
	})
}

// Back yields the buckets of all snowflakes in between, and no other at either end.
func TestBackVisitsEveryBucketInBetween(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := anyBuckets().Draw(t, "buckets")
		before, oldest := anySnowflake().Draw(t, "before"), anySnowflake().Draw(t, "oldest")
		var got []int64
		for n := range b.Back(before, oldest) {
			if got = append(got, n); len(got) == 50 {
				break
			}
		}
		if before <= oldest {
			require.Empty(t, got)
			return
		}
		newest, last := b.Of(before-1), b.Of(oldest)
		for i, n := range got {
			require.Equal(t, newest-int64(i), n)
		}
		require.Len(t, got, int(min(50, newest-last+1)))
	})
	var b shard.Buckets
	edge := b.First(7)
	require.Equal(t, []int64{6, 5}, slices.Collect(b.Back(edge, b.First(5))), "before is exclusive, oldest inclusive")
	require.Equal(t, []int64{7, 6, 5, 4}, slices.Collect(b.Back(edge+1, b.First(5)-1)))
	require.Empty(t, slices.Collect(b.Back(0, 0)))
	require.Equal(t, []int64{0}, slices.Collect(b.Back(1, 0)))
}

func TestNewBucketsRefusesWhatCutsNone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		epoch time.Time
		width time.Duration
	}{
		{width: -time.Hour},
		{width: math.MinInt64},
		{width: 1},
		{width: time.Hour + time.Microsecond},
		{epoch: time.UnixMicro(1)},
		{epoch: time.Unix(math.MaxInt64, 0)},
		{epoch: time.Unix(math.MinInt64, 0)},
	} {
		b, err := shard.NewBuckets(c.epoch, c.width)
		require.ErrorIs(t, err, shard.ErrBadBuckets)
		require.ErrorContains(t, err, "expected")
		require.Equal(t, shard.Buckets{}, b)
	}
}

func TestBucketsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	var b shard.Buckets
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var last time.Time
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for bucket := range b.Back(b.Since(now), b.First(b.At(now)-3)) {
			last = b.Time(b.First(bucket))
		}
	}))
	require.Equal(t, b.At(now)-3, b.At(last))
}

// A page of the messages before a given one: which buckets to ask, newest first.
func ExampleBuckets_Back() {
	var buckets shard.Buckets // Discord's epoch, ten days
	channel := buckets.Since(time.Date(2016, 4, 12, 9, 0, 0, 0, time.UTC))
	before := uint64(175928847299117063)

	fmt.Println(buckets.Time(before).Format(time.DateTime))
	for bucket := range buckets.Back(before, channel) {
		fmt.Println("bucket", bucket, "from", buckets.Time(buckets.First(bucket)).Format(time.DateOnly))
	}
	// Output:
	// 2016-04-30 11:18:25
	// bucket 48 from 2016-04-25
	// bucket 47 from 2016-04-15
	// bucket 46 from 2016-04-05
}
