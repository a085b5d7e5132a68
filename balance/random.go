package balance

// Random returns the strategy that draws a backend at random, by weight. It knows
// nothing of load: it is the yardstick for the others, and what to use when
// requests are many, short and alike.
//
// With equal weights it takes one multiplication, otherwise Walker's alias method
// (1977, with Vose's construction of 1991): one table entry, whatever the number of
// backends and their weights.
func Random() Strategy { return randomStrategy{} }

type randomStrategy struct{}

func (randomStrategy) configure(c *chooser, _ *fleet) error {
	c.kind = random
	return nil
}

// alias draws indexes with given weights in constant time. It divides the unit
// square into columns of equal width, one an index; the part of a column above its
// threshold belongs to another index.
type alias struct {
	columns []column
}

type column struct {
	threshold uint32 // of 2^32, below which the column is its own
	other     uint32
}

// newAlias builds the table by Vose's method: columns with too little are filled
// up from those with too much. The weights are positive, and at most 1.
func newAlias(weights []float64) *alias {
	n := len(weights)
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	share := make([]float64, n) // 1 is a full column
	var small, large []int
	for i, w := range weights {
		share[i] = w / sum * float64(n)
		if share[i] < 1 {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	a := &alias{columns: make([]column, n)}
	for i := range a.columns {
		a.columns[i] = column{threshold: 1<<32 - 1, other: uint32(i)}
	}
	for len(small) > 0 && len(large) > 0 {
		lo, hi := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		a.columns[lo] = column{threshold: uint32(share[lo] * (1 << 32)), other: uint32(hi)}
		if share[hi] -= 1 - share[lo]; share[hi] < 1 {
			large = large[:len(large)-1]
			small = append(small, hi)
		}
	}
	return a // what is left in small or large is full but for rounding
}

func (a *alias) draw(bits uint64) int {
	i := below(uint32(bits>>32), len(a.columns))
	c := &a.columns[i]
	if uint32(bits) < c.threshold {
		return i
	}
	return int(c.other)
}
