package benchmarks

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	watermillsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/stretchr/testify/require"
	"github.com/vgarvardt/gue/v5"
	"github.com/vgarvardt/gue/v5/adapter/pgxv5"
)

// The peers run on native pgx, which is faster than database/sql, with the
// settings that were fastest on the machine of the research page, not their
// defaults.

func newPool(t testing.TB, dsn string) *pgxpool.Pool {
	config, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err)
	config.MaxConns = 8
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func inPgx(t testing.TB, pool *pgxpool.Pool, f func(pgx.Tx)) {
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	f(tx)
	require.NoError(t, tx.Commit(t.Context()))
}

// countdown calls done at the n-th call, and closes a channel.
func countdown(n int, done func()) (step func(), all chan struct{}) {
	var seen atomic.Int64
	all = make(chan struct{})
	return func() {
		if seen.Add(1) == int64(n) {
			done()
			close(all)
		}
	}, all
}

// patience bounds a drain that hangs. It measures nothing.
const patience = 2 * time.Minute

func await(t testing.TB, all chan struct{}, name string) {
	select {
	case <-all:
	case <-time.After(patience):
		require.Fail(t, name+" does not drain")
	}
}

type riverArgs struct {
	Payload string `json:"payload"`
}

func (riverArgs) Kind() string { return "order.paid" }

func riverJobs(n int) []river.InsertManyParams {
	jobs := make([]river.InsertManyParams, n)
	for i := range jobs {
		jobs[i].Args = riverArgs{string(textPayload)}
	}
	return jobs
}

// textPayload is for peers that want JSON.
var textPayload = func() []byte {
	b := make([]byte, len(payload))
	for i := range b {
		b[i] = 'x'
	}
	return b
}()

func migrateRiver(t testing.TB, pool *pgxpool.Pool) *riverpgxv5.Driver {
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	_, err = migrator.Migrate(t.Context(), rivermigrate.DirectionUp, nil)
	require.NoError(t, err)
	return driver
}

// riverQueue asks for jobs as often as River allows. By default it waits 100 ms
// between two fetches. 10,000 workers are its limit.
func riverQueue(t testing.TB, pool *pgxpool.Pool, maxWorkers int) queue {
	driver := migrateRiver(t, pool)
	inserter, err := river.NewClient(driver, &river.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	const rows = 10_000
	jobs := riverJobs(rows)
	return queue{
		name: fmt.Sprintf("river-%d", maxWorkers), rows: rows,
		clean: func(t testing.TB) {
			_, err := pool.Exec(t.Context(), `TRUNCATE river_job`)
			require.NoError(t, err)
		},
		fill: func(t testing.TB, n int) {
			inPgx(t, pool, func(tx pgx.Tx) {
				_, err := inserter.InsertManyFastTx(t.Context(), tx, jobs[:n])
				require.NoError(t, err)
			})
		},
		drain: func(t testing.TB, n int, done func()) {
			step, all := countdown(n, done)
			workers := river.NewWorkers()
			river.AddWorker(workers, river.WorkFunc(func(context.Context, *river.Job[riverArgs]) error {
				step()
				return nil
			}))
			client, err := river.NewClient(driver, &river.Config{
				Logger: slog.New(slog.DiscardHandler), Workers: workers,
				Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: maxWorkers}},
				FetchCooldown: time.Millisecond, FetchPollInterval: 20 * time.Millisecond,
			})
			require.NoError(t, err)
			require.NoError(t, client.Start(t.Context()))
			await(t, all, "river")
			require.NoError(t, client.Stop(t.Context()))
		},
	}
}

// watermillSchema keeps bytes, as ours does.
func watermillSchema(batch int) watermillsql.DefaultPostgreSQLSchema {
	return watermillsql.DefaultPostgreSQLSchema{
		GeneratePayloadType: func(string) string { return "BYTEA" }, SubscribeBatchSize: batch,
	}
}

func watermillPublish(t testing.TB, tx pgx.Tx, schema watermillsql.SchemaAdapter, topic string, n int) {
	publisher, err := watermillsql.NewPublisher(watermillsql.TxFromPgx(tx), watermillsql.PublisherConfig{SchemaAdapter: schema}, watermill.NopLogger{})
	require.NoError(t, err)
	msgs := make([]*message.Message, n)
	for i := range msgs {
		msgs[i] = message.NewMessage(watermill.NewUUID(), payload)
	}
	require.NoError(t, publisher.Publish(topic, msgs...))
}

