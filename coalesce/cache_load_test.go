package coalesce_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// A reader is a way to ask a cache for a value.
type reader func(c *stringCache, ctx context.Context) coalesce.Result[int]

var readers = map[string]reader{
	"Get": func(c *stringCache, ctx context.Context) (r coalesce.Result[int]) {
		r.Val, r.Err = c.Get(ctx, "k")
		return r
	},
	"Entry": func(c *stringCache, ctx context.Context) (r coalesce.Result[int]) {
		e, err := c.Entry(ctx, "k")
		return coalesce.Result[int]{Val: e.Value, Err: err}
	},
	"Refresh": func(c *stringCache, ctx context.Context) (r coalesce.Result[int]) {
		r.Val, r.Err = c.Refresh(ctx, "k")
		return r
	},
	"GetAll": func(c *stringCache, ctx context.Context) (r coalesce.Result[int]) {
		for _, r = range c.GetAll(ctx, []string{"k"}) {
			r.Shared, r.Waiters = false, 0
		}
		return r
	},
}

type ending struct {
	load   func(context.Context, string) (int, error)
	val    int
	err    error
	panics bool
}

func endings() map[string]ending {
	boom := errors.New("boom")
	return map[string]ending{
		"return":     {load: func(context.Context, string) (int, error) { return 7, nil }, val: 7},
		"error":      {load: func(context.Context, string) (int, error) { return 7, boom }, err: boom},
		"panic":      {load: func(context.Context, string) (int, error) { panic(io.EOF) }, err: io.EOF, panics: true},
		"panic(nil)": {load: func(context.Context, string) (int, error) { panic(nil) }, err: new(runtime.PanicNilError), panics: true},
		"Goexit":     {load: func(context.Context, string) (int, error) { runtime.Goexit(); return 7, nil }, err: coalesce.ErrGoexit},
	}
}

func (e ending) check(t *testing.T, r coalesce.Result[int]) {
	t.Helper()
	require.Equal(t, e.val, r.Val)
	if !e.panics {
		require.Equal(t, e.err, r.Err)
		return
	}
	p, ok := errors.AsType[*coalesce.PanicError](r.Err)
	require.True(t, ok, "%T", r.Err)
	require.IsType(t, e.err, p.Value)
	require.Contains(t, string(p.Stack), "coalesce_test.", "the stack of the panic")
}

// Every way in which a load can end reaches everybody who waits for it, by
// every method, whether it runs on the goroutine of its first caller or on its
// own; and nothing of it stays behind.
func TestEveryEndOfALoadReachesEveryReader(t *testing.T) {
	for end, e := range endings() {
		for starts, start := range readers {
			for joins, join := range readers {
				for _, mode := range []string{"inline", "detached"} {
					t.Run(strings.Join([]string{end, starts, joins, mode}, "/"), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							finish := make(chan struct{})
							loads := 0
							c := newCache(t, stringOptions{Capacity: 10, TTL: time.Hour}, func(ctx context.Context, key string) (int, error) {
								if loads++; loads > 1 {
									return 8, nil
								}
								<-finish
								return e.load(ctx, key)
							})
							ctx := context.Background()
							if mode == "detached" {
								ctx = t.Context()
							}
							first := observe(func() coalesce.Result[int] { return start(c, ctx) })
							synctest.Wait()
							second := observe(func() coalesce.Result[int] { return join(c, t.Context()) })
							synctest.Wait()
							require.False(t, first.over || second.over)
							require.Equal(t, 1, c.Leases())
							close(finish)
							synctest.Wait()

							require.True(t, first.over)
							require.Nil(t, first.panicked)
							if end == "Goexit" && mode == "inline" && starts != "GetAll" {
								require.False(t, first.returned, "the goroutine ends, as the load asked")
							} else {
								e.check(t, first.result)
							}
							require.True(t, second.returned)
							e.check(t, second.result)
							require.Equal(t, 1, loads)
							require.Zero(t, c.Leases())
							if e.err == nil {
								require.Equal(t, e.val, get(t, c, "k"))
							} else {
								require.EqualValues(t, 1, c.Stats().LoadErrors)
								require.Equal(t, 8, get(t, c, "k"), "the key is free")
							}
							c.Check()
						})
					})
				}
			}
		}
	}
}

