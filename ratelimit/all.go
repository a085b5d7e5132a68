package ratelimit

import (
	"slices"
	"sync/atomic"
	"time"
)

// Want is so many units of one limit, for [All]: of a Limiter or of a key of a Keyed. It
// is a value; nothing is allocated for it. It is good for one call of All. The zero value
// wants nothing.
type Want struct {
	limiter *Limiter // or
	table   *table

	n     int64
	name  string
	tag   uint64
	label string
	core  core // of the key
	into  *Reservation
}

// Want returns the want of n units, for [All].
func (l *Limiter) Want(n int64) Want {
	_ = l.Limit() // a limiter that nobody made panics here, and not while All has hold of others
	return Want{limiter: l, n: n}
}

// Want returns the want of n units of the key's limit, for [All].
func (k *Keyed[K]) Want(key K, n int64) Want {
	w := Want{table: &k.table, n: n, tag: k.tag(key), label: k.label(key)}
	w.core = *k.coreOf(key, &w.core)
	return w
}

// Named returns the want with a name, which the Decision has if this limit decides.
func (w Want) Named(name string) Want {
	w.name = name
	return w
}

// Reserving returns the want with a place for its reservation, as Reserve makes it: if all
// is granted, r can be settled or cancelled, and if not it becomes the zero Reservation.
// For the key of a Keyed it costs what [Keyed.Reserve] says.
func (w Want) Reserving(r *Reservation) Want {
	w.into = r
	return w
}

// All takes the units of all wants if they are all there, and none otherwise: per second
// and per hour; of the tenant, the user and the endpoint. It is one atomic step: what one
// limit refuses is not charged to another, not even for a moment in which a third would
// see it.
//
// If all is granted, the Decision is that of the limit that has the smallest part of its
// burst left. If not, it is that of the refusing limit with the longest RetryAfter: after
// it the same call succeeds, if nobody else asks. Only if two keys of one Keyed have to
// share a slot of a full set (Stats.Inherited), it may take longer. Its Name is that of
// the Want.
//
// All holds the limits while it decides, for some tens of nanoseconds each, and those who
// ask for them meanwhile wait. The same limit may be wanted several times, and All without
// wants is granted. Up to 4 wants nothing is allocated, but for the reservations of
// Reserving.
//
// It models the hierarchical limits of Stripe and GitHub. Peers ask one limit after the
// other, and have charged the first when the second refuses.
//
// All is safe for concurrent use by multiple goroutines, also with the other methods of
// the limits, and never deadlocks: everybody takes hold in the same order.
func All(wants ...Want) Decision {
	var few [4]grip
	grips := gripsOf(few[:0], wants)
	if len(grips) > 0 {
		// One reading of the clock, which counts from another epoch for each.
		epoch := grips[0].want.epoch()
		ns := int64(time.Since(epoch))
		for i := range grips {
			grips[i].ns = ns + int64(epoch.Sub(grips[i].want.epoch()))
		}
	}
	return decideAll(grips)
}

// AllAt is All at a time of the caller's choice, as [Limiter.TakeAt] is.
func AllAt(now time.Time, wants ...Want) Decision {
	var few [4]grip
	grips := gripsOf(few[:0], wants)
	for i := range grips {
		grips[i].ns = sinceEpoch(grips[i].want.epoch(), now)
	}
	return decideAll(grips)
}

// gripsOf appends a grip for each want of something, in the order in which to take hold.
// There are few, and grips are large: they are sorted by insertion.
func gripsOf(grips []grip, wants []Want) []grip {
	for i := range wants {
		w := &wants[i]
		if w.into != nil {
			*w.into = Reservation{}
		}
		if w.limiter == nil && w.table == nil {
			continue
		}
		if w.into != nil && w.table != nil {
			w.table.booking.Do(w.table.makeBooks)
		}
		grips = append(grips, grip{want: *w})
		for j := len(grips) - 1; j > 0 && inOrder(&grips[j], &grips[j-1]) < 0; j-- {
			grips[j], grips[j-1] = grips[j-1], grips[j]
		}
	}
	return grips
}

// epoch returns the time from which the limit counts.
func (w *Want) epoch() time.Time {
	if w.limiter != nil {
		return w.limiter.epoch
	}
	return w.table.epoch
}

// decideAll takes hold, decides, and lets go.
func decideAll(grips []grip) Decision {
	holdAll(grips)
	d := Decision{Allowed: true}
	for i := range grips {
		own := grips[i].charge(&grips[grips[i].leader])
		if !own.Allowed && wantedTooOften(grips, i) {
			own.RetryAfter = never
		}
		if i == 0 || own.outweighs(&d) {
			d = own
		}
	}
	if d.Allowed {
		for i := range grips {
			grips[i].keep(&grips[grips[i].leader])
		}
	}
	for i := range slices.Backward(grips) {
		grips[i].letGo(d.Allowed, grips[i].leader == i)
	}
	return d
}

// wantedTooOften reports whether all that is wanted of the limit of a grip is more than its
// burst, so that no wait helps.
func wantedTooOften(grips []grip, i int) bool {
	g, sum := &grips[i], int64(0)
	for j := range grips {
		h := &grips[j]
		if h.want.limiter != g.want.limiter || h.want.table != g.want.table || h.want.tag != g.want.tag || h.want.n <= 0 {
			continue
		}
		if sum += h.want.n; sum < 0 || sum > g.core(&grips[g.leader]).burst {
			return true
		}
	}
	return false
}

// lastID numbers limiters and tables, which gives them the order in which All takes hold
// of them.
var lastID atomic.Uint64

func nextID() uint64 { return lastID.Add(1) }

// outweighs reports whether d tells more than e of a call that needs both: a refusal more
// than a grant, the longer wait more than the shorter, and the smaller rest.
func (d *Decision) outweighs(e *Decision) bool {
	switch {
	case d.Allowed != e.Allowed:
		return !d.Allowed
	case d.Allowed:
		return lessProduct(d.Remaining, e.Limit, e.Remaining, d.Limit)
	case d.RetryAfter < 0 || e.RetryAfter < 0:
		return e.RetryAfter >= 0
	}
	return d.RetryAfter > e.RetryAfter
}
