package shed_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

func newThrottle(t require.TestingT, o shed.ThrottleOptions) *shed.Throttle[string] {
	throttle, err := shed.NewThrottle[string](o)
	require.NoError(t, err)
	return throttle
}

func statsOf(throttle *shed.Throttle[string], key string) shed.BackendStats {
	for k, s := range throttle.Backends() {
		if k == key {
			return s
		}
	}
	return shed.BackendStats{}
}

func TestThrottleOptionsAreChecked(t *testing.T) {
	for _, tc := range []struct {
		o    shed.ThrottleOptions
		text string
	}{
		{shed.ThrottleOptions{K: 0.5}, "shed: ThrottleOptions.K is 0.5, expected 0 or a finite number of at least 1"},
		{shed.ThrottleOptions{K: -1}, "shed: ThrottleOptions.K is -1, expected 0 or a finite number of at least 1"},
		{shed.ThrottleOptions{K: math.NaN()}, "shed: ThrottleOptions.K is NaN, expected 0 or a finite number of at least 1"},
		{shed.ThrottleOptions{K: math.Inf(1)}, "shed: ThrottleOptions.K is +Inf, expected 0 or a finite number of at least 1"},
		{shed.ThrottleOptions{Window: -1}, "shed: ThrottleOptions.Window is -1ns, expected 0 or at least 10ns"},
		{shed.ThrottleOptions{Window: 9}, "shed: ThrottleOptions.Window is 9ns, expected 0 or at least 10ns"},
		{shed.ThrottleOptions{Probe: -1}, "shed: ThrottleOptions.Probe is -1ns, expected 0 or more"},
		{shed.ThrottleOptions{Capacity: -1}, "shed: ThrottleOptions.Capacity is -1, expected 0 or more"},
	} {
		_, err := shed.NewThrottle[int](tc.o)
		require.EqualError(t, err, tc.text)
	}
	throttle := newThrottle(t, shed.ThrottleOptions{Window: math.MaxInt64, Probe: math.MaxInt64})
	_, err := throttle.AllowAt(noon.AddDate(200, 0, 0), "a", shed.Default)
	require.NoError(t, err)
	_, err = throttle.AllowAt(noon.AddDate(-200, 0, 0), "a", shed.Default)
	require.NoError(t, err)
}

// naiveThrottle keeps a list of all that happened to one backend.
type naiveThrottle struct {
	born   time.Time
	last   [4]time.Time // by class
	slot   int64        // of the latest request
	events []naiveEvent
}

type naiveEvent struct {
	slot  int64
	class int
	kind  string
}

func (n *naiveThrottle) count(class int, kind string) (sum float64) {
	for _, e := range n.events {
		if e.class == class && e.kind == kind && e.slot > n.slot-10 {
			sum++
		}
	}
	return sum
}

// rejection is the formula of the book for one class.
func (n *naiveThrottle) rejection(class int) float64 {
	requests := n.count(class, "accepted") + n.count(class, "refused") + n.count(class, "rejected")
	for higher := class + 1; higher < 4; higher++ {
		requests += n.count(higher, "refused")
	}
	return max(0, (requests-2*n.count(class, "accepted"))/(requests+1))
}

// worst is the highest of its own and those of the higher classes.
func (n *naiveThrottle) worst(class int) (p float64) {
	for ; class < 4; class++ {
		p = max(p, n.rejection(class))
	}
	return p
}

func TestThrottleFollowsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var draw uint64
		throttle := newThrottle(t, shed.ThrottleOptions{
			Window: 20 * time.Second, Probe: 3 * time.Second,
			Rand: func() uint64 { return draw },
		})
		type open struct {
			call  shed.Call
			model *naiveThrottle
			class int
		}
		now, calls, models := noon, []open(nil), map[string]*naiveThrottle{}
		t.Repeat(map[string]func(*rapid.T){
			"allow": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.SampledFrom([]int64{-5e9, 0, 0, 0, 1e8, 1e9, 3e9, 15e9, 60e9}).Draw(t, "pause")))
				key := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "backend")
				class := rapid.IntRange(0, 3).Draw(t, "class")
				draw = rapid.Uint64().Draw(t, "draw")
				m := models[key]
				if m == nil {
					for other, o := range models { // those that are idle are forgotten
						if int64(now.Sub(o.born)/(2*time.Second)) >= o.slot+10 {
							delete(models, other)
						}
					}
					m = &naiveThrottle{born: now, last: [4]time.Time{now, now, now, now}}
					models[key] = m
				}
				m.slot = max(m.slot, int64(now.Sub(m.born)/(2*time.Second)))
				allowed, p := true, m.worst(class)
				if p > 0 && float64(draw>>11)/(1<<53) < p {
					if allowed = now.Sub(m.last[class]) >= 3*time.Second; allowed {
						m.last[class] = now
					}
				}
				call, err := throttle.AllowAt(now, key, allClasses[class])
				require.Equal(t, allowed, err == nil)
				if !allowed {
					require.Equal(t, &shed.Error{Class: allClasses[class], Reason: shed.Unavailable, RetryAfter: 3 * time.Second}, err)
					m.events = append(m.events, naiveEvent{m.slot, class, "rejected"})
					return
				}
				if now.Sub(m.last[class]) > 300*time.Millisecond {
					m.last[class] = now
				}
				calls = append(calls, open{call, m, class})
			},
			"done": func(t *rapid.T) {
				if len(calls) == 0 {
					t.Skip("nothing is under way")
				}
				c := &calls[rapid.IntRange(0, len(calls)-1).Draw(t, "call")]
				accepted := rapid.IntRange(0, 3).Draw(t, "accepted") == 0
				c.call.Done(accepted)
				if c.model != nil {
					c.model.events = append(c.model.events, naiveEvent{c.model.slot, c.class, map[bool]string{true: "accepted", false: "refused"}[accepted]})
				}
				c.model = nil // whatever is done with it again counts nothing
			},
			"": func(t *rapid.T) {
				for key, m := range models {
					var want shed.BackendStats
					for c := range allClasses {
						want.Accepted[c] = uint64(m.count(c, "accepted"))
						want.Refused[c] = uint64(m.count(c, "refused"))
						want.Rejected[c] = uint64(m.count(c, "rejected"))
						want.Rejection[c] = m.worst(c)
						if c > 0 {
							require.LessOrEqual(t, m.worst(c), m.worst(c-1))
						}
					}
					require.Equal(t, want, statsOf(throttle, key))
				}
			},
		})
	})
}

// service is a backend that accepts some requests a second, of the highest classes
// first, and a client that sends it more.
type service struct {
	throttle *shed.Throttle[string]
	now      time.Time
	capacity int
	sent     [4]int // in the last second
	accepted [4]int
}

func (s *service) second(offered [4]int) {
	s.sent, s.accepted = [4]int{}, [4]int{}
	free := s.capacity
	for c := 3; c >= 0; c-- {
		for i := range offered[c] {
			at := s.now.Add(time.Duration(i) * time.Second / time.Duration(offered[c]))
			call, err := s.throttle.AllowAt(at, "backend", allClasses[c])
			if err != nil {
				continue
			}
			s.sent[c]++
			if free > 0 {
				free--
				s.accepted[c]++
				call.Done(true)
			} else {
				call.Done(false)
			}
		}
	}
	s.now = s.now.Add(time.Second)
}

// A backend that can do a tenth of what it is asked for gets two tenths.
func TestThrottleSendsKRequestsForEachAccepted(t *testing.T) {
	s := service{newThrottle(t, shed.ThrottleOptions{Rand: rand.New(rand.NewPCG(1, 2)).Uint64}), noon, 20, [4]int{}, [4]int{}}
	for range 300 {
		s.second([4]int{2: 200})
	}
	sum := 0
	for range 100 {
		s.second([4]int{2: 200})
		sum += s.sent[2]
	}
	require.InDelta(t, 40, float64(sum)/100, 2)
	require.Equal(t, 20, s.accepted[2])
}

// A backend with room for all that is critical gets all of it, and little else.
func TestThrottleKeepsTheCritical(t *testing.T) {
	s := service{newThrottle(t, shed.ThrottleOptions{Rand: rand.New(rand.NewPCG(1, 2)).Uint64}), noon, 30, [4]int{}, [4]int{}}
	for range 300 {
		s.second([4]int{60, 60, 60, 20})
		require.Equal(t, 20, s.sent[3])
	}
	require.Less(t, s.sent[0]+s.sent[1], 10)
	require.InDelta(t, 20, s.sent[2], 10)
}

// A backend that is away gets about one request a second, and all when it is back
// and the window has forgotten: in about four windows.
func TestThrottleProbesABackendThatIsAwayAndComesBack(t *testing.T) {
	for _, window := range []int{120, 20} {
		s := service{
			throttle: newThrottle(t, shed.ThrottleOptions{
				Window: time.Duration(window) * time.Second,
				Rand:   rand.New(rand.NewPCG(1, 2)).Uint64,
			}),
			now: noon,
		}
		for second := range window + 30 {
			s.second([4]int{2: 1000})
			if second > window {
				require.GreaterOrEqual(t, s.sent[2], 1)
				require.LessOrEqual(t, s.sent[2], 5)
			}
		}
		s.capacity = 1000
		seconds := 0
		for ; s.sent[2] < 1000; seconds++ {
			s.second([4]int{2: 1000})
			require.Less(t, seconds, 5*window)
		}
		require.Greater(t, seconds, 3*window)
	}
}

