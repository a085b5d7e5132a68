package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/ncruces/go-sqlite3"
	_ "github.com/ncruces/go-sqlite3/driver" // registers "sqlite3"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
)

// openFile opens one shard file with the pragmas that every connection needs.
func openFile(dir, file, params string) (*sql.DB, error) {
	return sql.Open("sqlite3", fileURL(dir, file, "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&"+params))
}

// fileURL names a file as SQLite wants it. A folder's name may hold a ? or a #.
func fileURL(dir, file, params string) string {
	u := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(filepath.Join(dir, file)), RawQuery: params}
	return u.String()
}

// lockFolder makes dir, if it is not there, and keeps other processes out of it:
// two would give out the same IDs. The lock is a transaction without an end, which
// the system ends with the process, however that ends.
func lockFolder(dir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite3", fileURL(dir, "lock.db", "_txlock=exclusive&_pragma=busy_timeout(0)"))
	if err != nil {
		return nil, err
	}
	tx, err := db.Begin()
	if errors.Is(err, sqlite3.BUSY) {
		err = fmt.Errorf("%s is in use by another process", dir)
	} else if err != nil {
		err = fmt.Errorf("lock %s: %w", dir, err)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return func() error { return errors.Join(tx.Rollback(), db.Close()) }, nil
}

// loadMap reads the map of a folder, and publishes one for n shards in a folder that
// has none. The folder's files only make sense under the map with which they were
// written.
func loadMap(ctx context.Context, dir string, n int) (*shard.Map, error) {
	file, err := topo.NewFile(filepath.Join(dir, "shards.json"), topo.FileOptions{})
	if err != nil {
		return nil, err
	}
	m, err := file.Load(ctx)
	if errors.Is(err, topo.ErrNoMap) {
		if m, err = firstMap(n); err == nil {
			err = file.Publish(ctx, m)
		}
	}
	if err != nil {
		return nil, err
	}
	if n != 0 && n != m.Len() {
		return nil, fmt.Errorf("%s holds %d shards, -shards says %d: leave -shards out or take another folder", dir, m.Len(), n)
	}
	return m, nil
}

// firstMap has n shards of equal size, a file each.
func firstMap(n int) (*shard.Map, error) {
	if n == 0 {
		n = 4
	}
	ranges, err := shard.EvenRanges(n)
	if err != nil {
		return nil, err
	}
	shards := make([]shard.Shard, n)
	for i, r := range ranges {
		shards[i] = shard.Shard{Range: r, Node: fmt.Sprintf("shard-%d.db", i)}
	}
	return shard.NewMap(1, shards...)
}
