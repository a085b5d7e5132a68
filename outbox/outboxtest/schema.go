package outboxtest

import (
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

func migrateTwice(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{})
	add(t, db, box, msg("", "kept"))
	require.NoError(t, box.Migrate(t.Context(), db))
	require.Equal(t, []string{"kept"}, names(t, db, "outbox_messages"))
}

func migrateConcurrently(t *testing.T, d Database) {
	db := d.Open(t)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		box := newOutbox(t, d, outbox.Options{}) // a process each
		wg.Go(func() { errs[i] = box.Migrate(t.Context(), db) })
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	require.Equal(t, 1, count(t, db, `SELECT count(*) FROM outbox_state`))
	require.Equal(t, d.Dialect.SQL().Buckets, count(t, db, `SELECT count(*) FROM outbox_buckets`))
	box := newOutbox(t, d, outbox.Options{})
	add(t, db, box, msg("", "a"))
	require.Equal(t, 1, drain(t, db, box, &recorder{}))
}

func migrateRefusesNewer(t *testing.T, d Database) {
	db := d.Open(t)
	box := newOutbox(t, d, outbox.Options{})
	_, err := box.Drain(t.Context(), db, &recorder{})
	require.ErrorIs(t, err, outbox.ErrSchema, "no tables yet")
	require.ErrorContains(t, err, "Migrate")
	require.ErrorIs(t, box.Run(t.Context(), db, &recorder{}), outbox.ErrSchema)

	require.NoError(t, box.Migrate(t.Context(), db))
	execute(t, db, `INSERT INTO outbox_schema (version) VALUES (1000)`)
	require.ErrorIs(t, box.Migrate(t.Context(), db), outbox.ErrSchema)
	_, err = box.Drain(t.Context(), db, &recorder{})
	require.ErrorIs(t, err, outbox.ErrSchema)
	require.ErrorIs(t, box.Run(t.Context(), db, &recorder{}), outbox.ErrSchema)
}

// migrateByHand applies Schema as a migration tool does.
func migrateByHand(t *testing.T, d Database) {
	db := d.Open(t)
	box := newOutbox(t, d, outbox.Options{})
	last := ""
	for version, ddl := range box.Schema() {
		require.Greater(t, version, last, "versions sort")
		last = version
		for statement := range strings.SplitSeq(ddl, ";\n") { // as goose and others do
			if strings.TrimSpace(statement) != "" {
				execute(t, db, statement)
			}
		}
	}
	require.NotEmpty(t, last)
	require.NoError(t, box.Migrate(t.Context(), db), "Migrate knows what was done")
	add(t, db, box, msg("", "a"))
	require.Equal(t, 1, drain(t, db, box, &recorder{}))
	for range box.Schema() {
		break // an early end is fine
	}
}
