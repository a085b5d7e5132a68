package benchmarks

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/postgres"
)

// TestRatioOutboxHeldSnapshot: somebody reads in one long transaction, such as a
// backup, so that the server can clean up nothing. All take turns beside it; the
// slope is the rate of the fifth round as a part of the first.
func TestRatioOutboxHeldSnapshot(t *testing.T) {
	dsn := postgresDSN(t)
	db, pool := openDB(t, "pgx", dsn), newPool(t, dsn)
	const rows, rounds = 20_000, 5
	queues := []queue{
		ourQueue("evenkeel", db, newBox(t, db, postgres.Dialect{}, outbox.Options{}), rows),
		rawQueue(t, "floor-ack-fetch", db, ackFetch),
		riverQueue(t, pool, 10_000),
	}
	holder, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	require.NoError(t, err)
	require.NoError(t, holder.QueryRowContext(t.Context(), `SELECT count(*) FROM raw_messages`).Scan(new(int)))

	costs := map[string][]cost{}
	for range rounds {
		for _, q := range queues {
			costs[q.name] = append(costs[q.name], q.next(t))
		}
	}
	require.NoError(t, holder.Rollback())
	slope := func(name string) float64 { return costs[name][0].ns / costs[name][rounds-1].ns }
	for _, q := range queues {
		t.Logf("%-16s slope %.2f", q.name, slope(q.name))
		for i, c := range costs[q.name] {
			t.Logf("%-16s round %d %v", q.name, i+1, c)
		}
	}
	require.Greater(t, slope("evenkeel"), 0.4)
}
