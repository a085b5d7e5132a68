package gate_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed/internal/gate"
)

type waiter = gate.Waiter[int]

// model is the naive engine. It keeps all waiters in one slice in the order of arrival,
// looks at all of them each time, and knows no deadlines: it drops a waiter when the
// queue is standing and it has waited for the target.
type model struct {
	options  gate.Options
	limit    int
	inflight int
	waiting  []request
	now      time.Duration
	empty    [gate.Classes]time.Duration // when this and the higher classes were last empty
	counts   [gate.Classes]gate.Counts
	settled  map[int]gate.Reason // what an operation did: None is started
}

type request struct {
	id, class int
	arrived   time.Duration
}

func (m *model) bound(class int) int {
	if class == gate.Top {
		return m.limit
	}
	return m.limit - int(float64(m.limit)*m.options.Reserve+1e-9)
}

func (m *model) observe(now time.Duration) {
	m.now = max(m.now, now)
	m.note()
}

func (m *model) note() {
	for class := range m.empty {
		if !slices.ContainsFunc(m.waiting, func(r request) bool { return r.class >= class }) {
			m.empty[class] = m.now
		}
	}
}

func (m *model) standing(class int) bool { return m.now-m.empty[class] >= m.options.Interval }

// order returns the waiters of a class in the order in which they are served.
func (m *model) order(class int) []request {
	var all []request
	for _, r := range m.waiting {
		if r.class == class {
			all = append(all, r)
		}
	}
	if m.standing(class) {
		slices.Reverse(all)
	}
	return all
}

func (m *model) settle(r request, reason gate.Reason) {
	m.waiting = slices.DeleteFunc(m.waiting, func(other request) bool { return other.id == r.id })
	m.settled[r.id] = reason
	if reason == gate.None {
		m.inflight++
		m.counts[r.class].Admitted++
	} else {
		m.counts[r.class].Refused[reason]++
	}
}

func (m *model) expire() {
	for _, r := range slices.Clone(m.waiting) {
		if m.standing(r.class) && m.now-r.arrived >= m.options.Target {
			defer m.settle(r, gate.Expired)
		}
	}
}

func (m *model) start() {
	for class := gate.Top; class >= 0; class-- {
		for _, r := range m.order(class) {
			if m.inflight < m.bound(class) {
				m.settle(r, gate.None)
			}
		}
	}
}

func (m *model) arrive(r request) {
	refusal := gate.Full
	if m.inflight < m.limit {
		refusal = gate.Reserved
	}
	if m.inflight < m.bound(r.class) {
		m.settle(r, gate.None)
		return
	}
	if m.options.Max == 0 {
		m.settle(r, refusal)
		return
	}
	m.expire()
	if len(m.waiting) >= m.options.Max {
		victim := slices.MinFunc(m.waiting, func(a, b request) int { return a.class - b.class })
		if victim.class >= r.class {
			m.settle(r, refusal)
			return
		}
		order := m.order(victim.class)
		m.settle(order[len(order)-1], gate.Outranked)
	}
	m.note()
	r.arrived = m.now
	m.waiting = append(m.waiting, r)
}

// machine runs the engine beside the model.
type machine struct {
	model   *model
	gate    *gate.Gate[int]
	waiters map[int]*waiter // those that are queued
	now     time.Duration
	next    int
}

// check compares what an operation did, and what is left.
func (m *machine) check(t *rapid.T, chain gate.Chain[int], more ...*waiter) {
	settled := map[int]gate.Reason{}
	note := func(w *waiter) {
		require.NotContains(t, settled, w.Value, "settled twice")
		settled[w.Value] = w.Reason()
		delete(m.waiters, w.Value)
		if w.State() == gate.Started {
			require.Equal(t, gate.None, w.Reason())
		} else {
			require.Equal(t, gate.Refused, w.State())
		}
	}
	for w := chain.Pop(); w != nil; w = chain.Pop() {
		note(w)
	}
	for _, w := range more {
		if w.State() != gate.Queued {
			note(w)
		}
	}
	require.Equal(t, m.model.settled, settled)
	m.model.note()
	m.model.settled = map[int]gate.Reason{}
}

