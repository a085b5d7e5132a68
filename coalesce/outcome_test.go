package coalesce_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// seen is what one call came to.
type seen struct {
	returned bool // by returning, not by a panic or Goexit
	over     bool // by any of them
	result   coalesce.Result[int]
	panicked any
}

// observe makes the call on a goroutine of its own.
func observe(call func() coalesce.Result[int]) *seen {
	s := new(seen)
	go func() {
		defer func() {
			s.over = true
			s.panicked = recover()
		}()
		s.result = call()
		s.returned = true
	}()
	return s
}

type doer func(g *coalesce.Group[string, int], ctx context.Context, key string, fn func(context.Context) (int, error)) coalesce.Result[int]

var doers = map[string]doer{
	"Do": func(g *coalesce.Group[string, int], ctx context.Context, key string, fn func(context.Context) (int, error)) coalesce.Result[int] {
		v, err := g.Do(ctx, key, fn)
		return coalesce.Result[int]{Val: v, Err: err}
	},
	"DoResult": func(g *coalesce.Group[string, int], ctx context.Context, key string, fn func(context.Context) (int, error)) coalesce.Result[int] {
		return g.DoResult(ctx, key, fn)
	},
	"DoChan": func(g *coalesce.Group[string, int], ctx context.Context, key string, fn func(context.Context) (int, error)) coalesce.Result[int] {
		return <-g.DoChan(ctx, key, fn)
	},
}

// ends are the ways in which work can end. nil is what panic(nil) throws.
var ends = map[string]func() (int, error){
	"return":       func() (int, error) { return 7, nil },
	"error":        func() (int, error) { return 0, errWork },
	"panic(error)": func() (int, error) { panic(errWork) },
	"panic(nil)":   func() (int, error) { panic(nil) },
	"Goexit":       func() (int, error) { runtime.Goexit(); return 7, nil },
}

func throwEOF(context.Context) (int, error) { panic(io.EOF) }

// Every way in which the work can end reaches every caller, by every method,
// whether the work runs on the starter's goroutine or on its own. A hang would
// be a deadlock report of the bubble, and so would a goroutine left behind.
func TestEveryEndReachesEveryCaller(t *testing.T) {
	boom := errors.New("boom")
	nilPanic := func(context.Context) (int, error) { panic(nil) }
	ends := map[string]struct {
		work    func(context.Context) (int, error)
		val     int
		err     error
		panics  bool
		goexits bool
		debug   string
	}{
		"return":                {work: func(context.Context) (int, error) { return 7, nil }, val: 7},
		"error":                 {work: func(context.Context) (int, error) { return 7, boom }, val: 7, err: boom},
		"panic":                 {work: throwEOF, err: io.EOF, panics: true},
		"panic(nil)":            {work: nilPanic, err: new(runtime.PanicNilError), panics: true},
		"panic(nil) as of 1.20": {work: nilPanic, panics: true, debug: "panicnil=1"},
		"Goexit":                {work: func(context.Context) (int, error) { runtime.Goexit(); return 7, nil }, err: coalesce.ErrGoexit, goexits: true},
	}
	for end, e := range ends {
		for starts, start := range doers {
			for joins, join := range doers {
				for _, mode := range []string{"inline", "detached"} {
					t.Run(strings.Join([]string{end, starts, joins, mode}, "/"), func(t *testing.T) {
						if e.debug != "" {
							t.Setenv("GODEBUG", e.debug)
						}
						synctest.Test(t, func(t *testing.T) {
							var g coalesce.Group[string, int]
							ctx, cancel := context.WithCancel(t.Context())
							defer cancel()
							starter := context.Background()
							if mode == "detached" {
								starter = ctx
							}
							finish := make(chan struct{})
							first := observe(func() coalesce.Result[int] {
								return start(&g, starter, "k", func(ctx context.Context) (int, error) {
									<-finish
									return e.work(ctx)
								})
							})
							synctest.Wait()
							never := func(context.Context) (int, error) { panic("the second function was called") }
							second := observe(func() coalesce.Result[int] { return join(&g, ctx, "k", never) })
							third := observe(func() coalesce.Result[int] { return join(&g, context.Background(), "k", never) })
							synctest.Wait()
							require.False(t, first.over || second.over || third.over)
							close(finish)
							synctest.Wait()

							check := func(s *seen, how string, inline bool) {
								require.True(t, s.over)
								err := s.result.Err
								switch {
								case e.goexits && inline:
									require.False(t, s.returned, "the goroutine ends, as fn asked")
									require.Nil(t, s.panicked)
									return
								case e.panics && how == "Do":
									require.False(t, s.returned)
									err = s.panicked.(error)
								default:
									require.True(t, s.returned)
									require.Equal(t, e.val, s.result.Val)
								}
								if e.panics {
									p, ok := errors.AsType[*coalesce.PanicError](err)
									require.True(t, ok, "%T", err)
									require.Contains(t, string(p.Stack), "coalesce_test.", "the stack of the panic")
									if e.debug != "" {
										require.Nil(t, p.Value)
										return
									}
									require.IsType(t, e.err, p.Value)
									require.IsType(t, e.err, errors.Unwrap(err))
								} else {
									require.Equal(t, e.err, err)
								}
								if how != "Do" {
									require.True(t, s.result.Shared)
									require.Equal(t, 3, s.result.Waiters)
								}
							}
							check(first, starts, mode == "inline" && starts != "DoChan")
							check(second, joins, false)
							check(third, joins, false)

							st := g.Stats()
							panics := int64(0)
							if e.panics {
								panics = 1
							}
							require.Equal(t, coalesce.Stats{Executions: 1, Joined: 2, Panics: panics}, st)
							require.Zero(t, g.Listed(), "the flight has left the table")
						})
					})
				}
			}
		}
	}
}

