package learn_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed/internal/learn"
)

var algorithms = []learn.Algorithm{learn.Gradient, learn.Vegas}

func newServer(seed uint64, capacity int, mean time.Duration, spread spread) *server {
	return &server{random: rand.New(rand.NewPCG(seed, 1)), capacity: capacity, mean: mean, spread: spread}
}

func newLearner(algorithm learn.Algorithm, initial int, seed uint64) *learn.Learner {
	return learn.New(learn.Options{Algorithm: algorithm, Initial: initial, Min: 1, Max: 200, Seed: seed})
}

const endless = 1 << 30 // clients

// near asserts that a mean limit is near the knee, the number of requests that the server
// works on at a time. It is 1.6 of it in the median with Gradient and 1.2 with Vegas; in
// each of 4,000 random runs of a seeded trial it was between 0.75 and 2.2.
func near(t require.TestingT, limit float64, capacity int) {
	require.GreaterOrEqual(t, limit, 0.6*float64(capacity))
	require.LessOrEqual(t, limit, 3*float64(capacity))
}

// From wherever it starts, whatever the server is like.
func TestLimitComesNearTheKnee(t *testing.T) {
	if raceEnabled {
		t.Skip("one goroutine, much arithmetic: nothing for the race detector to find")
	}
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		capacity := rapid.IntRange(4, 100).Draw(t, "capacity")
		mean := time.Duration(rapid.IntRange(1, 100).Draw(t, "mean ms")) * time.Millisecond
		spread := rapid.SampledFrom([]spread{constant, exponential}).Draw(t, "spread")
		s := newServer(seed, capacity, mean, spread)
		l := newLearner(rapid.SampledFrom(algorithms).Draw(t, "algorithm"), rapid.IntRange(1, 200).Draw(t, "initial"), seed)
		s.run(l, max(25_000, capacity*int(2*time.Second/mean)), endless) // two seconds are 100 windows
		near(t, s.run(l, 10_000, endless), capacity)
	})
}

func TestLimitFollowsTheCapacity(t *testing.T) {
	for _, algorithm := range algorithms {
		for _, mean := range []time.Duration{time.Millisecond, 100 * time.Millisecond} {
			s := newServer(1, 40, mean, exponential)
			l := newLearner(algorithm, 20, 1)
			s.run(l, 20_000, endless)
			for _, capacity := range []int{20, 80, 10, 40} {
				s.capacity = capacity
				s.run(l, 12_000, endless)
				near(t, s.run(l, 5_000, endless), capacity)
			}
		}
	}
}

// When all requests take longer, or shorter, and no queue is to blame, the limit is soon what
// it was.
func TestSlowIsNotOverloaded(t *testing.T) {
	for _, algorithm := range algorithms {
		s := newServer(1, 40, 5*time.Millisecond, exponential)
		l := newLearner(algorithm, 20, 1)
		s.run(l, 20_000, endless)
		for _, mean := range []time.Duration{50 * time.Millisecond, 5 * time.Millisecond} {
			s.mean = mean
			near(t, s.run(l, 4_000, endless), s.capacity)
			require.InEpsilon(t, mean, l.Baseline(), 0.5)
			near(t, s.run(l, 10_000, endless), s.capacity)
		}
	}
}

// recipe is Gradient2 as published: the long-term average of the latency follows the
// queue that the limit makes, and the limit follows the average.
type recipe struct {
	limit, long float64
	n           int
	sum         time.Duration
	windows     int
}

func (r *recipe) Limit() int { return int(r.limit) }

func (r *recipe) Sample(_, rtt time.Duration, inflight int, _ learn.Outcome) bool {
	r.n++
	r.sum += rtt
	if r.n < 50 {
		return false
	}
	short := float64(r.sum) / float64(r.n)
	r.n, r.sum = 0, 0
	r.windows++
	r.long += (short - r.long) / float64(min(r.windows, 600/2))
	if r.long > 2*short {
		r.long *= 0.95
	}
	if float64(inflight) < r.limit/2 {
		return false
	}
	gradient := min(max(1.5*r.long/short, 0.5), 1)
	r.limit = min(max(0.8*r.limit+0.2*(r.limit*gradient+4), 20), 200)
	return true
}