func (m *machine) invariants(t *rapid.T) {
	require.Equal(t, m.model.limit, m.gate.Limit())
	require.Equal(t, m.model.inflight, m.gate.InFlight())
	require.Equal(t, len(m.model.waiting), m.gate.Waiting())
	require.LessOrEqual(t, m.gate.Waiting(), m.model.options.Max)
	for class := range gate.Classes {
		require.Equal(t, m.model.counts[class], m.gate.Counts(class))
		require.Equal(t, len(m.model.order(class)), m.gate.WaitingOf(class))
		if m.gate.WaitingOf(class) > 0 {
			require.GreaterOrEqual(t, m.gate.InFlight(), m.model.bound(class), "somebody waits for what is free")
		}
	}
	for _, r := range m.model.waiting {
		w := m.waiters[r.id]
		require.Equal(t, gate.Queued, w.State())
		// The deadline that the engine knew at the arrival is the one at which the model,
		// which looks at the queue as it is now, would drop the request.
		drop := max(m.model.empty[r.class]+m.model.options.Interval, r.arrived+m.model.options.Target)
		require.Equal(t, drop, w.Deadline())
	}
}

func genOptions(t *rapid.T) gate.Options {
	target := time.Duration(rapid.IntRange(1, 10).Draw(t, "target"))
	return gate.Options{
		Limit:    rapid.IntRange(1, 6).Draw(t, "limit"),
		Reserve:  rapid.SampledFrom([]float64{0, 0.2, 0.5, 0.9}).Draw(t, "reserve"),
		Max:      rapid.IntRange(0, 6).Draw(t, "max"),
		Target:   target,
		Interval: target + time.Duration(rapid.IntRange(0, 6).Draw(t, "more")),
	}
}

func TestGateDoesWhatTheNaiveModelDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		options := genOptions(t)
		m := &machine{
			model:   &model{options: options, limit: options.Limit, settled: map[int]gate.Reason{}},
			gate:    gate.New[int](options),
			waiters: map[int]*waiter{},
		}
		// What is in progress ends in any order, so it has no names.
		arrive := func(t *rapid.T) {
			class := rapid.IntRange(0, gate.Top).Draw(t, "class")
			m.next++
			w := &waiter{Value: m.next}
			// Whoever reads the clock outside the lock may be overtaken.
			read := m.now - time.Duration(rapid.IntRange(0, 3).Draw(t, "late"))
			m.model.observe(read)
			m.model.arrive(request{id: m.next, class: class})
			chain := m.gate.Arrive(read, class, w)
			if w.State() == gate.Queued {
				m.waiters[w.Value] = w
			}
			m.check(t, chain, w)
		}
		t.Repeat(map[string]func(*rapid.T){
			"arrive":      arrive,
			"arriveAgain": arrive, // more often than the others
			"leave": func(t *rapid.T) {
				m.model.observe(m.now)
				if m.model.inflight > 0 {
					m.model.inflight--
					m.model.expire()
					m.model.start()
				}
				m.check(t, m.gate.Leave(m.now))
			},
			"advance": func(t *rapid.T) {
				m.now += time.Duration(rapid.IntRange(0, 5).Draw(t, "time"))
			},
			"expire": func(t *rapid.T) {
				m.model.observe(m.now)
				m.model.expire()
				m.check(t, m.gate.Expire(m.now))
			},
			"cancel": func(t *rapid.T) {
				if len(m.model.waiting) == 0 {
					t.Skip("nobody waits")
				}
				r := rapid.SampledFrom(m.model.waiting).Draw(t, "who")
				w := m.waiters[r.id]
				delete(m.waiters, r.id)
				m.model.waiting = slices.DeleteFunc(m.model.waiting, func(o request) bool { return o == r })
				m.model.counts[r.class].Cancelled++
				require.True(t, m.gate.Remove(w))
				require.False(t, m.gate.Remove(w), "removed twice")
				require.Equal(t, gate.Idle, w.State())
				m.model.observe(m.now)
				m.model.expire()
				m.check(t, m.gate.Expire(m.now))
			},
			"setLimit": func(t *rapid.T) {
				m.model.observe(m.now)
				m.model.limit = rapid.IntRange(1, 8).Draw(t, "limit")
				m.model.expire()
				m.model.start()
				m.check(t, m.gate.SetLimit(m.now, m.model.limit))
			},
			"": m.invariants,
		})
	})
}

