package shed_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

func TestNewAdaptiveNamesTheField(t *testing.T) {
	for want, o := range map[string]shed.AdaptiveOptions{
		"shed: AdaptiveOptions.Algorithm is 2, expected Gradient2 or Vegas":    {Algorithm: 2},
		"shed: AdaptiveOptions.Initial is -1, expected 0 or more":              {Initial: -1},
		"shed: AdaptiveOptions.Min is -1, expected 0 or more":                  {Min: -1},
		"shed: AdaptiveOptions.Max is -1, expected 0 or more":                  {Max: -1},
		"shed: AdaptiveOptions.Max is 3, expected Min, 4, or more":             {Min: 4, Max: 3},
		"shed: AdaptiveOptions.Initial is 3, expected Min to Max, 4 to 1000":   {Min: 4, Initial: 3},
		"shed: AdaptiveOptions.Initial is 9, expected Min to Max, 1 to 8":      {Max: 8, Initial: 9},
		"shed: AdaptiveOptions.Reserve is NaN, expected 0 or more and below 1": {Reserve: math.NaN()},
		"shed: AdaptiveOptions.Queue.Max is -1, expected 0 or more":            {Queue: shed.Queue{Max: -1}},
		"shed: AdaptiveOptions.Queue.Interval is 1ms, expected the Target, 2ms, or more": {
			Queue: shed.Queue{Target: 2 * ms, Interval: ms},
		},
	} {
		_, err := shed.NewAdaptive(o)
		require.EqualError(t, err, want)
	}
}

func TestAdaptiveDefaults(t *testing.T) {
	for _, c := range []struct {
		o    shed.AdaptiveOptions
		want int
	}{
		{shed.AdaptiveOptions{}, 20},
		{shed.AdaptiveOptions{Max: 8}, 8},
		{shed.AdaptiveOptions{Min: 30}, 30},
		{shed.AdaptiveOptions{Min: 300}, 300},
		{shed.AdaptiveOptions{Initial: 300}, 300},
		{shed.AdaptiveOptions{Initial: math.MaxInt32, Queue: shed.Queue{Target: time.Hour}}, math.MaxInt32},
	} {
		require.Equal(t, c.want, newAdaptive(t, c.o).Stats().Limit)
	}
	require.Equal(t, "gradient2 vegas", fmt.Sprint(shed.Gradient2, " ", shed.Vegas))
}

// overload runs so many clients for a time, each of which calls a server that works on
// capacity requests at a time, and waits a little when it was refused. With a timeout
// the server gives up on requests that waited longer.
func overload(g holder, clients, capacity int, service, timeout, d time.Duration) {
	server := make(chan struct{}, capacity)
	end := time.Now().Add(d)
	work := func(context.Context) error {
		expired := make(<-chan time.Time)
		if timeout > 0 {
			expired = time.After(timeout)
		}
		select {
		case server <- struct{}{}:
			time.Sleep(service)
			<-server
			return nil
		case <-expired:
			return context.DeadlineExceeded
		}
	}
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for time.Now().Before(end) {
				if err := g.Do(context.Background(), shed.Default, work); err != nil {
					time.Sleep(4 * ms)
				}
			}
		})
	}
	wg.Wait()
}

// The whole thing, with goroutines, on synctest's clock.
func TestAdaptiveFindsTheLimitOfAServer(t *testing.T) {
	for algorithm, q := range map[shed.Algorithm]shed.Queue{shed.Gradient2: {}, shed.Vegas: {Max: 10}} {
		synctest.Test(t, func(t *testing.T) {
			a := newAdaptive(t, shed.AdaptiveOptions{Algorithm: algorithm, Queue: q})
			overload(a, 40, 8, 10*ms, 0, 10*time.Second)
			s := a.Stats()
			require.LessOrEqual(t, s.Limit, 20)
			require.InEpsilon(t, 10*ms, s.Baseline, 0.3)
			require.GreaterOrEqual(t, s.Latency, 10*ms)
			require.LessOrEqual(t, s.Latency, 25*ms)
			require.Positive(t, s.Probes)
			require.Zero(t, s.InFlight)
			require.Positive(t, s.Refused().Total())
			require.Greater(t, s.Admitted.Total(), uint64(6500), "of 8000 that the server can do")
		})
	}
}

// The reserve is no spare room: a limit of which all is used that may be used grows.
func TestAdaptiveGrowsBesideTheReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdaptive(t, shed.AdaptiveOptions{Initial: 2, Reserve: 0.5})
		overload(a, 40, 8, 10*ms, 0, 10*time.Second)
		s := a.Stats()
		require.Greater(t, s.Admitted.Total(), uint64(6500), "of 8000 that the server can do")
		require.Positive(t, s.Reserved.Total())
	})
}

// The limit falls to what does not time out.
func TestAdaptiveHeedsDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdaptive(t, shed.AdaptiveOptions{Initial: 200})
		overload(a, 100, 8, 10*ms, 5*ms, 5*time.Second)
		s := a.Stats()
		require.LessOrEqual(t, s.Limit, 20)
		require.Greater(t, s.Admitted.Total(), uint64(3000), "of 4000 that the server can do")
	})
}

// Nothing is learnt from requests that say nothing.
func TestAdaptiveIgnoresWhatSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdaptive(t, shed.AdaptiveOptions{})
		for range 1000 {
			p, err := a.TryAcquire(shed.Default)
			require.NoError(t, err)
			time.Sleep(ms)
			p.Release(shed.Ignore)
			require.Panics(t, func() {
				_ = a.Do(t.Context(), shed.Default, func(context.Context) error { panic(1) })
			})
		}
		s := a.Stats()
		require.Equal(t, 20, s.Limit)
		require.Zero(t, s.Latency)
		require.Zero(t, s.Baseline)
	})
}

// The time in the queue is not part of the latency.
func TestAdaptiveMeasuresFromTheGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdaptive(t, shed.AdaptiveOptions{Max: 1, Queue: shed.Queue{Max: 10}})
		overload(a, 2, 1, 10*ms, 0, 10*time.Second)
		require.Equal(t, 10*ms, a.Stats().Latency)
		require.Positive(t, a.Stats().Baseline)
	})
}

// A limiter that was made at another time than the process, or in a bubble, has the
// clock of its own beginning.
func TestAdaptiveCountsTimeFromItsCreation(t *testing.T) {
	use := func(t *testing.T) {
		a := newAdaptive(t, shed.AdaptiveOptions{})
		require.NoError(t, a.Do(t.Context(), shed.Default, func(context.Context) error { return nil }))
		require.Less(t, a.Stats().Latency, time.Minute)
	}
	use(t)
	synctest.Test(t, use)
}
