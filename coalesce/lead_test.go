package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/coalescetest"
)

const leadTTL = 10 * time.Second

// leader calls Lead for one process. Its work makes a value, stores it and
// returns it.
func leader(ctx context.Context, p *coalescetest.Process, work func(context.Context, coalesce.Token) (string, error)) (string, error) {
	v, err := coalesce.Lead(ctx, p, "key",
		func(ctx context.Context) ([]byte, bool, error) { return p.Get(ctx, "key") },
		func(ctx context.Context, token coalesce.Token) ([]byte, error) {
			v, err := work(ctx, token)
			if err != nil {
				return nil, err
			}
			return []byte(v), p.Put(ctx, "key", token, []byte(v))
		})
	return string(v), err
}

// takes is work that takes time.
func takes(d time.Duration, executions *atomic.Int32) func(context.Context, coalesce.Token) (string, error) {
	return func(_ context.Context, token coalesce.Token) (string, error) {
		executions.Add(1)
		time.Sleep(d)
		return fmt.Sprint("by ", token), nil
	}
}

func TestLeadWorksOnceForAllProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := coalescetest.NewStore(leadTTL)
		var executions atomic.Int32
		var all sync.WaitGroup
		start := time.Now()
		for range 8 {
			p := s.Process()
			for range 8 {
				all.Go(func() {
					v, err := leader(t.Context(), p, takes(time.Minute, &executions))
					require.NoError(t, err)
					require.Equal(t, "by 1", v)
				})
			}
		}
		all.Wait()
		require.EqualValues(t, 1, executions.Load())
		require.Equal(t, time.Minute, time.Since(start), "those that wait wake at the release")

		g, err := s.Process().Acquire(t.Context(), "key")
		require.NoError(t, err)
		require.EqualValues(t, 2, g.Token(), "who finds a value takes no lease")
	})
}

func TestLeadSucceedsAHolderThatDied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := coalescetest.NewStore(leadTTL)
		doomed, next := s.Process(), s.Process()
		var executions atomic.Int32
		died := make(chan error, 1)
		go func() {
			_, err := leader(t.Context(), doomed, func(ctx context.Context, _ coalesce.Token) (string, error) {
				executions.Add(1)
				<-ctx.Done()
				return "", ctx.Err()
			})
			died <- err
		}()
		synctest.Wait()
		doomed.Kill()
		start := time.Now()
		v, err := leader(t.Context(), next, takes(0, &executions))
		require.NoError(t, err)
		require.Equal(t, "by 2", v)
		require.Equal(t, leadTTL, time.Since(start))
		require.ErrorIs(t, <-died, coalescetest.ErrKilled)
		require.EqualValues(t, 2, executions.Load())
	})
}

// A late holder's write is refused, and its caller gets what the successor made.
func TestLeadReturnsTheSuccessorsValueToALateHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := coalescetest.NewStore(leadTTL)
		slow, next := s.Process(), s.Process()
		late := make(chan string, 1)
		go func() {
			v, err := leader(t.Context(), slow, func(_ context.Context, token coalesce.Token) (string, error) {
				time.Sleep(time.Minute) // and it does not look at its context
				return fmt.Sprint("by ", token), nil
			})
			require.NoError(t, err)
			late <- v
		}()
		synctest.Wait()
		slow.Pause()
		v, err := leader(t.Context(), next, takes(0, new(atomic.Int32)))
		require.NoError(t, err)
		require.Equal(t, "by 2", v)
		slow.Resume()
		require.Equal(t, "by 2", <-late)
		stored, _, err := next.Get(t.Context(), "key")
		require.NoError(t, err)
		require.Equal(t, "by 2", string(stored))
	})
}

