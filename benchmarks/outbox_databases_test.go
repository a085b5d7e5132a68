package benchmarks

import (
	"context"
	"database/sql"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/mysql"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

func mariaDB(t testing.TB) *sql.DB { return openDB(t, "mysql", testserver.MySQLDSN(t)) }

func sqliteDB(t testing.TB) *sql.DB {
	return openDB(t, "sqlite", "file:"+filepath.Join(t.TempDir(), "bench.db")+
		"?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_txlock=immediate")
}

// databaseQueues are ours and the bare claim loop.
func databaseQueues(t testing.TB, db *sql.DB, d outbox.Dialect, f floor) []queue {
	_, err := db.ExecContext(t.Context(), f.create)
	require.NoError(t, err)
	const rows = 10_000
	return []queue{
		ourQueue("evenkeel", db, newBox(t, db, d, outbox.Options{}), rows),
		floorQueue("floor-claim-tx", db, rows, rawValues, claimTx(f)),
	}
}

// On MariaDB, draining is at least three fifths as fast as the bare loop.
func TestRatioOutboxMariaDB(t *testing.T) {
	db := mariaDB(t)
	costs := interleaved(t, 5, databaseQueues(t, db, mysql.Dialect{}, mysqlFloor)...)
	atMost(t, 3, costs, "evenkeel", "floor-claim-tx")
	writersSeeNoErrors(t, db, mysql.Dialect{})
}

// On SQLite, at least half as fast.
func TestRatioOutboxSQLite(t *testing.T) {
	db := sqliteDB(t)
	costs := interleaved(t, 5, databaseQueues(t, db, sqlite.Dialect{}, sqliteFloor)...)
	atMost(t, 4, costs, "evenkeel", "floor-claim-tx")
	writersSeeNoErrors(t, db, sqlite.Dialect{})
}

// writersSeeNoErrors has four writers beside two drainers: no deadlock and no
// busy database reaches anybody.
func writersSeeNoErrors(t *testing.T, db *sql.DB, d outbox.Dialect) {
	const writers, each = 4, 250
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	var mu sync.Mutex
	seen := map[string]bool{}
	var drains, writes sync.WaitGroup
	for range 2 {
		box := newBox(t, db, d, outbox.Options{PollMin: time.Millisecond, PollMax: 10 * time.Millisecond})
		drains.Go(func() {
			require.NoError(t, box.Run(ctx, db, outbox.PublisherFunc(func(_ context.Context, m outbox.Message) error {
				mu.Lock()
				defer mu.Unlock()
				if seen[m.Type] = true; len(seen) == writers*each {
					stop()
				}
				return nil
			})))
		})
	}
	box := newBox(t, db, d, outbox.Options{})
	waits := make([]cost, writers*each)
	for w := range writers {
		writes.Go(func() {
			for i := w * each; i < (w+1)*each; i++ {
				started := time.Now()
				inTx(t, db, func(tx *sql.Tx) {
					require.NoError(t, box.Add(t.Context(), tx, outbox.Message{Topic: "orders", Key: strconv.Itoa(i % 20), Type: strconv.Itoa(i), Payload: payload}))
				})
				waits[i].ns = float64(time.Since(started))
			}
		})
	}
	writes.Wait()
	drains.Wait()
	require.Len(t, seen, writers*each)
	slowest := 0.0
	for _, w := range waits {
		slowest = max(slowest, w.ns)
	}
	t.Logf("%d transactions of %d writers beside 2 drainers: no errors, p50 %v, slowest %v", writers*each, writers,
		time.Duration(median(waits).ns).Round(time.Microsecond), time.Duration(slowest).Round(time.Microsecond))
}

// BenchmarkOutboxDrainOn drains the other databases.
func BenchmarkOutboxDrainOn(b *testing.B) {
	for name, queues := range map[string][]queue{
		"mariadb": databaseQueues(b, mariaDB(b), mysql.Dialect{}, mysqlFloor),
		"sqlite":  databaseQueues(b, sqliteDB(b), sqlite.Dialect{}, sqliteFloor),
	} {
		for _, q := range queues {
			b.Run("impl="+q.name+"/database="+name, func(b *testing.B) { benchmarkQueue(b, q) })
		}
	}
}