// Half a million requests of steady overload: the recipe ends at its maximum, where
// nothing limits. Ours stays.
func TestLimitDoesNotCreep(t *testing.T) {
	n := 500_000
	if raceEnabled {
		n = 50_000
	}
	for _, spread := range []spread{constant, exponential} {
		s := newServer(1, 12, 10*time.Millisecond, spread)
		r := &recipe{limit: 20}
		s.run(r, n, endless)
		require.Equal(t, 200, r.Limit(), "the recipe does not creep any more")

		for _, algorithm := range algorithms {
			s := newServer(1, 12, 10*time.Millisecond, spread)
			l := newLearner(algorithm, 20, 1)
			for range 10 {
				near(t, s.run(l, n/10, endless), s.capacity)
				require.Less(t, l.Baseline(), 15*time.Millisecond)
			}
			// And probes cost little.
			least := time.Duration(n) * s.mean / time.Duration(s.capacity)
			require.Less(t, s.now, least*11/10)
		}
	}
}

// A server on which everything times out has constant latencies. The recipe takes that
// for a server without a queue.
func TestConstantTimeoutsLowerTheLimit(t *testing.T) {
	const timeout = 50 * time.Millisecond
	now := time.Duration(0)
	feed := func(l limiter, outcome learn.Outcome) {
		for range 20_000 {
			now += time.Millisecond
			l.Sample(now, timeout, l.Limit(), outcome)
		}
	}
	r := &recipe{limit: 20}
	feed(r, learn.Drop)
	require.Equal(t, 200, r.Limit())
	for _, algorithm := range algorithms {
		l := newLearner(algorithm, 20, 1)
		feed(l, learn.Drop)
		require.Equal(t, 1, l.Limit())
		require.Zero(t, l.Baseline(), "a time-out is no latency")
		feed(l, learn.Success)
		require.Greater(t, l.Limit(), 100, "it is over")
	}
}

// Whenever they begin, they say nothing about the baseline.
func TestTimeoutsLeaveTheBaseline(t *testing.T) {
	for _, algorithm := range algorithms {
		for _, probing := range []bool{false, true} {
			s := newServer(1, 10, 10*time.Millisecond, constant)
			l := newLearner(algorithm, 20, 1)
			s.run(l, 10_000, endless)
			for l.Probing() != probing {
				s.run(l, 1, endless)
			}
			base := l.Baseline()
			for range 1000 {
				s.now += time.Millisecond
				l.Sample(s.now, time.Millisecond, l.Limit(), learn.Drop)
			}
			require.Equal(t, base, l.Baseline())
			require.Less(t, l.Limit(), 5)
		}
	}
}

// A burst of fast requests is one window, however many they are.
func TestWindowIsNotShort(t *testing.T) {
	l := newLearner(learn.Gradient, 20, 1)
	for i := range time.Duration(10_000) {
		l.Sample(i*time.Microsecond, time.Microsecond, 20, learn.Success)
	}
	require.Equal(t, 20, l.Limit())
	l.Sample(20*time.Millisecond, time.Microsecond, 20, learn.Success)
	require.Equal(t, 24, l.Limit())
}

// Time-outs in a queue bound it by themselves, and the limit is lower.
func TestTimeoutsUnderOverload(t *testing.T) {
	for _, algorithm := range algorithms {
		s := newServer(1, 10, 10*time.Millisecond, constant)
		s.timeout = 13 * time.Millisecond // above 1.3 times the capacity all time out
		l := newLearner(algorithm, 200, 1)
		s.run(l, 10_000, endless)
		limit := s.run(l, 10_000, endless)
		require.Greater(t, limit, 8.0)
		require.Less(t, limit, 13.5)
	}
}

// Where a part of the requests fails whatever the load, as when one replica of a few is
// lost, to let fewer in helps nobody.
func TestAShareOfDropsDoesNotShutTheGate(t *testing.T) {
	for _, algorithm := range algorithms {
		for _, share := range []float64{0.01, 0.1, 0.15} {
			s := newServer(1, 40, 10*time.Millisecond, exponential)
			l := flaky{newLearner(algorithm, 20, 1), s.random, share}
			s.run(l, 20_000, endless)
			near(t, s.run(l, 10_000, endless), s.capacity)
		}
	}
}

// flaky drops a share of the requests.
type flaky struct {
	*learn.Learner
	random *rand.Rand
	share  float64
}

func (f flaky) Sample(now, rtt time.Duration, inflight int, o learn.Outcome) bool {
	if f.random.Float64() < f.share {
		o = learn.Drop
	}
	return f.Learner.Sample(now, rtt, inflight, o)
}

