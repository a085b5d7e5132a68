package ratelimit_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// keyLedger is the model of a table: of every key all charges in order, with what each cost
// in the end and the time for which it was promised.
type keyLedger map[int][]keyCharge

type keyCharge struct {
	at   time.Time
	cost time.Duration
}

// arrival is the theoretical arrival time of a key, from the definition.
func (m keyLedger) arrival(key int) (latest time.Time) {
	sum := time.Duration(0)
	for _, c := range slices.Backward(m[key]) {
		if c.cost == 0 {
			continue
		}
		sum += c.cost
		if t := c.at.Add(sum); t.After(latest) {
			latest = t
		}
	}
	return latest
}

// charge notes a charge, and fails if it was more than the burst let pass.
func (m keyLedger) charge(t *rapid.T, key int, at time.Time, cost, tolerance time.Duration) {
	if owed := max(0, m.arrival(key).Sub(at)); cost > 0 {
		require.LessOrEqual(t, owed+cost, tolerance, "key %d was granted more than there was", key)
	}
	m[key] = append(m[key], keyCharge{at, cost})
}

// promise is a reservation that is not settled.
type promise struct {
	key, at  int // in the ledger
	n        int64
	interval time.Duration
	token    ratelimit.Reservation
}

// Keys that push each other out, reserve, settle, share All with others, leave a frame
// behind, read the clock late and have limits that change: no key ever owes less than what
// it took, and nothing is granted that was not there.
func TestEveryKeyOwesWhatItTook(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, everyKeyOwesWhatItTook) })
}

func everyKeyOwesWhatItTook(t *rapid.T) {
	keys := rapid.SampledFrom([]int{1, 2, 8, 9}).Draw(t, "keys")
	interval := rapid.SampledFrom([]time.Duration{1, 7, time.Second, time.Hour})
	bursts := rapid.Int64Range(1, 5)
	steady := rapid.Bool().Draw(t, "steady")
	type plan struct {
		interval time.Duration
		burst    int64
	}
	plans := make([]plan, keys)
	first := plan{interval.Draw(t, "interval"), bursts.Draw(t, "burst")}
	for i := range plans {
		plans[i] = first
	}
	limitOf := func(key int) ratelimit.Limit { return ratelimit.Per(1, plans[key].interval).Burst(plans[key].burst) }
	k, err := ratelimit.NewKeyedBy(limitOf, ratelimit.KeyedOptions{Capacity: 1, Labels: 2})
	if steady && rapid.Bool().Draw(t, "one limit") {
		k, err = ratelimit.NewKeyed[int](limitOf(0), ratelimit.KeyedOptions{Capacity: 1, Labels: 2})
	}
	require.NoError(t, err)
	m := keyLedger{}
	var open []promise
	key, n := rapid.IntRange(0, keys-1), rapid.Int64Range(0, 5)
	cost := func(key int, n int64) (cost, tolerance time.Duration) {
		return time.Duration(n) * plans[key].interval, time.Duration(plans[key].burst) * plans[key].interval
	}
	t.Repeat(map[string]func(*rapid.T){
		"advance": func(t *rapid.T) {
			time.Sleep(time.Duration(rapid.Int64Range(1, int64(first.interval)*first.burst*2).Draw(t, "by")))
		},
		"leave the frame": func(t *rapid.T) {
			if rapid.IntRange(0, 9).Draw(t, "rarely") == 0 {
				time.Sleep(rapid.SampledFrom([]time.Duration{200 * day, 300 * day}).Draw(t, "by"))
			}
		},
		"change a limit": func(t *rapid.T) {
			if !steady {
				p := &plans[key.Draw(t, "key")]
				p.burst = bursts.Draw(t, "burst")
				if rapid.IntRange(0, 3).Draw(t, "another rate") == 0 {
					p.interval = interval.Draw(t, "interval")
				}
			}
		},
		"take": func(t *rapid.T) {
			key, n := key.Draw(t, "key"), n.Draw(t, "n")
			at := time.Now().Add(-time.Duration(rapid.Int64Range(0, 8).Draw(t, "late")) * plans[key].interval)
			if rapid.IntRange(0, 20).Draw(t, "long before") == 0 {
				at = at.Add(-250 * day)
			}
			if k.TakeAt(key, at, n).Allowed {
				cost, tolerance := cost(key, n)
				m.charge(t, key, at, cost, tolerance)
			}
		},
		"take up to": func(t *rapid.T) {
			key := key.Draw(t, "key")
			granted, _ := k.TakeUpTo(key, n.Draw(t, "n"))
			cost, tolerance := cost(key, granted)
			m.charge(t, key, time.Now(), cost, tolerance)
		},
		"all": func(t *rapid.T) {
			var wants []ratelimit.Want
			sums := map[int]int64{}
			for range rapid.IntRange(1, 5).Draw(t, "wants") {
				key, n := key.Draw(t, "key"), n.Draw(t, "n")
				wants = append(wants, k.Want(key, n))
				sums[key] += n
			}
			if ratelimit.All(wants...).Allowed {
				for key, n := range sums {
					cost, tolerance := cost(key, n)
					m.charge(t, key, time.Now(), cost, tolerance)
				}
			}
		},
		"reserve": func(t *rapid.T) {
			key, n := key.Draw(t, "key"), n.Draw(t, "n")
			r, err := k.Reserve(key, n, time.Duration(rapid.Int64Range(0, 30).Draw(t, "maxWait"))*plans[key].interval)
			if err == nil {
				cost, tolerance := cost(key, n)
				m.charge(t, key, time.Now().Add(r.Delay()), cost, tolerance)
				open = append(open, promise{key, len(m[key]) - 1, n, plans[key].interval, r})
			}
		},
		"settle": func(t *rapid.T) {
			if len(open) == 0 {
				return
			}
			i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
			p := open[i]
			open = slices.Delete(open, i, i+1)
			used := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, 2*p.n)).Draw(t, "used")
			p.token.Settle(used)
			if used <= p.n {
				m[p.key][p.at].cost = time.Duration(used) * p.interval
			} else {
				m[p.key] = append(m[p.key], keyCharge{time.Now(), time.Duration(used-p.n) * p.interval})
			}
		},
		"": func(t *rapid.T) {
			for key := range plans {
				owed := max(0, time.Until(m.arrival(key)))
				require.GreaterOrEqual(t, k.Peek(key, 0).ResetAfter, owed, "key %d owes less than it took", key)
			}
		},
	})
}
