package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// The model: what a Group should do, said without locks, goroutines and
// channels. One action is done at a time and the bubble comes to rest after
// each, so that the model can follow exactly.

var errWork = errors.New("work failed")

// A modelCaller is one call, and what is expected of it.
type modelCaller struct {
	id      int
	method  string
	endless bool
	inline  bool
	again   bool // it has been through a second start
	leave   context.CancelFunc
	ends    time.Time // when its context ends by itself, or zero
	ctx     context.Context

	flight *modelFlight // while it waits
	want   *seen        // once it must be over
	got    *seen
}

// A modelFlight is one execution.
type modelFlight struct {
	key     string
	starter *modelCaller
	waiters map[*modelCaller]bool
	listed  bool // callers may join it
	begun   time.Time

	// Exclusive: closed keeps its place while it runs, and next, which callers
	// may join, begins when it has landed.
	closed bool
	next   *modelFlight

	abandoned, landed bool
	execution         *modelExecution
}

// A modelExecution is the real work of a flight, under the model's control.
type modelExecution struct {
	caller int
	ctx    context.Context
	finish chan func() (int, error)
}

type model struct {
	group   *coalesce.Group[string, int]
	policy  coalesce.AbandonPolicy
	max     int
	callers []*modelCaller
	flights []*modelFlight
	stats   coalesce.Stats

	mu      sync.Mutex
	started []*modelExecution
	over    bool // work that begins now returns at once
}

func (m *model) listed(key string) *modelFlight {
	for _, f := range m.flights {
		if f.key == key && f.listed {
			return f
		}
	}
	return nil
}

// closed returns the flight of key for whose end the next one must wait.
func (m *model) closed(key string) *modelFlight {
	for _, f := range m.flights {
		if f.key == key && f.closed && !f.landed {
			return f
		}
	}
	return nil
}

// shut is what becomes of a flight that takes no more callers.
func (m *model) shut(f *modelFlight) {
	f.listed = false
	f.closed = m.policy == coalesce.Exclusive
}

// begin tells the model that an execution has started and binds it to its
// flight.
func (m *model) begin(t *rapid.T, f *modelFlight, eligible func(caller int) bool) {
	m.stats.Executions++
	m.stats.InFlight++
	m.mu.Lock()
	defer m.mu.Unlock()
	require.Len(t, m.started, 1, "exactly one execution starts")
	f.execution, m.started = m.started[0], nil
	require.True(t, eligible(f.execution.caller), "started by caller %d", f.execution.caller)
	f.starter = m.callers[f.execution.caller]
	f.begun = time.Now()
	require.Equal(t, f.starter.id, f.execution.ctx.Value(traceKey{}), "the values of the starter")
	m.flights = append(m.flights, f)
}

func (m *model) call(t *rapid.T) {
	key := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")
	c := &modelCaller{id: len(m.callers), method: rapid.SampledFrom([]string{"Do", "DoResult", "DoChan"}).Draw(t, "method")}
	ctx, endless := context.WithValue(context.Background(), traceKey{}, c.id), false
	switch rapid.SampledFrom([]string{"endless", "cancel", "deadline"}).Draw(t, "context") {
	case "endless":
		endless = true
	case "cancel":
		ctx, c.leave = context.WithCancel(ctx)
	default:
		// Half a second off, so that no two things happen at the same moment.
		after := time.Duration(rapid.IntRange(1, 5).Draw(t, "seconds"))*time.Second + time.Second/2
		ctx, c.leave = context.WithTimeout(ctx, after)
		c.ends = time.Now().Add(after)
	}
	c.ctx = ctx
	m.callers = append(m.callers, c)

	f, before := m.listed(key), m.closed(key)
	if before != nil {
		f = before.next
	}
	refused := f != nil && m.max > 0 && len(f.waiters) >= m.max
	c.endless = endless
	c.inline = endless && f == nil && before == nil && c.method != "DoChan"
	fn := func(work context.Context) (int, error) {
		e := &modelExecution{caller: c.id, ctx: work, finish: make(chan func() (int, error))}
		m.mu.Lock()
		over := m.over
		m.started = append(m.started, e)
		m.mu.Unlock()
		if over {
			return 0, nil
		}
		return (<-e.finish)() // deaf to its context: the model decides when it stops
	}
	c.got = observe(func() coalesce.Result[int] { return doers[c.method](m.group, ctx, key, fn) })
	synctest.Wait()

	switch {
	case refused:
		c.want = &seen{over: true, returned: true, result: coalesce.Result[int]{Err: coalesce.ErrTooManyWaiters}}
		return
	case f == nil && before != nil:
		f = &modelFlight{key: key, starter: c, begun: time.Now(), waiters: map[*modelCaller]bool{}}
		before.next = f
	case f == nil:
		f = &modelFlight{key: key, listed: true, waiters: map[*modelCaller]bool{}}
		m.begin(t, f, func(id int) bool { return id == c.id })
	default:
		m.stats.Joined++
	}
	f.waiters[c] = true
	c.flight = f
}

