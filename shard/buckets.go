package shard

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"time"
)

// The epochs of two well-known kinds of snowflake, in Unix milliseconds; see
// [NewBuckets].
const (
	DiscordEpoch int64 = 1420070400000 // 2015-01-01T00:00:00Z
	TwitterEpoch int64 = 1288834974657 // 2010-11-04T01:42:54.657Z
)

// ErrBadBuckets is returned by [NewBuckets] for an epoch or a width that cuts no
// buckets.
var ErrBadBuckets = errors.New("shard: bad buckets")

// Buckets cuts the time of snowflakes into buckets of one width, so that what grows
// without end can be kept in parts of bounded size: with (channel, bucket) as the
// sharding key, a channel's messages of ten days lie together, in one partition of
// one shard, and its history spreads over all of them. It is how Discord stores
// messages (S. Vishnevskiy, "How Discord Stores Billions of Messages", 2017).
//
// A snowflake (Twitter, 2010) is a number of 64 bits whose upper 42 are milliseconds
// since an epoch; the other 22 tell apart what was made in one of them. So a greater
// snowflake is a newer one, and it says by itself in which bucket it lies.
//
// The zero value has Discord's epoch and buckets of ten days; [NewBuckets] makes
// others. Bucket 0 begins at the epoch, and the buckets of greater numbers are newer.
// A Buckets is a value, immutable, and safe for concurrent use. Its methods cost a
// division and allocate nothing.
type Buckets struct {
	// Both less their defaults, so that the zero value has them.
	epoch int64 // Unix milliseconds
	width int64 // milliseconds
}

const (
	timeShift    = 22
	maxTicks     = 1<<(64-timeShift) - 1 // the last millisecond of a snowflake
	defaultWidth = 10 * 24 * 60 * 60 * 1000
)

// NewBuckets returns buckets of the given width for snowflakes that count from
// epoch, as time.UnixMilli(shard.TwitterEpoch). The zero time means Discord's epoch,
// and a width of 0 ten days.
//
// It returns an error that wraps [ErrBadBuckets] if either is not a whole number of
// milliseconds, the width is negative, or the epoch is further than a million years
// away. A width, once there are rows, is for ever: another puts them elsewhere.
func NewBuckets(epoch time.Time, width time.Duration) (Buckets, error) {
	b := Buckets{}
	if !epoch.IsZero() {
		const most = 1_000_000 * 366 * 24 * 60 * 60 // seconds
		if s := epoch.Unix(); s < -most || s > most || epoch.Nanosecond()%int(time.Millisecond) != 0 {
			return Buckets{}, fmt.Errorf("%w: epoch is %v, expected whole milliseconds within a million years", ErrBadBuckets, epoch)
		}
		b.epoch = epoch.UnixMilli() - DiscordEpoch
	}
	if width != 0 {
		if width < 0 || width%time.Millisecond != 0 {
			return Buckets{}, fmt.Errorf("%w: width is %v, expected whole milliseconds, 0 or more", ErrBadBuckets, width)
		}
		b.width = width.Milliseconds() - defaultWidth
	}
	return b, nil
}

// Epoch returns the time at which snowflakes begin to count, in UTC.
func (b Buckets) Epoch() time.Time { return time.UnixMilli(b.epoch + DiscordEpoch).UTC() }

// Width returns the time that a bucket spans.
func (b Buckets) Width() time.Duration { return time.Duration(b.ticks()) * time.Millisecond }

func (b Buckets) ticks() uint64 { return uint64(b.width + defaultWidth) }

// Of returns the bucket in which a snowflake lies, 0 or more.
func (b Buckets) Of(snowflake uint64) int64 {
	return int64(snowflake >> timeShift / b.ticks())
}

// At returns the bucket of the snowflakes made at t: the first if t is before the
// epoch, and the last if t is after all snowflakes, which is 139 years later.
func (b Buckets) At(t time.Time) int64 { return b.Of(b.Since(t.Truncate(time.Millisecond))) }

// First returns the smallest snowflake of a bucket, so that bucket n holds those
// from First(n) up to and without First(n+1), and the last one all to the end. That is 0 for buckets before the first
// and the greatest number for those after the last.
func (b Buckets) First(bucket int64) uint64 {
	if bucket <= 0 {
		return 0
	}
	hi, ticks := bits.Mul64(uint64(bucket), b.ticks())
	if hi != 0 || ticks > maxTicks {
		return math.MaxUint64
	}
	return ticks << timeShift
}

// Time returns the millisecond in which a snowflake was made, in UTC.
func (b Buckets) Time(snowflake uint64) time.Time {
	return b.Epoch().Add(time.Duration(snowflake>>timeShift) * time.Millisecond)
}

// Since returns the smallest snowflake of the first millisecond that begins at t or later:
// 0 if t is before the epoch, the greatest number if t is after all snowflakes. Since of
// now is what [Buckets.Back] starts from for the first page, give or take the clocks. For
// a lower bound cut t to its millisecond first, since what is made later in it has a smaller
// snowflake.
func (b Buckets) Since(t time.Time) uint64 {
	epoch := b.Epoch()
	if !t.After(epoch) {
		return 0
	}
	// A Duration ends after 292 years and saturates, which is after all snowflakes.
	d := t.Sub(epoch)
	ticks := uint64(d / time.Millisecond)
	if d%time.Millisecond != 0 {
		ticks++
	}
	if ticks > maxTicks {
		return math.MaxUint64
	}
	return ticks << timeShift
}

// Back yields, newest first, the buckets that may hold snowflakes before the first
// argument and not before the second: oldest <= snowflake < before. For the next
// page, before is the last snowflake of this one. Oldest is the snowflake of the
// channel itself, say; without it, 0, the walk ends at the epoch. It yields nothing
// if there is no such snowflake. The sequence may be iterated again, by several
// goroutines at once.
func (b Buckets) Back(before, oldest uint64) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		if before <= oldest {
			return
		}
		last := b.Of(oldest)
		for bucket := b.Of(before - 1); bucket >= last && yield(bucket); bucket-- {
		}
	}
}
