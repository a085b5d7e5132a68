package balance

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/mix"
)

// Zone prefers the backends of the caller's own zone: its traffic crosses no zone's
// border as long as the zone can take it, which saves time and money.
//
// All requests stay in the local zone while at least 1/1.4 of its backends, by weight,
// are not ejected (Envoy's overprovisioning factor). With fewer, a part goes to the
// others, in proportion. If the zone has lost more than Min allows, there is no
// preference.
type Zone struct {
	// Local is the zone of the caller, as in [Backend].Zone. Empty means no preference.
	Local string

	// Min is the number of backends, not ejected, that the local zone must have for
	// there to be a preference. 0 means 3.
	Min int

	// Clients is the part of all clients that are in the local zone, from 0 to 1, if
	// that is known: of a zone with a larger part of the clients than of the backends,
	// the surplus goes elsewhere. 0 means unknown.
	Clients float64
}

// Subset gives each of many clients only some of the backends. Each client then has
// fewer connections, and more requests under way on each backend, without which
// LeastRequest has nothing to compare.
//
// Backends lie on a ring in an order that all clients agree on, by a hash of their
// IDs, and each client takes a slice, the ends of which may cover a part of a backend
// and count as a part of its weight: so all backends get the same, whatever the
// numbers (Finagle's deterministic aperture). With a zone preference the backends of
// the local zone and all others are two rings.
type Subset struct {
	// Client is the number of this client, from 0 to Clients-1. All clients should have
	// distinct numbers.
	Client, Clients int

	// Size is the least number of backends for a client. 0 means all. At least 12 are
	// advisable, as in Finagle: a small subset may consist of bad ones.
	Size int
}

// topology decides which backends a client sees, and how large a part each has.
type topology struct {
	zone   Zone
	subset Subset
}

func (t topology) withDefaults() (topology, error) {
	if t.zone.Min < 0 {
		return t, fmt.Errorf("balance: Zone.Min is %d, expected 0 (for 3) or more", t.zone.Min)
	}
	if t.zone.Min == 0 {
		t.zone.Min = 3
	}
	if !(t.zone.Clients >= 0 && t.zone.Clients <= 1) {
		return t, fmt.Errorf("balance: Zone.Clients is %v, expected a part of all clients, from 0 to 1", t.zone.Clients)
	}
	if s := t.subset; s.Size < 0 {
		return t, fmt.Errorf("balance: Subset.Size is %d, expected 0 (for all) or more", s.Size)
	} else if s.Size > 0 && (s.Client < 0 || s.Client >= s.Clients) {
		return t, fmt.Errorf("balance: Subset.Client is %d of Clients %d, expected 0 to Clients-1", s.Client, s.Clients)
	} else if s.Size > 0 && s.Clients > maxClients {
		return t, fmt.Errorf("balance: Subset.Clients is %d, expected at most %d", s.Clients, maxClients)
	}
	return t, nil
}

// maxClients keeps the numbers of a ring within 64 bits.
const maxClients = 1 << 30

// slice returns the part of a ring of backends that is this client's.
//
// The slices of all clients are equally wide, a multiple of 1/Clients of the ring,
// and begin at multiples of that: so every point of the ring is in equally many.
func (s Subset) slice(ring []reached) []reached {
	n := len(ring)
	if s.Size == 0 || s.Size >= n {
		return ring
	}
	slices.SortFunc(ring, func(a, b reached) int {
		return cmp.Or(cmp.Compare(place(a.id), place(b.id)), cmp.Compare(a.id, b.id))
	})
	// In units of a backend's width times the number of clients, which are whole.
	count, clients := int64(n), int64(s.Clients)
	width := (int64(s.Size)*clients + count - 1) / count * count
	start := int64(s.Client) * count
	if width >= count*clients {
		return ring
	}
	var mine []reached
	for at := start; at < start+width; {
		end := min((at/clients+1)*clients, start+width)
		r := ring[at/clients%count]
		r.weight *= float64(end-at) / float64(clients)
		if len(mine) > 0 && mine[0].node == r.node {
			mine[0].weight += r.weight // the slice ends in the backend that it began in
		} else {
			mine = append(mine, r)
		}
		at = end
	}
	return mine
}

// place is where on the ring the backend of an ID lies. FNV-1a is the same in all
// processes; its upper bits need the mixing of SplitMix64 to be evenly distributed for
// short IDs.
func place(id string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id))
	return mix.Bits(h.Sum64())
}

// overprovision is the factor by which a zone may take more than its usual load
// before requests are sent elsewhere.
const overprovision = 1.4

// eligible returns those to pick from at now, with their weights: without the
// ejected, unless too few would be left, and as the zones say.
func (t topology) eligible(all []reached, panicBelow float64, now time.Duration) []reached {
	// By number, which is what panic and the least zone are about, and by weight.
	var healthy []reached
	var here, hereHealthy, thereHealthy float64
	local := 0
	for _, r := range all {
		if r.local {
			here += r.weight
		}
		if r.ejected > now {
			continue
		}
		healthy = append(healthy, r)
		if r.local {
			local++
			hereHealthy += r.weight
		} else {
			thereHealthy += r.weight
		}
	}
	if len(healthy) == 0 || float64(len(healthy))/float64(len(all)) < panicBelow {
		return all
	}
	if local < t.zone.Min || local == len(healthy) {
		return healthy
	}
	share := min(1, overprovision*hereHealthy/here)
	if t.zone.Clients > 0 {
		share = min(share, hereHealthy/(hereHealthy+thereHealthy)/t.zone.Clients)
	}
	var zoned []reached
	for _, r := range healthy {
		switch {
		case r.local:
			r.weight *= share / hereHealthy
		case share == 1:
			continue
		default:
			r.weight *= (1 - share) / thereHealthy
		}
		zoned = append(zoned, r)
	}
	return zoned
}
