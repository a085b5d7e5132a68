package balance

import (
	"fmt"
	"math"
	"slices"
	"time"
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

func (s leastRequestStrategy) configure(c *chooser, _ *fleet) error {
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
func (c *chooser) leastOf(s *set, now time.Duration) int {
	switch n := len(s.nodes); {
	case n <= fullScan || n <= c.choices:
		return c.leastOfAll(s, now)
	case s.alias != nil || s.warming != nil:
		return c.leastOfWeighted(s, now)
	case c.choices > 2:
		return c.leastOfMany(s, now)
	default:
		bits := c.rand()
		a, b := pair(bits, n)
		return c.lesser(s, now, bits, a, b)
	}
}

// plain reports whether leastOfPlain will do, while all is calm.
func (c *chooser) plain(s *set) bool {
	return c.kind == leastRequest && c.choices == 2 && len(s.nodes) > 0 && s.inverse == nil && s.warming == nil
}

// leastOfPlain is leastOf in the usual case.
func (c *chooser) leastOfPlain(s *set) int {
	if len(s.nodes) <= fullScan {
		return c.leastOfFew(s)
	}
	return c.leastOfPair(s)
}

// leastOfPair is the power of two choices in its plainest form, which is the usual
// one.
func (c *chooser) leastOfPair(s *set) int {
	bits := c.rand()
	i, j := pair(bits, len(s.nodes))
	a, b := s.nodes[i], s.nodes[j]
	x, y := a.inFlight(), b.inFlight()
	if sampled(bits) {
		c.blind.see(x|y == 0)
	}
	if y < x || y == x && b.reported.word.Load() != 0 && s.reportsLess(j, i) {
		return j
	}
	return i
}

// lesser returns the less busy of two backends, and the first if they are equally
// busy.
func (c *chooser) lesser(s *set, now time.Duration, bits uint64, i, j int) int {
	x, y := s.load(i, now), s.load(j, now)
	if sampled(bits) {
		c.blind.see(x == 0 && y == 0)
	}
	if y < x || y == x && s.reportsLess(j, i) {
		return j
	}
	return i
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

// leastOfMany compares c.choices distinct backends of equal weight, drawn by
// Floyd's method: every subset is equally likely. Of those that are equally busy
// each is as likely.
func (c *chooser) leastOfMany(s *set, now time.Duration) int {
	var drawn [maxChoices]int
	n := len(s.nodes)
	for k := range c.choices {
		upTo := n - c.choices + k
		drawn[k] = below(uint32(c.rand()>>32), upTo+1)
		if slices.Contains(drawn[:k], drawn[k]) {
			drawn[k] = upTo
		}
	}
	return c.leastAmong(s, now, drawn[:c.choices])
}

// leastOfFew is leastOfAll in its plainest form, which is the usual one.
func (c *chooser) leastOfFew(s *set) int {
	bits := c.rand()
	var tied [fullScan]uint8
	count, least, busy, told := 0, int64(math.MaxInt64), int64(0), uint64(0)
	for i, n := range s.nodes {
		load := n.inFlight()
		told |= n.reported.word.Load()
		busy |= load
		if load < least {
			least, count = load, 0
		}
		if load == least {
			tied[count%fullScan] = uint8(i)
			count++
		}
	}
	if told != 0 {
		return c.leastOfAll(s, calm)
	}
	if sampled(bits) {
		c.blind.see(busy == 0)
	}
	return int(tied[below(uint32(bits>>32), count)%fullScan])
}

// leastOfAll compares every backend of a small set.
func (c *chooser) leastOfAll(s *set, now time.Duration) int {
	var all [maxChoices]int
	for i := range s.nodes {
		all[i] = i
	}
	return c.leastAmong(s, now, all[:len(s.nodes)])
}

// leastAmong returns the least busy of at most maxChoices candidates. Of those that are
// equally busy it leaves out the ones that report more load than another, and draws by
// weight.
func (c *chooser) leastAmong(s *set, now time.Duration, candidates []int) int {
	var tied [maxChoices]int
	n := 0
	bits := c.rand()
	least, most := math.Inf(1), 0.0
	for _, i := range candidates {
		load := s.load(i, now)
		most = max(most, load)
		if load < least {
			least, n = load, 0
		}
		if load == least {
			tied[n] = i
			n++
		}
	}
	if sampled(bits) {
		c.blind.see(most == 0)
	}
	best := s.reportLeast(tied[:n])
	switch {
	case len(best) == 1:
		return best[0]
	case s.inverse == nil && s.warming == nil:
		return best[below(uint32(bits>>32), len(best))]
	default:
		return s.drawTied(best, now, float64(bits>>11)/(1<<53))
	}
}

// drawTied draws one of a few by weight; u is in [0, 1).
func (s *set) drawTied(tied []int, now time.Duration, u float64) int {
	sum := 0.0
	for _, i := range tied {
		sum += s.weight(i, now)
	}
	u *= sum
	for _, i := range tied[:len(tied)-1] {
		if u -= s.weight(i, now); u < 0 {
			return i
		}
	}
	return tied[len(tied)-1]
}

// leastOfWeighted compares candidates that are drawn by weight.
func (c *chooser) leastOfWeighted(s *set, now time.Duration) int {
	bits := c.rand()
	best := c.thin(s, now, s.drawn(bits))
	for range c.choices - 1 {
		best = c.lesser(s, now, bits, best, c.another(s, now, best))
	}
	return best
}

// another draws an index other than i by weight. A draw that hits i is repeated once
// and, if that hits it too, replaced by any other: a bounded number of draws, and
// never a backend against itself.
func (c *chooser) another(s *set, now time.Duration, i int) int {
	for range 2 {
		if j := c.draw(s, now); j != i {
			return j
		}
	}
	j := below(uint32(c.rand()>>32), len(s.nodes)-1)
	if j >= i {
		j++
	}
	return j
}

// leastExcept returns the least busy backend that is not in ids. Among those that
// are equally busy it draws by weight: each that comes takes the place of those
// before it with its share of their weights so far.
func (c *chooser) leastExcept(s *set, now time.Duration, ids []string) (best int, ok bool) {
	var least, tied float64 // the load of best, and the weights of all with that load
	for i, n := range s.nodes {
		if n.oneOf(ids) {
			continue
		}
		load, weight := s.load(i, now), s.weight(i, now)
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
