package balance

import "sync/atomic"

// Strategy is a way to choose a backend: [LeastRequest], [RoundRobin] or [Random].
// It is an immutable value that may be given to several balancers. The set of
// strategies is closed, so that choosing is a switch and not a call through an
// interface.
type Strategy interface {
	configure(c *chooser) error
}

type kind uint8

const (
	random kind = iota
	roundRobin
	leastRequest
)

// chooser chooses an index in a set. Apart from the turn it is immutable.
type chooser struct {
	kind    kind
	choices int // of leastRequest
	rand    func() uint64

	// The turn changes with every pick, and what is around it hardly ever.
	_    [64]byte
	turn atomic.Uint64 // of roundRobin
	_    [64]byte
}

// choose returns the index of a backend; the set is not empty.
func (c *chooser) choose(s *set) int {
	if len(s.nodes) == 1 {
		return 0
	}
	switch c.kind {
	case roundRobin:
		return c.nextTurn(s)
	case leastRequest:
		return c.leastOf(s)
	default:
		return draw(s, c.rand())
	}
}

// unit returns a random number in [0, 1).
func (c *chooser) unit() float64 { return float64(c.rand()>>11) / (1 << 53) }

// below scales 32 random bits to [0, n) by one multiplication. Its bias is at most
// n/2^32.
func below(bits uint32, n int) int { return int(uint64(bits) * uint64(n) >> 32) }

// draw returns a random index, by weight, from 64 random bits.
func draw(s *set, bits uint64) int {
	if s.alias != nil {
		return s.alias.draw(bits)
	}
	return below(uint32(bits>>32), len(s.nodes))
}
