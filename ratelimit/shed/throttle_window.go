package shed

import (
	"sync"
	"sync/atomic"
)

// slots is the number of parts of a window.
const slots = 10

// kinds of what happens to a request.
const (
	kindAccepted = iota
	kindRefused  // by the backend
	kindRejected // by the throttle
	kinds
)

// tally is the number of requests by class and kind.
type tally [classes][kinds]atomic.Int64

// backend counts the requests to one backend in a sliding window.
//
// The window is a ring of tallies and their sum. What is added to the sum is added to the
// tally that is current, whatever the clock of the one who adds it says; what is
// removed from the sum is exactly what was taken out of a tally. So a goroutine that
// was asleep in between can neither clear a window nor leave a count in the sum for
// ever: it may count somewhat later, that is all.
type backend struct {
	sum     tally
	current atomic.Int64          // the number of the current slot; it only grows
	last    [classes]atomic.Int64 // when a request was sent, in nanoseconds from the epoch

	born      int64 // when slot 0 began; immutable
	ring      [slots]tally
	advancing sync.Mutex // serialises the growth of current
}

func newBackend(ns int64) *backend {
	b := &backend{born: ns}
	for i := range b.last {
		b.last[i].Store(ns)
	}
	return b
}

func (b *backend) count(class, kind int) {
	// The sum first: so it is never less than its parts, and never negative.
	b.sum[class][kind].Add(1)
	b.ring[b.current.Load()%slots][class][kind].Add(1)
}

// advance makes slot the current one, unless it is past, or somebody else is about to.
func (b *backend) advance(slot int64) {
	current := b.current.Load()
	if slot <= current || !b.advancing.TryLock() {
		return
	}
	defer b.advancing.Unlock()
	current = b.current.Load()
	for s := max(current, slot-slots) + 1; s <= slot; s++ {
		expired := &b.ring[s%slots]
		for class := range classes {
			for kind := range kinds {
				if n := expired[class][kind].Swap(0); n != 0 {
					b.sum[class][kind].Add(-n)
				}
			}
		}
	}
	b.current.Store(max(current, slot))
}

// idle tells whether nothing in the window can be left, at slot.
func (b *backend) idle(slot int64) bool { return slot-b.current.Load() >= slots }

// rejection returns the probability with which a request of a class is to be
// rejected: the highest of its own and those of the classes above.
func (b *backend) rejection(k float64, class int) float64 {
	p, above := 0.0, 0.0 // above is what was refused of the higher classes
	for i := classes - 1; i >= class; i-- {
		c := &b.sum[i]
		accepted, refused := float64(c[kindAccepted].Load()), float64(c[kindRefused].Load())
		requests := accepted + refused + float64(c[kindRejected].Load()) + above
		p = max(p, (requests-k*accepted)/(requests+1))
		above += refused
	}
	return p
}

// sent notes that a request of a class is sent, to a tenth of the time between probes: who does
// not write does not contend.
func (b *backend) sent(class int, ns, probe int64) {
	if last := &b.last[class]; ns-last.Load() > probe/10 {
		last.Store(ns)
	}
}

// probe tells whether none of a class was sent for so long that this one must be, and
// notes that it is: of those who ask at the same time one is told so.
func (b *backend) probe(class int, ns, after int64) bool {
	at := &b.last[class]
	last := at.Load()
	return ns-last >= after && at.CompareAndSwap(last, ns)
}

func (b *backend) stats(k float64) (s BackendStats) {
	for i := range classes {
		c := &b.sum[i]
		s.Accepted[i] = uint64(c[kindAccepted].Load())
		s.Refused[i] = uint64(c[kindRefused].Load())
		s.Rejected[i] = uint64(c[kindRejected].Load())
		s.Rejection[i] = b.rejection(k, i)
	}
	return s
}
