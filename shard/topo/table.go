package topo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"math"
	"regexp"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/internal/feed"
)

// TableOptions are the knobs of a [Table]. The zero value of each field is its default.
type TableOptions struct {
	// Name is the name of the table: letters, digits and _, after a schema and a dot or
	// alone, at most 63 bytes in all. It is quoted, so case matters on PostgreSQL. Empty
	// means "shard_maps".
	Name string

	// Keyspace says which of the table's maps it is: UTF-8 without a zero byte, at most
	// 255 bytes, compared byte for byte. Empty is a name like another.
	Keyspace string

	// Poll is the mean pause between two questions of one watcher; a fleet's are spread
	// by a quarter of it to both sides. At least 10 ms. 0 means 1 s, or with Listen 1 min.
	Poll time.Duration

	// Listen, if it is there, runs as long as a watch and calls changed whenever there
	// may be something new: first when it has begun to listen, which is after every
	// reconnection, and then for every notification. The watch asks at once, so that
	// Poll may be minutes: it is for the notifications that get lost. Listen returns
	// when ctx ends. If it returns before, the watch yields why, and calls it again,
	// after a pause. The channel is the one that Publish notifies on PostgreSQL: the name
	// of the table; on MySQL and SQLite nobody notifies. Changed may be called from any
	// goroutine, also after Listen has returned. A watch waits for its Listen: one that
	// does not heed ctx keeps the watch from ending. Package pgxtopo has a Listen; Poll
	// alone does without.
	Listen func(ctx context.Context, channel string, changed func()) error
}

var tableName = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*$`)

const (
	maxName     = 63 // bytes of a name in PostgreSQL, where the channel has it
	maxKeyspace = 255
)

// A Table is a [Store] in a SQL table, which has a row for each keyspace: the epoch, the
// digest, and the map as JSON. It must be created by [NewTable], and the table by Migrate.
//
// Publish is one statement that changes the row only if it still has the epoch and the
// digest that were read before: compare-and-set at every level of isolation. On
// PostgreSQL the same statement notifies the channel that has the name of the table, with
// the keyspace as payload.
//
// A watcher asks for the row at every poll and gets the map only if the epoch or the
// digest is another: one look-up by primary key. When the database does not answer
// within 10 s, or with an error, it yields the error and asks again after pauses that
// grow from 0.1 s to 5 s.
//
// Change a row by Publish alone: a row whose columns and document disagree is refused.
//
// A Table is safe for concurrent use by multiple goroutines.
type Table struct {
	db       *sql.DB
	dialect  Dialect
	name     string
	keyspace string
	poll     time.Duration
	listen   func(context.Context, string, func()) error
	sql      statements
}

var _ Store = (*Table)(nil)

// NewTable returns a Table in db, which stays the caller's to close. It asks the database
// nothing. Returns an error if db is nil, the dialect is unknown or an option is out of
// its range.
func NewTable(db *sql.DB, d Dialect, o TableOptions) (*Table, error) {
	if db == nil {
		return nil, errors.New("topo: db is nil, expected a *sql.DB")
	}
	if schemas[d] == "" {
		return nil, fmt.Errorf("topo: dialect is %d, expected PostgreSQL, MySQL or SQLite", d)
	}
	if o.Name == "" {
		o.Name = "shard_maps"
	}
	if len(o.Name) > maxName || !tableName.MatchString(o.Name) {
		return nil, fmt.Errorf("topo: TableOptions.Name is %q, expected letters, digits and _, after a schema and a dot or alone, at most %d bytes", o.Name, maxName)
	}
	if len(o.Keyspace) > maxKeyspace || !utf8.ValidString(o.Keyspace) || strings.Contains(o.Keyspace, "\x00") {
		return nil, fmt.Errorf("topo: TableOptions.Keyspace is %q, expected UTF-8 without a zero byte, at most %d bytes", o.Keyspace, maxKeyspace)
	}
	usual := time.Second
	if o.Listen != nil {
		usual = time.Minute
	}
	poll, err := pollOf("TableOptions", o.Poll, 10*time.Millisecond, usual)
	if err != nil {
		return nil, err
	}
	return &Table{
		db: db, dialect: d, name: o.Name, keyspace: o.Keyspace, poll: poll, listen: o.Listen,
		sql: statementsOf(d, quoted(d, o.Name)),
	}, nil
}

// quoted lets a name be a word of SQL, "order".
func quoted(d Dialect, name string) string {
	quote := `"`
	if d == MySQL {
		quote = "`"
	}
	return quote + strings.ReplaceAll(name, ".", quote+"."+quote) + quote
}

