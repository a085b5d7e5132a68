package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"strings"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// Migrate creates the tables of the outbox, all named outbox_…, or brings them
// up to what this version of the package needs. On tables that are up to date
// it reads one row. Any number of processes may call it at once; each version is
// applied once, in one transaction. Returns ErrSchema, and changes nothing, when
// the tables are newer than this version of the package.
//
// Services that migrate with a tool of their own take the statements from Schema.
// Migrate is safe for concurrent use by multiple goroutines.
func (o *Outbox) Migrate(ctx context.Context, db *sql.DB) error {
	if db == nil {
		return fmt.Errorf("outbox: migrate: %w: db is nil", ErrInvalid)
	}
	s := &sqlStore{sql: o.sql, db: db}
	err := s.retryBusy(ctx, func() error { return s.migrate(ctx) })
	if err != nil {
		return fmt.Errorf("outbox: migrate: %w", err)
	}
	return nil
}

func (s *sqlStore) migrate(ctx context.Context) error {
	current, err := schemaVersion(ctx, s.sql, s.db)
	if err != nil {
		return err
	}
	want := len(s.sql.Versions)
	switch {
	case current > want:
		return fmt.Errorf("%w: the database has version %d, newer than %d, the newest that this version of the package knows", ErrSchema, current, want)
	case current == want:
		return nil
	}
	if _, err := s.db.ExecContext(ctx, s.sql.Bootstrap); err != nil {
		return err
	}
	return s.inTx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, s.sql.LockSchema); err != nil {
			return err
		}
		// Somebody may have been faster.
		if err := tx.QueryRowContext(ctx, s.sql.Version).Scan(&current); err != nil {
			return err
		}
		for ; current < want; current++ {
			for _, statement := range s.sql.Versions[current] {
				if _, err := tx.ExecContext(ctx, statement); err != nil {
					return fmt.Errorf("version %d: %w", current+1, err)
				}
			}
		}
		return nil
	})
}

// Schema yields the versions of the schema, oldest first: a name such as
// "0001_outbox" and the statements that lead there from the version before,
// separated by semicolons. It is for migration tools such as goose and atlas.
// The statements record the version, so that Migrate, Run and Drain recognise
// what a tool has done.
func (o *Outbox) Schema() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i, statements := range o.sql.Versions {
			if !yield(fmt.Sprintf("%04d_outbox", i+1), strings.Join(statements, ";\n\n")+";\n") {
				return
			}
		}
	}
}

// schemaVersion returns 0 for a database without an outbox.
func schemaVersion(ctx context.Context, q *dialect.SQL, db *sql.DB) (version int, err error) {
	var installed int
	if err := db.QueryRowContext(ctx, q.Installed).Scan(&installed); err != nil {
		return 0, fmt.Errorf("read the schema version (is this a %s database?): %w", q.Name, err)
	}
	if installed == 0 {
		return 0, nil
	}
	if err := db.QueryRowContext(ctx, q.Version).Scan(&version); err != nil {
		return 0, fmt.Errorf("read the schema version: %w", err)
	}
	return version, nil
}
