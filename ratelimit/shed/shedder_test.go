package shed_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

var (
	noon       = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	allClasses = []shed.Class{shed.Background, shed.Sheddable, shed.Default, shed.Critical}
)

// rig is a shedder on a virtual clock, whose utilization the test sets.
type rig struct {
	*shed.Shedder
	utilization float64
	measured    int
	now         time.Time
}

func newRig(t require.TestingT, o shed.ShedderOptions) *rig {
	r := &rig{now: noon}
	o.Utilization = func() float64 { r.measured++; return r.utilization }
	if o.Seed == 0 {
		o.Seed = 1
	}
	s, err := shed.NewShedder(o)
	require.NoError(t, err)
	r.Shedder = s
	r.ask("first", allClasses...)
	return r
}

// ask sends a request of each class and returns which are refused.
func (r *rig) ask(user string, classes ...shed.Class) (refused []bool) {
	for _, c := range classes {
		refused = append(refused, r.AdmitAt(r.now, c, user) != nil)
	}
	return refused
}

// run sets the utilization for some seconds, with requests of all classes in each.
func (r *rig) run(seconds int, utilization float64) shed.Level {
	r.utilization = utilization
	for range seconds {
		r.now = r.now.Add(time.Second)
		r.ask("somebody", allClasses...)
	}
	return r.Stats().Level
}

func TestShedderOptionsAreChecked(t *testing.T) {
	for _, tc := range []struct {
		o    shed.ShedderOptions
		text string
	}{
		{shed.ShedderOptions{High: -1}, "shed: ShedderOptions.High is -1, expected 0 or more"},
		{shed.ShedderOptions{High: math.NaN()}, "shed: ShedderOptions.High is NaN, expected 0 or more"},
		{shed.ShedderOptions{High: math.Inf(1)}, "shed: ShedderOptions.High is +Inf, expected a finite number"},
		{shed.ShedderOptions{Low: -0.5}, "shed: ShedderOptions.Low is -0.5, expected 0 or more"},
		{shed.ShedderOptions{Low: 0.9}, "shed: ShedderOptions.Low is 0.9, expected less than High, 0.9"},
		{shed.ShedderOptions{CriticalAbove: 0.5}, "shed: ShedderOptions.CriticalAbove is 0.5, expected High, 0.9, or more"},
		{shed.ShedderOptions{CriticalAbove: math.NaN()}, "shed: ShedderOptions.CriticalAbove is NaN, expected 0 or more"},
		{shed.ShedderOptions{Interval: -1}, "shed: ShedderOptions.Interval is -1ns, expected 0 or more"},
		{shed.ShedderOptions{ShedOver: -1}, "shed: ShedderOptions.ShedOver is -1ns, expected 0 or more"},
		{shed.ShedderOptions{RestoreOver: -1}, "shed: ShedderOptions.RestoreOver is -1ns, expected 0 or more"},
	} {
		_, err := shed.NewShedder(tc.o)
		require.EqualError(t, err, tc.text)
	}
	for _, o := range []shed.ShedderOptions{
		{},
		{High: 3},
		{CriticalAbove: math.Inf(1)},
		{Interval: math.MaxInt64, ShedOver: math.MaxInt64, RestoreOver: math.MaxInt64},
		{Interval: 1, ShedOver: 1, RestoreOver: 1},
	} {
		_, err := shed.NewShedder(o)
		require.NoError(t, err)
	}
}

func TestShedderShedsFastAndRestoresSlowly(t *testing.T) {
	r := newRig(t, shed.ShedderOptions{Low: 0.72})
	var levels []float64
	for _, step := range []struct {
		seconds     int
		utilization float64
	}{
		{60, 0.5},         // idle
		{10, 0.95},        // 5 % a second
		{30, 0.8},         // between the bounds
		{10, 0.95},        // goes on where it was
		{5, 2},            // twice as fast
		{2, 50},           // ten times as fast at most
		{1, 0.9},          // the bound itself does not move it
		{50, 0.5},         // 1 % a second
		{10, 0.72},        // nor does this bound
		{25, 0.2},         // an emptier service restores no faster
		{10, -7},          // a nonsense that counts as 0
		{1000, 0.95},      // all but critical
		{1000, 2},         // the bound of critical itself is not above it
		{10, 2.5},         // critical after all, and no faster than at 1
		{10, 1.5},         // held
		{400, math.NaN()}, // a meter that fails lets all come back
	} {
		levels = append(levels, float64(r.run(step.seconds, step.utilization)))
	}
	require.InDeltaSlice(t, []float64{
		0, 0.5, 0.5, 1, 1.5, 2.5, 2.5, 2, 2, 1.75, 1.65, 3, 3, 3.5, 3.5, 0,
	}, levels, 1e-9)
}

