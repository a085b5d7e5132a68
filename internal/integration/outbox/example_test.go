package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// A shop pays orders and tells others. What commits is delivered, in order for
// each order, and what rolls back is not.
func Example() {
	folder, err := os.MkdirTemp("", "outbox")
	check(err)
	defer func() { _ = os.RemoveAll(folder) }()
	db, err := sql.Open("sqlite3", dsn(filepath.Join(folder, "shop.db")))
	check(err)
	defer func() { _ = db.Close() }()
	ctx := context.Background()
	box, err := outbox.New(sqlite.Dialect{}, outbox.Options{})
	check(err)
	check(box.Migrate(ctx, db))
	_, err = db.ExecContext(ctx, `CREATE TABLE orders (id INTEGER PRIMARY KEY, state TEXT)`)
	check(err)

	change := func(order int, state string, commit bool) {
		tx, err := db.BeginTx(ctx, nil)
		check(err)
		defer func() { _ = tx.Rollback() }()
		_, err = tx.ExecContext(ctx, `INSERT INTO orders VALUES (?1, ?2) ON CONFLICT DO UPDATE SET state = ?2`, order, state)
		check(err)
		check(box.Add(ctx, tx, outbox.Message{Topic: "orders", Key: fmt.Sprint("order/", order), Payload: []byte(state)}))
		if commit {
			check(tx.Commit())
			box.Wake()
		}
	}
	change(1, "paid", true)
	change(2, "paid", false) // rolls back
	change(1, "shipped", true)

	// A service calls Run in the background instead.
	n, err := box.Drain(ctx, db, outbox.PublisherFunc(func(_ context.Context, m outbox.Message) error {
		fmt.Println(m.Topic, m.Key, string(m.Payload))
		return nil
	}))
	check(err)
	fmt.Println(n, "delivered")
	// Output:
	// orders order/1 paid
	// orders order/1 shipped
	// 2 delivered
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
