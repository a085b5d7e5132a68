package sim_test

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed/sim"
)

// The simulator's gate is put together from the engines of shed. Here it does the same as
// shed's own, step by step, with the defaults of the options. After the second probe they
// go apart, by the chance of when the next one is.
func TestTheGateIsThatOfShed(t *testing.T) {
	for _, o := range []shed.AdaptiveOptions{
		{},
		{Algorithm: shed.Vegas},
		{Reserve: 0.2, Max: 50},
		{Algorithm: shed.Vegas, Initial: 300},
		{Min: 30},
	} {
		synctest.Test(t, func(t *testing.T) {
			theirs, err := shed.NewAdaptive(o)
			require.NoError(t, err)
			ours, err := sim.NewDoor(sim.Strategy{Adaptive: &o})
			require.NoError(t, err)
			sameSteps(t, theirs, ours)
		})
	}
}

func sameSteps(t *testing.T, theirs *shed.Adaptive, ours sim.Door) {
	type pair struct {
		permit shed.Permit
		entry  *sim.Entry
	}
	var inside []pair
	random := rand.New(rand.NewPCG(1, 2))
	begin, limits := time.Now(), map[int]bool{}
	for step := range 20_000 {
		time.Sleep(time.Duration(random.ExpFloat64() * float64(time.Millisecond)))
		now := time.Since(begin)
		if random.IntN(5) < 3 {
			class := random.IntN(4)
			permit, err := theirs.TryAcquire(shed.Background + shed.Class(class))
			entry, ok, _ := ours.Enter(now, class)
			require.Equal(t, err == nil, ok, "step %d", step)
			if ok {
				inside = append(inside, pair{permit, entry})
			}
		} else if n := len(inside); n > 0 {
			i := random.IntN(n)
			inside[i].permit.Release(shed.Success)
			ours.Leave(now, inside[i].entry)
			inside = slices.Delete(inside, i, i+1)
		}
		stats := theirs.Stats()
		if max(stats.Probes, ours.Probes()) == 2 {
			break
		}
		require.Equal(t, stats.Limit, ours.Limit(), "step %d", step)
		require.Equal(t, stats.InFlight, ours.InFlight(), "step %d", step)
		limits[stats.Limit] = true
	}
	assert.Greater(t, len(limits), 3, "the limit has moved")
}

func TestTheGatesLargestLimitIsThatOfShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		theirs, err := shed.NewAdaptive(shed.AdaptiveOptions{})
		require.NoError(t, err)
		ours, err := sim.NewDoor(sim.Strategy{Adaptive: &shed.AdaptiveOptions{}})
		require.NoError(t, err)
		begin, most := time.Now(), [2]int{}
		for range 200 { // a server that takes as long for many as for one
			var permits []shed.Permit
			var entries []*sim.Entry
			for range 1200 {
				if permit, err := theirs.TryAcquire(shed.Default); err == nil {
					permits = append(permits, permit)
				}
				if entry, ok, _ := ours.Enter(time.Since(begin), 2); ok {
					entries = append(entries, entry)
				}
			}
			time.Sleep(20 * time.Millisecond)
			for i := range permits {
				permits[i].Release(shed.Success)
			}
			for _, e := range entries {
				ours.Leave(time.Since(begin), e)
			}
			most = [2]int{max(most[0], theirs.Stats().Limit), max(most[1], ours.Limit())}
		}
		assert.Equal(t, [2]int{1000, 1000}, most)
	})
}

func TestTheGatesQueueIsThatOfShed(t *testing.T) {
	for _, q := range []shed.Queue{
		{Max: 1},
		{Max: 1, Target: 300 * time.Millisecond},
		{Max: 1, Interval: 30 * time.Millisecond},
		{Max: 1, Interval: time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			theirs, err := shed.NewConcurrency(shed.ConcurrencyOptions{Limit: 1, Queue: q})
			require.NoError(t, err)
			ours, err := sim.NewDoor(sim.Strategy{Concurrency: &shed.ConcurrencyOptions{Limit: 1, Queue: q}})
			require.NoError(t, err)
			begin := time.Now()
			_, err = theirs.TryAcquire(shed.Default)
			require.NoError(t, err)
			_, ok, _ := ours.Enter(0, 2)
			require.True(t, ok)
			_, ok, deadline := ours.Enter(0, 2)
			require.False(t, ok)
			_, err = theirs.Acquire(context.Background(), shed.Default)
			require.ErrorIs(t, err, shed.ErrShed)
			assert.Equal(t, time.Since(begin), deadline, "%+v", q)
		})
	}
}

func TestEventsComeInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type event struct {
			at     time.Duration
			number uint64
		}
		var q sim.Queue
		var model []event
		now, number := time.Duration(0), uint64(0)
		for _, action := range rapid.SliceOfN(rapid.IntRange(-5, 20), 0, 200).Draw(t, "actions") {
			switch {
			case action == -5: // a timeout is always as far away
				number++
				q.Push(now+10, true)
				model = append(model, event{now + 10, number})
			case action >= 0:
				number++
				q.Push(now+time.Duration(action), false)
				model = append(model, event{now + time.Duration(action), number})
			case len(model) > 0:
				slices.SortFunc(model, func(a, b event) int {
					return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.number, b.number))
				})
				at, n := q.Pop()
				require.Equal(t, model[0], event{at, n})
				now, model = at, model[1:]
			}
		}
	})
}
