package sqllease

import (
	"context"
	"fmt"
)

// Migrate creates the table of tokens where it does not exist; where it does, it
// needs no privilege to create. Any number of processes may call it at once.
// Services that migrate with a tool of their own take the statement from Schema.
func (l *Lease) Migrate(ctx context.Context) error {
	if _, err := l.db.ExecContext(ctx, `SELECT id, token FROM `+l.table+` LIMIT 0`); err == nil {
		return nil
	}
	if err := l.server.migrate(ctx, l.db); err != nil {
		return fmt.Errorf("sqllease: migrate: %w", err)
	}
	return nil
}

// Schema is the statement that creates the table of tokens.
func (l *Lease) Schema() string { return l.server.create() }
