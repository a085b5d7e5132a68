package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
	"github.com/evenkeel-go/evenkeel/shard"
)

// Message is one line of chat. Its ID grows with time, across all channels.
type Message struct {
	ID      int64  `json:"id,string"` // a JavaScript number is too small for it
	Channel string `json:"channel"`
	User    string `json:"user"`
	Text    string `json:"text"`
}

// Store is the primary side of the database: one SQLite file a shard, where a
// channel lives whole, together with the outbox of its messages.
type Store struct {
	dir    string
	unlock func() error
	shards *shard.Map
	nodes  map[string]*node // by shard.Node, which is the file's name
	ids    idSource
}

// node is one shard file, opened for writing.
type node struct {
	db     *sql.DB
	outbox *outbox.Outbox
}

const messagesSchema = `
CREATE TABLE IF NOT EXISTS messages (
	id      INTEGER PRIMARY KEY,
	channel TEXT NOT NULL,
	user    TEXT NOT NULL,
	text    TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_by_channel ON messages (channel, id);`

// OpenStore opens the shards in dir, or makes n of them if there are none yet. An
// n of 0 means whatever is there, and 4 in an empty folder.
func OpenStore(ctx context.Context, dir string, n int) (_ *Store, err error) {
	unlock, err := lockFolder(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, unlock: unlock, nodes: make(map[string]*node)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.shards, err = loadMap(ctx, dir, n); err != nil {
		return nil, err
	}
	for file := range s.shards.ByNode() {
		if err := s.openNode(ctx, file); err != nil {
			return nil, fmt.Errorf("open %s: %w", filepath.Join(dir, file), err)
		}
	}
	return s, nil
}

func (s *Store) openNode(ctx context.Context, file string) error {
	db, err := openFile(s.dir, file, "_pragma=synchronous(normal)&_txlock=immediate")
	if err != nil {
		return err
	}
	o, err := outbox.New(sqlite.Dialect{}, outbox.Options{
		PollMax:   250 * time.Millisecond,
		RetryBase: 200 * time.Millisecond,
		Lease:     2 * time.Second, // how long a start after a crash waits for the dead process's lease
	})
	if err != nil {
		return errors.Join(err, db.Close())
	}
	s.nodes[file] = &node{db, o}
	if _, err := db.ExecContext(ctx, messagesSchema); err != nil {
		return err
	}
	if err := o.Migrate(ctx, db); err != nil {
		return err
	}
	var last sql.NullInt64
	if err := db.QueryRowContext(ctx, `SELECT max(id) FROM messages`).Scan(&last); err != nil {
		return err
	}
	s.ids.skip(last.Int64)
	return nil
}

// Close closes the files.
func (s *Store) Close() error {
	var errs []error
	for _, n := range s.nodes {
		errs = append(errs, n.db.Close())
	}
	return errors.Join(append(errs, s.unlock())...)
}

// Waiting returns how many webhooks wait in the outboxes.
func (s *Store) Waiting(ctx context.Context) (n int64, err error) {
	for file, node := range s.nodes {
		stats, err := node.outbox.Stats(ctx, node.db)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		n += stats.Ready + stats.Waiting
	}
	return n, nil
}

// home returns the shard file of a channel.
//
// pattern: shard
func (s *Store) home(channel string) *node {
	return s.nodes[s.shards.Lookup(shard.XXHash(channel)).Node]
}

// Post stores a message. With relay, the webhook of the message waits in the
// outbox of the same file, in the same transaction: both commit or neither.
//
// pattern: outbox
func (s *Store) Post(ctx context.Context, channel, user, text string, relay bool) (Message, error) {
	n := s.home(channel)
	tx, err := n.db.BeginTx(ctx, nil) // _txlock=immediate: from here on we are the file's only writer
	if err != nil {
		return Message{}, err
	}
	defer tx.Rollback()
	msg := Message{ID: s.ids.next(), Channel: channel, User: user, Text: text} // so IDs grow in commit order
	payload, err := json.Marshal(msg)
	if err != nil {
		return Message{}, err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO messages (id, channel, user, text) VALUES (?, ?, ?, ?)`,
		msg.ID, msg.Channel, msg.User, msg.Text); err != nil {
		return Message{}, err
	}
	if relay {
		event := outbox.Message{Topic: "webhook", Key: channel, Type: "message.created", Payload: payload}
		if err := n.outbox.Add(ctx, tx, event); err != nil {
			return Message{}, err
		}
	}
	if err := tx.Commit(); err != nil {
		return Message{}, err
	}
	n.outbox.Wake()
	return msg, nil
}

// idSource makes IDs that grow with the clock, and by one where the clock stands
// still or steps back: milliseconds since the epoch, then 12 bits of counter.
type idSource struct{ last atomic.Int64 }

func (s *idSource) next() int64 {
	for {
		last := s.last.Load()
		id := max(last+1, time.Now().UnixMilli()<<12)
		if s.last.CompareAndSwap(last, id) {
			return id
		}
	}
}

// skip makes the next ID greater than id.
func (s *idSource) skip(id int64) { s.last.Store(max(s.last.Load(), id)) }
