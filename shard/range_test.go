package shard_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
)

// anyID draws points that lie near the ends of the ring and of bytes more often
// than chance would.
func anyID() *rapid.Generator[shard.ID] {
	return rapid.Custom(func(t *rapid.T) shard.ID {
		id := rapid.Uint64().Draw(t, "id")
		switch rapid.IntRange(0, 3).Draw(t, "shape") {
		case 0:
			id &= 0xff << 56 // one byte and zeros
		case 1:
			id = -(id & 3) // the ends: 0, 2^64-1, 2^64-2, 2^64-3
		}
		return shard.ID(id)
	})
}

// anyRange draws valid ranges, the whole ring among them.
func anyRange() *rapid.Generator[shard.Range] {
	return rapid.Custom(func(t *rapid.T) shard.Range {
		r := shard.Range{Start: anyID().Draw(t, "start"), End: anyID().Draw(t, "end")}
		if r.End < r.Start {
			r.Start, r.End = r.End, r.Start
		}
		if r.Start == r.End {
			r.End = 0
		}
		return r
	})
}

func TestRangeTextIsVitessText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		r         shard.Range
		canonical string
	}{
		"-":                  {shard.Range{}, "-"},
		"0":                  {shard.Range{}, "-"},
		"00-":                {shard.Range{}, "-"},
		"-80":                {shard.Range{End: 0x80 << 56}, "-80"},
		"-8000":              {shard.Range{End: 0x80 << 56}, "-80"},
		"80-":                {shard.Range{Start: 0x80 << 56}, "80-"},
		"40-80":              {shard.Range{Start: 0x40 << 56, End: 0x80 << 56}, "40-80"},
		"A0-Bf":              {shard.Range{Start: 0xa0 << 56, End: 0xbf << 56}, "a0-bf"},
		"0001-01":            {shard.Range{Start: 0x0001 << 48, End: 0x01 << 56}, "0001-01"},
		"ffffffffffffffff-":  {shard.Range{Start: 1<<64 - 1}, "ffffffffffffffff-"},
		"-0000000000000001":  {shard.Range{End: 1}, "-0000000000000001"},
		"4000000000000000-c": {canonical: ""}, // odd
	} {
		r, err := shard.ParseRange(text)
		if want.canonical == "" {
			require.ErrorIs(t, err, shard.ErrBadRange, text)
			continue
		}
		require.NoError(t, err, text)
		require.Equal(t, want.r, r, text)
		require.Equal(t, want.canonical, r.String(), text)
	}
}

// Vitess v0.24 accepts several of these, since it compares boundaries as text.
func TestParseRangeRefusesWhatIsNoRange(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "40", "00", "-2", "2-", "-00", "40-40", "40-4000", "80-40", "b0-a0", "B0-a0", "40-80-", "--",
		"g0-", "-0x80", "40 -80", "40-80\n", "-000000000000000080", "-00000000000000000080", "−40",
	} {
		r, err := shard.ParseRange(text)
		require.ErrorIs(t, err, shard.ErrBadRange, "%q gave %v", text, r)
		require.Zero(t, r)
		require.Equal(t, 1, strings.Count(err.Error(), "shard: "), "prefix once: %v", err)
	}
}

func TestParseRangesReadsAChain(t *testing.T) {
	t.Parallel()
	ranges, err := shard.ParseRanges("-40-80-")
	require.NoError(t, err)
	require.Equal(t, []string{"-40", "40-80", "80-"}, texts(ranges))

	ranges, err = shard.ParseRanges("40-80-c0")
	require.NoError(t, err)
	require.Equal(t, []string{"40-80", "80-c0"}, texts(ranges))

	// Vitess takes the first three for sound lists.
	for _, bad := range []string{"-B0-a0-", "-40-4000-", "-00-", "", "0", "-40--80-", "-40-4-"} {
		_, err := shard.ParseRanges(bad)
		require.ErrorIs(t, err, shard.ErrBadRange, "%q", bad)
		require.ErrorContains(t, err, strconv.Quote(bad))
	}
}

func texts(ranges []shard.Range) []string {
	var all []string
	for _, r := range ranges {
		all = append(all, r.String())
	}
	return all
}

func TestRangeTextRoundTrips(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := anyRange().Draw(t, "range")
		parsed, err := shard.ParseRange(r.String())
		require.NoError(t, err)
		require.Equal(t, r, parsed)

		text, err := json.Marshal(r)
		require.NoError(t, err)
		var decoded shard.Range
		require.NoError(t, json.Unmarshal(text, &decoded))
		require.Equal(t, r, decoded)
	})
}

func TestUnmarshalTextLeavesTheRangeAloneOnAnError(t *testing.T) {
	t.Parallel()
	r := shard.Range{Start: 1}
	require.ErrorIs(t, r.UnmarshalText([]byte("80-40")), shard.ErrBadRange)
	require.Equal(t, shard.Range{Start: 1}, r)
}