func TestLeadEndsTheWorkWhenTheLeaseIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := coalescetest.NewStore(leadTTL)
		p := s.Process()
		rounds := 0
		v, err := leader(t.Context(), p, func(ctx context.Context, token coalesce.Token) (string, error) {
			if rounds++; rounds == 2 {
				return "second", nil
			}
			p.Pause()
			time.Sleep(leadTTL)
			p.Resume()
			<-ctx.Done()
			require.ErrorIs(t, context.Cause(ctx), coalesce.ErrFenced)
			require.ErrorIs(t, ctx.Err(), context.Canceled)
			return "", fmt.Errorf("query: %w", ctx.Err())
		})
		require.NoError(t, err, "the end of the lease is no error of the work")
		require.Equal(t, "second", v)
	})
}

func TestLeadGivesUpWorkThatIsAlwaysFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rounds := 0
		_, err := leader(t.Context(), coalescetest.NewStore(leadTTL).Process(), func(context.Context, coalesce.Token) (string, error) {
			rounds++
			return "", fmt.Errorf("store: %w", coalesce.ErrFenced)
		})
		require.EqualError(t, err, "store: "+coalesce.ErrFenced.Error())
		require.Equal(t, 3, rounds)
	})
}

// However the work ends, the next process does not wait for the time to live.
func TestLeadReleasesHoweverTheWorkEnds(t *testing.T) {
	broken := errors.New("broken")
	for name, work := range map[string]func(context.CancelFunc) (string, error){
		"return": func(context.CancelFunc) (string, error) { return "value", nil },
		"error":  func(context.CancelFunc) (string, error) { return "", broken },
		"panic":  func(context.CancelFunc) (string, error) { panic(broken) },
		"goexit": func(context.CancelFunc) (string, error) { runtime.Goexit(); return "", nil },
		"cancel": func(cancel context.CancelFunc) (string, error) { cancel(); return "", context.Canceled },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := coalescetest.NewStore(leadTTL)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				start := time.Now()
				var err error
				var recovered any
				var ended sync.WaitGroup
				ended.Go(func() {
					defer func() { recovered = recover() }()
					_, err = leader(ctx, s.Process(), func(context.Context, coalesce.Token) (string, error) { return work(cancel) })
				})
				ended.Wait()
				switch name {
				case "error":
					require.Equal(t, broken, err)
				case "cancel":
					require.Equal(t, context.Canceled, err)
				case "panic":
					require.Equal(t, broken, recovered)
				}
				g, err := s.Process().Acquire(t.Context(), "key")
				require.NoError(t, err)
				require.NoError(t, g.Release(t.Context()))
				require.Equal(t, start, time.Now())
			})
		})
	}
}

func TestLeadEndsWithItsContextWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := coalescetest.NewStore(leadTTL)
		g, err := s.Process().Acquire(t.Context(), "key")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		_, err = leader(ctx, s.Process(), takes(0, new(atomic.Int32)))
		require.Equal(t, context.DeadlineExceeded, err)
		require.Equal(t, time.Hour, time.Since(start))
		require.NoError(t, g.Release(t.Context()))
	})
}

func TestLeadLooksAgainAsTheHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		v, err := coalesce.Lead(t.Context(), coalescetest.NewStore(leadTTL).Process(), "key",
			func(context.Context) (string, bool, error) {
				looks++
				return "value", looks == 2, nil // the one before finished in between
			},
			func(context.Context, coalesce.Token) (string, error) { panic("nothing to do") })
		require.NoError(t, err)
		require.Equal(t, "value", v)
		require.Equal(t, 2, looks)
	})
}

