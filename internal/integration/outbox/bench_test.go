package outbox_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// none accepts everything and does nothing.
type none struct{}

func (none) Publish(context.Context, []outbox.Message) []error { return nil }

// benchMessages are n messages of 200 bytes with a key each.
func benchMessages(n int) []outbox.Message {
	msgs := make([]outbox.Message, n)
	for i := range msgs {
		msgs[i] = outbox.Message{Topic: "orders", Key: "order/" + strconv.Itoa(i), Type: "order.paid", Payload: make([]byte, 200)}
	}
	return msgs
}

func benchOutbox(b *testing.B, driver string, batch int) (*sql.DB, *outbox.Outbox) {
	db := open(b, driver, filepath.Join(b.TempDir(), "bench.db"))
	box, err := outbox.New(sqlite.Dialect{}, outbox.Options{Batch: batch})
	require.NoError(b, err)
	require.NoError(b, box.Migrate(b.Context(), db))
	return db, box
}

// BenchmarkDrain drains 5,000 committed messages to a Publisher that does
// nothing. The floor reads and deletes the same rows in a bare loop, with no
// lease, no fence, no retries and no order.
func BenchmarkDrain(b *testing.B) {
	const rows = 5000
	msgs := benchMessages(rows)
	for _, driver := range []string{"ncruces", "modernc"} {
		for _, batch := range []int{100, 1000} {
			for _, impl := range []string{"floor", "outbox"} {
				b.Run(fmt.Sprintf("impl=%s/driver=%s/batch=%d", impl, driver, batch), func(b *testing.B) {
					db, box := benchOutbox(b, driver, batch)
					b.ReportAllocs()
					n := 0
					for b.Loop() {
						b.StopTimer()
						tx, err := db.BeginTx(b.Context(), nil)
						require.NoError(b, err)
						require.NoError(b, box.Add(b.Context(), tx, msgs...))
						require.NoError(b, tx.Commit())
						b.StartTimer()
						var drained int
						if impl == "floor" {
							drained, err = drainBare(b.Context(), db, batch)
						} else {
							drained, err = box.Drain(b.Context(), db, none{})
						}
						require.NoError(b, err)
						n += drained
					}
					require.Equal(b, b.N*rows, n)
					b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
				})
			}
		}
	}
}

func drainBare(ctx context.Context, db *sql.DB, batch int) (n int, err error) {
	for {
		msgs, err := readBare(ctx, db, batch)
		if err != nil || len(msgs) == 0 {
			return n, err
		}
		ids := make([]int64, len(msgs))
		for i := range msgs {
			ids[i] = msgs[i].ID
		}
		none{}.Publish(ctx, msgs)
		list, err := json.Marshal(ids)
		if err != nil {
			return n, err
		}
		if _, err := db.ExecContext(ctx, `DELETE FROM outbox_messages WHERE id IN (SELECT value FROM json_each(?))`, string(list)); err != nil {
			return n, err
		}
		n += len(msgs)
	}
}

func readBare(ctx context.Context, db *sql.DB, batch int) ([]outbox.Message, error) {
	rows, err := db.QueryContext(ctx, `SELECT id, topic, message_key, type, payload FROM outbox_messages ORDER BY id LIMIT ?`, batch)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	msgs := make([]outbox.Message, 0, batch)
	for rows.Next() {
		var m outbox.Message
		if err := rows.Scan(&m.ID, &m.Topic, &m.Key, &m.Type, &m.Payload); err != nil {
			return nil, err
		}
		msgs = append(msgs, m)
	}
	return msgs, rows.Err()
}

// BenchmarkAdd adds messages in a transaction of their own. The floor is one
// bare INSERT of the same rows.
func BenchmarkAdd(b *testing.B) {
	for _, driver := range []string{"ncruces", "modernc"} {
		for _, n := range []int{1, 100} {
			msgs := benchMessages(n)
			for _, impl := range []string{"floor", "outbox"} {
				b.Run(fmt.Sprintf("impl=%s/driver=%s/messages=%d", impl, driver, n), func(b *testing.B) {
					db, box := benchOutbox(b, driver, 0)
					b.ReportAllocs()
					for b.Loop() {
						tx, err := db.BeginTx(b.Context(), nil)
						require.NoError(b, err)
						if impl == "floor" {
							require.NoError(b, addBare(b.Context(), tx, msgs))
						} else {
							require.NoError(b, box.Add(b.Context(), tx, msgs...))
						}
						require.NoError(b, tx.Commit())
					}
					b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "rows/s")
				})
			}
		}
	}
}

func addBare(ctx context.Context, tx *sql.Tx, msgs []outbox.Message) error {
	var query strings.Builder
	query.WriteString(`INSERT INTO outbox_messages (bucket, topic, message_key, type, payload, header, deliver_at) VALUES (0, ?, ?, ?, ?, '', 0)`)
	args := make([]any, 0, 4*len(msgs))
	for i, m := range msgs {
		if i > 0 {
			query.WriteString(`, (0, ?, ?, ?, ?, '', 0)`)
		}
		args = append(args, m.Topic, m.Key, m.Type, m.Payload)
	}
	_, err := tx.ExecContext(ctx, query.String(), args...)
	return err
}
