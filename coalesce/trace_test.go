package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// A log of hooks, with the id of the context that each got.
type traceLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *traceLog) add(ctx context.Context, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf("%v ", ctx.Value(traceKey{}))+fmt.Sprintf(format, args...))
}

func (l *traceLog) take() []string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

func (l *traceLog) trace() *coalesce.Trace[string] {
	return &coalesce.Trace[string]{
		Start: func(ctx context.Context, key string) { l.add(ctx, "start %s", key) },
		Join:  func(ctx context.Context, key string, n int) { l.add(ctx, "join %s %d", key, n) },
		Leave: func(ctx context.Context, key string, n int) { l.add(ctx, "leave %s %d", key, n) },
		Done: func(ctx context.Context, key string, d coalesce.Landing) {
			err := d.Err
			if p, ok := errors.AsType[*coalesce.PanicError](err); ok {
				err = fmt.Errorf("panic %w", p.Unwrap())
			}
			l.add(ctx, "done %s %d %v %v", key, d.Waiters, d.Duration, err)
		},
	}
}

func TestTraceTellsEveryFlightAndEveryCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log traceLog
		g := coalesce.Group[string, int]{Trace: log.trace()}
		caller := func(id int) context.Context { return context.WithValue(t.Context(), traceKey{}, id) }

		a := g.DoChan(caller(1), "k", func(context.Context) (int, error) { time.Sleep(time.Second); return 1, nil })
		require.Equal(t, []string{"1 start k"}, log.take())
		ctx, leave := context.WithCancel(caller(2))
		b := g.DoChan(ctx, "k", mustNotRun)
		c := g.DoChan(caller(3), "k", mustNotRun)
		require.Equal(t, []string{"2 join k 2", "3 join k 3"}, log.take())
		leave()
		<-b
		require.Equal(t, []string{"2 leave k 2"}, log.take())
		<-a
		<-c
		require.Equal(t, []string{"1 done k 2 1s <nil>"}, log.take())

		_, err := g.Do(context.WithValue(context.Background(), traceKey{}, 4), "inline", func(context.Context) (int, error) { return 0, errWork })
		require.ErrorIs(t, err, errWork)
		require.Equal(t, []string{"4 start inline", "4 done inline 1 0s work failed"}, log.take())
	})
}

func TestTraceTellsOfAPanicThatReachesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log traceLog
		g := coalesce.Group[string, int]{Trace: log.trace()}
		ctx, leave := context.WithCancel(context.WithValue(t.Context(), traceKey{}, 1))
		a := g.DoChan(ctx, "k", func(ctx context.Context) (int, error) { <-ctx.Done(); panic(errWork) })
		synctest.Wait()
		leave()
		<-a
		require.Equal(t, []string{"1 start k", "1 leave k 0", "1 done k 0 0s panic work failed"}, log.take())
	})
}

func TestTraceTellsBothExecutionsWhenTheStarterDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log traceLog
		g := coalesce.Group[string, int]{Trace: log.trace()}
		ctx, leave := context.WithCancel(context.WithValue(t.Context(), traceKey{}, 1))
		finish := make(chan struct{})
		a := g.DoChan(ctx, "k", func(context.Context) (int, error) { <-finish; return 0, ctx.Err() })
		synctest.Wait()
		b := g.DoChan(context.WithValue(t.Context(), traceKey{}, 2), "k", func(context.Context) (int, error) { return 2, nil })
		leave()
		<-a
		close(finish)
		require.Equal(t, 2, (<-b).Val)
		require.ElementsMatch(t, []string{
			"1 start k", "2 join k 2", "1 leave k 1", "1 done k 0 0s context canceled",
			"2 start k", "2 done k 1 0s <nil>",
		}, log.take())
	})
}

func TestTraceWithoutHooksIsNoTrace(t *testing.T) {
	g := coalesce.Group[string, int]{Trace: &coalesce.Trace[string]{}}
	for name, do := range doers {
		require.Equal(t, 1, do(&g, t.Context(), "k", func(context.Context) (int, error) { return 1, nil }).Val, name)
	}
}

// A refused caller has joined nobody and leaves nobody.
func TestTraceTellsNothingOfARefusedCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log traceLog
		g := coalesce.Group[string, int]{Trace: log.trace()}
		_, err := g.Do(context.WithValue(t.Context(), traceKey{}, 1), "k", func(ctx context.Context) (int, error) {
			return g.Do(ctx, "k", mustNotRun)
		})
		require.ErrorIs(t, err, coalesce.ErrReentrant)
		require.Equal(t, []string{"1 start k", "1 done k 1 0s coalesce: the work asks for its own key"}, log.take())
	})
}
