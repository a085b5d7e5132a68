package balance

import "time"

// members are the backends that Update was given. They are immutable; the nodes
// are not.
type members[T any] struct {
	backends []Backend[T]
	nodes    []*node
	reached  []reached // those that this client may pick from
}

// reached is a member in this client's subset.
type reached struct {
	*node
	index  int     // in the members
	weight float64 // in the subset
	local  bool    // in the client's zone
}

func newMembers[T any](t topology, backends []Backend[T], nodes []*node, weights []float64) *members[T] {
	m := &members[T]{backends: backends, nodes: nodes}
	var rings [2][]reached // elsewhere, and in the local zone
	for i, b := range backends {
		r := reached{node: nodes[i], index: i, weight: weights[i]}
		if r.local = t.zone.Local != "" && b.Zone == t.zone.Local; r.local {
			rings[1] = append(rings[1], r)
		} else {
			rings[0] = append(rings[0], r)
		}
	}
	for _, ring := range rings {
		m.reached = append(m.reached, t.subset.slice(ring)...)
	}
	return m
}

// rebuild makes the snapshot that is picked from. Call it with fleet.mu held.
func (b *Balancer[T]) rebuild(now time.Duration) {
	m := b.all.Load()
	next := &snapshot[T]{}
	next.fleet = &b.fleet
	var weights []float64
	for _, r := range b.topology.eligible(m.reached, b.fleet.health.Panic, now) {
		next.nodes = append(next.nodes, r.node)
		next.backends = append(next.backends, m.backends[r.index])
		weights = append(weights, r.weight)
	}
	next.weigh(weights, b.chooser.kind)
	next.warm()
	next.plain = b.chooser.plain(&next.set)
	b.current.Store(next)
}
