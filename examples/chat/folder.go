package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/ncruces/go-sqlite3"
	_ "github.com/ncruces/go-sqlite3/driver" // registers "sqlite3"

	"github.com/evenkeel-go/evenkeel/shard"
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

// topology is the shard map as it lies in the folder. The folder's files only make
// sense under the map with which they were written.
type topology struct {
	Epoch  uint64          `json:"epoch"`
	Shards []topologyShard `json:"shards"`
}

type topologyShard struct {
	Range shard.Range `json:"range"`
	File  string      `json:"file"`
}

func (t topology) toMap() (*shard.Map, error) {
	shards := make([]shard.Shard, len(t.Shards))
	for i, s := range t.Shards {
		shards[i] = shard.Shard{Range: s.Range, Node: s.File}
	}
	return shard.NewMap(t.Epoch, shards...)
}

// loadMap reads the map of a folder, and writes one for n shards into a folder
// that has none.
func loadMap(dir string, n int) (*shard.Map, error) {
	path := filepath.Join(dir, "shards.json")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeMap(path, n)
	}
	if err != nil {
		return nil, err
	}
	var t topology
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m, err := t.toMap()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if n != 0 && n != m.Len() {
		return nil, fmt.Errorf("%s holds %d shards, -shards says %d: leave -shards out or take another folder", dir, m.Len(), n)
	}
	return m, nil
}

func makeMap(path string, n int) (*shard.Map, error) {
	if n == 0 {
		n = 4
	}
	ranges, err := shard.EvenRanges(n)
	if err != nil {
		return nil, err
	}
	t := topology{Epoch: 1}
	for i, r := range ranges {
		t.Shards = append(t.Shards, topologyShard{Range: r, File: fmt.Sprintf("shard-%d.db", i)})
	}
	m, err := t.toMap()
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return nil, err
	}
	// Written aside and renamed, so that a crash leaves a whole file or none.
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o644); err != nil {
		return nil, err
	}
	return m, os.Rename(path+".new", path)
}
