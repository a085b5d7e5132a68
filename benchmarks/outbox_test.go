package benchmarks

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/postgres"
)

// A queue is something that holds messages in a database and can be drained.
type queue struct {
	name string
	rows int // a round: about half a second, so that starting costs little
	// clean, if set, throws away what a queue keeps of messages that are done.
	clean func(t testing.TB)
	// fill commits n messages with a payload of 200 bytes.
	fill func(t testing.TB, n int)
	// drain hands n messages to a consumer that does nothing. It calls done when
	// the consumer has had the last one.
	drain func(t testing.TB, n int, done func())
}

// A cost is what a message takes.
type cost struct {
	ns, allocs float64
}

func (c cost) String() string {
	return fmt.Sprintf("%9.0f rows/s  %6.2f µs/row  %5.1f allocs/row", 1e9/c.ns, c.ns/1000, c.allocs)
}

// round fills and drains once, from a clean start.
func (q queue) round(t testing.TB) cost {
	if q.clean != nil {
		q.clean(t)
	}
	return q.next(t)
}

// next fills and drains once, on top of what was before.
func (q queue) next(t testing.TB) cost {
	q.fill(t, q.rows)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	started := time.Now()
	var took time.Duration
	q.drain(t, q.rows, func() {
		took = time.Since(started)
		runtime.ReadMemStats(&after)
	})
	require.Positive(t, took, q.name)
	return cost{float64(took) / float64(q.rows), float64(after.Mallocs-before.Mallocs) / float64(q.rows)}
}

// interleaved lets the queues take turns, forwards and backwards, and returns
// the costs by name. What slows the machine down for a while slows all.
func interleaved(t testing.TB, rounds int, queues ...queue) map[string][]cost {
	costs := map[string][]cost{}
	for _, q := range queues {
		q.round(t) // warms up
	}
	for range rounds {
		for _, q := range queues {
			costs[q.name] = append(costs[q.name], q.round(t))
		}
		slices.Reverse(queues)
	}
	for _, q := range queues {
		t.Logf("%-22s %v", q.name, median(costs[q.name]))
	}
	return costs
}

func median(costs []cost) cost {
	byTime := slices.SortedFunc(slices.Values(costs), func(a, b cost) int {
		if a.ns < b.ns {
			return -1
		}
		return 1
	})
	return byTime[len(byTime)/2]
}