// The utilization that sheds the critical ones was measured when all others were shed
// already, however high it was before.
func TestShedderLooksAgainBeforeItShedsTheCritical(t *testing.T) {
	r := newRig(t, shed.ShedderOptions{ShedOver: time.Second})
	require.InDelta(t, 3, float64(r.run(1, 50)), 1e-9)
	require.InDelta(t, 3, float64(r.run(10, 2)), 1e-9)
	require.InDelta(t, 4, float64(r.run(1, 2.1)), 1e-9)
}

// A backlog makes the utilization high for some seconds after the overload is over. It
// costs the critical ones seconds and not minutes.
func TestShedderRestoresTheCriticalAsFastAsItSheds(t *testing.T) {
	r := newRig(t, shed.ShedderOptions{})
	require.InDelta(t, 3.2, float64(r.run(10, 60)), 1e-9)
	require.InDelta(t, 3, float64(r.run(4, 0.2)), 1e-9)
	require.InDelta(t, 2.9, float64(r.run(10, 0.2)), 1e-9)
	r.run(100, 60)
	r.now = r.now.Add(69 * time.Second) // nobody asks: 20 seconds for critical, 50 for half a class
	require.InDelta(t, 2.5, float64(r.run(1, 0.2)), 1e-9)

	r = newRig(t, shed.ShedderOptions{ShedOver: 100 * time.Second, RestoreOver: 10 * time.Second})
	require.InDelta(t, 4, float64(r.run(130, 60)), 1e-9)
	require.InDelta(t, 3.5, float64(r.run(5, 0.2)), 1e-9)
}

// With noise between the bounds nothing moves, whatever the noise.
func TestShedderHoldsBetweenTheBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(t, shed.ShedderOptions{Low: 0.72})
		level := r.run(rapid.IntRange(0, 50).Draw(t, "overload"), 1)
		for _, u := range rapid.SliceOf(rapid.Float64Range(0.72, 0.9)).Draw(t, "noise") {
			require.Equal(t, level, r.run(1, u))
		}
	})
}

// While anybody's request of a class is admitted, all of the higher classes are; who is
// refused is refused again at any higher level of the same hour.
func TestShedderNeverShedsAHigherClassBeforeALower(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(t, shed.ShedderOptions{Seed: rapid.Uint64().Draw(t, "seed")})
		before := map[string][]bool{}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			r.run(rapid.IntRange(1, 5).Draw(t, "seconds"), 3)
			var anybody [4]struct{ admitted, refused bool }
			for i := range 100 {
				user := strconv.Itoa(i)
				refused := r.ask(user, allClasses...)
				for c, no := range refused {
					anybody[c].admitted = anybody[c].admitted || !no
					anybody[c].refused = anybody[c].refused || no
					if before[user] != nil && before[user][c] && !no {
						require.FailNow(t, "admitted at a higher level")
					}
				}
				before[user] = refused
			}
			for lower := range anybody {
				for higher := lower + 1; higher < len(anybody); higher++ {
					require.False(t, anybody[lower].admitted && anybody[higher].refused)
				}
			}
		}
	})
}

func TestShedderShedsThePartOfTheUsersThatItSays(t *testing.T) {
	r := newRig(t, shed.ShedderOptions{})
	require.InDelta(t, 0.25, float64(r.run(5, 1)), 1e-9)
	refused := 0
	for i := range 10_000 {
		if r.ask(fmt.Sprint("user", i), shed.Background)[0] {
			refused++
		}
	}
	require.InDelta(t, 2500, refused, 200) // more than four standard deviations

	// Without a user each request is decided anew.
	refused = 0
	for range 10_000 {
		if r.ask("", shed.Background)[0] {
			refused++
		}
	}
	require.InDelta(t, 2500, refused, 200)
}

func TestShedderChangesTheUsersThatSufferEachHour(t *testing.T) {
	shedAt := func(seed uint64, wait time.Duration) (users string) {
		r := newRig(t, shed.ShedderOptions{Seed: seed})
		r.run(10, 1)
		r.now = r.now.Add(wait)
		r.utilization = 0.8
		for i := range 200 {
			if r.ask(strconv.Itoa(i), shed.Background)[0] {
				users += "x"
			} else {
				users += "."
			}
		}
		return users
	}
	same := func(a, b string) (n int) {
		for i := range a {
			if a[i] == b[i] {
				n++
			}
		}
		return n
	}
	require.Equal(t, shedAt(1, 0), shedAt(1, 50*time.Minute), "of two servers, in the same hour")
	require.InDelta(t, 100, same(shedAt(1, 0), shedAt(1, time.Hour)), 40)
	require.InDelta(t, 100, same(shedAt(1, 0), shedAt(2, 0)), 40)
}

