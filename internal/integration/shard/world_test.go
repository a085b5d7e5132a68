package shard_test

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/shard"
)

// message is a row. Its sharding key is the channel.
type message struct {
	ID      int64
	Channel string
	Author  int64
	Amount  sql.Null[int64]
}

const columns = "id, channel, author, amount"

// A node is a table in a database.
type node struct {
	db    *sql.DB
	table string
}

// world keeps messages twice: spread over the nodes by the map, and all in one table, the
// oracle. A shard that moves leaves its rows behind, as a real one does until they are
// cleaned up, and so does a node that a test fills with rows that are not its own.
type world struct {
	nodes  map[string]node
	oracle node
	hash   shard.Hash[string]
	point  string // the SQL of a row's point
	m      *shard.Map
	nextID int64
}

// worlds are the databases on which a scatter must equal the oracle. PostgreSQL computes
// the point from the key; with SQLite the writer stores it.
var worlds = map[string]func(testing.TB) *world{
	"postgres": func(t testing.TB) *world {
		db := open(t, "pgx", testserver.PostgresDSN(t))
		w := &world{nodes: map[string]node{}, oracle: node{db, "everything"}, hash: shard.PGText, point: "hashtextextended(channel, 0)"}
		for i := range 3 {
			w.nodes[fmt.Sprint("n", i)] = node{db, fmt.Sprint("messages", i)}
		}
		w.create(t)
		return w
	},
	"sqlite": func(t testing.TB) *world {
		w := &world{nodes: map[string]node{}, oracle: node{open(t, "sqlite3", sqliteFile(t)), "everything"}, hash: shard.XXHash, point: "point"}
		for i := range 3 {
			w.nodes[fmt.Sprint("n", i)] = node{open(t, "sqlite3", sqliteFile(t)), "messages"}
		}
		w.create(t)
		return w
	},
}

func (w *world) all() []node {
	all := []node{w.oracle}
	for _, n := range w.nodes {
		all = append(all, n)
	}
	return all
}

func (w *world) create(t testing.TB) {
	for _, n := range w.all() {
		exec(t, n.db, `CREATE TABLE `+n.table+` (id BIGINT PRIMARY KEY, channel TEXT NOT NULL, author BIGINT NOT NULL, amount BIGINT, point BIGINT NOT NULL)`)
		exec(t, n.db, `CREATE INDEX `+n.table+`_point ON `+n.table+` (`+w.point+`)`)
	}
}

// reset empties all tables and begins with a new map.
func (w *world) reset(t *rapid.T) {
	for _, n := range w.all() {
		exec(t, n.db, `DELETE FROM `+n.table)
	}
	ranges, err := shard.EvenRanges(rapid.IntRange(1, 9).Draw(t, "shards"))
	require.NoError(t, err)
	shards := make([]shard.Shard, len(ranges))
	for i, r := range ranges {
		shards[i] = shard.Shard{Range: r, Node: anyNode(t)}
	}
	w.m, err = shard.NewMap(1, shards...)
	require.NoError(t, err)
}

func anyNode(t *rapid.T) string { return rapid.SampledFrom([]string{"n0", "n1", "n2"}).Draw(t, "node") }

var anyChannel = rapid.SampledFrom([]string{"a", "B", "ä", "général", "channel:1", "channel:2", "", "z", "Zürich", "一", "x y", "0"})

func (w *world) insert(t *rapid.T, n int) {
	rows := map[node][]message{}
	for range n {
		w.nextID += rapid.Int64Range(1, 3).Draw(t, "gap")
		m := message{ID: w.nextID, Channel: anyChannel.Draw(t, "channel"), Author: rapid.Int64Range(1, 4).Draw(t, "author")}
		if rapid.IntRange(0, 3).Draw(t, "known") > 0 {
			m.Amount = sql.Null[int64]{V: rapid.Int64Range(-5, 5).Draw(t, "amount"), Valid: true}
		}
		home := w.nodes[w.m.Lookup(w.hash(m.Channel)).Node]
		rows[w.oracle] = append(rows[w.oracle], m)
		rows[home] = append(rows[home], m)
	}
	for n, messages := range rows {
		w.write(t, n, messages...)
	}
}

func (w *world) write(t require.TestingT, n node, messages ...message) {
	if len(messages) == 0 {
		return
	}
	values := make([]string, len(messages))
	for i, m := range messages {
		amount := "NULL"
		if m.Amount.Valid {
			amount = fmt.Sprint(m.Amount.V)
		}
		values[i] = fmt.Sprintf(`(%d, '%s', %d, %s, %d)`, m.ID, m.Channel, m.Author, amount, w.hash(m.Channel).Int64())
	}
	exec(t, n.db, `INSERT INTO `+n.table+` VALUES `+strings.Join(values, ", "))
}

// remove deletes a row wherever it is.
func (w *world) remove(t require.TestingT, id int64) {
	for _, n := range w.all() {
		exec(t, n.db, fmt.Sprintf(`DELETE FROM %s WHERE id = %d`, n.table, id))
	}
}

// change splits, merges or moves something, with its rows.
func (w *world) change(t *rapid.T) {
	shards := slices.Collect(w.m.All())
	i := rapid.IntRange(0, len(shards)-1).Draw(t, "shard")
	s := shards[i]
	var next *shard.Map
	var err error
	switch what := rapid.SampledFrom([]string{"split", "merge", "move", "move"}).Draw(t, "change"); {
	case what == "split":
		next, err = w.m.Split(s.Name)
	case what == "merge" && i+1 < len(shards) && shards[i+1].Node == s.Node:
		next, err = w.m.Merge(s.Name, shards[i+1].Name)
	default:
		to := anyNode(t)
		w.copy(t, s, to)
		next, err = w.m.Move(s.Name, to)
	}
	require.NoError(t, err)
	w.m = next
}

// copy brings the rows of a shard to another node and leaves them where they were.
func (w *world) copy(t *rapid.T, s *shard.Shard, to string) {
	if to == s.Node {
		return
	}
	rows, err := w.read(t.Context(), w.nodes[s.Node], s.Range.SQL(w.point))
	require.NoError(t, err)
	exec(t, w.nodes[to].db, `DELETE FROM `+w.nodes[to].table+` WHERE `+s.Range.SQL(w.point)) // left there by an earlier move
	w.write(t, w.nodes[to], rows...)
}

// read returns the rows that a condition, with an order and a limit behind it, selects.
func (w *world) read(ctx context.Context, n node, where string) ([]message, error) {
	var all []message
	for m, err := range stream(ctx, n, where) {
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

func stream(ctx context.Context, n node, where string) iter.Seq2[message, error] {
	return func(yield func(message, error) bool) {
		rows, err := n.db.QueryContext(ctx, `SELECT `+columns+` FROM `+n.table+` WHERE `+where)
		if err != nil {
			yield(message{}, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			var m message
			if err := rows.Scan(&m.ID, &m.Channel, &m.Author, &m.Amount); err != nil {
				yield(message{}, err)
				return
			}
			if !yield(m, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(message{}, err)
		}
	}
}