// The promise of the classes, stated without a model.
func TestNoClassIsShedForALowerOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := gate.New[int](genOptions(t))
		type arrival struct {
			w    *waiter
			when time.Duration
		}
		var queued []arrival
		now := time.Duration(0)
		left := func() {
			queued = slices.DeleteFunc(queued, func(a arrival) bool { return a.w.State() != gate.Queued })
		}
		whenOf := func(w *waiter) time.Duration {
			i := slices.IndexFunc(queued, func(a arrival) bool { return a.w == w })
			return queued[i].when
		}
		// judge looks at those that were settled, while queued still has them.
		judge := func(chain gate.Chain[int]) {
			for w := chain.Pop(); w != nil; w = chain.Pop() {
				for _, other := range queued {
					if other.w.State() != gate.Queued {
						continue
					}
					switch {
					case w.State() == gate.Started:
						require.LessOrEqual(t, other.w.Class(), w.Class(), "a lower class was served first")
					case w.Reason() == gate.Outranked:
						require.GreaterOrEqual(t, other.w.Class(), w.Class(), "a lower class was kept")
					case other.w.Class() < w.Class():
						require.Greater(t, other.when, whenOf(w), "an older request of a lower class was kept")
					}
				}
			}
			left()
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				class := rapid.IntRange(0, gate.Top).Draw(t, "class")
				w := new(waiter)
				chain := g.Arrive(now, class, w)
				judge(chain)
				for _, other := range queued {
					if w.State() == gate.Refused {
						require.GreaterOrEqual(t, other.w.Class(), class, "refused for a lower class")
					}
					if w.State() == gate.Started {
						require.LessOrEqual(t, other.w.Class(), class, "overtook a higher class")
					}
				}
				if w.State() == gate.Queued {
					queued = append(queued, arrival{w, now})
				}
			case 2:
				judge(g.Leave(now))
			case 3:
				now += time.Duration(rapid.IntRange(0, 15).Draw(t, "time"))
				judge(g.Expire(now))
			}
		}
	})
}

// The trace of "Fail at Scale": first in, first out while the queue was empty within the
// interval, then newest first, and a time-out of the target.
func TestQueueTurnsAroundWhenItIsStanding(t *testing.T) {
	const ms = time.Millisecond
	g := gate.New[int](gate.Options{Limit: 1, Max: 100, Target: 5 * ms, Interval: 100 * ms})
	require.True(t, g.Admit(2))
	arrive := func(now time.Duration, id int) *waiter {
		w := &waiter{Value: id}
		require.Nil(t, pop(g.Arrive(now, 2, w)))
		require.Equal(t, gate.Queued, w.State())
		return w
	}
	first, second, third := arrive(0, 1), arrive(1*ms, 2), arrive(60*ms, 3)
	require.Equal(t, 100*ms, first.Deadline())
	require.Equal(t, 100*ms, second.Deadline())
	require.Equal(t, 100*ms, third.Deadline())
	require.Equal(t, []int{1}, pop(g.Leave(70*ms)), "a burst is served in order")
	require.Equal(t, gate.Started, first.State())
	require.Equal(t, 70*ms, first.Start())
	late := arrive(97*ms, 4)
	require.Equal(t, 102*ms, late.Deadline(), "and everybody may wait for the target")
	require.Equal(t, []int{2}, pop(g.Leave(99*ms)))
	require.Equal(t, []int{3}, pop(g.Expire(100*ms)), "what is old goes when the queue is standing")
	require.Equal(t, gate.Expired, third.Reason())

	arrive(101*ms, 5)
	newest := arrive(101*ms, 6)
	require.Equal(t, 106*ms, newest.Deadline())
	require.Equal(t, []int{6}, pop(g.Leave(101*ms)), "the newest is served first")
	require.Equal(t, []int{4, 5}, pop(g.Leave(104*ms)), "4 has expired, and 5 takes the place")
	require.Zero(t, g.Waiting())

	again := arrive(105*ms, 7)
	require.Equal(t, 205*ms, again.Deadline(), "the queue was empty, so this is a burst")
}

