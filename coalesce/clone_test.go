package coalesce_test

import (
	"context"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// Every caller may change what it got: the race detector would see two that
// hold the same slice, or one that changes it while another copies.
func TestCallersMayChangeClonedValues(t *testing.T) {
	var clones atomic.Int64
	g := coalesce.Group[string, []int]{Clone: func(s []int) []int {
		clones.Add(1)
		return slices.Clone(s)
	}}
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	for _, inline := range []bool{true, false} {
		for range rounds {
			const callers = 8
			clones.Store(0)
			joined := g.Stats().Joined + callers - 1
			var all sync.WaitGroup
			for i := range callers {
				all.Go(func() {
					ctx := context.Background()
					if !inline {
						ctx = t.Context()
					}
					work := func(context.Context) ([]int, error) {
						for g.Stats().Joined < joined {
							runtime.Gosched()
						}
						return make([]int, 64), nil
					}
					var s []int
					if i%2 == 0 {
						s, _ = g.Do(ctx, "k", work)
					} else {
						s = (<-g.DoChan(ctx, "k", work)).Val
					}
					for j := range s {
						if s[j] != 0 {
							t.Errorf("changed by another caller")
						}
						s[j] = i + 1
					}
				})
			}
			all.Wait()
			require.EqualValues(t, callers-1, clones.Load(), "all but one")
		}
	}
}

func TestLoneCallerGetsTheValueItself(t *testing.T) {
	g := coalesce.Group[string, int]{Clone: func(int) int { panic("not shared") }}
	for _, ctx := range []context.Context{context.Background(), t.Context()} {
		v, err := g.Do(ctx, "k", func(context.Context) (int, error) { return 1, nil })
		require.NoError(t, err)
		require.Equal(t, 1, v)
	}
}

func TestErrorIsSharedWithoutClone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, int]{Clone: func(int) int { panic("an error") }}
		work := func(context.Context) (int, error) { time.Sleep(time.Second); return 0, io.EOF }
		a, b := g.DoChan(t.Context(), "k", work), g.DoChan(t.Context(), "k", work)
		require.Equal(t, io.EOF, (<-a).Err)
		require.Equal(t, io.EOF, (<-b).Err)
	})
}

// What goes wrong in Clone is the trouble of the caller for which it ran; the
// caller that gets the value itself has none, and nobody hangs.
func TestTroubleInCloneConcernsOneCaller(t *testing.T) {
	for name, bad := range map[string]func(int) int{
		"panic":  func(int) int { panic(io.EOF) },
		"Goexit": func(int) int { runtime.Goexit(); return 0 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := coalesce.Group[string, int]{Clone: bad}
				want := error(coalesce.ErrGoexit)
				if name == "panic" {
					want = io.EOF
				}
				var results []<-chan coalesce.Result[int]
				for range 4 {
					results = append(results, g.DoChan(t.Context(), "k", slow(9)))
				}
				good := 0
				for _, ch := range results {
					if r := <-ch; r.Err == nil {
						require.Equal(t, 9, r.Val)
						good++
					} else {
						require.ErrorIs(t, r.Err, want)
						require.Zero(t, r.Val, "not the value of another caller")
					}
				}
				require.Equal(t, 1, good)
				require.Zero(t, g.Stats().Panics, "the work did not panic")

				a := observe(func() coalesce.Result[int] { return doers["Do"](&g, t.Context(), "k", slow(9)) })
				b := observe(func() coalesce.Result[int] { return doers["Do"](&g, t.Context(), "k", slow(9)) })
				time.Sleep(time.Second)
				synctest.Wait()
				require.True(t, a.over && b.over)
				require.NotEqual(t, a.returned, b.returned)
				if name == "panic" {
					for _, s := range []*seen{a, b} {
						if !s.returned {
							require.ErrorIs(t, s.panicked.(error), io.EOF)
						}
					}
				}
			})
		})
	}
}

// Clones are made by the callers side by side, not one after the other; and the
// caller that keeps the value itself, be it the one that ran the work inline,
// does not get it before the last clone is made.
func TestClonesAreMadeSideBySideBeforeTheValueIsGivenAway(t *testing.T) {
	for _, inline := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			g := coalesce.Group[string, *int]{Clone: func(v *int) *int { time.Sleep(time.Hour); return new(*v) }}
			begin := time.Now()
			var all sync.WaitGroup
			for i := range 100 {
				all.Go(func() {
					ctx := t.Context()
					if inline && i%2 == 0 {
						ctx = context.Background()
					}
					v, err := g.Do(ctx, "k", func(context.Context) (*int, error) { time.Sleep(time.Second); return new(3), nil })
					require.NoError(t, err)
					require.Equal(t, 3, *v)
					*v = 4
				})
			}
			all.Wait()
			require.Equal(t, time.Hour+time.Second, time.Since(begin))
		})
	}
}

func TestInlineStarterWaitsForTheClonesOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, *int]{Clone: func(v *int) *int { time.Sleep(time.Hour); return new(*v) }}
		work := func(context.Context) (*int, error) { time.Sleep(time.Second); return new(3), nil }
		starter := make(chan *int, 1)
		go func() {
			v, _ := g.Do(context.Background(), "k", work)
			*v++ // at once
			starter <- v
		}()
		synctest.Wait()
		r := <-g.DoChan(t.Context(), "k", work)
		require.Equal(t, 3, *r.Val)
		require.Equal(t, 4, *<-starter)
		require.True(t, r.Shared)
	})
}