// left is what the model makes of a caller whose context has ended.
func (m *model) left(c *modelCaller) {
	if f := c.flight; f != nil {
		c.flight = nil
		c.want = &seen{over: true, returned: true, result: coalesce.Result[int]{Err: c.ctx.Err()}}
		delete(f.waiters, c)
		before := m.closed(f.key)
		switch {
		case len(f.waiters) > 0 || m.policy == coalesce.KeepRunning:
		case before != nil && before.next == f:
			before.next = nil // it never begins
		default:
			f.abandoned = true
			m.stats.Abandoned++
			m.shut(f)
		}
	}
}

func (m *model) leave(t *rapid.T) {
	var can []*modelCaller
	for _, c := range m.callers {
		if c.flight != nil && c.leave != nil {
			can = append(can, c)
		}
	}
	if len(can) == 0 {
		t.Skip("nobody can leave")
	}
	c := rapid.SampledFrom(can).Draw(t, "caller")
	c.leave()
	synctest.Wait()
	m.left(c)
}

func (m *model) tick(t *rapid.T) {
	time.Sleep(time.Duration(rapid.IntRange(1, 3).Draw(t, "seconds")) * time.Second)
	synctest.Wait()
	for _, c := range m.callers {
		if !c.ends.IsZero() && !time.Now().Before(c.ends) {
			m.left(c)
		}
	}
}

func (m *model) forget(t *rapid.T) {
	key := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")
	f := m.listed(key)
	require.Equal(t, f != nil, m.group.Forget(key))
	if f != nil {
		m.shut(f)
	}
}

func (m *model) finish(t *rapid.T) {
	var running []*modelFlight
	for _, f := range m.flights {
		if !f.landed {
			running = append(running, f)
		}
	}
	if len(running) == 0 {
		t.Skip("nothing runs")
	}
	f := rapid.SampledFrom(running).Draw(t, "flight")
	how := rapid.SampledFrom([]string{"return", "error", "panic", "Goexit", "the starter's end"}).Draw(t, "how")
	m.land(t, f, how)
}

// land lets the work of f end, and says what becomes of its callers.
func (m *model) land(t *rapid.T, f *modelFlight, how string) {
	val := 1 + slices.Index(m.flights, f)
	err := map[string]error{"error": errWork, "Goexit": coalesce.ErrGoexit}[how]
	dead := f.starter.ctx.Err()
	if how == "the starter's end" {
		err = fmt.Errorf("query: %w", context.DeadlineExceeded)
		if dead != nil {
			err = fmt.Errorf("query: %w", dead)
		}
	}
	f.execution.finish <- func() (int, error) {
		switch how {
		case "panic":
			panic(errWork)
		case "Goexit":
			runtime.Goexit()
		}
		return val, err
	}
	synctest.Wait()
	m.stats.InFlight--
	f.landed = true
	f.listed = false
	if m.policy == coalesce.KeepRunning && len(f.waiters) == 0 {
		m.stats.Abandoned++
	}

	var heirs []*modelCaller
	if how == "the starter's end" && dead != nil {
		for c := range f.waiters {
			if !c.again {
				heirs = append(heirs, c)
			}
		}
	}
	if next := f.next; next != nil {
		next.listed = true
		m.begin(t, next, func(id int) bool { return id == next.starter.id }) // though it may have left
	}
	if len(heirs) > 0 { // they ask again
		next := m.listed(f.key)
		if next == nil {
			next = &modelFlight{key: f.key, listed: true, waiters: map[*modelCaller]bool{}}
			m.begin(t, next, func(id int) bool { return slices.Contains(heirs, m.callers[id]) })
			next.starter.inline = next.starter.endless && next.starter.method != "DoChan"
		}
		for _, c := range heirs {
			c.again, c.flight = true, next
			next.waiters[c] = true
			delete(f.waiters, c)
		}
	}

	if how == "panic" {
		m.stats.Panics++
	}
	for c := range f.waiters {
		c.flight = nil
		r := coalesce.Result[int]{Err: err, Shared: len(f.waiters) > 1, Waiters: len(f.waiters)}
		switch {
		case how == "panic":
			r.Err = errWork // below a *PanicError
		case how != "Goexit":
			r.Val = val
		}
		if c.method == "Do" {
			r.Shared, r.Waiters = false, 0
		}
		c.want = &seen{over: true, returned: true, result: r}
		if how == "panic" && c.method == "Do" {
			c.want = &seen{over: true, panicked: errWork}
		}
		if how == "Goexit" && c.inline && c == f.starter {
			c.want = &seen{over: true}
		}
	}
}

