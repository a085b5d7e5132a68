package shed

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/evenkeel-go/evenkeel/internal/mix"
)

// ShedderOptions are the knobs of [NewShedder]. The zero value sheds by the load of
// the process, and critical requests only if it is twice what can be borne.
type ShedderOptions struct {
	// Utilization says how busy the service is: 0 is idle, 1 is all that it can do,
	// more is a queue that grows. Nil means that of a new [RuntimeMeter]. The caller's
	// own can be as simple as workers in progress / all workers.
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
	// utilization, at most 10. 0 means 20 seconds: DAGOR lowers what it admits by 5 % a
	// second.
	ShedOver time.Duration

	// RestoreOver is how long it takes to let one class in again. 0 means 100 seconds:
	// DAGOR raises what it admits by 1 % a second. It should be the longer one: who
	// comes back at once is back in the overload at once.
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

// Shedder refuses the least important requests while the service has too much to
// do: Stripe's worker utilization load shedder ("Scaling your API with rate limiters",
// 2017) with the partial shedding of DAGOR (Zhou et al., "Overload Control for Scaling
// WeChat Microservices", SoCC 2018).
//
// All classes lie on one [Level]: first background requests are shed, from a few users
// to all, then sheddable, then default ones, and critical ones last and only above
// an extreme utilization. The level climbs while the utilization is above a high
// bound, comes down more slowly while it is below a low one, and does not move between
// them. A class of which no request came lately is passed over on the way up.
//
// While anybody's request of a class is admitted, everybody's requests of the higher
// classes are. Within a class a hash of the user decides, so that a retry gets the
// same answer and a user's session works as a whole or not at all. The order of the
// users changes with every hour, so that it is not always the same who suffer.
//
// It must come from [NewShedder]. It starts no goroutine: the first request after an
// interval measures. The level holds while nobody asks. Unlike [Concurrency] and
// [Adaptive] it bounds nothing: it reacts within seconds, and they do at once. Use it
// in front of one of them.
//
// Admit costs one reading of the monotonic clock and one atomic addition, and some
// nanoseconds for the hash in the one class that is shed in part. Neither an admission
// nor a refusal allocates; a measurement does.
//
// A Shedder is safe for concurrent use by multiple goroutines.
type Shedder struct {
	o     ShedderOptions // immutable
	epoch time.Time      // immutable

	next        atomic.Int64 // when to measure again, in nanoseconds from the epoch
	verdict     atomic.Pointer[verdict]
	utilization atomic.Uint64 // bits of the last measurement
	counters    [classes]counter

	measuring sync.Mutex
	measured  int64 // when the last measurement began; guarded by measuring
	seen      [classes]uint64
}

// counter counts the decisions on a class, on a cache line of its own.
type counter struct {
	admitted, shed atomic.Uint64
	_              [48]byte
}

// verdict is what one measurement has brought. It is immutable.
type verdict struct {
	level    level
	salt     uint64
	refusals [classes]Error
}

// NewShedder returns a shedder that sheds nothing yet. Returns an error that names
// the field when an option is out of range.
func NewShedder(o ShedderOptions) (*Shedder, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if o.Utilization == nil {
		meter, err := NewRuntimeMeter(RuntimeMeterOptions{})
		if err != nil {
			return nil, err
		}
		o.Utilization = meter.Utilization
	}
	s := &Shedder{o: o, epoch: time.Now()}
	s.next.Store(math.MinInt64)
	s.utilization.Store(math.Float64bits(math.NaN()))
	s.verdict.Store(&verdict{})
	return s, nil
}

// Admit decides on a request of a class, on behalf of a user: an account, an API key,
// a tenant. Requests without a user, "", are decided by chance, each anew.
//
// Returns nil, or an *[Error] with the reason Overloaded. Its RetryAfter is the soonest
// at which another request of the class could be admitted that is not now. The error
// is shared by many refusals and must not be changed.
func (s *Shedder) Admit(class Class, user string) error {
	ns := int64(time.Since(s.epoch))
	if ns >= s.next.Load() {
		s.measure(s.epoch.Add(time.Duration(ns)), ns)
	}
	return s.admit(class, user)
}

// AdmitAt is Admit at a time of the caller's choice, for tests and simulations. When
// the time is an interval after that of the last measurement, Utilization is
// called. A time before that changes nothing: it is decided by the last level.
//
// Do not mix times of another time line with Admit: after an AdmitAt in the next
// century it does not measure until then.
func (s *Shedder) AdmitAt(now time.Time, class Class, user string) error {
	if ns := sinceEpoch(s.epoch, now); ns >= s.next.Load() {
		s.measure(now, ns)
	}
	return s.admit(class, user)
}

// farAway is a time, in nanoseconds from an epoch, that never comes.
const farAway = 1 << 61

// sinceEpoch returns the nanoseconds from epoch to t, at most 73 years either way so
// that neither sums nor differences overflow.
func sinceEpoch(epoch, t time.Time) int64 {
	return min(max(int64(t.Sub(epoch)), -farAway), farAway)
}

func (s *Shedder) admit(class Class, user string) error {
	i, v := class.index(), s.verdict.Load()
	if part := v.level.of(i); part > 0 && (part == whole || s.position(v.salt, user) < part) {
		s.counters[i].shed.Add(1)
		return &v.refusals[i]
	}
	s.counters[i].admitted.Add(1)
	return nil
}

// position returns the place of a user in the order in which users are shed.
func (s *Shedder) position(salt uint64, user string) level {
	var bits64 uint64
	if user == "" {
		bits64 = s.o.Rand()
	} else {
		bits64 = mix.Bits(xxhash.Sum64String(user) ^ salt)
	}
	high, _ := bits.Mul64(bits64, uint64(whole))
	return level(high)
}

// measure moves the level, unless somebody else is at it.
func (s *Shedder) measure(now time.Time, ns int64) {
	if !s.measuring.TryLock() {
		return
	}
	from, to, utilization := s.move(now, ns)
	if from.begun() == to.begun() && from.done() == to.done() {
		return
	}
	if s.o.Logger != nil {
		severity := slog.LevelInfo
		if to > from {
			severity = slog.LevelWarn
		}
		s.o.Logger.Log(context.Background(), severity, "shed: level changed",
			"from", from.public(), "to", to.public(), "utilization", utilization)
	}
	if s.o.OnChange != nil {
		s.o.OnChange(from.public(), to.public())
	}
}

// move measures and moves the level. It unlocks measuring, also when Utilization
// panics.
func (s *Shedder) move(now time.Time, ns int64) (from, to level, utilization float64) {
	defer s.measuring.Unlock()
	old := s.verdict.Load()
	from, to = old.level, old.level
	if ns < s.next.Load() {
		return from, to, 0 // somebody was faster
	}
	interval, elapsed := int64(s.o.Interval), ns-s.measured
	if s.next.Load() == math.MinInt64 {
		elapsed = 0 // it is the first measurement
	}
	s.next.Store(ns + interval) // before the call: one that panics is not repeated at once
	s.measured = ns
	busy, any := s.busy()

	utilization = s.o.Utilization()
	s.utilization.Store(math.Float64bits(utilization))
	switch {
	case utilization > s.o.High:
		// Without a request nothing can be said of the time: what is after a pause says
		// little of what was in it.
		if any {
			top := whole * classes
			if !(utilization > s.o.CriticalAbove) {
				top -= whole
			}
			elapsed = min(elapsed, 2*interval)
			to = from.raised(distance(elapsed, s.o.ShedOver)*min(max(utilization, 1), 10), top, busy)
		}
	case !(utilization >= s.o.Low):
		to = from.lowered(distance(elapsed, s.o.RestoreOver))
	}
	salt := mix.Bits(s.o.Seed + uint64(now.Unix()/3600))
	if to != from || salt != old.salt {
		s.verdict.Store(s.newVerdict(to, salt))
	}
	return from, to, utilization
}

// busy returns of which classes there were requests since it was asked last.
func (s *Shedder) busy() (busy [classes]bool, any bool) {
	for i := range s.counters {
		c := &s.counters[i]
		n := c.admitted.Load() + c.shed.Load()
		busy[i] = n != s.seen[i]
		any = any || busy[i]
		s.seen[i] = n
	}
	return busy, any
}

func (s *Shedder) newVerdict(l level, salt uint64) *verdict {
	v := &verdict{level: l, salt: salt}
	for i := range v.refusals {
		v.refusals[i] = Error{
			Class:      Class(i) + Background,
			Reason:     Overloaded,
			RetryAfter: s.o.Interval + l.back(i, s.o.RestoreOver),
		}
	}
	return v
}
