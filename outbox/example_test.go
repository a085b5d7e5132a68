package outbox_test

import (
	"context"
	"database/sql"
	"log/slog"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// A service pays orders and tells others about it. The same code with output is
// tested in internal/integration, where there is a database driver.
func Example() {
	ctx := context.Background()
	db, err := sql.Open("sqlite3", "file:shop.db?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_txlock=immediate")
	check(err)
	box, err := outbox.New(sqlite.Dialect{}, outbox.Options{Logger: slog.Default()})
	check(err)
	check(box.Migrate(ctx, db))

	// In the background of every process, until ctx ends.
	go func() {
		check(box.Run(ctx, db, outbox.PublisherFunc(func(ctx context.Context, m outbox.Message) error {
			return send(ctx, m.Topic, m.Payload)
		})))
	}()

	// In every transaction that has something to tell.
	tx, err := db.BeginTx(ctx, nil)
	check(err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.ExecContext(ctx, `UPDATE orders SET paid = 1 WHERE id = 42`)
	check(err)
	check(box.Add(ctx, tx, outbox.Message{Topic: "orders", Key: "order/42", Type: "order.paid", Payload: []byte(`{"order":42}`)}))
	check(tx.Commit())
	box.Wake()
}

// A Publisher that takes a whole batch waits once, not once a message.
func ExamplePublisher() {
	var box *outbox.Outbox // from New
	var db *sql.DB         // from sql.Open
	check(box.Run(context.Background(), db, broker{}))
}

type broker struct{}

func (broker) Publish(ctx context.Context, batch []outbox.Message) []error {
	for _, m := range batch {
		begin(m.ID, m.Topic, m.Payload) // sends, and does not wait
	}
	return confirm(ctx, len(batch)) // one error for each, nil where confirmed
}

// What went wrong for good is looked at and tried again by hand.
func ExampleOutbox_Replay() {
	var box *outbox.Outbox // from New
	var db *sql.DB         // from sql.Open
	ctx := context.Background()
	for m, err := range box.Dead(ctx, db) {
		check(err)
		slog.Info("dead", "id", m.ID, "topic", m.Topic, "attempts", m.Attempt, "error", m.LastError)
		if m.Type == "order.paid" {
			_, err := box.Replay(ctx, db, m.ID)
			check(err)
		}
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func send(context.Context, string, []byte) error { return nil }

func begin(int64, string, []byte) {}

func confirm(context.Context, int) []error { return nil }