// check compares everything that can be seen with the model.
func (m *model) check(t *rapid.T) {
	synctest.Wait()
	require.Empty(t, m.started, "no execution starts unasked")
	for _, c := range m.callers {
		if c.want == nil {
			require.False(t, c.got.over, "caller %d should wait", c.id)
			continue
		}
		got := *c.got
		if p, ok := errors.AsType[*coalesce.PanicError](got.result.Err); ok {
			got.result.Err = p.Unwrap()
		}
		if p, ok := got.panicked.(*coalesce.PanicError); ok {
			got.panicked = p.Value
		}
		require.Equal(t, *c.want, got, "caller %d, %s", c.id, c.method)
	}
	for i, f := range m.flights {
		ctx := f.execution.ctx
		_, hasDeadline := ctx.Deadline()
		require.False(t, hasDeadline)
		switch {
		case f.abandoned:
			require.Equal(t, context.Canceled, ctx.Err(), "flight %d", i)
			require.Equal(t, coalesce.ErrAbandoned, context.Cause(ctx), "flight %d", i)
		case f.landed:
			require.Equal(t, context.Canceled, context.Cause(ctx), "flight %d", i)
		case i%2 == 0: // leave the others unasked until they end
			require.NoError(t, ctx.Err(), "flight %d", i)
		}
	}
	stats := m.group.Stats()
	stats.LostPanic = nil
	require.Equal(t, m.stats, stats)
	want, listed := map[string]coalesce.Flight{}, 0
	for _, f := range m.flights {
		if f.landed {
			continue
		}
		if f.listed || f.closed {
			listed++
		}
		if f.closed {
			f = f.next
		}
		if f != nil && (f.listed || f.execution == nil) {
			want[f.key] = coalesce.Flight{Age: time.Since(f.begun), Waiters: len(f.waiters)}
		}
	}
	require.Equal(t, want, maps.Collect(m.group.Flights()))
	require.Equal(t, listed, m.group.Listed())
	if m.policy == coalesce.Exclusive {
		running := map[string]int{}
		for _, f := range m.flights {
			if !f.landed {
				running[f.key]++
			}
		}
		for key, n := range running {
			require.Equal(t, 1, n, "executions of %s at once", key)
		}
	}
}

func TestGroupBehavesAsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			m := &model{max: rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(t, "MaxWaiters")}
			m.policy = rapid.SampledFrom([]coalesce.AbandonPolicy{coalesce.CancelWork, coalesce.KeepRunning, coalesce.Exclusive}).Draw(t, "Abandon")
			m.group = &coalesce.Group[string, int]{MaxWaiters: m.max, Abandon: m.policy}
			defer func() { // the bubble must be empty, even after a failure
				m.mu.Lock()
				m.over = true
				m.mu.Unlock()
				for _, f := range m.flights {
					if !f.landed {
						f.execution.finish <- func() (int, error) { return 0, nil }
					}
				}
				for _, c := range m.callers {
					if c.leave != nil {
						c.leave()
					}
				}
			}()
			t.Repeat(map[string]func(*rapid.T){
				"call":   m.call,
				"call2":  m.call, // twice as often
				"leave":  m.leave,
				"tick":   m.tick,
				"forget": m.forget,
				"finish": m.finish,
				"":       m.check,
			})
		})
	})
}