// In the background, every end but a value leaves the old value, shows in Stats
// and Trace, and ends neither the process nor the refreshes.
func TestEveryEndOfABackgroundRefresh(t *testing.T) {
	for end, e := range endings() {
		for _, beta := range []float64{0, 1e9} { // past the TTL and before it
			t.Run(end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var landed []error
					loads := 0
					o := stringOptions{
						Capacity: 10, TTL: time.Minute, Stale: time.Hour, StaleIfError: 2 * time.Hour, Beta: beta,
						Trace: &coalesce.Trace[string]{Done: func(_ context.Context, _ string, l coalesce.Landing) { landed = append(landed, l.Err) }},
					}
					c := newCache(t, o, func(ctx context.Context, key string) (int, error) {
						switch loads++; loads {
						case 1:
							time.Sleep(time.Nanosecond) // so that XFetch has a load time
							return 5, nil
						case 2:
							return e.load(ctx, key)
						}
						return 8, nil
					})
					require.Equal(t, 5, get(t, c, "k"))
					synctest.Wait() // Done comes after the value
					if beta > 0 {
						time.Sleep(time.Minute - 1)
					} else {
						time.Sleep(time.Minute)
					}
					require.Equal(t, 5, get(t, c, "k"))
					synctest.Wait()
					require.Len(t, landed, 2)
					e.check(t, coalesce.Result[int]{Val: e.val, Err: landed[1]})
					v, ok := c.Peek("k")
					require.True(t, ok)
					if e.err == nil {
						require.Equal(t, 7, v)
						return
					}
					require.Equal(t, 5, v)
					require.EqualValues(t, 1, c.Stats().LoadErrors)
					time.Sleep(100 * time.Millisecond)
					require.Equal(t, 5, get(t, c, "k"))
					synctest.Wait()
					v, _ = c.Peek("k")
					require.Equal(t, 8, v)
				})
			})
		}
	}
}

// Every failure, also a panic, lets the stale value be served.
func TestEveryFailureOfALoadIsCoveredByStaleIfError(t *testing.T) {
	for end, e := range endings() {
		for name, read := range readers {
			if e.err == nil || name == "Refresh" {
				continue
			}
			t.Run(end+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, StaleIfError: time.Hour}, e.load)
					c.Set("k", 5)
					time.Sleep(time.Minute)
					require.Equal(t, coalesce.Result[int]{Val: 5}, read(c, t.Context()))
					entry, err := c.Entry(t.Context(), "k")
					require.NoError(t, err)
					require.Equal(t, coalesce.StaleError, entry.State)
				})
			})
		}
	}
}

// gated is a cache each of whose loads waits for its turn at the gate and
// returns what it found when it started.
type gated struct {
	*stringCache
	data  atomic.Int64
	begun atomic.Int64
	gates [4]chan struct{}
}

func newGated(t *testing.T, o stringOptions) *gated {
	g := new(gated)
	for i := range g.gates {
		g.gates[i] = make(chan struct{})
	}
	g.stringCache = newCache(t, o, func(context.Context, string) (int, error) {
		found := int(g.data.Load())
		<-g.gates[g.begun.Add(1)-1]
		return found, nil
	})
	return g
}

func (g *gated) background(t *testing.T) *seen {
	return observe(func() (r coalesce.Result[int]) {
		r.Val, r.Err = g.Get(context.WithValue(t.Context(), requestID{}, 0), "k")
		return r
	})
}

