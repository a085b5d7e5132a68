package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// temporary returns an outbox in a database of its own.
func temporary(o outbox.Options) (db *sql.DB, box *outbox.Outbox, remove func()) {
	folder, err := os.MkdirTemp("", "outbox")
	check(err)
	db, err = sql.Open("sqlite3", dsn(filepath.Join(folder, "example.db")))
	check(err)
	box, err = outbox.New(sqlite.Dialect{}, o)
	check(err)
	check(box.Migrate(context.Background(), db))
	return db, box, func() { _ = db.Close(); _ = os.RemoveAll(folder) }
}

func commit(db *sql.DB, box *outbox.Outbox, msgs ...outbox.Message) {
	tx, err := db.BeginTx(context.Background(), nil)
	check(err)
	check(box.Add(context.Background(), tx, msgs...))
	check(tx.Commit())
}

// Password resets should not wait behind a newsletter: topics that are declared
// have queues of their own, which take turns by weight.
func Example_topics() {
	ctx := context.Background()
	db, box, remove := temporary(outbox.Options{
		Batch:       2,
		Concurrency: 1,
		Topics:      map[string]outbox.Topic{"newsletter": {}, "reset": {Weight: 3}},
	})
	defer remove()
	for i := range 4 {
		commit(db, box, outbox.Message{Topic: "newsletter", Payload: fmt.Append(nil, "news ", i)})
	}
	for i := range 8 {
		commit(db, box, outbox.Message{Topic: "reset", Payload: fmt.Append(nil, "reset ", i)})
	}
	_, err := box.Drain(ctx, db, outbox.PublisherFunc(func(_ context.Context, m outbox.Message) error {
		fmt.Println(string(m.Payload))
		return nil
	}))
	check(err)
	// Output:
	// news 0
	// news 1
	// reset 0
	// reset 1
	// reset 2
	// reset 3
	// reset 4
	// reset 5
	// news 2
	// news 3
	// reset 6
	// reset 7
}

// The mail server is down, so its topic is paused. Messages wait, in order, and
// others go on.
func ExampleOutbox_Pause() {
	ctx := context.Background()
	db, box, remove := temporary(outbox.Options{})
	defer remove()
	commit(db, box,
		outbox.Message{Topic: "mail", Key: "ann", Payload: []byte("welcome")},
		outbox.Message{Topic: "search", Key: "ann", Payload: []byte("index")},
		outbox.Message{Topic: "mail", Key: "ann", Payload: []byte("first steps")})
	drain := func() {
		n, err := box.Drain(ctx, db, outbox.PublisherFunc(func(_ context.Context, m outbox.Message) error {
			fmt.Println(m.Topic, string(m.Payload))
			return nil
		}))
		check(err)
		fmt.Println(n, "delivered")
	}
	check(box.Pause(ctx, db, "mail"))
	drain()
	check(box.Resume(ctx, db, "mail"))
	drain()
	// Output:
	// search index
	// 1 delivered
	// mail welcome
	// mail first steps
	// 2 delivered
}

// A message that can never be delivered is set aside, and its key goes on. When
// somebody has mended what was wrong, it is sent again.
func ExampleOutbox_Replay() {
	ctx := context.Background()
	db, box, remove := temporary(outbox.Options{})
	defer remove()
	commit(db, box,
		outbox.Message{Topic: "orders", Key: "order/1", Payload: []byte("paid")},
		outbox.Message{Topic: "orders", Key: "order/1", Payload: []byte("shipped")})
	broken := true
	publish := outbox.PublisherFunc(func(_ context.Context, m outbox.Message) error {
		if broken && string(m.Payload) == "paid" {
			return outbox.Permanent(errors.New("unknown currency"))
		}
		fmt.Println(string(m.Payload))
		return nil
	})
	_, err := box.Drain(ctx, db, publish)
	check(err)
	for m, err := range box.Dead(ctx, db) {
		check(err)
		fmt.Printf("dead: %s: %s\n", m.Payload, m.LastError)
		broken = false
		_, err = box.Replay(ctx, db, m.ID)
		check(err)
	}
	_, err = box.Drain(ctx, db, publish)
	check(err)
	_, err = box.Purge(ctx, db, time.Now().AddDate(0, -1, 0)) // what nobody has mended for a month
	check(err)
	// Output:
	// shipped
	// dead: paid: permanent: unknown currency
	// paid
}
