package shard_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
)

func TestSplitTilesTheRangeAndJoinUndoesIt(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := anyRange().Draw(t, "range")
		points := rapid.SliceOfN(anyID(), 1, 5).Draw(t, "points")
		slices.Sort(points)
		points = slices.Compact(points)
		points = slices.DeleteFunc(points, func(p shard.ID) bool { return p == r.Start || !r.Contains(p) })
		if len(points) == 0 {
			return
		}
		parts, err := r.Split(points...)
		require.NoError(t, err)
		require.Len(t, parts, len(points)+1)
		whole := parts[0]
		for i, p := range parts {
			require.True(t, r.Covers(p))
			if i == 0 {
				continue
			}
			require.Equal(t, points[i-1], p.Start)
			var ok bool
			if i%2 == 0 { // in either order
				whole, ok = whole.Join(p)
			} else {
				whole, ok = p.Join(whole)
			}
			require.True(t, ok)
		}
		require.Equal(t, r, whole)
	})
}

func TestSplitWithoutPointsHalves(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"-": {"-80", "80-"}, "-80": {"-40", "40-80"}, "80-": {"80-c0", "c0-"}, "40-42": {"40-41", "41-42"},
		"0000000000000005-0000000000000008": {"0000000000000005-0000000000000006", "0000000000000006-0000000000000008"},
		"fffffffffffffffe-":                 {"fffffffffffffffe-ffffffffffffffff", "ffffffffffffffff-"},
	} {
		parts, err := parse(t, text).Split()
		require.NoError(t, err)
		require.Equal(t, []shard.Range{parse(t, want[0]), parse(t, want[1])}, parts)
	}
}

func TestSplitRefusesPointsThatDoNotCut(t *testing.T) {
	t.Parallel()
	r := parse(t, "40-80")
	for name, points := range map[string][]shard.ID{
		"at the start": {0x40 << 56}, "at the end": {0x80 << 56}, "before": {1}, "after": {0x90 << 56},
		"descending": {0x60 << 56, 0x50 << 56}, "twice": {0x60 << 56, 0x60 << 56},
	} {
		_, err := r.Split(points...)
		require.ErrorIs(t, err, shard.ErrBadRange, name)
		require.ErrorContains(t, err, "40-80", name)
		require.ErrorContains(t, err, points[len(points)-1].String(), name)
	}
	_, err := shard.Range{Start: 7, End: 8}.Split()
	require.ErrorIs(t, err, shard.ErrBadRange, "a single point")
	_, err = shard.Range{Start: 8, End: 7}.Split(9)
	require.ErrorIs(t, err, shard.ErrBadRange, "inverted")
}

func TestJoinRefusesWhatDoesNotAdjoin(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]shard.Range{
		{parse(t, "-40"), parse(t, "50-60")}, // a gap
		{parse(t, "-40"), parse(t, "30-60")}, // an overlap
		{parse(t, "-40"), parse(t, "-40")},
		{parse(t, "80-"), parse(t, "-40")}, // across the end of the ring
		{parse(t, "-"), parse(t, "-")},
		{{Start: 5, End: 5}, {Start: 5, End: 6}},
		{{Start: 5, End: 6}, {Start: 6, End: 2}},
	} {
		_, ok := pair[0].Join(pair[1])
		require.False(t, ok, "%v", pair)
		_, ok = pair[1].Join(pair[0])
		require.False(t, ok, "%v", pair)
	}
}

func parse(t require.TestingT, text string) shard.Range {
	r, err := shard.ParseRange(text)
	require.NoError(t, err)
	return r
}

// Without the check of r the error is about a point that nobody gave.
func TestSplitOfAnInvertedRangeSaysSo(t *testing.T) {
	t.Parallel()
	for _, r := range []shard.Range{{Start: 8, End: 7}, {Start: 5, End: 5}} {
		_, err := r.Split()
		require.ErrorContains(t, err, fmt.Sprintf("[%v, %v): expected an end after the start", r.Start, r.End))
	}
}