// What happened to a key while it was being loaded is not undone by that load:
// its callers get what it brought, and it is not kept. Who comes afterwards does
// not join it.
func TestLoadDoesNotUndoWhatHappenedMeanwhile(t *testing.T) {
	for what, meanwhile := range map[string]func(g *gated){
		"Invalidate": func(g *gated) { g.Invalidate("k") },
		"Clear":      func(g *gated) { g.Clear() },
		"Set":        func(g *gated) { g.Set("k", 50) },
	} {
		for _, how := range []string{"load", "expired", "Refresh", "background"} {
			t.Run(what+"/"+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := stringOptions{Capacity: 10, TTL: time.Minute, StaleIfError: time.Hour}
					if how == "background" {
						o.Stale = time.Hour
					}
					g := newGated(t, o)
					if how != "load" {
						g.Set("k", 100)
					}
					if how != "Refresh" {
						time.Sleep(time.Minute)
					}
					g.data.Store(1)
					before := g.background(t)
					if how == "Refresh" {
						before = observe(func() (r coalesce.Result[int]) {
							r.Val, r.Err = g.Refresh(t.Context(), "k")
							return r
						})
					}
					synctest.Wait()
					require.EqualValues(t, 1, g.begun.Load())
					require.Equal(t, how == "background", before.over)

					g.data.Store(2) // a write, and then
					meanwhile(g)
					require.Zero(t, g.Leases())
					after := g.background(t)
					synctest.Wait()
					require.Equal(t, what == "Set", after.over)

					close(g.gates[0])
					synctest.Wait()
					require.True(t, before.over)
					if how == "background" {
						require.Equal(t, 100, before.result.Val)
					} else {
						require.Equal(t, 1, before.result.Val, "it had asked before")
					}
					if what == "Set" {
						require.Equal(t, 50, after.result.Val)
						require.Equal(t, 50, get(t, g.stringCache, "k"))
						require.EqualValues(t, 1, g.begun.Load())
						return
					}
					require.False(t, after.over)
					_, held := g.Peek("k")
					require.False(t, held)
					close(g.gates[1])
					synctest.Wait()
					require.Equal(t, 2, after.result.Val)
					require.Equal(t, 2, get(t, g.stringCache, "k"))
					require.EqualValues(t, 2, g.begun.Load())
					g.Check()
				})
			})
		}
	}
}

// A load that was abandoned and goes on nevertheless does not replace what a
// later one has brought, but its value is kept if there is no later one.
func TestOlderLoadDoesNotReplaceANewerOne(t *testing.T) {
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		synctest.Test(t, func(t *testing.T) {
			g := newGated(t, stringOptions{Capacity: 10})
			g.data.Store(1)
			ctx, leave := context.WithCancel(t.Context())
			first := observe(func() (r coalesce.Result[int]) { r.Val, r.Err = g.Get(ctx, "k"); return r })
			synctest.Wait()
			leave()
			synctest.Wait()
			require.Equal(t, context.Canceled, first.result.Err)
			g.data.Store(2)
			second := g.background(t)
			synctest.Wait()
			require.Equal(t, 2, g.Leases())

			close(g.gates[order[0]])
			synctest.Wait()
			v, _ := g.Peek("k")
			require.Equal(t, order[0]+1, v)
			close(g.gates[order[1]])
			synctest.Wait()
			require.Equal(t, 2, second.result.Val)
			require.Equal(t, 2, get(t, g.stringCache, "k"))
			require.Zero(t, g.Leases())
		})
	}
}

// slowContext is a context that keeps its caller between the look into the
// cache, which came too early, and the flight, which has landed then.
type slowContext struct {
	context.Context
	wait    func()
	waiting atomic.Bool
}

func (s *slowContext) Done() <-chan struct{} { s.once(); return s.Context.Done() }
func (s *slowContext) Err() error            { s.once(); return s.Context.Err() }

func (s *slowContext) once() {
	if s.waiting.CompareAndSwap(false, true) {
		s.wait()
	}
}

// A caller that has missed the value and then comes too late for the flight that
// brought it does not load a second time.
func TestLateCallerDoesNotLoadAgain(t *testing.T) {
	for _, fails := range []error{nil, io.EOF, coalesce.ErrNotFound} {
		synctest.Test(t, func(t *testing.T) {
			b := new(backend)
			c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, StaleIfError: time.Hour, NegativeTTL: time.Minute}, b.load)
			c.Set("k", 100)
			time.Sleep(time.Minute)
			b.fail(fails)
			meanwhile := func() {
				_, err := c.Get(t.Context(), "k")
				if fails != io.EOF {
					require.Equal(t, fails, err)
				}
			}
			e, err := c.Entry(&slowContext{Context: t.Context(), wait: meanwhile}, "k")
			require.EqualValues(t, 1, b.calls.Load())
			require.EqualValues(t, 2, c.Stats().Misses)
			switch fails {
			case nil:
				require.NoError(t, err)
				require.Equal(t, coalesce.Entry[int]{Value: 1}, e)
			case io.EOF:
				require.NoError(t, err)
				require.Equal(t, coalesce.Entry[int]{Value: 100, Age: time.Minute, State: coalesce.StaleError}, e)
			default:
				require.Equal(t, fails, err)
				require.Equal(t, coalesce.Entry[int]{State: coalesce.Negative}, e)
			}
		})
	}
}