// What fails in the store ends Lead, with that error and without a lease.
func TestLeadReturnsTheErrorsOfTheStore(t *testing.T) {
	broken := errors.New("broken")
	for failing := 1; failing <= 2; failing++ {
		synctest.Test(t, func(t *testing.T) {
			s := coalescetest.NewStore(leadTTL)
			looks := 0
			_, err := coalesce.Lead(t.Context(), s.Process(), "key",
				func(context.Context) (string, bool, error) {
					if looks++; looks == failing {
						return "", false, broken
					}
					return "", false, nil
				},
				func(context.Context, coalesce.Token) (string, error) { panic("not reached") })
			require.Equal(t, broken, err)
			g, err := s.Process().Acquire(t.Context(), "key")
			require.NoError(t, err)
			require.NoError(t, g.Release(t.Context()))
		})
	}
	synctest.Test(t, func(t *testing.T) {
		p := coalescetest.NewStore(leadTTL).Process()
		_, err := coalesce.Lead(t.Context(), p, "key",
			func(context.Context) (string, bool, error) { p.Kill(); return "", false, nil },
			func(context.Context, coalesce.Token) (string, error) { panic("not reached") })
		require.Equal(t, coalescetest.ErrKilled, err)
	})
}

// A store that hangs keeps a caller that has its value for a second at most.
func TestLeadDoesNotWaitLongForTheRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := coalescetest.NewStore(leadTTL).Process()
		start := time.Now()
		v, err := coalesce.Lead(t.Context(), p, "key",
			func(context.Context) (string, bool, error) { return "", false, nil },
			func(context.Context, coalesce.Token) (string, error) { p.Pause(); return "value", nil })
		require.NoError(t, err)
		require.Equal(t, "value", v)
		require.Equal(t, time.Second, time.Since(start))
		p.Kill()
	})
}

// Processes pause, die and work slowly, in any order. Values never go back to an
// older grant's, those who return have the value of a grant that was stored, and
// each who lives returns.
func TestLeadWhateverHappensToTheProcesses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, leadWhateverHappens) })
}

func leadWhateverHappens(t *rapid.T) {
	s := coalescetest.NewStore(leadTTL)
	ctx, cancel := context.WithTimeout(context.Background(), 24*time.Hour)
	defer cancel()
	seconds := func(label string, most int) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(t, label)) * time.Second
	}
	var mu sync.Mutex
	var stored []coalesce.Token // in order
	starts := map[coalesce.Token]int{}
	var all sync.WaitGroup
	for range rapid.IntRange(1, 5).Draw(t, "processes") {
		p := s.Process()
		begin, long, obeys := seconds("begin", 30), seconds("work", 40), rapid.Bool().Draw(t, "obeys")
		pause, paused := seconds("pause", 40), seconds("paused", 40)
		killed := rapid.IntRange(0, 3).Draw(t, "killed") == 0
		fate := func() {
			time.Sleep(pause)
			if killed {
				p.Kill()
				return
			}
			p.Pause()
			time.Sleep(paused)
			p.Resume()
		}
		all.Go(fate)
		all.Go(func() {
			time.Sleep(begin)
			v, err := coalesce.Lead(ctx, p, "key",
				func(ctx context.Context) ([]byte, bool, error) { return p.Get(ctx, "key") },
				func(ctx context.Context, token coalesce.Token) ([]byte, error) {
					mu.Lock()
					starts[token]++
					mu.Unlock()
					if obeys {
						select {
						case <-time.After(long):
						case <-ctx.Done():
							return nil, ctx.Err()
						}
					} else {
						time.Sleep(long)
					}
					v := fmt.Appendf(nil, "%020d", token)
					if err := p.Put(ctx, "key", token, v); err != nil {
						return nil, err
					}
					mu.Lock()
					stored = append(stored, token)
					mu.Unlock()
					return v, nil
				})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case killed && errors.Is(err, coalescetest.ErrKilled):
			case err != nil:
				t.Errorf("a living process: %v", err)
			case !slices.ContainsFunc(stored, func(token coalesce.Token) bool { return fmt.Sprintf("%020d", token) == string(v) }):
				t.Errorf("returned %q, which nobody stored", v)
			}
		})
	}
	all.Wait()
	if !slices.IsSorted(stored) {
		t.Fatalf("stored in the order %v", stored)
	}
	if len(stored) > 1 {
		t.Fatalf("%v stored a value, although the next holder would have found it", stored)
	}
	for token, n := range starts {
		if n != 1 {
			t.Fatalf("grant %d worked %d times", token, n)
		}
	}
}