// ratioOf is the median of the ratios of neighbouring rounds.
func ratioOf(costs map[string][]cost, a, b string) float64 {
	ratios := make([]float64, len(costs[a]))
	for i := range ratios {
		ratios[i] = costs[a][i].ns / costs[b][i].ns
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}

// atMost checks the ratio of times. The limit is wide, the printed ratio is the
// claim.
func atMost(t testing.TB, limit float64, costs map[string][]cost, a, b string) {
	t.Helper()
	r := ratioOf(costs, a, b)
	t.Logf("time of %s / %s: %.3f (%.2f times as fast)", a, b, r, 1/r)
	if r > limit {
		t.Errorf("%s takes %.3f times as long as %s, expected at most %v", a, r, b, limit)
	}
}

// postgresDSN is a server that writes to the disk as one in production does: a
// commit is the price of every step.
func postgresDSN(t testing.TB) string {
	if os.Getenv("EVENKEEL_POSTGRES_DSN") != "" {
		return testserver.PostgresDSN(t)
	}
	return testserver.StartPostgres(t, testserver.PostgresOptions{
		Durable: true, Settings: map[string]string{"shared_buffers": "256MB", "max_wal_size": "4GB", "log_min_messages": "fatal"},
	}).DSN()
}

func openDB(t testing.TB, driver, dsn string) *sql.DB {
	db, err := sql.Open(driver, dsn)
	require.NoError(t, err)
	db.SetMaxIdleConns(16)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func newBox(t testing.TB, db *sql.DB, d outbox.Dialect, o outbox.Options) *outbox.Outbox {
	box, err := outbox.New(d, o)
	require.NoError(t, err)
	require.NoError(t, box.Migrate(t.Context(), db))
	return box
}

// messages are n messages of 200 bytes with a key each.
func messages(n int) []outbox.Message {
	msgs := make([]outbox.Message, n)
	for i := range msgs {
		msgs[i] = outbox.Message{Topic: "orders", Key: "order/" + strconv.Itoa(i), Type: "order.paid", Payload: payload}
	}
	return msgs
}

var payload = make([]byte, 200)

// discard is the consumer.
type discard struct{}

func (discard) Publish(context.Context, []outbox.Message) []error { return nil }

func inTx(t testing.TB, db *sql.DB, f func(*sql.Tx)) {
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	f(tx)
	require.NoError(t, tx.Commit())
}

// ourQueue is package outbox.
func ourQueue(name string, db *sql.DB, box *outbox.Outbox, rows int) queue {
	msgs := messages(rows)
	return queue{
		name: name, rows: rows,
		fill: func(t testing.TB, n int) {
			inTx(t, db, func(tx *sql.Tx) { require.NoError(t, box.Add(t.Context(), tx, msgs[:n]...)) })
		},
		drain: func(t testing.TB, n int, done func()) {
			drained, err := box.Drain(t.Context(), db, discard{})
			done()
			require.NoError(t, err)
			require.Equal(t, n, drained)
		},
	}
}

// postgresQueues are all that run on PostgreSQL, on one server, each in tables
// of its own.
func postgresQueues(t testing.TB) []queue {
	dsn := postgresDSN(t)
	db := openDB(t, "pgx", dsn)
	return append(postgresPeers(t, db, newPool(t, dsn)),
		ourQueue("evenkeel-100", db, newBox(t, db, postgres.Dialect{}, outbox.Options{}), 20_000),
		ourQueue("evenkeel-1000", db, newBox(t, db, postgres.Dialect{}, outbox.Options{Batch: 1000}), 20_000))
}

func postgresPeers(t testing.TB, db *sql.DB, pool *pgxpool.Pool) []queue {
	return []queue{
		rawQueue(t, "floor-ack-fetch", db, ackFetch),
		rawQueue(t, "floor-claim-tx", db, claimTx(postgresFloor)),
		riverQueue(t, pool, 1000),
		riverQueue(t, pool, 10_000),
		watermillQueue(t, pool, 100),
		watermillQueueOnSQL(t, pool, db, 100),
		watermillQueue(t, pool, 1000),
		gueQueue(t, pool),
	}
}

// BenchmarkOutboxDrain drains committed messages with one drainer.
func BenchmarkOutboxDrain(b *testing.B) {
	for _, q := range postgresQueues(b) {
		b.Run("impl="+q.name, func(b *testing.B) { benchmarkQueue(b, q) })
	}
}

func benchmarkQueue(b *testing.B, q queue) {
	var sum cost
	for b.Loop() {
		c := q.round(b)
		sum.ns += c.ns
		sum.allocs += c.allocs
	}
	b.ReportMetric(0, "ns/op") // has the filling in it
	b.ReportMetric(1e9/(sum.ns/float64(b.N)), "rows/s")
	b.ReportMetric(sum.allocs/float64(b.N), "allocs/row")
}

// Draining is several times as fast as the peers at their best settings, and not
// much slower than a bare loop.
func TestRatioOutboxDrain(t *testing.T) {
	costs := interleaved(t, 2, postgresQueues(t)...)
	atMost(t, 3, costs, "evenkeel-100", "floor-ack-fetch")
	atMost(t, 3, costs, "evenkeel-100", "floor-claim-tx")
	for _, ours := range []string{"evenkeel-100", "evenkeel-1000"} {
		atMost(t, 0.5, costs, ours, "river-1000")
		atMost(t, 0.5, costs, ours, "river-10000")
		atMost(t, 0.7, costs, ours, "watermill-100")
		atMost(t, 0.7, costs, ours, "watermill-100-sql")
		atMost(t, 0.1, costs, ours, "gue")
	}
	atMost(t, 2, costs, "evenkeel-1000", "watermill-1000")
	require.LessOrEqual(t, median(costs["evenkeel-100"]).allocs, 12.0)
}
