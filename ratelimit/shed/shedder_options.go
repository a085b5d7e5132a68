package shed

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"time"
)

// ShedderOptions are the knobs of [NewShedder]. The zero value sheds by the load of
// the process, and critical requests only if it is twice what can be borne.
type ShedderOptions struct {
	// Utilization says how busy the service is: 0 is idle, 1 is all that it can do,
	// more is a queue that grows. Nil means that of a new [RuntimeMeter], which is right if
	// there is no gate behind the shedder; if there is, take its Demand. The caller's own
	// can be as simple as workers in progress / all workers.
	//
	// It is called at most once an Interval, by one call of Admit while the others go
	// on. NaN means that it does not know; it then counts as idle, for a shedder that
	// is blind must not stay shut. A negative value counts as 0.
	Utilization func() float64

	// Interval is the least time between two measurements. 0 means one second, the
	// window of DAGOR.
	Interval time.Duration

	// High is the utilization above which more and more is shed. 0 means 0.9.
	High float64

	// Low is the utilization below which what is shed comes back. Between Low and High
	// nothing moves. 0 means 0.8*High. It must be less than High. The wider the gap, the
	// calmer the shedder: it should be more than what noise and one step move.
	Low float64

	// CriticalAbove is the utilization above which critical requests are shed too, once
	// all others are. 0 means 2, or 2*High if that is more: then even what is left of
	// the service would be lost. It must not be less than High. Infinity means never.
	CriticalAbove float64

	// ShedOver is how long it takes to shed one class, from nobody to everybody, at a
	// utilization above High and up to 1. Above 1 it goes faster by the factor of the
	// utilization, at most 10, but for the critical class. 0 means 20 seconds: DAGOR
	// lowers what it admits by 5 % a second.
	ShedOver time.Duration

	// RestoreOver is how long it takes to let one class in again, but for the critical
	// one, for which it is ShedOver if that is shorter. 0 means 100 seconds: DAGOR raises
	// what it admits by 1 % a second. It should be the longer one: who comes back at once
	// is back in the overload at once.
	RestoreOver time.Duration

	// Seed decides, with the hour, which users go first. 0 means a random one. Servers
	// with equal seeds shed the same users, so that a request that needs several of
	// them is not lost to every one of them with a chance of its own.
	Seed uint64

	// Rand is the source of random bits for requests without a user: 64 evenly
	// distributed ones a call. It is called by concurrent calls of Admit. Nil means
	// [rand.Uint64]. Set it for results that can be repeated.
	Rand func() uint64

	// OnChange, if set, is called when the level has crossed the border of a class:
	// when a class begins or ceases to be shed, in part or as a whole. It runs in the
	// call of Admit that measured, without a lock. It may call the shedder.
	OnChange func(from, to Level)

	// Logger, if set, is told the same: a warning when more is shed, an information
	// when less is.
	Logger *slog.Logger
}

// criticalOver is how long it takes to let the critical class in again.
func (o ShedderOptions) criticalOver() time.Duration { return min(o.ShedOver, o.RestoreOver) }

func (o ShedderOptions) withDefaults() (ShedderOptions, error) {
	for _, f := range []struct {
		name  string
		value *float64
		zero  float64
	}{
		{"High", &o.High, 0.9},
		{"Low", &o.Low, 0.8 * cmp.Or(o.High, 0.9)},
		{"CriticalAbove", &o.CriticalAbove, max(2, 2*o.High)},
	} {
		if !(*f.value >= 0) {
			return o, fmt.Errorf("shed: ShedderOptions.%s is %v, expected 0 or more", f.name, *f.value)
		}
		*f.value = cmp.Or(*f.value, f.zero)
	}
	if math.IsInf(o.High, 0) {
		return o, fmt.Errorf("shed: ShedderOptions.High is %v, expected a finite number", o.High)
	}
	if o.Low >= o.High {
		return o, fmt.Errorf("shed: ShedderOptions.Low is %v, expected less than High, %v", o.Low, o.High)
	}
	if o.CriticalAbove < o.High {
		return o, fmt.Errorf("shed: ShedderOptions.CriticalAbove is %v, expected High, %v, or more", o.CriticalAbove, o.High)
	}
	for _, f := range []struct {
		name  string
		value *time.Duration
		zero  time.Duration
	}{
		{"Interval", &o.Interval, time.Second},
		{"ShedOver", &o.ShedOver, 20 * time.Second},
		{"RestoreOver", &o.RestoreOver, 100 * time.Second},
	} {
		if *f.value < 0 {
			return o, fmt.Errorf("shed: ShedderOptions.%s is %v, expected 0 or more", f.name, *f.value)
		}
		*f.value = cmp.Or(*f.value, f.zero)
	}
	o.Interval = min(o.Interval, farAway)
	o.Seed = cmp.Or(o.Seed, rand.Uint64())
	if o.Rand == nil {
		o.Rand = rand.Uint64
	}
	return o, nil
}
