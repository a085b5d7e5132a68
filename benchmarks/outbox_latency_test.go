package benchmarks

import (
	"context"
	"database/sql"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/postgres"
)

// TestRatioOutboxLatency prints the time from the end of a commit to the call of
// the Publisher, at 1,000 messages per second from four writers, each of which
// calls Wake. It has no peer and no limit: the machine's pauses are in it.
func TestRatioOutboxLatency(t *testing.T) {
	db := openDB(t, "pgx", postgresDSN(t))
	box := newBox(t, db, postgres.Dialect{}, outbox.Options{})
	const n, writers = 4000, 4
	committed, published := make([]time.Time, n), make([]time.Time, n)
	commits := make([]time.Duration, n)
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	var seen atomic.Int64
	var drains, writes sync.WaitGroup
	drains.Go(func() {
		require.NoError(t, box.Run(ctx, db, outbox.PublisherFunc(func(_ context.Context, m outbox.Message) error {
			now := time.Now()
			i, err := strconv.Atoi(m.Type)
			if err != nil {
				return outbox.Permanent(err)
			}
			published[i] = now
			if seen.Add(1) == n {
				stop()
			}
			return nil
		})))
	})
	started := time.Now()
	for w := range writers {
		writes.Go(func() {
			for i := w; i < n; i += writers {
				at := time.NewTimer(time.Until(started.Add(time.Duration(i) * time.Millisecond)))
				<-at.C
				began := time.Now()
				inTx(t, db, func(tx *sql.Tx) {
					require.NoError(t, box.Add(t.Context(), tx, outbox.Message{Topic: "orders", Key: strconv.Itoa(i), Type: strconv.Itoa(i), Payload: payload}))
				})
				committed[i] = time.Now()
				commits[i] = time.Since(began)
				box.Wake()
			}
		})
	}
	writes.Wait()
	took := time.Since(started)
	drains.Wait()
	require.EqualValues(t, n, seen.Load())
	waits := make([]time.Duration, n)
	for i := range waits {
		waits[i] = max(0, published[i].Sub(committed[i])) // may be seen before the writer is told
	}
	for what, times := range map[string][]time.Duration{
		"commit to publish":                           waits,
		"the transactions of the writers, to compare": commits,
	} {
		slices.Sort(times)
		t.Logf("%s at %.0f messages/s: p50 %v, p99 %v, max %v", what, n/took.Seconds(), times[n/2], times[n*99/100], times[n-1])
	}
}
