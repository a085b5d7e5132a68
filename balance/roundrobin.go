package balance

import (
	"container/heap"
	"math"
	"time"
)

// RoundRobin returns the strategy by which the backends take turns, each as often
// as its weight says. It knows nothing of load. An update of the set does not begin
// the turns anew, so that frequent updates do not favour the first backends, and each
// balancer begins anywhere, so that many clients do not go round in step.
//
// With equal weights a turn is one atomic addition and a division. Otherwise the
// turns follow a table, made when the set changes, of 64 turns a backend on the
// average. Every backend has at least one turn, and the turns of each are spread evenly
// (earliest deadline first). A share is right to about a 64th of an average one or, if
// it is larger than that, to a 64th of itself. A turn then costs one look-up more, and
// the table 256 bytes a backend.
func RoundRobin() Strategy { return roundRobinStrategy{} }

type roundRobinStrategy struct{}

func (roundRobinStrategy) configure(c *chooser, _ *fleet) error {
	c.kind = roundRobin
	// Many clients that begin at the same backend would go round in step.
	c.turn.Store(c.rand() >> 1)
	return nil
}

func (c *chooser) nextTurn(s *set, now time.Duration) int {
	return c.thin(s, now, c.turnOf(s))
}

func (c *chooser) turnOf(s *set) int {
	turn := c.turn.Add(1) - 1
	if s.schedule != nil {
		return int(s.schedule[turn%uint64(len(s.schedule))])
	}
	return int(turn % uint64(len(s.nodes)))
}

// turnsEach is the average number of turns of a backend in a schedule.
const turnsEach = 64

// newSchedule returns the order of turns for weights that are positive, and at most
// 1.
func newSchedule(weights []float64) []uint32 {
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	var h deadlines
	total := 0
	for i, w := range weights {
		// Each begins at another phase, so that those of equal weight do not take their
		// turns in a row. Multiples of the golden ratio spread evenly, however many.
		_, phase := math.Modf(float64(i) * math.Phi)
		turns := max(1, int(math.Round(w/sum*float64(turnsEach*len(weights)))))
		total += turns
		h = append(h, deadline{index: uint32(i), period: 1 / float64(turns), next: phase / float64(turns)})
	}
	heap.Init(&h)
	schedule := make([]uint32, total)
	for i := range schedule {
		schedule[i] = h[0].index
		h[0].next += h[0].period
		heap.Fix(&h, 0)
	}
	return schedule
}

// deadline is the time of a backend's next turn, in a schedule that lasts from 0
// to 1.
type deadline struct {
	index        uint32
	period, next float64
}

type deadlines []deadline

func (h deadlines) Len() int { return len(h) }
func (h deadlines) Less(i, j int) bool {
	return h[i].next < h[j].next || h[i].next == h[j].next && h[i].index < h[j].index
}
func (h deadlines) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *deadlines) Push(any)     { panic("balance: a schedule's heap does not grow") }
func (h *deadlines) Pop() any     { panic("balance: a schedule's heap does not shrink") }