// watermillQueue is one subscriber. The default batch is 100.
func watermillQueue(t testing.TB, pool *pgxpool.Pool, batch int) queue {
	return watermillQueueOn(t, pool, watermillsql.BeginnerFromPgx(pool), fmt.Sprintf("watermill-%d", batch), batch)
}

// watermillQueueOnSQL is the same on database/sql.
func watermillQueueOnSQL(t testing.TB, pool *pgxpool.Pool, db *sql.DB, batch int) queue {
	return watermillQueueOn(t, pool, watermillsql.BeginnerFromStdSQL(db), fmt.Sprintf("watermill-%d-sql", batch), batch)
}

func watermillQueueOn(t testing.TB, pool *pgxpool.Pool, db watermillsql.Beginner, name string, batch int) queue {
	schema := watermillSchema(batch)
	topic := strings.ReplaceAll(name, "-", "_")
	subscribe := func(t testing.TB) (*watermillsql.Subscriber, <-chan *message.Message) {
		subscriber, err := watermillsql.NewSubscriber(db, watermillsql.SubscriberConfig{
			ConsumerGroup: "bench", SchemaAdapter: schema, OffsetsAdapter: watermillsql.DefaultPostgreSQLOffsetsAdapter{},
			PollInterval: time.Millisecond, InitializeSchema: true,
		}, watermill.NopLogger{})
		require.NoError(t, err)
		msgs, err := subscriber.Subscribe(t.Context(), topic)
		require.NoError(t, err)
		return subscriber, msgs
	}
	subscriber, _ := subscribe(t) // creates the tables
	require.NoError(t, subscriber.Close())
	return queue{
		name: name, rows: 10_000,
		fill: func(t testing.TB, n int) {
			inPgx(t, pool, func(tx pgx.Tx) {
				for range n / 100 {
					watermillPublish(t, tx, schema, topic, 100)
				}
			})
		},
		drain: func(t testing.TB, n int, done func()) {
			step, all := countdown(n, done)
			subscriber, msgs := subscribe(t)
			var consumer sync.WaitGroup
			consumer.Go(func() {
				for m := range msgs {
					m.Ack()
					step()
				}
			})
			await(t, all, "watermill")
			require.NoError(t, subscriber.Close())
			consumer.Wait()
		},
	}
}

func migrateGue(t testing.TB, pool *pgxpool.Pool) *gue.Client {
	_, err := pool.Exec(t.Context(), `CREATE TABLE IF NOT EXISTS gue_jobs (job_id text NOT NULL PRIMARY KEY, priority smallint NOT NULL, run_at timestamptz NOT NULL,
job_type text NOT NULL, args bytea NOT NULL, error_count integer NOT NULL DEFAULT 0, last_error text, queue text NOT NULL,
created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
CREATE INDEX IF NOT EXISTS idx_gue_jobs_selector ON gue_jobs (queue, run_at, priority)`)
	require.NoError(t, err)
	client, err := gue.NewClient(pgxv5.NewConnPool(pool))
	require.NoError(t, err)
	return client
}

// gueQueue has eight workers, each with a transaction a message.
func gueQueue(t testing.TB, pool *pgxpool.Pool) queue {
	client := migrateGue(t, pool)
	return queue{
		name: "gue", rows: 1000,
		fill: func(t testing.TB, n int) {
			jobs := make([]*gue.Job, n)
			for i := range jobs {
				jobs[i] = &gue.Job{Type: "order.paid", Args: payload}
			}
			inPgx(t, pool, func(tx pgx.Tx) {
				require.NoError(t, client.EnqueueBatchTx(t.Context(), jobs, pgxv5.NewTx(tx)))
			})
		},
		drain: func(t testing.TB, n int, done func()) {
			step, all := countdown(n, done)
			workers, err := gue.NewWorkerPool(client, gue.WorkMap{"order.paid": func(context.Context, *gue.Job) error {
				step()
				return nil
			}}, 8, gue.WithPoolPollInterval(time.Millisecond))
			require.NoError(t, err)
			ctx, stop := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { _ = workers.Run(ctx) }) // says that ctx ended
			await(t, all, "gue")
			stop()
			running.Wait()
		},
	}
}
