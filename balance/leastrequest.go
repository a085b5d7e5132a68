package balance

import (
	"fmt"
	"slices"
)

// LeastRequestOptions are the knobs of [LeastRequest].
type LeastRequestOptions struct {
	// Choices is the number of backends that are compared, 2 to 16. 0 means 2. More
	// than 2 helps little when the counts are fresh and harms when they are not.
	Choices int
}

const (
	defaultChoices = 2
	maxChoices     = 16

	// fullScan is the number of backends up to which all are compared: two bad
	// candidates of three would hide the good one too often.
	fullScan = 4
)

// LeastRequest returns the strategy that draws backends at random and picks the one
// with the fewest requests under way for its weight. With two choices it is the
// power of two choices (Mitzenmacher, 2001). Up to four backends, and whenever
// there are no more than Choices, it compares all.
//
// The candidates are distinct. With equal weights every set of them is as likely, and
// two cost one random number. With weights that differ, candidates are drawn by
// weight and their requests divided by it, and the first drawn wins a tie, so that
// idle backends are picked by weight too; that costs two random numbers or more, and
// of more than two candidates one may be drawn again that has already lost.
func LeastRequest(o LeastRequestOptions) Strategy { return leastRequestStrategy{o} }

type leastRequestStrategy struct{ options LeastRequestOptions }

func (s leastRequestStrategy) configure(c *chooser) error {
	c.kind, c.choices = leastRequest, s.options.Choices
	if c.choices == 0 {
		c.choices = defaultChoices
	}
	if c.choices < 2 || c.choices > maxChoices {
		return fmt.Errorf("balance: LeastRequestOptions.Choices is %d, expected 0 or 2 to %d", s.options.Choices, maxChoices)
	}
	return nil
}

// leastOf returns the least busy of some backends; there are at least two.
func (c *chooser) leastOf(s *set) int {
	switch n := len(s.nodes); {
	case n <= fullScan || n <= c.choices:
		return c.leastOfAll(s)
	case s.alias != nil:
		return c.leastOfWeighted(s)
	case c.choices == 2:
		a, b := pair(c.rand(), n)
		if s.nodes[b].inFlight() < s.nodes[a].inFlight() {
			return b
		}
		return a
	default:
		return c.leastOfMany(s)
	}
}

// pair returns two distinct indexes below n, every ordered pair equally likely. The
// second is drawn from the n-1 others, which are numbered with the first left out;
// drawing it from all n and stepping on when it hits the first would favour
// neighbours.
func pair(bits uint64, n int) (a, b int) {
	a = below(uint32(bits), n)
	b = below(uint32(bits>>32), n-1)
	if b >= a {
		b++
	}
	return a, b
}

// load is the requests under way on a backend for each unit of its weight.
func (s *set) load(i int) float64 {
	n := float64(s.nodes[i].inFlight())
	if s.inverse != nil {
		n *= s.inverse[i]
	}
	return n
}

// leastOfMany compares c.choices distinct backends of equal weight, drawn by
// Floyd's method: every subset is equally likely. Of those that are equally busy
// each is as likely.
func (c *chooser) leastOfMany(s *set) int {
	var drawn [maxChoices]int
	n := len(s.nodes)
	for k := range c.choices {
		upTo := n - c.choices + k
		drawn[k] = below(uint32(c.rand()>>32), upTo+1)
		if slices.Contains(drawn[:k], drawn[k]) {
			drawn[k] = upTo
		}
	}
	return c.leastAmong(s, drawn[:c.choices])
}

// leastOfAll compares every backend of a small set.
func (c *chooser) leastOfAll(s *set) int {
	var all [maxChoices]int
	for i := range s.nodes {
		all[i] = i
	}
	return c.leastAmong(s, all[:len(s.nodes)])
}

// leastAmong returns the least busy of at most maxChoices candidates. Among those
// that are equally busy it draws by weight.
func (c *chooser) leastAmong(s *set, candidates []int) int {
	var tied [maxChoices]int
	n := 0
	least := s.load(candidates[0])
	for _, i := range candidates {
		load := s.load(i)
		if load < least {
			least, n = load, 0
		}
		if load <= least {
			tied[n] = i
			n++
		}
	}
	if n == 1 {
		return tied[0]
	}
	if s.inverse == nil {
		return tied[below(uint32(c.rand()>>32), n)]
	}
	return drawTied(s, tied[:n], c.unit())
}

// drawTied draws one of a few by weight; u is in [0, 1).
func drawTied(s *set, tied []int, u float64) int {
	sum := 0.0
	for _, i := range tied {
		sum += 1 / s.inverse[i]
	}
	u *= sum
	for _, i := range tied[:len(tied)-1] {
		if u -= 1 / s.inverse[i]; u < 0 {
			return i
		}
	}
	return tied[len(tied)-1]
}

// leastOfWeighted compares candidates that are drawn by weight. A draw that hits the
// best so far is repeated once and, if that hits it too, replaced by any other: a
// bounded number of draws, and never a backend against itself alone.
func (c *chooser) leastOfWeighted(s *set) int {
	best := s.alias.draw(c.rand())
	load := s.load(best)
	for range c.choices - 1 {
		i := s.alias.draw(c.rand())
		if i == best {
			i = s.alias.draw(c.rand())
		}
		if i == best {
			i = below(uint32(c.rand()>>32), len(s.nodes)-1)
			if i >= best {
				i++
			}
		}
		if l := s.load(i); l < load {
			best, load = i, l
		}
	}
	return best
}

// leastExcept returns the least busy backend that is not in ids. Among those that
// are equally busy it draws by weight: each that comes takes the place of those
// before it with its share of their weights so far.
func (c *chooser) leastExcept(s *set, ids []string) (best int, ok bool) {
	var least, tied float64 // the load of best, and the weights of all with that load
	for i, n := range s.nodes {
		if n.oneOf(ids) {
			continue
		}
		load, weight := s.load(i), 1.0
		if s.inverse != nil {
			weight = 1 / s.inverse[i]
		}
		if !ok || load < least {
			least, tied = load, 0
		}
		if load > least {
			continue
		}
		if tied += weight; c.unit()*tied < weight { // always so for the first
			best, ok = i, true
		}
	}
	return best, ok
}
