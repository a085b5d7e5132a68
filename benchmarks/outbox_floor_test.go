package benchmarks

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

const floorBatch = 100

// A floor is what the bare loops need to know about a database.
type floor struct {
	create  string // the table raw_messages
	skip    string // the end of a SELECT that takes the rows
	deleted func(ids []int64) (query string, args []any)
	tx      *sql.TxOptions
}

// rawColumns are those of outbox_messages but for the id, which is first.
const rawColumns = `topic, message_key, type, payload, header, deliver_at`

const rawSelect = `SELECT id, topic, message_key, type, payload, header, created_at, deliver_at FROM raw_messages`

var postgresFloor = floor{
	create: `CREATE TABLE IF NOT EXISTS raw_messages (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, bucket smallint NOT NULL DEFAULT 0,
topic text NOT NULL, message_key text NOT NULL, type text NOT NULL, payload bytea NOT NULL, header text NOT NULL, deliver_at bigint NOT NULL,
created_at bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)`,
	skip: ` FOR UPDATE SKIP LOCKED`,
	deleted: func(ids []int64) (string, []any) {
		return `DELETE FROM raw_messages WHERE id = ANY($1)`, []any{ids}
	},
}

var mysqlFloor = floor{
	create: `CREATE TABLE IF NOT EXISTS raw_messages (id bigint PRIMARY KEY AUTO_INCREMENT, bucket smallint NOT NULL DEFAULT 0,
topic varchar(255) NOT NULL, message_key varchar(255) NOT NULL, type varchar(255) NOT NULL, payload longblob NOT NULL, header text NOT NULL,
deliver_at bigint NOT NULL, created_at bigint NOT NULL DEFAULT 0)`,
	skip: ` FOR UPDATE SKIP LOCKED`,
	deleted: func(ids []int64) (string, []any) {
		return `DELETE FROM raw_messages WHERE id IN (` + joined(ids) + `)`, nil
	},
	tx: &sql.TxOptions{Isolation: sql.LevelReadCommitted},
}

var sqliteFloor = floor{
	create: `CREATE TABLE IF NOT EXISTS raw_messages (id INTEGER PRIMARY KEY AUTOINCREMENT, bucket INTEGER NOT NULL DEFAULT 0,
topic TEXT NOT NULL, message_key TEXT NOT NULL, type TEXT NOT NULL, payload BLOB NOT NULL, header TEXT NOT NULL,
deliver_at INTEGER NOT NULL, created_at INTEGER NOT NULL DEFAULT 0) STRICT`,
	deleted: func(ids []int64) (string, []any) {
		return `DELETE FROM raw_messages WHERE id IN (SELECT value FROM json_each(?))`, []any{"[" + joined(ids) + "]"}
	},
}

func joined(ids []int64) string {
	var b []byte
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, id, 10)
	}
	return string(b)
}

// rawQueue is a bare loop: no lease, no fence, no order of keys, no retries.
func rawQueue(t testing.TB, name string, db *sql.DB, loop func(context.Context, *sql.DB) (int, error)) queue {
	_, err := db.ExecContext(t.Context(), postgresFloor.create)
	require.NoError(t, err)
	return floorQueue(name, db, 20_000, func(t testing.TB, tx *sql.Tx, msgs []outbox.Message) { rawUnnest(t, tx, msgs) }, loop)
}

func floorQueue(name string, db *sql.DB, rows int, insert func(testing.TB, *sql.Tx, []outbox.Message), loop func(context.Context, *sql.DB) (int, error)) queue {
	msgs := messages(rows)
	return queue{
		name: name, rows: rows,
		fill: func(t testing.TB, n int) {
			inTx(t, db, func(tx *sql.Tx) {
				for i := 0; i < n; i += floorBatch {
					insert(t, tx, msgs[i:min(n, i+floorBatch)])
				}
			})
		},
		drain: func(t testing.TB, n int, done func()) {
			drained, err := loop(t.Context(), db)
			done()
			require.NoError(t, err)
			require.Equal(t, n, drained)
		},
	}
}