// The value that was set while a load failed is better than its error.
func TestValueThatWasSetDuringAFailingLoadIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{takes: time.Second}
		b.fail(io.EOF)
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute}, b.load)
		r := observe(func() (r coalesce.Result[int]) { r.Val, r.Err = c.Get(t.Context(), "k"); return r })
		synctest.Wait()
		c.Set("k", 5)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, coalesce.Result[int]{Val: 5}, r.result)
		time.Sleep(time.Minute)
		_, err := c.Get(t.Context(), "k")
		require.Equal(t, io.EOF, err, "without StaleIfError")
	})
}

// A caller that gives up gets its own error, not an old value, and does not make
// the refreshes pause.
func TestCallerThatGivesUpIsNoFailureOfTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{takes: time.Second}
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, StaleIfError: time.Hour}, b.load)
		c.Set("k", 100)
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := c.Get(ctx, "k")
		require.Equal(t, context.DeadlineExceeded, err)
		synctest.Wait()
		require.Zero(t, c.Stats().LoadErrors)
		require.Equal(t, 2, get(t, c, "k"), "the next one loads at once")
	})
}

func TestTimeoutOfTheLoadIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{takes: time.Hour}
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, StaleIfError: time.Hour, Timeout: time.Second}, b.load)
		_, err := c.Get(t.Context(), "k")
		require.Equal(t, context.DeadlineExceeded, err)
		c.Set("k", 100)
		time.Sleep(time.Minute)
		e, err := c.Entry(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, coalesce.Entry[int]{Value: 100, Age: time.Minute + time.Second, State: coalesce.StaleError}, e)
		require.EqualValues(t, 2, c.Stats().LoadErrors)
	})
}

// A load that asks for its own key would wait for itself; an old value does not
// hide that.
func TestLoadThatAsksForItsOwnKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *stringCache
		c = newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, StaleIfError: time.Hour}, func(ctx context.Context, key string) (int, error) {
			if key == "other" {
				return 1, nil
			}
			if v, err := c.Get(ctx, "other"); v != 1 || err != nil {
				return 0, errors.New("other keys are no problem")
			}
			return c.Get(ctx, key)
		})
		_, err := c.Get(t.Context(), "k")
		require.Equal(t, coalesce.ErrReentrant, err)
		c.Set("k", 100)
		time.Sleep(time.Minute)
		_, err = c.Get(t.Context(), "k")
		require.Equal(t, coalesce.ErrReentrant, err)
		time.Sleep(time.Second) // the pause in which the inner Get would be given the old value
		_, err = c.Refresh(t.Context(), "k")
		require.Equal(t, coalesce.ErrReentrant, err)
	})
}

// That the work of an outer load was left by all says nothing of an inner one:
// its failure is one.
func TestFailureBelowADesertedLoadIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newCache(t, stringOptions{Capacity: 10}, func(context.Context, string) (int, error) {
			time.Sleep(time.Minute)
			return 0, io.EOF
		})
		outer := newCache(t, stringOptions{Capacity: 10}, func(ctx context.Context, key string) (int, error) {
			return inner.Get(ctx, key)
		})
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		_, err := outer.Get(ctx, "k")
		require.Equal(t, context.DeadlineExceeded, err)
		_, err = inner.Get(t.Context(), "k")
		require.Equal(t, io.EOF, err)
		synctest.Wait()
		require.EqualValues(t, 1, inner.Stats().LoadErrors, "of the one that was not left")
		require.Zero(t, outer.Stats().LoadErrors)
	})
}