// Requests that hang hold a place for ever. A probe that waited for them would let nobody
// in, and so nothing would end the probe.
func TestProbesDoNotWaitForWhatHangs(t *testing.T) {
	for _, algorithm := range algorithms {
		for _, hung := range []int{20, 25, 35} {
			s := newServer(1, 40, 10*time.Millisecond, exponential)
			l := newLearner(algorithm, 40, 1)
			s.run(l, 20_000, endless)
			s.inflight += hung
			const n = 25_000
			probes, begin, least := l.Probes(), s.now, n*s.mean/time.Duration(s.capacity)
			for range n {
				if len(s.working) == 0 && s.inflight >= l.Limit() {
					require.FailNow(t, "nothing can end any more, and so nothing begins")
				}
				s.run(l, 1, endless)
			}
			require.Greater(t, l.Probes(), probes)
			require.Less(t, s.now-begin, least*3/2)
		}
	}
}

// The machine was suspended: everything took an hour. That is forgotten soon.
func TestAFreezeIsForgotten(t *testing.T) {
	for _, algorithm := range algorithms {
		for _, before := range []int{10, 30_000} { // in the first window, and later
			s := newServer(1, 40, 10*time.Millisecond, exponential)
			l := newLearner(algorithm, 20, 1)
			s.run(l, before, endless)
			s.now += time.Hour
			for i := range s.working {
				s.working[i].end += time.Hour
			}
			s.run(l, 3_000, endless)
			near(t, s.run(l, 2_000, endless), s.capacity)
			require.InEpsilon(t, s.mean, l.Baseline(), 0.5)
		}
	}
}

// Latencies of 0 are those of a clock that is too coarse, and are no baseline for ever.
func TestZeroLatenciesAreForgotten(t *testing.T) {
	for _, algorithm := range algorithms {
		s := newServer(1, 40, 10*time.Millisecond, exponential)
		l := newLearner(algorithm, 20, 1)
		for range 20_000 {
			s.now += 100 * time.Microsecond
			l.Sample(s.now, 0, l.Limit(), learn.Success)
		}
		s.run(l, 10_000, endless)
		near(t, s.run(l, 5_000, endless), s.capacity)
	}
}

// One in twenty takes ten times as long.
func TestBimodalLatenciesAreLearnt(t *testing.T) {
	for _, algorithm := range algorithms {
		for _, capacity := range []int{4, 40} {
			s := newServer(1, capacity, 10*time.Millisecond, bimodal)
			l := newLearner(algorithm, 20, 1)
			s.run(l, 20_000, endless)
			near(t, s.run(l, 20_000, endless), capacity)
			require.InEpsilon(t, s.mean, l.Baseline(), 0.5)
		}
	}
}

// A quiet night, and a service that is slower in the morning: the burst finds a small limit,
// that grows within a few windows.
func TestABurstAfterAQuietTimeIsLetIn(t *testing.T) {
	for _, algorithm := range algorithms {
		s := newServer(1, 40, 10*time.Millisecond, exponential)
		l := newLearner(algorithm, 20, 1)
		s.run(l, 10_000, 1)
		require.GreaterOrEqual(t, l.Limit(), 15)
		s.mean *= 3
		s.run(l, 10_000, 1)
		require.InEpsilon(t, s.mean, l.Baseline(), 0.3)
		s.run(l, 20*50, endless)
		require.Greater(t, s.run(l, 2_000, endless), 0.6*float64(s.capacity))
	}
}

// What few use grows no further, and is not probed.
func TestUnusedLimitStays(t *testing.T) {
	for _, algorithm := range algorithms {
		s := newServer(1, 100, 10*time.Millisecond, exponential)
		l := newLearner(algorithm, 20, 1)
		s.run(l, 50_000, 10)
		require.LessOrEqual(t, l.Limit(), 30)
		require.GreaterOrEqual(t, l.Limit(), 10, "nobody is refused")
		require.LessOrEqual(t, l.Probes(), uint64(1))
		require.InEpsilon(t, 10*time.Millisecond, l.Baseline(), 0.3)

		s.mean = 13 * time.Millisecond
		s.run(l, 50_000, 10)
		require.InEpsilon(t, 13*time.Millisecond, l.Baseline(), 0.15)
	}
}