// readRaw scans all columns of raw_messages.
func readRaw(rows *sql.Rows, err error) ([]outbox.Message, []int64, error) {
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = rows.Close() }()
	msgs, ids := make([]outbox.Message, 0, floorBatch), make([]int64, 0, floorBatch)
	for rows.Next() {
		msgs = append(msgs, outbox.Message{})
		m := &msgs[len(msgs)-1]
		var header string
		var createdAt, deliverAt int64
		if err := rows.Scan(&m.ID, &m.Topic, &m.Key, &m.Type, &m.Payload, &header, &createdAt, &deliverAt); err != nil {
			return nil, nil, err
		}
		ids = append(ids, m.ID)
	}
	return msgs, ids, rows.Err()
}

// ackFetch deletes the batch before and reads the next one in one statement.
func ackFetch(ctx context.Context, db *sql.DB) (total int, err error) {
	acked := []int64{}
	for {
		// The statement does not see what it deletes itself.
		rows, err := db.QueryContext(ctx, `WITH d AS (DELETE FROM raw_messages WHERE id = ANY($1)) `+rawSelect+
			` WHERE id > $2 AND id <> ALL($1) ORDER BY id LIMIT 100`, acked, int64(0))
		msgs, ids, err := readRaw(rows, err)
		if err != nil || len(msgs) == 0 {
			return total, err
		}
		discard{}.Publish(ctx, msgs)
		total += len(msgs)
		acked = ids
	}
}

// claimTx selects for update, publishes and deletes in one transaction.
func claimTx(f floor) func(context.Context, *sql.DB) (int, error) {
	once := func(ctx context.Context, db *sql.DB) (int, error) {
		tx, err := db.BeginTx(ctx, f.tx)
		if err != nil {
			return 0, err
		}
		defer func() { _ = tx.Rollback() }()
		rows, err := tx.QueryContext(ctx, rawSelect+` ORDER BY id LIMIT 100`+f.skip)
		msgs, ids, err := readRaw(rows, err)
		if err != nil || len(msgs) == 0 {
			return 0, err
		}
		discard{}.Publish(ctx, msgs)
		query, args := f.deleted(ids)
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return 0, err
		}
		return len(msgs), tx.Commit()
	}
	return func(ctx context.Context, db *sql.DB) (total int, err error) {
		for {
			n, err := once(ctx, db)
			total += n
			if err != nil || n == 0 {
				return total, err
			}
		}
	}
}

// rawInsert is one bare INSERT.
func rawInsert(t testing.TB, tx *sql.Tx, m outbox.Message) {
	_, err := tx.ExecContext(t.Context(), `INSERT INTO raw_messages (`+rawColumns+`) VALUES ($1, $2, $3, $4, $5, $6)`, m.Topic, m.Key, m.Type, m.Payload, "", int64(0))
	require.NoError(t, err)
}

// rawUnnest is one INSERT of many rows from one array a column.
func rawUnnest(t testing.TB, tx *sql.Tx, msgs []outbox.Message) {
	n := len(msgs)
	topics, keys, types, headers := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	payloads, times := make([][]byte, n), make([]int64, n)
	for i, m := range msgs {
		topics[i], keys[i], types[i], payloads[i] = m.Topic, m.Key, m.Type, m.Payload
	}
	_, err := tx.ExecContext(t.Context(), `INSERT INTO raw_messages (`+rawColumns+`)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::bigint[])`, topics, keys, types, payloads, headers, times)
	require.NoError(t, err)
}

// rawValues is one INSERT of many rows with a parameter for each value.
func rawValues(t testing.TB, tx *sql.Tx, msgs []outbox.Message) {
	args := make([]any, 0, 4*len(msgs))
	for _, m := range msgs {
		args = append(args, m.Topic, m.Key, m.Type, m.Payload)
	}
	_, err := tx.ExecContext(t.Context(), `INSERT INTO raw_messages (`+rawColumns+`) VALUES (?, ?, ?, ?, '', 0)`+
		strings.Repeat(`, (?, ?, ?, ?, '', 0)`, len(msgs)-1), args...)
	require.NoError(t, err)
}
