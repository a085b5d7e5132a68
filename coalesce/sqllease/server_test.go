package sqllease_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/coalesce/sqllease"
)

var errBroken = errors.New("broken")

// A fault is what happens to a statement.
type fault string

const (
	none   fault = ""
	refuse fault = "refuse" // an error, and nothing was done
	lose   fault = "lose"   // it is done, and an error comes in the place of the answer
	hang   fault = "hang"   // it is done, and no answer comes until the context ends
	other  fault = "other"  // it goes to another session, as with a pooler
	mute   fault = "mute"   // as hang, and the error does not say that it was the context
)

// A server is a database as far as a Lease uses it: locks that belong to
// sessions, and sessions that can be told when to end.
type server struct {
	dialect sqllease.Dialect

	mu       sync.Mutex
	sessions map[*session]struct{} // those that are open
	holders  map[string]*session   // by lock
	token    int64
	looks    []time.Time // at whether a lock is free
	sent     int         // statements
	fault    func(n int, query string) fault
	pooled   bool // the statement that runs is of another session
}

type session struct {
	*server
	id      int64
	changed bool // its timeouts
	used    time.Time
	idle    time.Duration // the longest time between two statements
}

func newServer(d sqllease.Dialect) *server {
	return &server{
		dialect: d, sessions: map[*session]struct{}{}, holders: map[string]*session{},
		fault: func(int, string) fault { return none },
	}
}

// open returns a pool of its own, and a lease on it.
func (s *server) open(t testing.TB) (*sql.DB, *sqllease.Lease) {
	db := sql.OpenDB(s)
	t.Cleanup(func() { _ = db.Close() })
	l, err := sqllease.New(db, s.dialect, sqllease.Options{TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return db, l
}

// breaks sets what happens to the statements from now on, counted from 1.
func (s *server) breaks(f func(n int, query string) fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent, s.fault = 0, f
}

// leftovers tells of locks that are held, and of sessions whose timeouts were
// changed and not put back.
func (s *server) leftovers() (held, changed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.sessions {
		if c.changed {
			changed++
		}
	}
	return len(s.holders), changed
}

func (s *server) Driver() driver.Driver { return nil }

func (s *server) Connect(context.Context) (driver.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token++ // any number that is new
	c := &session{server: s, id: s.token, used: time.Now()}
	s.sessions[c] = struct{}{}
	return c, nil
}

func (c *session) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sessions, c)
	for lock, holder := range c.holders {
		if holder == c {
			delete(c.holders, lock)
		}
	}
	return nil
}

func (c *session) Prepare(string) (driver.Stmt, error) { return nil, errors.New("not used") }
func (c *session) Begin() (driver.Tx, error)           { return nil, errors.New("not used") }

func (c *session) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	values, err := c.run(ctx, query, args)
	if err != nil {
		return nil, err
	}
	return &row{values: values}, nil
}

func (c *session) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	values, err := c.run(ctx, query, args)
	if err != nil {
		return nil, err
	}
	return result(values), nil
}

func (c *session) run(ctx context.Context, query string, args []driver.NamedValue) ([]driver.Value, error) {
	c.mu.Lock()
	c.sent++
	fault := c.fault(c.sent, query)
	c.pooled = fault == other
	var values []driver.Value
	var err error
	if fault != refuse {
		values, err = c.do(query, args)
	}
	c.mu.Unlock()
	switch fault {
	case refuse, lose:
		return nil, errBroken
	case hang:
		<-ctx.Done()
		return nil, ctx.Err()
	case mute:
		<-ctx.Done()
		return nil, errBroken
	}
	return values, err
}

// do is the statement, and fails if it is none that a Lease should send.
func (c *session) do(query string, args []driver.NamedValue) ([]driver.Value, error) {
	c.idle, c.used = max(c.idle, time.Since(c.used)), time.Now()
	lock := ""
	if len(args) > 0 {
		lock = fmt.Sprint(args[0].Value)
	}
	has := func(part string) bool { return strings.Contains(query, part) }
	switch {
	case has("INSERT INTO"):
		c.token++
		return []driver.Value{c.token}, nil
	case has("pg_try_advisory_lock("):
		held := c.try(lock)
		c.changed = c.changed || held
		return []driver.Value{c.pid(), held}, nil
	case has("pg_advisory_unlock("):
		return []driver.Value{c.give(lock)}, nil
	case has("pg_locks"):
		c.looks = append(c.looks, time.Now())
		return []driver.Value{len(c.holders) == 0}, nil
	case has("SELECT pg_backend_pid()"):
		return []driver.Value{c.pid()}, nil
	case has("SET @evenkeel_wait"):
		c.changed = true
		return nil, nil
	case has("RESET idle_session_timeout"), has("SET SESSION wait_timeout = @evenkeel_wait"):
		c.changed = false
		return nil, nil
	case has("GET_LOCK("):
		return []driver.Value{c.pid(), number(c.try(lock))}, nil
	case has("RELEASE_LOCK("):
		return []driver.Value{number(c.give(lock))}, nil
	case has("IS_USED_LOCK("):
		if holder := c.holders[lock]; holder != nil {
			return []driver.Value{c.pid(), holder.id}, nil
		}
		return []driver.Value{c.pid(), nil}, nil
	case has("IS_FREE_LOCK("):
		c.looks = append(c.looks, time.Now())
		return []driver.Value{number(c.holders[lock] == nil)}, nil
	}
	return nil, fmt.Errorf("the fake does not know %q", query)
}

func (c *session) pid() int64 {
	if c.pooled {
		c.token++
		return c.token
	}
	return c.id
}

func (c *session) try(lock string) bool {
	if holder := c.holders[lock]; holder != nil && holder != c {
		return false
	}
	c.holders[lock] = c
	return true
}

func (c *session) give(lock string) bool {
	held := c.holders[lock] == c
	if held {
		delete(c.holders, lock)
	}
	return held
}

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// A row is the one of an answer.
type row struct {
	values []driver.Value
	read   bool
}

func (r *row) Columns() []string { return make([]string, len(r.values)) }
func (r *row) Close() error      { return nil }

func (r *row) Next(dest []driver.Value) error {
	if r.read {
		return io.EOF
	}
	r.read = true
	copy(dest, r.values)
	return nil
}

type result []driver.Value

func (r result) LastInsertId() (int64, error) { return r[0].(int64), nil }
func (r result) RowsAffected() (int64, error) { return 1, nil }
