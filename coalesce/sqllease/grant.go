package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/internal/hold"
)

// errOtherSession says that two queries on one connection met two sessions.
var errOtherSession = errors.New("the connection has changed its session: is there a pooler in transaction mode between?")

// A grant is a lease that this process holds or held, and the session that has
// the lock.
type grant struct {
	lease    *Lease
	key      lockKey
	conn     *sql.Conn
	session  int64
	token    coalesce.Token
	hold     *hold.Hold
	released atomic.Bool
}

// Acquire makes the caller the holder of key, on a connection of the pool that
// is the grant's until Release or loss; three round trips, and four in MySQL. Returns
// coalesce.ErrHeld if there is another holder, the error of ctx when that ends
// first, also while it waits for a connection, and the error of the database if
// it does not answer as it should. After an error nothing is held.
func (l *Lease) Acquire(ctx context.Context, key string) (coalesce.Grant, error) {
	k := l.lockKey(key)
	for tries := 1; ; tries++ {
		g, fresh, err := l.acquire(ctx, k)
		switch {
		case err == nil:
			return g, nil
		case errors.Is(err, coalesce.ErrHeld):
			return nil, coalesce.ErrHeld
		case fresh && tries < maxTries && ctx.Err() == nil:
			continue
		case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
			return nil, fmt.Errorf("sqllease: acquire: %w: %w", ctx.Err(), err)
		}
		return nil, fmt.Errorf("sqllease: acquire: %w", err)
	}
}

// acquire is one try. After an error fresh says that the session failed at its
// first query: it may have ended long ago, which not every driver finds out when
// the pool hands it out, nor says by driver.ErrBadConn.
func (l *Lease) acquire(ctx context.Context, k lockKey) (_ *grant, fresh bool, err error) {
	conn, err := l.db.Conn(ctx)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if err != nil && !errors.Is(err, coalesce.ErrHeld) {
			discard(conn) // it may have the lock, whatever the error says
		}
	}()
	g := &grant{lease: l, key: k, conn: conn}
	var held bool
	if g.session, held, err = l.server.lock(ctx, conn, k); err != nil {
		return nil, true, err
	}
	if !held {
		_ = conn.Close() // gives it back to the pool, and never fails
		return nil, false, coalesce.ErrHeld
	}
	if g.token, err = l.server.grant(ctx, conn, k); err != nil {
		return nil, false, err
	}
	// The token may have waited for the transaction of a late holder, and the
	// server counts the idle time from the last query.
	sent := time.Now()
	if held, err = l.server.check(ctx, conn, k, g.session); err != nil {
		return nil, false, err
	}
	if !held {
		return nil, false, errOtherSession
	}
	g.hold = hold.Start(l.ttl, sent, g.renew, func() { discard(conn) })
	return g, false, nil
}

func (g *grant) Token() coalesce.Token { return g.token }
func (g *grant) Lost() <-chan struct{} { return g.hold.Lost() }

// renew keeps the session from being idle. A query that fails is the end of it:
// there is no second connection with the same lock.
func (g *grant) renew(ctx context.Context) (bool, error) {
	held, err := g.lease.server.check(ctx, g.conn, g.key, g.session)
	return held && err == nil, nil
}

func (g *grant) Release(ctx context.Context) error {
	if g.released.Swap(true) {
		return nil
	}
	if !g.hold.Stop(ctx) {
		return coalesce.ErrFenced // the session has been discarded
	}
	held, err := g.lease.server.unlock(ctx, g.conn, g.key)
	switch {
	case err != nil:
		discard(g.conn) // which gives the lock back as well
		return fmt.Errorf("sqllease: release: %w", err)
	case !held:
		discard(g.conn)
		return coalesce.ErrFenced
	}
	_ = g.conn.Close() // gives it back to the pool
	return nil
}

// discard ends the session.
func discard(c *sql.Conn) {
	_ = c.Raw(func(any) error { return driver.ErrBadConn })
	_ = c.Close()
}