func TestPanicReachesAllAsTheSameErrorWithTheStackOfTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		finish := make(chan struct{})
		work := func(ctx context.Context) (int, error) { <-finish; return throwEOF(ctx) }
		a := observe(func() coalesce.Result[int] { return doers["Do"](&g, context.Background(), "k", work) })
		b := g.DoChan(context.Background(), "k", work)
		synctest.Wait()
		close(finish)
		pb := (<-b).Err
		synctest.Wait()
		require.Same(t, a.panicked, pb)
		p := pb.(*coalesce.PanicError)
		require.Contains(t, string(p.Stack), "throwEOF")
		require.False(t, strings.HasPrefix(string(p.Stack), "goroutine"))
		require.Contains(t, p.Error(), "EOF\n\n")
		require.Contains(t, p.Error(), "throwEOF")
	})
}

// A panic that passes through two groups arrives with the stack of the place
// where it began.
func TestPanicOfAnInnerGroupIsPassedOnAsItIs(t *testing.T) {
	var inner, outer coalesce.Group[string, int]
	r := outer.DoResult(t.Context(), "a", func(ctx context.Context) (int, error) {
		return inner.Do(ctx, "b", throwEOF)
	})
	p, ok := errors.AsType[*coalesce.PanicError](r.Err)
	require.True(t, ok)
	require.Equal(t, io.EOF, p.Value)
	require.Contains(t, string(p.Stack), "throwEOF")
}

// A *PanicError that the work returns is an error like any other: nobody
// panics.
func TestPanicErrorThatIsReturnedIsNotThrown(t *testing.T) {
	var inner, outer coalesce.Group[string, int]
	_, err := outer.Do(t.Context(), "a", func(ctx context.Context) (int, error) {
		r := inner.DoResult(ctx, "b", throwEOF)
		return r.Val, r.Err
	})
	require.ErrorIs(t, err, io.EOF)
	require.Zero(t, outer.Stats().Panics)
	require.EqualValues(t, 1, inner.Stats().Panics)
}

// A panic after the last caller has left reaches nobody. It must not end the
// process, and must not vanish.
func TestPanicThatNobodyWaitsForIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		ctx, cancel := context.WithCancel(t.Context())
		finish := make(chan struct{})
		r := g.DoChan(ctx, "k", func(ctx context.Context) (int, error) { <-finish; return throwEOF(ctx) })
		cancel()
		require.Equal(t, context.Canceled, (<-r).Err)
		require.Nil(t, g.Stats().LostPanic)
		close(finish)
		synctest.Wait()
		s := g.Stats()
		require.NotNil(t, s.LostPanic)
		require.Equal(t, io.EOF, s.LostPanic.Value)
		s.LostPanic = nil
		require.Equal(t, coalesce.Stats{Executions: 1, Abandoned: 1, Panics: 1}, s)
	})
}

// A panic that somebody received is not lost.
func TestPanicThatReachedACallerIsNotLost(t *testing.T) {
	var g coalesce.Group[string, int]
	require.ErrorIs(t, g.DoResult(t.Context(), "k", throwEOF).Err, io.EOF)
	require.Panics(t, func() { _, _ = g.Do(context.Background(), "k", throwEOF) })
	require.Nil(t, g.Stats().LostPanic)
	require.EqualValues(t, 2, g.Stats().Panics)
}

// After every kind of end the key can be used again.
func TestKeyIsFreeAfterPanicAndGoexit(t *testing.T) {
	var g coalesce.Group[string, int]
	for range 3 {
		require.Error(t, g.DoResult(t.Context(), "k", throwEOF).Err)
		require.ErrorIs(t, g.DoResult(t.Context(), "k", func(context.Context) (int, error) { runtime.Goexit(); return 0, nil }).Err, coalesce.ErrGoexit)
		v, err := g.Do(t.Context(), "k", func(context.Context) (int, error) { return 3, nil })
		require.NoError(t, err)
		require.Equal(t, 3, v)
	}
}
