//go:build unix

package outbox_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"regexp"
	"strings"
	"sync"
)

// A gate is a place in the talk with a database at which a process stops: before
// or after a statement, or a commit, of which it knows the text.
type gate struct {
	// Text is a regular expression. A commit reads "COMMIT" and the
	// statements of its transaction.
	Text  string
	After bool
	// Pass is how many that match go through before.
	Pass int
}

// gated returns a database whose connections call stop at the gate, once.
func gated(driverName, dsn string, g gate, stop func()) (*sql.DB, error) {
	plain, err := sql.Open(driverName, dsn)
	if err != nil {
		return nil, err
	}
	defer func() { _ = plain.Close() }()
	w := &watcher{text: regexp.MustCompile(`(?s)` + g.Text), after: g.After, pass: g.Pass, stop: stop}
	if d, ok := plain.Driver().(driver.DriverContext); ok {
		c, err := d.OpenConnector(dsn)
		return sql.OpenDB(gatedConnector{c, w}), err
	}
	return sql.OpenDB(gatedConnector{dsnConnector{plain.Driver(), dsn}, w}), nil
}

type watcher struct {
	text  *regexp.Regexp
	after bool
	stop  func()

	mu   sync.Mutex
	pass int
	done bool
}

// at stops if this is the place.
func (w *watcher) at(text string, after bool) {
	if after != w.after || !w.text.MatchString(text) {
		return
	}
	w.mu.Lock()
	here := w.pass == 0 && !w.done
	w.pass--
	w.done = w.done || here
	w.mu.Unlock()
	if here {
		w.stop()
	}
}

type dsnConnector struct {
	d   driver.Driver
	dsn string
}

func (c dsnConnector) Connect(context.Context) (driver.Conn, error) { return c.d.Open(c.dsn) }
func (c dsnConnector) Driver() driver.Driver                        { return c.d }

type gatedConnector struct {
	driver.Connector
	w *watcher
}

func (c gatedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &gatedConn{Conn: conn, w: c.w}, nil
}

// gatedConn executes nothing itself, so that all statements are prepared, and
// pass through gatedStmt.
type gatedConn struct {
	driver.Conn
	w  *watcher
	tx []string // the statements since its beginning
}

func (c *gatedConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	tx, err := c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	c.tx = []string{"COMMIT"}
	return gatedTx{tx, c}, nil
}

func (c *gatedConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return gatedStmt{s, c, query}, nil
}

func (c *gatedConn) ResetSession(ctx context.Context) error {
	if r, ok := c.Conn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

func (c *gatedConn) IsValid() bool {
	v, ok := c.Conn.(driver.Validator)
	return !ok || v.IsValid()
}

type gatedTx struct {
	driver.Tx
	c *gatedConn
}

func (t gatedTx) Commit() error {
	text := strings.Join(t.c.tx, "\n")
	t.c.tx = nil
	t.c.w.at(text, false)
	err := t.Tx.Commit()
	t.c.w.at(text, true)
	return err
}

type gatedStmt struct {
	driver.Stmt
	c    *gatedConn
	text string
}

func (s gatedStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	s.before()
	r, err := s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
	s.c.w.at(s.text, true)
	return r, err
}

func (s gatedStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	s.before()
	r, err := s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	s.c.w.at(s.text, true)
	return r, err
}

func (s gatedStmt) before() {
	if s.c.tx != nil {
		s.c.tx = append(s.c.tx, s.text)
	}
	s.c.w.at(s.text, false)
}

func (s gatedStmt) CheckNamedValue(v *driver.NamedValue) error {
	for _, c := range []any{s.Stmt, s.c.Conn} {
		if c, ok := c.(driver.NamedValueChecker); ok {
			return c.CheckNamedValue(v)
		}
	}
	return driver.ErrSkip
}