// A class of which there are no requests is passed over on the way up, not on the way
// down: that they do not come may be because they were told not to.
func TestShedderPassesOverClassesWithoutRequests(t *testing.T) {
	r := newRig(t, shed.ShedderOptions{})
	step := func(seconds int, utilization float64, classes ...shed.Class) float64 {
		r.utilization = utilization
		for range seconds {
			r.now = r.now.Add(time.Second)
			r.ask("somebody", classes...)
		}
		return float64(r.Stats().Level)
	}
	step(1, 0.8, shed.Default, shed.Critical)
	require.InDelta(t, 2.05, step(1, 1, shed.Default, shed.Critical), 1e-9)
	require.InDelta(t, 2.5, step(9, 1, shed.Default, shed.Critical), 1e-9)
	require.InDelta(t, 1.9, step(60, 0.1, shed.Critical), 1e-9)
	require.InDelta(t, 3, step(1, 1, shed.Critical), 1e-9)
	require.InDelta(t, 3, step(100, 1.9, shed.Critical), 1e-9)
}

// After a pause an overload counts for two intervals at most, and the idleness as long
// as it was.
func TestShedderDoesNotTakeAPauseForAnOverload(t *testing.T) {
	r := newRig(t, shed.ShedderOptions{})
	r.now = r.now.Add(time.Hour)
	require.InDelta(t, 0.05+0.1, float64(r.run(1, 1))+0.05, 1e-9)
	r.run(10, 1)
	r.now = r.now.Add(49 * time.Second)
	require.InDelta(t, 0.1, float64(r.run(1, 0)), 1e-9)
	require.Equal(t, 13, r.measured)

	before := r.Stats()
	r.now = r.now.Add(-time.Hour) // a clock that goes back
	r.run(5, 1)
	require.Equal(t, before.Level, r.Stats().Level)
	require.Equal(t, 13, r.measured)
}

func TestShedderTellsWhenTheLevelCrossesABorder(t *testing.T) {
	var changes []string
	var log bytes.Buffer
	r := newRig(t, shed.ShedderOptions{
		OnChange: func(from, to shed.Level) { changes = append(changes, fmt.Sprint(from, " -> ", to)) },
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			},
		})),
	})
	r.run(30, 1)
	r.run(60, 0.5)
	require.Equal(t, []string{
		"nothing -> background 5%",
		"background 95% -> background 100%",
		"background 100% -> sheddable 5%",
		"sheddable 1% -> background 100%",
		"background 100% -> background 99%",
	}, changes)
	require.Equal(t, `level=WARN msg="shed: level changed" from=nothing to="background 5%" utilization=1
level=WARN msg="shed: level changed" from="background 95%" to="background 100%" utilization=1
level=WARN msg="shed: level changed" from="background 100%" to="sheddable 5%" utilization=1
level=INFO msg="shed: level changed" from="sheddable 1%" to="background 100%" utilization=0.5
level=INFO msg="shed: level changed" from="background 100%" to="background 99%" utilization=0.5
`, log.String())
}

// A service at three times its capacity settles where it is busy but not overloaded,
// keeps all that is critical, does not flap, and serves everybody when the load ends.
func TestShedderSettlesUnderAConstantOverload(t *testing.T) {
	const capacity = 100
	offered := []int{75, 75, 75, 75} // a second, by class
	r := newRig(t, shed.ShedderOptions{})
	second := func() shed.Level {
		r.now = r.now.Add(time.Second)
		admitted := 0
		for c, n := range offered {
			for i := range n {
				if r.AdmitAt(r.now, allClasses[c], strconv.Itoa(i)) == nil {
					admitted++
				}
			}
		}
		r.utilization = float64(admitted) / capacity
		return r.Stats().Level
	}
	for range 60 {
		second()
	}
	settled, moves := second(), 0
	for range 600 {
		if level := second(); level != settled {
			settled = level
			moves++
		}
		require.LessOrEqual(t, r.utilization, 0.9)
		require.GreaterOrEqual(t, r.utilization, 0.72)
	}
	require.Zero(t, moves)
	require.Zero(t, r.Stats().Shed.Of(shed.Critical))

	offered = []int{5, 5, 5, 5}
	for range 300 {
		second()
	}
	require.Zero(t, r.Stats().Level)
}

