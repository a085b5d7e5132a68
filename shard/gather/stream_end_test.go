package gather_test

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// A bubble fails if anything is left running.
func TestStreamReleasesEverythingHoweverItEnds(t *testing.T) {
	t.Parallel()
	ends := map[string]func(cancel func()) bool{
		"break":  func(func()) bool { return false },
		"panic":  func(func()) bool { panic("body") },
		"exit":   func(func()) bool { runtime.Goexit(); return true },
		"cancel": func(cancel func()) bool { cancel(); return true },
	}
	for name, end := range ends {
		for _, limit := range []int{0, 100} {
			for _, concurrency := range []int{0, 1} {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					database := make(pool, 8)
					bulkhead := &gather.Bulkhead{PerNode: 1}
					var last error
					var loop sync.WaitGroup
					loop.Go(func() {
						defer func() {
							_ = recover()
							require.Empty(t, database, "%s: every connection is back", name)
							require.Empty(t, bulkhead.Stats())
						}()
						n := 0
						for _, err := range gather.Stream(ctx, evenMap(t, 8).All(), byKey, func(ctx context.Context, s *shard.Shard) iter.Seq2[row, error] {
							return database.query(ctx, make([]row, 1000))
						}, gather.Options{Limit: limit, Concurrency: concurrency, Bulkhead: bulkhead}) {
							last = err
							if n++; n == 10 && !end(cancel) {
								break
							}
						}
					})
					loop.Wait()
					if name == "cancel" && limit == 0 {
						require.ErrorIs(t, last, context.Canceled)
					} else {
						require.NoError(t, last)
					}
				})
			}
		}
	}
}

func TestStreamPanicsOnTheGoroutineOfTheLoop(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{0, 100} {
		var recovered any
		func() {
			defer func() { recovered = recover() }()
			_, _ = collect(gather.Stream(t.Context(), evenMap(t, 4).All(), byKey, func(ctx context.Context, s *shard.Shard) iter.Seq2[row, error] {
				if s.Node != "1" {
					return query(ctx, make([]row, 10_000), nil)
				}
				return func(yield func(row, error) bool) {
					yield(row{}, nil)
					panic(errBoom)
				}
			}, gather.Options{Limit: limit}))
		}()
		p, ok := recovered.(*gather.PanicError)
		require.True(t, ok, "%v", recovered)
		require.Equal(t, "40-80", p.Shard.Name)
		require.ErrorIs(t, p, errBoom)
		require.Contains(t, p.Error(), "stream_end_test.go")
	}
}

// The loop's own panic is not replaced by one that it caused.
func TestStreamLetsTheLoopsPanicThrough(t *testing.T) {
	t.Parallel()
	require.PanicsWithValue(t, "body", func() {
		for range gather.Stream(t.Context(), evenMap(t, 2).All(), byKey, func(ctx context.Context, _ *shard.Shard) iter.Seq2[row, error] {
			return func(yield func(row, error) bool) {
				yield(row{}, nil)
				<-ctx.Done()
				panic("query")
			}
		}, gather.Options{}) {
			panic("body")
		}
	})
}

func TestStreamPassesOnGoexit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, limit := range []int{0, 100} {
			returned := false
			var loop sync.WaitGroup
			loop.Go(func() {
				_, _ = collect(gather.Stream(t.Context(), evenMap(t, 4).All(), byKey, func(ctx context.Context, s *shard.Shard) iter.Seq2[row, error] {
					if s.Node == "1" {
						runtime.Goexit()
					}
					return query(ctx, make([]row, 10_000), nil)
				}, gather.Options{Limit: limit}))
				returned = true
			})
			loop.Wait()
			require.False(t, returned)
		}
	})
}

func TestStreamAPanicOfCompareEndsTheQueries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, limit := range []int{0, 100} {
			require.PanicsWithValue(t, "compare", func() {
				_, _ = collect(gather.Stream(t.Context(), evenMap(t, 4).All(), func(a, b row) int { panic("compare") },
					func(ctx context.Context, s *shard.Shard) iter.Seq2[row, error] {
						return query(ctx, make([]row, 10_000), nil)
					}, gather.Options{Limit: limit}))
			})
		}
	})
}

