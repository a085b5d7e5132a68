package peerbugs_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

const callers = 200

// Of a million calls for a hot key none receives the result of a flight that had
// landed before the call began, as Trace.Done tells; so none receives one that
// somebody had received. The peers are counted. Caches are slow at that, and get a
// tenth of the calls.
func TestStaleness(t *testing.T) {
	calls := 5000 // of each caller
	if testing.Short() {
		calls = 500
	}
	var landed atomic.Int64
	g := coalesce.Group[string, int]{Trace: &coalesce.Trace[string]{
		Done: func(_ context.Context, _ string, l coalesce.Landing) { raise(&landed, int64(l.Err.(execution))) },
	}}
	received, old := stale(flight{do: g.Do}, callers, calls, &landed)
	require.Zero(t, old)
	require.Zero(t, received)
	stats := g.Stats()
	require.EqualValues(t, callers*calls, stats.Executions+stats.Joined)
	t.Logf("evenkeel Group: of %d results 0 are of a flight that had landed; %d executions", callers*calls, stats.Executions)

	for _, f := range flights {
		calls := calls
		if f.make().forget == nil {
			calls /= 10
		}
		received, returned := stale(f.make(), callers, calls, nil)
		t.Logf("%s: of %d results %d had been received before the call, and of %d the work had returned", f.name, callers*calls, received, returned)
		if ours(f.name) {
			require.Zero(t, received)
		}
	}
}

// execution is a result as an error, which a cache does not keep: the number of the
// execution that it is from.
type execution int64

func (execution) Error() string { return "an execution" }

// stale counts the calls for one key that got an old result: one that somebody had
// received before the call began; and one of an execution that had ended by then. What
// has ended is told by whoever counts ended, or if that is nil by the work when it
// returns. For the latter a library has an excuse, as it cannot remove a flight before.
func stale(f flight, callers, calls int, ended *atomic.Int64) (oldReceived, oldEnded int64) {
	told := ended != nil
	if !told {
		ended = new(atomic.Int64)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var executions, received, ofReceived, ofEnded atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range calls {
				receivedBefore, endedBefore := received.Load(), ended.Load()
				_, err := f.do(ctx, "hot", func(context.Context) (int, error) {
					n := executions.Add(1)
					for range 20 {
						runtime.Gosched()
					}
					if !told {
						raise(ended, n)
					}
					return 0, execution(n)
				})
				var from execution // none is as old as can be
				_ = errors.As(err, &from)
				if int64(from) <= receivedBefore {
					ofReceived.Add(1)
				}
				if int64(from) <= endedBefore {
					ofEnded.Add(1)
				}
				raise(&received, int64(from))
			}
		})
	}
	all.Wait()
	return ofReceived.Load(), ofEnded.Load()
}

func raise(to *atomic.Int64, n int64) {
	for old := to.Load(); n > old && !to.CompareAndSwap(old, n); old = to.Load() {
	}
}
