package gather_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

func sketchOf(hashes []uint64) *gather.Sketch {
	s := new(gather.Sketch)
	for _, h := range hashes {
		s.Add(h)
	}
	return s
}

func marshal(t require.TestingT, s *gather.Sketch) []byte {
	data, err := s.MarshalBinary()
	require.NoError(t, err)
	return data
}

func TestDistinctLaws(t *testing.T) {
	t.Parallel()
	sameBytes := func(a, b *gather.Sketch) bool { return slices.Equal(marshal(t, a), marshal(t, b)) }
	estimate := func(hashes []uint64) int64 { return int64(math.Round(sketchOf(hashes).Estimate())) }
	lawful(t, aFold[uint64, *gather.Sketch, int64]{
		fold: gather.Distinct(), row: rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 20)),
		part: sketchOf, want: estimate, near: equal[int64], same: sameBytes, any: true,
		copy: func(s *gather.Sketch) *gather.Sketch {
			c := new(gather.Sketch)
			require.NoError(t, c.UnmarshalBinary(marshal(t, s)))
			return c
		},
	})
}

// Sketches of any sizes, sparse and dense, merge into that of a single pass, in any
// order.
func TestSketchesMergeIntoThatOfASinglePass(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		var all []uint64
		var parts []*gather.Sketch
		for range rapid.IntRange(0, 4).Draw(t, "shards") {
			n := rapid.SampledFrom([]int{0, 1, 500, 1023, 1500, 30_000}).Draw(t, "values")
			hashes := make([]uint64, n)
			for i := range hashes {
				hashes[i] = rng.Uint64N(40_000) // some on several shards
			}
			all = append(all, hashes...)
			parts = append(parts, sketchOf(hashes))
		}
		once := sketchOf(all)
		for range 2 {
			merged := new(gather.Sketch)
			for _, p := range parts {
				before := marshal(t, p)
				merged.Merge(p)
				require.Equal(t, before, marshal(t, p), "the argument stays as it is")
			}
			require.Equal(t, marshal(t, once), marshal(t, merged))
			require.Equal(t, math.Float64bits(once.Estimate()), math.Float64bits(merged.Estimate()))
			slices.Reverse(parts)
		}
		once.Merge(once)
		require.Equal(t, marshal(t, sketchOf(all)), marshal(t, once))
	})
}

// The estimator has the standard error that it documents, at sizes below, at and far
// above the number of registers, and no bias.
func TestSketchErrsByItsStandardError(t *testing.T) {
	t.Parallel()
	const standard = 1.04 / 128
	for n, seeds := range map[int]float64{100: 200, 1000: 200, 5000: 200, 20_000: 200, 60_000: 60, 200_000: 30} {
		var sum, squares, worst float64
		for seed := range uint64(seeds) {
			rng := rand.New(rand.NewPCG(seed, uint64(n)))
			s := new(gather.Sketch)
			for range n {
				s.Add(rng.Uint64())
			}
			relative := s.Estimate()/float64(n) - 1
			sum += relative
			squares += relative * relative
			worst = max(worst, math.Abs(relative))
		}
		// The bounds are four standard errors of what the seeds can show.
		near := 4 / math.Sqrt(2*seeds)
		require.Less(t, math.Abs(sum/seeds), 4*standard/math.Sqrt(seeds), "bias at %d", n)
		require.Less(t, math.Sqrt(squares/seeds), (1+near)*standard, "deviation at %d", n)
		require.Less(t, worst, 4.5*standard, "worst at %d", n)
		if n >= 60_000 { // smaller sets are closer
			require.Greater(t, math.Sqrt(squares/seeds), (1-near)*standard, "deviation at %d", n)
		}
	}
}

// The points of a shard's own range, and numbers in sequence, count as well.
func TestSketchMixesWhatItIsGiven(t *testing.T) {
	t.Parallel()
	const n = 50_000
	var sequence, oneShard gather.Sketch
	for i := range uint64(n) {
		sequence.Add(i)
		oneShard.Add(uint64(shard.XXHash(fmt.Sprint(i)))>>8 | 0x42<<56)
	}
	require.InEpsilon(t, n, sequence.Estimate(), 0.03)
	require.InEpsilon(t, n, oneShard.Estimate(), 0.03)
}

func TestSketchOfFewIsExactAndSmall(t *testing.T) {
	t.Parallel()
	var s gather.Sketch
	require.Zero(t, s.Estimate())
	for n := range uint64(100) {
		for range 3 {
			s.Add(uint64(shard.XXHash(fmt.Sprint(n))))
		}
		require.InDelta(t, n+1, s.Estimate(), 1.5)
		require.LessOrEqual(t, len(marshal(t, &s)), 1+3*int(n+1))
	}
	s.Merge(nil)
	total, err := gather.Reduce(gather.Distinct(), slices.Values([]*gather.Sketch{nil, &s, {}}))
	require.NoError(t, err)
	require.Equal(t, int64(math.Round(s.Estimate())), total)
}

