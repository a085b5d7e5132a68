package shed

import (
	"context"
	"log/slog"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/evenkeel-go/evenkeel/internal/mix"
)

// Shedder refuses the least important requests while the service has too much to
// do: Stripe's worker utilization load shedder ("Scaling your API with rate limiters",
// 2017) with the partial shedding of DAGOR (Zhou et al., "Overload Control for Scaling
// WeChat Microservices", SoCC 2018).
//
// All classes lie on one [Level]: first background requests are shed, from a few users
// to all, then sheddable, then default ones, and critical ones last and only above
// an extreme utilization that was measured after all others were shed. The level climbs
// while the utilization is above a high bound, comes down more slowly while it is below a
// low one, and does not move between them. In the critical class it goes up at its slowest,
// and down as fast: most times it is there because of what had queued before the others were
// shed, and too high. A class of which no request came lately is passed over on the way up.
//
// While anybody's request of a class is admitted, everybody's requests of the higher
// classes are. Within a class a hash of the user decides, so that a retry gets the
// same answer and a user's session works as a whole or not at all. The order of the
// users changes with every hour, so that it is not always the same who suffer.
//
// It must come from [NewShedder]. It starts no goroutine: the first request after an
// interval measures. The level holds while nobody asks. Unlike [Concurrency] and
// [Adaptive] it bounds nothing: it reacts within seconds, and they do at once. Alone it
// does not survive a sudden peak, if clients give up and ask again (package sim). Use it in
// front of one of them, and let it go by that one's [Concurrency.Demand]; by a RuntimeMeter
// if requests do little but compute.
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
			top, speed := belowCritical, min(max(utilization, 1), 10)
			if from >= belowCritical && utilization > s.o.CriticalAbove {
				top, speed = whole*classes, 1
			}
			elapsed = min(elapsed, 2*interval)
			to = from.raised(distance(elapsed, s.o.ShedOver)*speed, top, busy)
		}
	case !(utilization >= s.o.Low):
		to = from.lowered(elapsed, s.o.RestoreOver, s.o.criticalOver())
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
			RetryAfter: s.o.Interval + l.back(i, s.o.RestoreOver, s.o.criticalOver()),
		}
	}
	return v
}