// Migrate creates the table if there is none. It reads the table, so it needs SELECT, and
// nothing else where there is one; a table of another shape is an error. Any number of
// processes may call it at once. Services that migrate with a tool of their own take the
// statement from Schema.
func (t *Table) Migrate(ctx context.Context) error {
	if _, err := t.read(ctx, unknown); err == nil {
		return nil
	}
	if err := migrate(ctx, t.db, t.dialect, t.sql.schema, t.name); err != nil {
		return fmt.Errorf("topo: migrate table %s: %w", t.name, err)
	}
	if _, err := t.read(ctx, unknown); err != nil { // there was one, of another shape
		return fmt.Errorf("topo: migrate table %s: %w", t.name, err)
	}
	return nil
}

// Schema is the statement that creates the table.
func (t *Table) Schema() string { return t.sql.schema }

// row is what the table holds of a keyspace, whether it makes sense or not.
type row struct {
	epoch    int64
	digest   string
	document string // empty if the row was known
}

// read returns nil if there is no row.
func (t *Table) read(ctx context.Context, known row) (*row, error) {
	var r row
	err := t.db.QueryRowContext(ctx, t.sql.read, known.epoch, known.digest, t.key()).Scan(&r.epoch, &r.digest, &r.document)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil && ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		return nil, fmt.Errorf("%w: %w", ctx.Err(), err) // not every driver says why it stopped
	case err != nil:
		return nil, err
	}
	return &r, nil
}

// key is the keyspace as a parameter: VARBINARY is compared with bytes, whatever the
// character set of the connection.
func (t *Table) key() any {
	if t.dialect == MySQL {
		return []byte(t.keyspace)
	}
	return t.keyspace
}

// unknown is a row that no map has.
var unknown = row{epoch: -1}

// Load reads the map. Returns an error that wraps [ErrNoMap] if there is none, one that
// wraps [shard.ErrBadMap] and names the table and the keyspace if the row is no map, and
// the error of the database if it does not answer.
func (t *Table) Load(ctx context.Context) (*shard.Map, error) {
	r, err := t.read(ctx, unknown)
	switch {
	case err != nil:
		return nil, fmt.Errorf("topo: load from %s: %w", t.where(), err)
	case r == nil:
		return nil, fmt.Errorf("%w in %s", ErrNoMap, t.where())
	}
	return t.decode(r)
}

// Watch is that of [shard.Source]: it yields the newest map, and every newer one within
// five quarters of Poll, or as soon as TableOptions.Listen says so. It yields an error each
// time the database fails, and once for a row that is no map, is gone, or went back to an
// older map.
func (t *Table) Watch(ctx context.Context) iter.Seq2[*shard.Map, error] {
	return func(yield func(*shard.Map, error) bool) {
		var heard feed.Feed
		known := unknown // the last row that was a map
		w := watcher{poll: t.poll, ask: func(ctx context.Context) (*shard.Map, bool, error) {
			r, err := t.read(ctx, known)
			switch {
			case err != nil:
				return nil, false, fmt.Errorf("topo: watch %s: %w", t.where(), err)
			case r != nil && known != unknown && r.epoch == known.epoch && r.digest == known.digest:
				return nil, true, nil
			}
			var text []byte
			if r != nil {
				text = fmt.Appendf(nil, "%d %s %s", r.epoch, r.digest, r.document)
			}
			known = unknown
			m, err := heard.Hear(text, func([]byte) (m *shard.Map, err error) {
				if m, err = t.decode(r); err == nil {
					known = row{epoch: r.epoch, digest: r.digest}
				}
				return m, err
			})
			if err != nil && !errors.Is(err, shard.ErrBadMap) {
				err = fmt.Errorf("%w in %s", err, t.where())
			}
			return m, true, err
		}}
		if t.listen != nil {
			w.listen = func(ctx context.Context, changed func()) error { return t.listen(ctx, t.name, changed) }
		}
		w.run(ctx, yield)
	}
}

