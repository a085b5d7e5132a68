package topo_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
)

// An operator publishes in a table, and a service that watches it follows.
func ExampleTable() {
	folder, err := os.MkdirTemp("", "topo")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(folder, "app.db")+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)")
	if err != nil {
		panic(err)
	}
	defer func() { _ = db.Close() }()
	table, err := topo.NewTable(db, topo.SQLite, topo.TableOptions{Keyspace: "chat"})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	if err := table.Migrate(ctx); err != nil {
		panic(err)
	}
	published := make(chan error, 2)
	go func() {
		first, _ := shard.NewMap(1, shard.Shard{Node: "db1"})
		published <- table.Publish(ctx, first)
	}()
	for m, err := range table.Watch(ctx) {
		if err != nil {
			continue // there is no map yet, perhaps
		}
		fmt.Println("epoch", m.Epoch(), "on", m.Lookup(0).Node)
		if m.Epoch() == 2 {
			break
		}
		next, err := m.Move("-", "db2")
		if err != nil {
			panic(err)
		}
		published <- table.Publish(ctx, next)
	}
	fmt.Println(<-published, <-published)
	// Output:
	// epoch 1 on db1
	// epoch 2 on db2
	// <nil> <nil>
}