func TestQueueIsStandingAfterExactlyTheInterval(t *testing.T) {
	for _, c := range []struct {
		now   time.Duration
		first int
	}{{99, 2}, {100, 3}} {
		g := gate.New[int](gate.Options{Limit: 1, Max: 9, Target: 5, Interval: 100})
		g.Admit(2)
		g.Arrive(0, 2, &waiter{Value: 1})
		g.Arrive(96, 2, &waiter{Value: 2})
		g.Arrive(97, 2, &waiter{Value: 3})
		require.Nil(t, pop(g.SetLimit(98, 1)))
		g.Leave(98)
		require.Contains(t, pop(g.Leave(c.now)), c.first)
	}
}

// A backlog of a low class does not make the time of a high one short.
func TestStandingIsByClass(t *testing.T) {
	const ms = time.Millisecond
	g := gate.New[int](gate.Options{Limit: 1, Max: 100, Target: 5 * ms, Interval: 100 * ms})
	require.True(t, g.Admit(0))
	for now := time.Duration(0); now <= 120*ms; now += ms {
		g.Arrive(now, 0, new(waiter))
	}
	low, high := new(waiter), new(waiter)
	g.Arrive(120*ms, 0, low)
	g.Arrive(120*ms, 3, high)
	require.Equal(t, 125*ms, low.Deadline())
	require.Equal(t, 220*ms, high.Deadline())
}

func pop(chain gate.Chain[int]) (ids []int) {
	for w := chain.Pop(); w != nil; w = chain.Pop() {
		ids = append(ids, w.Value)
	}
	return ids
}

// The reserve is rounded down, but not by a binary fraction, and leaves one for all.
func TestReserveIsRoundedDown(t *testing.T) {
	for _, c := range []struct {
		limit   int
		reserve float64
		shared  int
	}{
		{10, 0.2, 8},
		{4, 0.2, 4},
		{5, 0.2, 4},
		{100, 0.29, 71},
		{1, 0.9, 1},
		{10, 0.99999999999999, 1},
		{7, 0, 7},
	} {
		g := gate.New[int](gate.Options{Limit: c.limit, Reserve: c.reserve})
		for range c.shared {
			require.True(t, g.Admit(2))
		}
		require.False(t, g.Admit(2))
		reason := gate.Full
		if c.shared < c.limit {
			reason = gate.Reserved
		}
		require.Equal(t, reason, g.Refuse(2))
		for range c.limit - c.shared {
			require.True(t, g.Admit(gate.Top))
		}
		require.False(t, g.Admit(gate.Top))
		require.Equal(t, gate.Full, g.Refuse(gate.Top))
		require.Equal(t, gate.Full, g.Refuse(0))
	}
}

// Lowering the limit drains: nothing starts until enough has left, and no count goes
// below zero.
func TestLimitBelowInFlightDrains(t *testing.T) {
	g := gate.New[int](gate.Options{Limit: 10, Max: 10, Target: time.Second, Interval: time.Second})
	for range 10 {
		require.True(t, g.Admit(2))
	}
	w := &waiter{Value: 1}
	g.Arrive(0, 2, w)
	require.Nil(t, pop(g.SetLimit(0, 3)))
	for range 7 {
		require.Nil(t, pop(g.Leave(0)))
	}
	require.False(t, g.Admit(2))
	require.Equal(t, []int{1}, pop(g.Leave(0)))
	for range 5 {
		g.Leave(0)
	}
	require.Zero(t, g.InFlight())
}

func TestOperationsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	g := gate.New[int](gate.Options{Limit: 1, Max: 2, Target: 5, Interval: 100})
	g.Admit(2)
	var w [3]waiter
	now := time.Duration(0)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		now++
		for i := range w {
			w[i] = waiter{}
			g.Arrive(now, i, &w[i])
		}
		chain := g.Leave(now)
		for chain.Pop() != nil {
		}
		g.Remove(&w[1])
	}))
}
