package balance_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/balance"
)

// modelBackend is what the model knows of one life of a backend.
type modelBackend struct {
	open, picks, failures int64

	streak   int
	ejected  time.Duration // until when
	admitted time.Duration
	backoff  int
	warming  time.Duration // until when
}

type modelPick struct {
	pick  balance.Pick[string]
	of    *modelBackend
	ended bool
}

// modelFleet is a balancer by maps and loops, with the defaults of Health but for the
// success rate, and half of the backends that may be ejected.
type modelFleet struct {
	now     time.Duration
	members map[string]*modelBackend
	picks   []*modelPick
}

func (m *modelFleet) ejected() (n int) {
	for _, b := range m.members {
		if b.ejected > m.now {
			n++
		}
	}
	return n
}

// turn ends what has ended by now.
func (m *modelFleet) turn() {
	for _, b := range m.members {
		if b.ejected != 0 && b.ejected <= m.now {
			b.ejected, b.admitted, b.streak = 0, m.now, 0
			b.warming = m.now + 10*time.Second
		}
	}
}

func (m *modelFleet) fail(b *modelBackend) {
	b.failures++
	b.streak++
	isMember := false
	for _, member := range m.members {
		isMember = isMember || member == b
	}
	n := len(m.members)
	if b.streak%5 != 0 || !isMember || b.ejected > m.now || m.ejected() >= min(max(1, n/2), n-1) {
		return
	}
	b.backoff = max(0, b.backoff-int((m.now-b.admitted)/(30*time.Second))) + 1
	b.backoff = min(b.backoff, 10)
	b.ejected, b.warming = m.now+time.Duration(b.backoff)*30*time.Second, 0
}

func (m *modelFleet) state(b *modelBackend) balance.State {
	switch {
	case b.ejected > m.now:
		return balance.Ejected
	case b.warming > m.now:
		return balance.Warming
	default:
		return balance.Healthy
	}
}

// Whatever the strategy, and whatever joins, leaves, fails and returns: the counts and
// the states are those of the model, an ejected backend is not picked unless there is
// panic, and there is always one to pick.
func TestCountsAndStatesAreThoseOfTheModel(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) { checkAgainstModel(t, strategy) })
		})
	}
}

func checkAgainstModel(t *rapid.T, strategy balance.Strategy) {
	m := &modelFleet{members: map[string]*modelBackend{}}
	o := balance.Options{Health: balance.Health{SuccessRate: -1, MaxEjected: 0.5}}
	s := stage(t, strategy, o, 0)
	s.now = 1 // a later one than when the first backend's admission is counted from
	m.now = 1

	t.Repeat(map[string]func(*rapid.T){
		"update": func(t *rapid.T) {
			ids := rapid.SliceOfNDistinct(rapid.IntRange(0, 7), 0, 8, rapid.ID).Draw(t, "ids")
			next := map[string]*modelBackend{}
			var set []balance.Backend[string]
			for _, i := range ids {
				id := fmt.Sprint("b", i)
				set = append(set, balance.Backend[string]{ID: id, Value: id, Weight: rapid.Float64Range(0, 3).Draw(t, "weight")})
				if next[id] = m.members[id]; next[id] == nil {
					next[id] = &modelBackend{}
					if len(m.members) > 0 {
						next[id].warming = m.now + 10*time.Second
					}
				}
			}
			require.NoError(t, s.Update(set))
			m.members = next
		},
		"pick": func(t *rapid.T) {
			for range rapid.IntRange(1, 20).Draw(t, "picks") {
				p, err := s.Pick()
				if len(m.members) == 0 {
					require.ErrorIs(t, err, balance.ErrNoBackends)
					return
				}
				require.NoError(t, err)
				b := m.members[p.ID()]
				require.NotNil(t, b, "a pick is of a member")
				if m.state(b) == balance.Ejected {
					require.Less(t, float64(len(m.members)-m.ejected()), 0.5*float64(len(m.members)), "only in panic")
				}
				b.open++
				b.picks++
				m.picks = append(m.picks, &modelPick{pick: p, of: b})
			}
		},
		"end": func(t *rapid.T) {
			if len(m.picks) == 0 {
				return
			}
			err := rapid.SampledFrom([]error{nil, errTest, errTest, context.Canceled}).Draw(t, "err")
			for range rapid.IntRange(1, 20).Draw(t, "ends") {
				p := rapid.SampledFrom(m.picks).Draw(t, "pick") // perhaps for the second time
				p.pick.Done(err)
				if p.ended {
					continue
				}
				p.ended = true
				p.of.open--
				switch err {
				case nil:
					p.of.streak = 0
				case errTest:
					m.fail(p.of)
				}
			}
		},
		"wait": func(t *rapid.T) {
			m.now += time.Duration(rapid.IntRange(0, 60).Draw(t, "seconds")) * time.Second
			s.now = m.now
			if p, err := s.Pick(); err == nil { // does what is due
				m.turn()
				b := m.members[p.ID()]
				b.picks++
				p.Done(context.Canceled)
			}
		},
		"": func(t *rapid.T) {
			m.turn()
			n := 0
			for backend, stats := range s.Stats() {
				n++
				b := m.members[backend.ID]
				require.Equal(t, b.open, stats.InFlight)
				require.Equal(t, b.picks, stats.Picks)
				require.Equal(t, b.failures, stats.Failures)
				require.Equal(t, m.state(b), stats.State, backend.ID)
			}
			require.Len(t, m.members, n)
			require.LessOrEqual(t, m.ejected(), max(1, 8/2))
		},
	})
}