func TestShedderSurvivesPanickingFunctions(t *testing.T) {
	utilization := func() float64 { return 1 }
	var changed func()
	s, err := shed.NewShedder(shed.ShedderOptions{
		Utilization: func() float64 { return utilization() },
		OnChange:    func(shed.Level, shed.Level) { changed() },
	})
	require.NoError(t, err)
	now := noon
	ask := func() error {
		now = now.Add(time.Second)
		return s.AdmitAt(now, shed.Background, "ann")
	}
	require.NoError(t, ask())
	changed = func() { panic("hook") }
	require.PanicsWithValue(t, "hook", func() { _ = ask() })
	require.InDelta(t, 0.05, float64(s.Stats().Level), 1e-9)
	require.Equal(t, uint64(1), s.Stats().Admitted.Total()+s.Stats().Shed.Total())

	utilization = func() float64 { panic("meter") }
	require.PanicsWithValue(t, "meter", func() { _ = ask() })
	require.NotPanics(t, func() { _ = s.AdmitAt(now, shed.Background, "ann") }, "once an interval")

	utilization = func() float64 { _ = s.Stats(); _ = s.AdmitAt(now.Add(time.Hour), shed.Critical, ""); return 1 }
	level := s.Stats().Level
	_ = ask()
	require.Greater(t, s.Stats().Level, level, "a meter may call the shedder")
}

// One goroutine measures, and the others do not wait for it.
func TestShedderMeasuresOnceAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var measured []time.Duration
		s, err := shed.NewShedder(shed.ShedderOptions{Utilization: func() float64 {
			measured = append(measured, time.Since(start))
			if len(measured) == 1 {
				time.Sleep(3300 * time.Millisecond)
			}
			return 1
		}})
		require.NoError(t, err)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				for time.Since(start) < 8*time.Second {
					_ = s.Admit(shed.Critical, "")
					time.Sleep(500 * time.Millisecond)
				}
			})
		}
		time.Sleep(3100 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, uint64(9*7), s.Stats().Admitted.Total())
		wg.Wait()
		require.Equal(t, []time.Duration{0, 3500, 4500, 5500, 6500, 7500}, slicesOf(measured, time.Millisecond))
	})
}

// Those who see at the same moment that it is time make one measurement.
func TestShedderMeasuresOnceForAllWhoComeTogether(t *testing.T) {
	var measured atomic.Int64
	s, err := shed.NewShedder(shed.ShedderOptions{Utilization: func() float64 { measured.Add(1); return 0 }})
	require.NoError(t, err)
	const goroutines, ticks = 3, 3000
	var arrived atomic.Int64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for tick := range int64(ticks) {
				arrived.Add(1)
				for arrived.Load() < goroutines*(tick+1) {
					runtime.Gosched()
				}
				_ = s.AdmitAt(noon.Add(time.Duration(tick)*time.Second), shed.Default, "")
			}
		})
	}
	wg.Wait()
	require.Equal(t, int64(ticks), measured.Load())
}

func slicesOf(durations []time.Duration, unit time.Duration) (n []time.Duration) {
	for _, d := range durations {
		n = append(n, d/unit)
	}
	return n
}

func TestShedderIsSafeForConcurrentUse(t *testing.T) {
	var u, changes atomic.Uint64
	s, err := shed.NewShedder(shed.ShedderOptions{
		Interval: 1, ShedOver: time.Millisecond, RestoreOver: time.Millisecond,
		Utilization: func() float64 { return float64(u.Add(1) / 64 % 4) },
		OnChange:    func(_, _ shed.Level) { changes.Add(1) },
	})
	require.NoError(t, err)
	var wg sync.WaitGroup
	var admitted, refused atomic.Uint64
	for g := range 4 {
		wg.Go(func() {
			user := strconv.Itoa(g)
			for i := range 3000 {
				switch err := s.Admit(allClasses[i%4], user); {
				case err == nil:
					admitted.Add(1)
				case errors.Is(err, shed.ErrShed):
					refused.Add(1)
				}
				if i%100 == 0 {
					stats := s.Stats()
					require.True(t, stats.Level >= 0 && stats.Level <= 4)
				}
			}
		})
	}
	wg.Wait()
	stats := s.Stats()
	require.Equal(t, admitted.Load(), stats.Admitted.Total())
	require.Equal(t, refused.Load(), stats.Shed.Total())
	require.Equal(t, uint64(12000), admitted.Load()+refused.Load())
	require.Positive(t, changes.Load())
}

func TestShedderAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := newRig(t, shed.ShedderOptions{})
	r.run(10, 1)
	user := "somebody"
	for _, c := range allClasses {
		require.Zero(t, testing.AllocsPerRun(1000, func() { _ = r.AdmitAt(r.now, c, user) }))
		require.Zero(t, testing.AllocsPerRun(1000, func() { _ = r.Admit(c, user) })) // earlier than r.now, or not: no matter
	}
	require.Positive(t, r.Stats().Shed.Total())
}

func TestLevelNamesTheClassThatIsShed(t *testing.T) {
	for level, text := range map[shed.Level]string{
		0: "nothing", -1: "nothing", shed.Level(math.NaN()): "nothing",
		0.004: "background 0.4%", 1: "background 100%", 1.25: "sheddable 25%",
		2.5: "default 50%", 4: "critical 100%", 9: "critical 100%",
	} {
		require.Equal(t, text, level.String())
	}
}
