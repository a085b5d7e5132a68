package sqllease

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// Fence returns nil when no other grant of key has followed the one with this
// token, and sees to it that none follows before tx ends. Otherwise the error is
// coalesce.ErrFenced, and tx should be rolled back. The table of tokens must be
// in the database of tx, which need not be from the Lease's own *sql.DB. One
// round trip; it needs the privilege to update the table.
//
// Call it last, right before Commit: the next holder waits for tx from then on.
// The package comment says when first is better. In PostgreSQL the server ends
// the session of tx if it is idle for the time to live after Fence.
//
// A lease that was lost and not granted again is not fenced: nobody else is
// there whom a write could hurt.
func (l *Lease) Fence(ctx context.Context, tx *sql.Tx, key string, token coalesce.Token) error {
	last, err := l.server.fence(ctx, tx, l.lockKey(key))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return coalesce.ErrFenced
	case err != nil:
		return fmt.Errorf("sqllease: fence: %w", err)
	case last != token:
		return coalesce.ErrFenced
	}
	return nil
}
