package benchmarks

import (
	"database/sql"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/stretchr/testify/require"
	"github.com/vgarvardt/gue/v5"
	"github.com/vgarvardt/gue/v5/adapter/pgxv5"

	"github.com/evenkeel-go/evenkeel/benchmarks/ratio"
	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/postgres"
)

// TestRatioOutboxAdd: what a message costs inside the transaction of its change.
// The commit is shared by all messages of a slice, so it hardly counts.
func TestRatioOutboxAdd(t *testing.T) {
	dsn := postgresDSN(t)
	db, pool := openDB(t, "pgx", dsn), newPool(t, dsn)
	box := newBox(t, db, postgres.Dialect{}, outbox.Options{})
	_, err := db.ExecContext(t.Context(), postgresFloor.create)
	require.NoError(t, err)
	inserter, err := river.NewClient(migrateRiver(t, pool), &river.Config{})
	require.NoError(t, err)
	gueClient := migrateGue(t, pool)
	schema := watermillSchema(100)
	watermillQueue(t, pool, 100) // creates the tables

	many := messages(100)
	each := func(f func(*sql.Tx)) ratio.Op {
		return func(n int) {
			inTx(t, db, func(tx *sql.Tx) {
				for range n {
					f(tx)
				}
			})
		}
	}
	eachPgx := func(f func(pgx.Tx)) ratio.Op {
		return func(n int) {
			inPgx(t, pool, func(tx pgx.Tx) {
				for range n {
					f(tx)
				}
			})
		}
	}
	ours := each(func(tx *sql.Tx) { require.NoError(t, box.Add(t.Context(), tx, many[0])) })
	jobs := riverJobs(100)
	for _, c := range []struct {
		name       string
		limit      float64
		ours, peer ratio.Op
	}{
		{"Add, against INSERT", 2, ours, each(func(tx *sql.Tx) { rawInsert(t, tx, many[0]) })},
		{
			"Add of 100, against INSERT of unnest", 3,
			each(func(tx *sql.Tx) { require.NoError(t, box.Add(t.Context(), tx, many...)) }),
			each(func(tx *sql.Tx) { rawUnnest(t, tx, many) }),
		},
		{"Add, against River", 1.5, ours, eachPgx(func(tx pgx.Tx) {
			_, err := inserter.InsertTx(t.Context(), tx, jobs[0].Args, nil)
			require.NoError(t, err)
		})},
		{
			"Add of 100, against River's fast insert", 1.5,
			each(func(tx *sql.Tx) { require.NoError(t, box.Add(t.Context(), tx, many...)) }),
			eachPgx(func(tx pgx.Tx) {
				_, err := inserter.InsertManyFastTx(t.Context(), tx, jobs)
				require.NoError(t, err)
			}),
		},
		{"Add, against watermill", 3, ours, eachPgx(func(tx pgx.Tx) { watermillPublish(t, tx, schema, "watermill_100", 1) })},
		{"Add, against gue", 3, ours, eachPgx(func(tx pgx.Tx) {
			require.NoError(t, gueClient.EnqueueTx(t.Context(), &gue.Job{Type: "order.paid", Args: payload}, pgxv5.NewTx(tx)))
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			ratio.AtMostSlices(t, c.limit, c.ours, c.peer, 20*time.Millisecond, 41)
			_, err := db.ExecContext(t.Context(), `TRUNCATE raw_messages, outbox_messages, river_job, gue_jobs`)
			require.NoError(t, err)
		})
	}
}
