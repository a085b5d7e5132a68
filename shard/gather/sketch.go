package gather

import (
	"math"
	"math/bits"
	"slices"

	"github.com/evenkeel-go/evenkeel/internal/mix"
)

// Sketch counts distinct values in a fixed space: a HyperLogLog (Flajolet, Fusy,
// Gandouet and Meunier, 2007) of 2^14 registers. A value is in it by its hash, as
// often as it may come, and the sketches of several shards merge into that of all, which
// counts of distinct values do not.
//
// The standard error of [Sketch.Estimate] is 1.04/sqrt(2^14) = 0.81 % of the
// result, at every size: two estimates of three are within it and 997 of 1000
// within three times it. Small sets are closer: up to a hundred values it is usually
// exact. The estimator is the "improved raw estimator" of O. Ertl, "New cardinality
// estimation algorithms for HyperLogLog sketches", 2017, algorithm 6, which needs no
// tables of biases.
//
// The zero value is empty. A Sketch of up to 1024 registers in use, about as many
// values, keeps them as a list of 4 bytes each, so that a sketch for every group is
// cheap; then it takes 16 kB. The form does not influence the estimate. A Sketch is not
// safe for concurrent use.
type Sketch struct {
	// Either sparse: register<<8 | rank, ascending; or dense, which then has more than
	// mostSparse registers in use. Registers only grow, so that a set of values has
	// one form, in whatever order they came.
	sparse []uint32
	dense  []uint8
}

const (
	sketchBits = 14
	registers  = 1 << sketchBits
	tailBits   = 64 - sketchBits // of the hash, whose leading zeros the rank counts
	mostRank   = tailBits + 1
	mostSparse = 1024
)

// Add puts a value in by its hash, a [shard.ID] from [shard.XXHash] for example. Equal
// values must have equal hashes on all shards, and others should not: two values of
// one hash count as one. Add mixes the hash, so that numbers that are already
// unique, as snowflakes, may serve as their own, and so may the points of one shard's
// range. It costs a few nanoseconds in a dense sketch, and a search in a sparse one.
func (s *Sketch) Add(hash uint64) {
	hash = mix.Bits(hash) // the points of a shard share their leading bits, which choose the register
	rank := bits.LeadingZeros64(hash<<sketchBits|1<<(sketchBits-1)) + 1
	s.set(uint32(hash>>tailBits), uint8(rank))
}

func (s *Sketch) set(register uint32, rank uint8) {
	if s.dense != nil {
		s.dense[register] = max(s.dense[register], rank)
		return
	}
	i, found := slices.BinarySearchFunc(s.sparse, register, func(e, r uint32) int { return int(e>>8) - int(r) })
	entry := register<<8 | uint32(rank)
	switch {
	case found:
		s.sparse[i] = max(s.sparse[i], entry)
	case len(s.sparse) < mostSparse:
		s.sparse = slices.Insert(s.sparse, i, entry)
	default:
		s.dense = make([]uint8, registers)
		for _, e := range s.sparse {
			s.dense[e>>8] = uint8(e)
		}
		s.sparse = nil
		s.dense[register] = rank
	}
}

// Merge adds all values of other, which stays as it is. A nil other is an empty one.
func (s *Sketch) Merge(other *Sketch) {
	if other == nil {
		return
	}
	for _, e := range other.sparse {
		s.set(e>>8, uint8(e))
	}
	for register, rank := range other.dense {
		if rank > 0 {
			s.set(uint32(register), rank)
		}
	}
}

// Estimate returns about how many distinct values were added, 0 if none was. It costs
// a pass over the registers in use.
func (s *Sketch) Estimate() float64 {
	// How many registers have each rank.
	var counts [mostRank + 1]float64
	counts[0] = registers - float64(len(s.sparse))
	for _, e := range s.sparse {
		counts[uint8(e)]++
	}
	if s.dense != nil {
		counts[0] = 0
	}
	for _, rank := range s.dense {
		counts[rank]++
	}
	z := registers * tau(1-counts[mostRank]/registers)
	for rank := tailBits; rank > 0; rank-- {
		z = (z + counts[rank]) / 2
	}
	z += registers * sigma(counts[0]/registers)
	return registers * registers / (2 * math.Ln2 * z)
}

// sigma is x + the sum of x^(2^k) * 2^(k-1) for k from 1, and infinite for 1.
func sigma(x float64) float64 {
	if x == 1 {
		return math.Inf(1)
	}
	z := x
	for y := 1.0; ; y *= 2 {
		x *= x
		before := z
		if z += x * y; z == before {
			return z
		}
	}
}

// tau is (1 - x - the sum of (1 - x^(2^-k))^2 * 2^-k for k from 1) / 3.
func tau(x float64) float64 {
	if x == 0 || x == 1 {
		return 0
	}
	z := 1 - x
	for y := 0.5; ; y /= 2 {
		x = math.Sqrt(x)
		before := z
		if z -= (1 - x) * (1 - x) * y; z == before {
			return z / 3
		}
	}
}

// Distinct is the number of distinct values in all rows, estimated: each shard fills
// a [Sketch], which has its error and its cost, with the hashes of its values. A nil part is
// that of no rows. The result is rounded to a whole number.
//
// Where every value lies on one shard only, as the sharding key does, counts of
// distinct values add up: [Count] is exact then.
func Distinct() Fold[*Sketch, int64] {
	return Fold[*Sketch, int64]{
		Zero: func() *Sketch { return new(Sketch) },
		Combine: func(into, part *Sketch) (*Sketch, error) {
			into.Merge(part)
			return into, nil
		},
		Final: func(all *Sketch) (int64, error) {
			// All registers full estimate about 2^64, which no set of rows reaches.
			return int64(min(math.Round(all.Estimate()), 1<<62)), nil
		},
	}
}