func TestThrottleForgetsIdleBackendsAndBoundsTheRest(t *testing.T) {
	throttle := newThrottle(t, shed.ThrottleOptions{Capacity: 10})
	now := noon
	fail := func(key string) {
		call, err := throttle.AllowAt(now, key, shed.Default)
		require.NoError(t, err)
		call.Done(false)
	}
	keys := func() (n int) {
		for range throttle.Backends() {
			n++
		}
		return n
	}
	for i := range 10 {
		fail(strconv.Itoa(i))
	}
	for range 5 {
		fail("new") // not counted, or the throttle would reject it
	}
	require.Equal(t, 10, keys())
	require.Equal(t, uint64(5), throttle.Untracked())
	require.Zero(t, statsOf(throttle, "new"))

	now = now.Add(30*time.Second - 1)
	for i := range 3 {
		_, _ = throttle.AllowAt(now, strconv.Itoa(i), shed.Default)
	}
	fail("new")
	require.Equal(t, uint64(6), throttle.Untracked(), "nobody is idle yet")
	now = now.Add(3 * time.Second)
	fail("new")
	require.Equal(t, 4, keys(), "0, 1, 2 and new")
	require.Equal(t, uint64(6), throttle.Untracked())
}

// A pause of very many slots costs no more than one of all slots.
func TestThrottleTakesALongPauseAtOnce(t *testing.T) {
	throttle := newThrottle(t, shed.ThrottleOptions{Window: 10})
	for year := range 20 {
		call, err := throttle.AllowAt(noon.AddDate(year, 0, 0), "a", shed.Default)
		require.NoError(t, err)
		call.Done(false)
	}
	require.Equal(t, uint64(1), statsOf(throttle, "a").Refused.Total())
}

func TestCallIsCountedOnce(t *testing.T) {
	throttle := newThrottle(t, shed.ThrottleOptions{})
	var zero shed.Call
	zero.Done(false)
	call, err := throttle.AllowAt(noon, "a", shed.Class(100))
	require.NoError(t, err)
	call.Done(true)
	call.Done(false)
	require.Equal(t, shed.Counts{3: 1}, statsOf(throttle, "a").Accepted)
	require.Zero(t, statsOf(throttle, "a").Refused)
}

// On the real clock a probe comes after a second, and the window passes.
func TestThrottleFollowsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := newThrottle(t, shed.ThrottleOptions{Rand: func() uint64 { return 0 }}) // reject what may be
		send := func() bool {
			call, err := throttle.Allow("a", shed.Default)
			call.Done(false)
			return err == nil
		}
		require.True(t, send())
		for range 10 {
			require.False(t, send())
			time.Sleep(999 * time.Millisecond)
			require.False(t, send())
			time.Sleep(time.Millisecond)
			require.True(t, send())
		}
		time.Sleep(30 * time.Second)
		require.True(t, send())
		require.Equal(t, uint64(1), statsOf(throttle, "a").Refused.Total())
		require.Zero(t, statsOf(throttle, "a").Rejected)
	})
}

func TestThrottleSurvivesAPanickingRand(t *testing.T) {
	random := func() uint64 { panic("random") }
	throttle := newThrottle(t, shed.ThrottleOptions{Rand: func() uint64 { return random() }})
	call, err := throttle.AllowAt(noon, "a", shed.Default)
	require.NoError(t, err)
	call.Done(false)
	require.Panics(t, func() { _, _ = throttle.AllowAt(noon, "a", shed.Default) })
	random = func() uint64 { return 0 }
	_, err = throttle.AllowAt(noon, "a", shed.Default)
	require.ErrorIs(t, err, shed.ErrShed)
}

// Whatever happens at the same time, with clocks that are read late: what is counted
// neither gets lost nor stays for ever.
func TestThrottleIsSafeForConcurrentUse(t *testing.T) {
	throttle := newThrottle(t, shed.ThrottleOptions{Window: 10 * time.Millisecond, Probe: 1})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 1))
			now := noon
			for i := range 3000 {
				now = now.Add(time.Duration(random.IntN(100_000)))
				at := now.Add(-time.Duration(random.IntN(20_000_000)))
				call, err := throttle.AllowAt(at, strconv.Itoa(i%3), allClasses[random.IntN(4)])
				if err != nil {
					require.True(t, errors.Is(err, shed.ErrShed))
					continue
				}
				call.Done(random.IntN(2) == 0)
			}
		})
	}
	wg.Wait()
	for i := range 3 {
		_, err := throttle.AllowAt(noon.Add(time.Hour), strconv.Itoa(i), shed.Default)
		require.NoError(t, err)
	}
	n := 0
	for key, s := range throttle.Backends() {
		require.Zero(t, s, key)
		n++
	}
	require.Equal(t, 3, n)
}

func TestThrottleAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	throttle := newThrottle(t, shed.ThrottleOptions{})
	for i := range 10 {
		key := fmt.Sprint("backend", i%2)
		require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
			call, _ := throttle.Allow(key, shed.Default)
			call.Done(i%2 == 0)
		}), 0.0, i)
	}
	require.Positive(t, statsOf(throttle, "backend1").Rejected.Total())
}