type driverError struct{ cause error }

func (e *driverError) Error() string { return "driver: " + e.cause.Error() }
func (e *driverError) Unwrap() error { return e.cause }

// Options.ShardTimeout: "The error of a call that it ended says so and wraps what the call returned."
func TestStreamTimeoutWrapsWhatTheCallReturned(t *testing.T) {
	for _, limit := range []int{5, 0} {
		synctest.Test(t, func(t *testing.T) {
			var last error
			for _, err := range gather.Stream(t.Context(), evenMap(t, 2).All(), cmp.Compare[int], func(ctx context.Context, _ *shard.Shard) iter.Seq2[int, error] {
				return func(yield func(int, error) bool) {
					<-ctx.Done()
					yield(0, &driverError{ctx.Err()})
				}
			}, gather.Options{ShardTimeout: time.Second, Limit: limit}) {
				last = err
			}
			var of *driverError
			require.ErrorIs(t, last, context.DeadlineExceeded)
			require.True(t, errors.As(last, &of), "limit %d: %v", limit, last)
		})
	}
}

// After a break, a query that does not look at its context goes on for up to 64 rows.
func TestStreamBreakEndsAQueryAtItsNextRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var read atomic.Int64
		for range gather.Stream(t.Context(), evenMap(t, 2).All(), cmp.Compare[int], func(context.Context, *shard.Shard) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				for i := 0; ; i++ {
					time.Sleep(time.Second)
					if read.Add(1); !yield(i, nil) {
						return
					}
				}
			}
		}, gather.Options{}) {
			break
		}
		require.LessOrEqual(t, read.Load(), int64(4))
	})
}

func TestStreamFailureEndsTheOthersAtTheirNextRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var read atomic.Int64
		for range gather.Stream(t.Context(), evenMap(t, 2).All(), cmp.Compare[int], func(_ context.Context, s *shard.Shard) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				if s.Range.Start == 0 {
					time.Sleep(1500 * time.Millisecond)
					yield(0, errors.New("down"))
					return
				}
				for i := 0; ; i++ {
					time.Sleep(time.Second)
					if read.Add(1); !yield(i, nil) {
						return
					}
				}
			}
		}, gather.Options{Limit: 1000}) {
		}
		require.LessOrEqual(t, read.Load(), int64(4))
	})
}

type panicsInIs struct{}

func (panicsInIs) Error() string { return "x" }
func (panicsInIs) Is(error) bool { panic("Is") }

func TestStreamAsksNothingOfAForeignError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.NotPanics(t, func() {
			for range gather.Stream(t.Context(), evenMap(t, 1).All(), cmp.Compare[int], func(ctx context.Context, _ *shard.Shard) iter.Seq2[int, error] {
				return func(yield func(int, error) bool) {
					<-ctx.Done()
					yield(0, panicsInIs{})
				}
			}, gather.Options{ShardTimeout: time.Second}) {
			}
		})
	})
}

// With a limit a shard is read once and for all, and may be read a second time.
func TestStreamWithALimitIsHedged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &gather.Hedge{After: time.Second, Budget: 1}
		started := time.Now()
		var got []int
		for v, err := range gather.Stream(t.Context(), evenMap(t, 2).All(), cmp.Compare[int], func(ctx context.Context, s *shard.Shard) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				if s.Range.Start == 0 && gather.Attempt(ctx) == 0 {
					<-ctx.Done()
					yield(0, ctx.Err())
					return
				}
				_ = yield(1, nil) && yield(2, nil) && yield(3, nil)
			}
		}, gather.Options{Limit: 3, Hedge: h}) {
			require.NoError(t, err)
			got = append(got, v)
		}
		require.Equal(t, []int{1, 1, 2}, got)
		require.Equal(t, time.Second, time.Since(started))
		require.Equal(t, uint64(1), h.Stats().Wins)
	})
}