// Most requests cannot use the reserve, so there is no more in progress than the rest,
// which the learner must not take for a limit that is not in use.
func TestReserveIsNoSpareRoom(t *testing.T) {
	for _, algorithm := range algorithms {
		s := newServer(1, 20, 10*time.Millisecond, exponential)
		l := learn.New(learn.Options{Algorithm: algorithm, Initial: 8, Min: 1, Max: 200, Reserve: 0.5})
		shared := halved{l}
		s.run(shared, 30_000, endless)
		near(t, s.run(shared, 30_000, endless), 20)
		require.Greater(t, l.Probes(), uint64(3))
	}
}

// halved lets half of the limit be used.
type halved struct{ *learn.Learner }

func (h halved) Limit() int { return max(1, h.Learner.Limit()/2) }

// The server becomes too slow for its clients, who are fewer than the limit.
func TestUnusedLimitComesDownWithTheCapacity(t *testing.T) {
	for _, algorithm := range algorithms {
		s := newServer(1, 60, 10*time.Millisecond, exponential)
		l := newLearner(algorithm, 20, 1)
		s.run(l, 50_000, 40)
		require.Greater(t, l.Limit(), 60)
		s.capacity = 10
		s.run(l, 20_000, 40)
		near(t, s.run(l, 20_000, 40), 10)
	}
}

type sample struct {
	now, rtt time.Duration
	inflight int
	outcome  learn.Outcome
}

func genSamples(t *rapid.T) []sample {
	random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
	weird := rapid.Bool().Draw(t, "weird")
	now := time.Duration(0)
	samples := make([]sample, rapid.IntRange(0, 3000).Draw(t, "n"))
	for i := range samples {
		now += time.Duration(random.IntN(3_000_000))
		samples[i] = sample{
			now:      now,
			rtt:      time.Duration(random.ExpFloat64() * 1e7),
			inflight: 1 + random.IntN(200),
			outcome:  learn.Outcome(random.IntN(20) / 18),
		}
		if weird && random.IntN(10) == 0 {
			samples[i] = sample{now: now - time.Hour, rtt: -1, inflight: -1, outcome: learn.Success}
		}
	}
	return samples
}

func TestLimitStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		least := rapid.IntRange(1, 50).Draw(t, "min")
		most := least + rapid.IntRange(0, 100).Draw(t, "more")
		l := learn.New(learn.Options{
			Algorithm: rapid.SampledFrom(algorithms).Draw(t, "algorithm"),
			Initial:   rapid.IntRange(least, most).Draw(t, "initial"),
			Min:       least, Max: most,
		})
		for _, s := range genSamples(t) {
			before := l.Limit()
			changed := l.Sample(s.now, s.rtt, s.inflight, s.outcome)
			if now := l.Limit(); now < least || now > most || (now != before) != changed || l.Baseline() < 0 {
				require.FailNow(t, "out of bounds", "limit %d after %d, changed %t, baseline %v", now, before, changed, l.Baseline())
			}
		}
	})
}

// How long it took says nothing when a request was dropped, and nothing at all is said by
// one to ignore.
func TestLatenciesOfDropsAndIgnoredCountNowhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		algorithm := rapid.SampledFrom(algorithms).Draw(t, "algorithm")
		one, other := newLearner(algorithm, 20, 1), newLearner(algorithm, 20, 1)
		for i, s := range genSamples(t) {
			one.Sample(s.now, s.rtt, s.inflight, s.outcome)
			if s.outcome == learn.Drop && !other.Probing() { // a probe asks when it began
				s.rtt = time.Duration(i) * time.Hour
			}
			other.Sample(s.now, s.rtt, s.inflight, s.outcome)
			if !other.Probing() { // a request to ignore still is one that ended
				other.Sample(s.now, 1000*time.Hour, s.inflight, learn.Ignore)
			}
			if one.Limit() != other.Limit() || one.Baseline() != other.Baseline() {
				require.FailNow(t, "they differ", "limits %d and %d, baselines %v and %v",
					one.Limit(), other.Limit(), one.Baseline(), other.Baseline())
			}
		}
	})
}

func TestSampleAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	l := newLearner(learn.Gradient, 20, 1)
	now := time.Duration(0)
	require.Zero(t, testing.AllocsPerRun(10_000, func() {
		now += time.Millisecond
		l.Sample(now, time.Millisecond, l.Limit(), learn.Success)
	}))
}
