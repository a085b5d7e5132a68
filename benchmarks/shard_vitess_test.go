package benchmarks

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
	"vitess.io/vitess/go/vt/key"
	topodata "vitess.io/vitess/go/vt/proto/topodata"

	"github.com/evenkeel-go/evenkeel/benchmarks/ratio"
	"github.com/evenkeel-go/evenkeel/shard"
)

// vitessScan is Vitess's way from a key to its shard: the bytes of its xxhash vindex, and
// key.GetShardForKeyspaceID over the list of shards.
func vitessScan(t testing.TB, n int) ratio.Op {
	shards := vitessShards(t, n)
	return func(n int) {
		for i := range n {
			id := binary.LittleEndian.AppendUint64(nil, xxhash.Sum64String(keys[i%len(keys)]))
			name, err := key.GetShardForKeyspaceID(shards, id)
			if err != nil {
				panic(err)
			}
			sink += uint64(len(name))
		}
	}
}

func vitessShards(t testing.TB, n int) []*topodata.ShardReference {
	names, err := key.GenerateShardRanges(n, 0)
	require.NoError(t, err)
	shards := make([]*topodata.ShardReference, len(names))
	for i, name := range names {
		ranges, err := key.ParseShardingSpec(name)
		require.NoError(t, err)
		require.Len(t, ranges, 1)
		shards[i] = &topodata.ShardReference{Name: name, KeyRange: ranges[0]}
	}
	return shards
}

// The ranges are Vitess's for every number of shards to 1024 and for some above, and
// every range that Vitess writes is read as what it means.
func TestEvenRangesAreVitessRanges(t *testing.T) {
	counts := []int{4096, 5000, 10007, 65535, 65536}
	for n := range 1024 {
		counts = append(counts, n+1)
	}
	for _, n := range counts {
		theirs, err := key.GenerateShardRanges(n, 0)
		require.NoError(t, err)
		ours, err := shard.EvenRanges(n)
		require.NoError(t, err)
		require.Len(t, ours, n)
		for i, text := range theirs {
			r, err := shard.ParseRange(text)
			require.NoError(t, err)
			require.Equal(t, ours[i], r, "%d of %d: %s", i, n, text)
		}
	}
	for _, n := range []int{0, -1, 65537} {
		_, theirs := key.GenerateShardRanges(n, 0)
		_, ours := shard.EvenRanges(n)
		require.Error(t, theirs)
		require.ErrorIs(t, ours, shard.ErrBadCount)
	}
	// With an odd number of digits, which Vitess can be asked for, it writes what it
	// cannot read; here that is an error from the start.
	odd, err := key.GenerateShardRanges(7, 1)
	require.NoError(t, err)
	_, theirs := key.ParseShardingSpec(odd[0])
	_, ours := shard.ParseRange(odd[0])
	require.Error(t, theirs)
	require.ErrorIs(t, ours, shard.ErrBadRange)
}

// Keys go where Vitess sends them.
func TestRoutesAreVitessRoutes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 3, 7, 64, 256, 300} {
		theirs := vitessShards(t, n)
		m := evenMap(t, n)
		for range 300 {
			text := fmt.Sprintf("%x", rng.Uint64()>>rng.UintN(60))
			id := binary.LittleEndian.AppendUint64(nil, xxhash.Sum64String(text))
			want, err := key.GetShardForKeyspaceID(theirs, id)
			require.NoError(t, err)
			wanted, err := shard.ParseRange(want)
			require.NoError(t, err)
			require.Equal(t, wanted, m.Lookup(shard.XXHash(text)).Range, "%d %s", n, text)
		}
	}
}