// Publish is that of [Store], in two round trips and one more for each publisher that
// came between. A row that is no map is replaced if its epoch is lower; if not, delete it,
// and publish an epoch above the newest that any process has. Epochs above
// [math.MaxInt64], which a table cannot hold, are an error that wraps [shard.ErrBadMap].
func (t *Table) Publish(ctx context.Context, m *shard.Map) error {
	if err := t.publish(ctx, m); err != nil {
		return fmt.Errorf("topo: publish in %s: %w", t.where(), err)
	}
	return nil
}

func (t *Table) publish(ctx context.Context, m *shard.Map) error {
	document, err := feed.Encode(m)
	if err != nil {
		return err
	}
	if m.Epoch() > math.MaxInt64 {
		return fmt.Errorf("%w: epoch %d, expected at most %d in a table", shard.ErrBadMap, m.Epoch(), int64(math.MaxInt64))
	}
	next := row{epoch: int64(m.Epoch()), digest: digestText(m), document: asciiOf(document)}
	var before *row
	var failed error
	unchanged := 0
	for tries := 0; ; tries++ {
		held, err := t.read(ctx, unknown)
		if err != nil {
			return joined(failed, err)
		}
		if done, err := settled(held, next); done || err != nil {
			return err
		}
		// A write fails when another publisher was first, in as many ways as there are
		// databases. If nothing has changed since, it failed for a reason of its own.
		// A deadlock's victim may be back before the winner has committed.
		if tries == 0 || !sameRow(held, before) {
			unchanged = 0
		} else if unchanged++; unchanged > 3 {
			return joined(failed, errors.New("the row does not change"))
		} else if !feed.Sleep(ctx, feed.Jitter(10*time.Millisecond)) {
			return joined(failed, ctx.Err())
		}
		before = held
		var done bool
		if done, failed = t.write(ctx, held, next); done {
			return nil
		}
	}
}

// asciiOf writes a document in ASCII: a connection in another character set ("charset=utf8"
// of MySQL has no emoji) would change it, and outside of strict mode say nothing.
func asciiOf(document []byte) string {
	var b strings.Builder
	for _, r := range string(document) { // beyond ASCII there are strings only
		switch {
		case r < utf8.RuneSelf:
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// joined is first, if there is one, and then.
func joined(first, then error) error {
	if first == nil {
		return then
	}
	return fmt.Errorf("%w, and then %w", first, then)
}

// settled reports whether the row that the table holds is next, or returns why next must
// not take its place.
func settled(held *row, next row) (bool, error) {
	switch {
	case held == nil || held.epoch < next.epoch:
		return false, nil
	case held.epoch > next.epoch:
		return false, fmt.Errorf("%w: epoch %d, expected above %d", shard.ErrStaleMap, next.epoch, held.epoch)
	case held.digest != next.digest:
		return false, fmt.Errorf("%w: epoch %d with digest %s, expected %s", shard.ErrSplitBrain, next.epoch, next.digest, held.digest)
	}
	return held.document == next.document, nil // if not, it is damaged
}

func sameRow(a, b *row) bool { return a == b || a != nil && b != nil && *a == *b }

// write makes next the row if held still is, and reports whether it did.
func (t *Table) write(ctx context.Context, held *row, next row) (bool, error) {
	query, args := t.sql.insert, []any{next.epoch, next.digest, next.document, t.key()}
	if held != nil {
		query, args = t.sql.update, append(args, held.epoch, held.digest)
	}
	if t.sql.notifies {
		args = append(args, t.name, t.keyspace)
	}
	result, err := t.db.ExecContext(ctx, query, args...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n == 1, err
}

func (t *Table) where() string { return fmt.Sprintf("table %s, keyspace %q", t.name, t.keyspace) }

func (t *Table) decode(r *row) (*shard.Map, error) {
	m, err := feed.Decode([]byte(r.document))
	if err != nil {
		return nil, fmt.Errorf("topo: %s: %w", t.where(), err)
	}
	if r.epoch < 0 || m.Epoch() != uint64(r.epoch) || digestText(m) != r.digest {
		return nil, fmt.Errorf("topo: %s: %w: the columns say epoch %d and digest %q, the document %d and %q",
			t.where(), shard.ErrBadMap, r.epoch, r.digest, m.Epoch(), digestText(m))
	}
	return m, nil
}

func digestText(m *shard.Map) string { return fmt.Sprintf("%016x", m.Digest()) }