// All registers at their highest: an estimate of nonsense, but a number.
func TestSketchThatIsFullIsANumber(t *testing.T) {
	t.Parallel()
	data := append([]byte{1}, slices.Repeat([]byte{0xcf, 0x3c, 0xf3}, 4096)...) // 51, four times
	var s gather.Sketch
	require.NoError(t, s.UnmarshalBinary(data))
	total, err := gather.Reduce(gather.Distinct(), slices.Values([]*gather.Sketch{&s}))
	require.NoError(t, err)
	require.Equal(t, int64(1)<<62, total)
}

// Registers at the highest rank, which only sets of about 2^60 values have, count by
// the series that Ertl's paper gives for them (equation for tau).
func TestSketchCountsRegistersThatAreFull(t *testing.T) {
	t.Parallel()
	data := append([]byte{1}, slices.Repeat([]byte{0xcf, 0x2c, 0xb3}, 4096)...) // 51, 50, 50, 51
	var s gather.Sketch
	require.NoError(t, s.UnmarshalBinary(data))
	const m = 16384.0
	tau := 1 - 0.5
	for k, x := 1, 0.5; k < 60; k++ {
		x = math.Sqrt(x)
		tau -= (1 - x) * (1 - x) * math.Pow(2, -float64(k))
	}
	z := math.Pow(2, -50) * (m*tau/3 + m/2)
	require.InEpsilon(t, m*m/(2*math.Ln2*z), s.Estimate(), 1e-12)
}

func TestSketchIsAListUpTo1024Registers(t *testing.T) {
	t.Parallel()
	var s gather.Sketch
	size := 0
	for i := uint64(0); size <= 1+3*1024; i++ {
		s.Add(i)
		before := size
		size = len(marshal(t, &s))
		if size > 1+3*1024 {
			require.Equal(t, 1+3*1024, before)
			require.Equal(t, 1+12288, size)
		}
		var again gather.Sketch
		require.NoError(t, again.UnmarshalBinary(marshal(t, &s)))
	}
}

func TestSketchRefusesOtherBytes(t *testing.T) {
	t.Parallel()
	dense := func(fill ...byte) []byte { return append([]byte{1}, slices.Repeat(fill, 12288/len(fill))...) }
	for name, data := range map[string][]byte{
		"nothing":             {},
		"another version":     {2},
		"half a register":     {1, 0, 1},
		"rank 0":              {1, 0, 1, 0},
		"rank 52":             {1, 0, 1, 52},
		"register 16384":      {1, 0x40, 0, 1},
		"not ascending":       {1, 0, 5, 1, 0, 4, 1},
		"a register twice":    {1, 0, 5, 1, 0, 5, 2},
		"a list that is long": append([]byte{1}, make([]byte, 3*1025)...),
		"one byte too many":   append(dense(0x04, 0x10, 0x41), 0),
		"dense, rank 63":      dense(0xff),
		"dense, but empty":    dense(0),
	} {
		s := sketchOf([]uint64{1})
		err := s.UnmarshalBinary(data)
		require.ErrorIs(t, err, gather.ErrBadSketch, name)
		require.Equal(t, marshal(t, sketchOf([]uint64{1})), marshal(t, s), "it stays as it was")
	}
}

// What is accepted is exactly what would be written, and keeps none of the bytes.
func FuzzSketchUnmarshal(f *testing.F) {
	f.Add([]byte{1, 0, 5, 1, 0x3f, 0xff, 51})
	f.Add(append([]byte{1}, slices.Repeat([]byte{0x04, 0x10, 0x41}, 4096)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s gather.Sketch
		if err := s.UnmarshalBinary(data); err != nil {
			require.ErrorIs(t, err, gather.ErrBadSketch)
			return
		}
		want := slices.Clone(data)
		clear(data)
		require.Equal(t, want, marshal(t, &s))
		require.False(t, math.IsNaN(s.Estimate()))
	})
}

func TestSketchesTravelAsJSON(t *testing.T) {
	s := new(gather.Sketch)
	s.Add(1)
	data, err := json.Marshal(s)
	if err == nil {
		var got gather.Sketch
		require.NoError(t, json.Unmarshal(data, &got))
		require.Equal(t, s.Estimate(), got.Estimate(), "%s", data)
	}
}