// What is read from text is what Vitess reads, except for what no map could hold.
func TestRangesReadAsVitessReadsThem(t *testing.T) {
	digits := []string{"", "0", "00", "40", "4000", "80", "8", "8000", "B0", "b0", "a0", "ff", "FF00", "xy", "0123456789abcdef", "0123456789abcdef01"}
	refused := 0
	for _, start := range digits {
		for _, end := range digits {
			text := start + "-" + end
			theirs, err := key.ParseShardingSpec(text)
			ours, ourErr := shard.ParseRange(text)
			if err != nil { // and B0 is b0: Vitess compares the texts
				if ourErr == nil {
					require.NotEqual(t, strings.ToLower(text), text, text)
				}
				continue
			}
			if ourErr != nil {
				refused++
				require.True(t, emptyOrLong(theirs[0]), "%q: %v", text, ourErr)
				continue
			}
			require.True(t, key.KeyRangeEqual(theirs[0], vitessRange(ours)), text)
		}
	}
	require.Positive(t, refused)
}

// emptyOrLong reports a range that contains nothing, or whose limits have more than the
// eight bytes of a point.
func emptyOrLong(r *topodata.KeyRange) bool {
	start, end := key.Normalize(r.Start), key.Normalize(r.End)
	return len(start) > 8 || len(end) > 8 || len(r.End) > 0 && string(end) <= string(start)
}

func vitessRange(r shard.Range) *topodata.KeyRange {
	limit := func(id shard.ID) []byte {
		if id == 0 {
			return nil
		}
		return binary.BigEndian.AppendUint64(nil, uint64(id))
	}
	return key.NewKeyRange(limit(r.Start), limit(r.End))
}

// The algebra of ranges is Vitess's, for any two of them: contains, intersects, covers,
// adjoins; and so is the list of shards that a range concerns.
func TestRangeAlgebraIsVitess(t *testing.T) {
	limit := rapid.OneOf(
		rapid.Map(rapid.Uint64(), func(v uint64) shard.ID { return shard.ID(v) }),
		rapid.SampledFrom([]shard.ID{0, 1, 0x40 << 56, 0x80 << 56, 0x8001 << 48, 0xc0 << 56, 1<<64 - 1}))
	anyRange := rapid.Custom(func(t *rapid.T) shard.Range {
		return shard.Range{Start: limit.Draw(t, "start"), End: limit.Draw(t, "end")}
	}).Filter(func(r shard.Range) bool { return r.End == 0 || r.Start < r.End })
	shards := vitessShards(t, 16)
	m := evenMap(t, 16)
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyRange.Draw(t, "a"), anyRange.Draw(t, "b")
		va, vb := vitessRange(a), vitessRange(b)
		id := limit.Draw(t, "id")
		bytes := binary.BigEndian.AppendUint64(nil, uint64(id))
		require.Equal(t, key.KeyRangeContains(va, bytes), a.Contains(id))
		require.Equal(t, key.KeyRangeIntersect(va, vb), a.Overlaps(b))
		require.Equal(t, key.KeyRangeContainsKeyRange(va, vb), a.Covers(b))
		require.Equal(t, key.KeyRangeString(va), vitessText(a))
		whole, ok := a.Join(b)
		sum, added := key.KeyRangeAdd(va, vb)
		if !added {
			sum, added = key.KeyRangeAdd(vb, va) // Vitess's depends on the order
		}
		require.Equal(t, added, ok, "%v and %v", a, b)
		if ok {
			require.True(t, key.KeyRangeEqual(sum, vitessRange(whole)))
		}

		var want, got []string
		err := key.DestinationKeyRange{KeyRange: va}.Resolve(shards, func(name string) error { want = append(want, name); return nil })
		require.NoError(t, err)
		for s := range m.Overlapping(a) {
			got = append(got, s.Name)
		}
		require.Equal(t, want, got)
	})
}

// vitessText is the text of a range as Vitess writes it, with all its digits.
func vitessText(r shard.Range) string {
	text := func(id shard.ID) string {
		if id == 0 {
			return ""
		}
		return id.String()
	}
	return text(r.Start) + "-" + text(r.End)
}