func TestRangeTextAllocatesNothing(t *testing.T) {
	buf := make([]byte, 0, 33)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		r, _ := shard.ParseRange("0123456789abcdef-fedcba9876543210")
		buf, _ = r.AppendText(buf[:0])
	}))
	require.Len(t, buf, 33)
}

// FuzzParseRange checks that whatever is accepted is sound, canonical on the way
// back and stable from then on.
func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"-", "0", "-80", "80-", "40-80", "-8000", "B0-a0", "40-4000", "-00", "-2", "ffffffffffffffff-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := shard.ParseRange(s)
		if err != nil {
			require.ErrorIs(t, err, shard.ErrBadRange)
			return
		}
		require.True(t, r.Contains(r.Start))
		require.True(t, r.Contains(r.End-1))
		again, err := shard.ParseRange(r.String())
		require.NoError(t, err)
		require.Equal(t, r, again)
		require.LessOrEqual(t, len(r.String()), max(len(s), 1))
	})
}

// The model works on all points of a small ring: a byte stands for the ID with
// that first byte.
func TestRangeAlgebraMatchesSets(t *testing.T) {
	t.Parallel()
	small := rapid.Custom(func(t *rapid.T) shard.Range {
		a, b := rapid.Uint64Range(0, 7).Draw(t, "a"), rapid.Uint64Range(0, 8).Draw(t, "b")
		if b <= a {
			b = 8
		}
		return shard.Range{Start: shard.ID(a << 61), End: shard.ID(b << 61)} // 8<<61 wraps to 0
	})
	set := func(r shard.Range) (s uint8) {
		for i := range 8 {
			if r.Contains(shard.ID(i) << 61) {
				s |= 1 << i
			}
		}
		return s
	}
	rapid.Check(t, func(t *rapid.T) {
		r, s := small.Draw(t, "r"), small.Draw(t, "s")
		require.NotZero(t, set(r))
		require.Equal(t, set(r)&set(s) != 0, r.Overlaps(s), "%v %v", r, s)
		require.Equal(t, set(r)&set(s) == set(s), r.Covers(s), "%v %v", r, s)
		for _, id := range []shard.ID{0, 1<<64 - 1} {
			require.Equal(t, set(r)>>(id>>61)&1 == 1, r.Contains(id), "%v %v", r, id)
		}
	})
}

func TestEvenRangesAreVitessRanges(t *testing.T) {
	t.Parallel()
	// From the tests of Vitess's GenerateShardRanges (go/vt/key/key_test.go); every
	// count is compared with Vitess itself in benchmarks/vitess.
	for n, want := range map[int]string{
		1:  "-",
		2:  "-80 80-",
		4:  "-40 40-80 80-c0 c0-",
		10: "-19 19-33 33-4c 4c-66 66-80 80-99 99-b3 b3-cc cc-e6 e6-",
	} {
		ranges, err := shard.EvenRanges(n)
		require.NoError(t, err)
		require.Equal(t, want, strings.Join(texts(ranges), " "))
	}
	ranges, err := shard.EvenRanges(512)
	require.NoError(t, err)
	require.Equal(t, []string{"-0080", "0080-01", "01-0180"}, texts(ranges[:3]))

	for n, want := range map[int]string{49: "fa-", 98: "80-82"} { // where floats once went astray
		ranges, err = shard.EvenRanges(n)
		require.NoError(t, err)
		require.Equal(t, want, ranges[min(49, n-1)].String())
	}
}

func TestEvenRangesTileTheRing(t *testing.T) {
	t.Parallel()
	check := func(n int) {
		ranges, err := shard.EvenRanges(n)
		require.NoError(t, err)
		require.Len(t, ranges, n)
		for i, r := range ranges {
			if i > 0 {
				require.Equal(t, ranges[i-1].End, r.Start)
				require.Greater(t, r.Start, ranges[i-1].Start)
			}
		}
		require.Zero(t, ranges[0].Start)
		require.Zero(t, ranges[n-1].End)
	}
	for n := 1; n <= 300; n++ {
		check(n)
	}
	check(1 << 16)
	check(1<<16 - 1)
	for _, n := range []int{0, -1, 1<<16 + 1} {
		_, err := shard.EvenRanges(n)
		require.ErrorIs(t, err, shard.ErrBadCount, "%d", n)
	}
}

// Characters beside the digits are none; the error says which boundary it is about.
func TestParseErrorsSayWhere(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"3:-": `start: "3:" is not hexadecimal`, "-/0": `end: "/0" is not hexadecimal`, "-4g": `end: "4g" is not hexadecimal`,
		"-@1": `end: "@1" is not hexadecimal`, "-`1": "end: \"`1\" is not hexadecimal", "G0-": `start: "G0"`,
	} {
		_, err := shard.ParseRange(text)
		require.ErrorIs(t, err, shard.ErrBadRange, text)
		require.ErrorContains(t, err, want, text)
	}
	_, err := shard.ParseRanges("-40--80-")
	require.ErrorContains(t, err, "boundary 3 is empty")
}
