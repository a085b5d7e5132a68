// Package shard_test runs package shard and gather on real databases.
package shard_test

import (
	"database/sql"
	"encoding/hex"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/ncruces/go-sqlite3/driver"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/shard"
)

// databases are those on which a condition of Range.SQL must mean the same.
var databases = map[string]func(testing.TB) *sql.DB{
	"postgres": func(t testing.TB) *sql.DB { return open(t, "pgx", testserver.PostgresDSN(t)) },
	"mariadb":  func(t testing.TB) *sql.DB { return open(t, "mysql", testserver.MySQLDSN(t)) },
	"ncruces":  func(t testing.TB) *sql.DB { return open(t, "sqlite3", sqliteFile(t)) },
	"modernc":  func(t testing.TB) *sql.DB { return open(t, "sqlite", sqliteFile(t)) },
}

func open(t testing.TB, driver, dsn string) *sql.DB {
	db, err := sql.Open(driver, dsn)
	require.NoError(t, err)
	db.SetMaxIdleConns(32) // a scatter uses many at once, and to connect takes longer than to ask
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func sqliteFile(t testing.TB) string {
	return "file:" + filepath.Join(t.TempDir(), "test.db") + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(off)&_txlock=immediate"
}

func exec(t require.TestingT, db *sql.DB, query string, args ...any) {
	_, err := db.Exec(query, args...)
	require.NoError(t, err, query)
}

func column[T any](t require.TestingT, db *sql.DB, query string, args ...any) []T {
	rows, err := db.Query(query, args...)
	require.NoError(t, err, query)
	defer rows.Close()
	var all []T
	for rows.Next() {
		var v T
		require.NoError(t, rows.Scan(&v))
		all = append(all, v)
	}
	require.NoError(t, rows.Err())
	return all
}

// Go's hashes are the server's for any key.
func TestHashesArePostgreSQLs(t *testing.T) {
	db := databases["postgres"](t)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.Custom(func(t *rapid.T) string { return strings.ReplaceAll(rapid.String().Draw(t, "text"), "\x00", "") })
		texts := rapid.SliceOfN(text, 1, 50).Draw(t, "texts")
		var want []int64
		for _, v := range texts {
			want = append(want, shard.PGText(v).Int64())
		}
		require.Equal(t, want, column[int64](t, db, `SELECT hashtextextended(v, 0) FROM unnest($1::text[]) WITH ORDINALITY AS x(v, n) ORDER BY n`, texts))

		numbers := rapid.SliceOfN(rapid.OneOf(rapid.Int64(), rapid.Map(rapid.Int32(), func(v int32) int64 { return int64(v) })), 1, 50).Draw(t, "numbers")
		want = nil
		for _, v := range numbers {
			want = append(want, shard.PGInt8(v).Int64())
			if int64(int32(v)) == v {
				require.Equal(t, []int64{shard.PGInt8(v).Int64()}, column[int64](t, db, `SELECT hashint4extended($1::int4, 0)`, v))
			}
		}
		require.Equal(t, want, column[int64](t, db, `SELECT hashint8extended(v, 0) FROM unnest($1::int8[]) WITH ORDINALITY AS x(v, n) ORDER BY n`, numbers))

		id := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
		require.Equal(t, []int64{shard.PGUUID(id).Int64()}, column[int64](t, db, `SELECT uuid_hash_extended($1::uuid, 0)`, hex.EncodeToString(id[:])))
	})
}

// A condition of Range.SQL selects exactly the rows that Contains holds of, on every
// database, by an index or without.
func TestRangeSQLSelectsWhatContains(t *testing.T) {
	for name, connect := range databases {
		t.Run(name, func(t *testing.T) {
			db := connect(t)
			exec(t, db, `CREATE TABLE points (n INTEGER PRIMARY KEY, h BIGINT)`)
			exec(t, db, `CREATE INDEX points_h ON points (h)`)
			points := []shard.ID{0, 1, 2, 1<<63 - 1, 1 << 63, 1<<63 + 1, math.MaxUint64 - 1, math.MaxUint64}
			for i := range 100 {
				points = append(points, shard.XXHash(fmt.Sprint(i)))
			}
			for i, id := range points {
				exec(t, db, fmt.Sprintf(`INSERT INTO points VALUES (%d, %d)`, i, id.Int64()))
			}
			exec(t, db, `INSERT INTO points VALUES (-1, NULL)`)
			rapid.Check(t, func(t *rapid.T) {
				limit := rapid.OneOf(rapid.SampledFrom(points), rapid.Map(rapid.Uint64(), func(v uint64) shard.ID { return shard.ID(v) }))
				r := shard.Range{Start: limit.Draw(t, "start"), End: limit.Draw(t, "end")}
				var want []int64
				for i, id := range points {
					if r.Contains(id) {
						want = append(want, int64(i))
					}
				}
				require.Equal(t, want, column[int64](t, db, `SELECT n FROM points WHERE `+r.SQL("h")+` ORDER BY n`), "%v", r)
				require.Equal(t, len(points)+1-len(want), int(column[int64](t, db, `SELECT count(*) FROM points WHERE (`+r.SQL("h")+`) IS NOT TRUE`)[0]), "negated")
			})
		})
	}
}

func TestRedisSlotIsTheServersSlot(t *testing.T) {
	cluster := testserver.StartRedisCluster(t)
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: cluster.Addrs()})
	require.NoError(t, err)
	defer client.Close()
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a{}]{0,9}`)).Draw(t, "key")
		slot, err := client.Do(t.Context(), client.B().ClusterKeyslot().Key(key).Build()).AsInt64()
		require.NoError(t, err)
		require.Equal(t, slot, int64(shard.RedisSlot(key)))
	})
}
