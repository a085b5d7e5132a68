package feed_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/internal/feed"
)

func document(t require.TestingT, epoch uint64, node string) []byte {
	m, err := shard.NewMap(epoch, shard.Shard{Node: node})
	require.NoError(t, err)
	text, err := feed.Encode(m)
	require.NoError(t, err)
	return text
}

// Whatever a source holds in turn: a watcher is told of nothing twice in a row, of higher
// epochs only, and of every content that is wrong.
func TestFeedAgainstModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		contents := [][]byte{nil, {}, []byte("garbage"), []byte("other garbage")}
		for epoch := range uint64(4) {
			contents = append(contents, document(t, epoch, "a"), document(t, epoch, "b"))
		}
		var f feed.Feed
		newest, last := -1, -1 // indexes of contents; an epoch is (index-4)/2
		for range rapid.IntRange(1, 50).Draw(t, "length") {
			next := rapid.IntRange(0, len(contents)-1).Draw(t, "content")
			require.Equal(t, next == last, f.Same(contents[next]))
			m, err := f.Hear(contents[next], feed.Decode)
			switch {
			case next == last:
				require.NoError(t, err)
				require.Nil(t, m)
			case next == 0:
				require.ErrorIs(t, err, feed.ErrNoMap)
			case next < 4:
				require.ErrorIs(t, err, shard.ErrBadMap)
			case newest == next:
				require.NoError(t, err)
				require.Nil(t, m)
			case newest < 0 || (next-4)/2 > (newest-4)/2:
				require.NoError(t, err)
				require.Equal(t, uint64(next-4)/2, m.Epoch())
				newest = next
			case (next-4)/2 == (newest-4)/2:
				require.ErrorIs(t, err, shard.ErrSplitBrain)
			default:
				require.ErrorIs(t, err, shard.ErrStaleMap)
			}
			last = next
		}
	})
}

func TestEncodeRefusesWhatWouldNotComeBack(t *testing.T) {
	t.Parallel()
	_, err := feed.Encode(nil)
	require.ErrorIs(t, err, shard.ErrBadMap)
	_, err = feed.Encode(new(shard.Map))
	require.ErrorIs(t, err, shard.ErrBadMap)
	m, err := shard.NewMap(1, shard.Shard{Node: "\xff"})
	require.NoError(t, err)
	_, err = feed.Encode(m)
	require.ErrorIs(t, err, shard.ErrBadMap)
	require.ErrorContains(t, err, "UTF-8")
}

func TestBackoffDoublesAndForgets(t *testing.T) {
	t.Parallel()
	var b feed.Backoff
	for range 2 {
		for want := feed.FirstPause; want < feed.LastPause; want *= 2 {
			require.InDelta(t, want, b.Next(), float64(want)/4+1)
		}
		for range 100 {
			require.InDelta(t, feed.LastPause, b.Next(), float64(feed.LastPause)/4+1)
		}
		b.Reset()
	}
}

func TestJitterHasNoOverflow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, 1<<62).Draw(t, "d"))
		got := feed.Jitter(d)
		require.GreaterOrEqual(t, got, d-d/4)
		require.LessOrEqual(t, got, d+d/4+1)
	})
}

func TestSleepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		require.True(t, feed.Sleep(t.Context(), time.Second))
		require.Equal(t, time.Second, time.Since(start))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		require.False(t, feed.Sleep(ctx, time.Hour))
		require.Equal(t, 2*time.Second, time.Since(start))
	})
}
