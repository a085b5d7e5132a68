//go:build unix

package outbox_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/file"
	"github.com/stretchr/testify/require"
)

const saidReplicated = "replicated"

// fileOf is the path of a site of SQLite.
func (s *site) fileOf() string {
	path, _, _ := strings.Cut(strings.TrimPrefix(s.DSN, "file:"), "?")
	return path
}

// replicate is litestream replicate, in a process of its own as it should be.
func replicate(s site, folder string, say *speaker) error {
	db := litestream.NewDB(s.fileOf())
	db.MonitorInterval = 5 * time.Millisecond
	client := file.NewReplicaClient(folder)
	db.Replica = litestream.NewReplicaWithClient(db, client)
	client.Replica = db.Replica
	db.Replica.SyncInterval = 5 * time.Millisecond
	store := litestream.NewStore([]*litestream.DB{db}, litestream.CompactionLevels{{Level: 0}, {Level: 1, Interval: time.Second}})
	ctx := context.Background()
	if err := store.Open(ctx); err != nil {
		return err
	}
	for range time.Tick(20 * time.Millisecond) {
		if err := db.SyncAndWait(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "sync:", err)
			continue
		}
		say.line(saidReplicated)
	}
	return nil
}

// restore is litestream restore.
func restore(t *testing.T, folder, to string) {
	client := file.NewReplicaClient(folder)
	r := litestream.NewReplicaWithClient(nil, client)
	opts := litestream.NewRestoreOptions()
	opts.OutputPath = to
	opts.IntegrityCheck = litestream.IntegrityCheckFull
	require.NoError(t, r.Restore(t.Context(), opts))
}

// TestLitestream replicates a database while processes add and drain, kills all
// of them, restores the copy, and goes on there: again and again, each time from
// what the time before has left.
func TestLitestream(t *testing.T) {
	t.Parallel()
	underRace(t)
	for kind, newSite := range siteKinds(t, some(1, "ncruces", "modernc")...) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			for generation := range 3 {
				s = crashAndRestore(t, s, generation)
			}
			f, err := s.file()
			require.NoError(t, err)
			defer func() { require.NoError(t, f.Close()) }()
			s.drainRest(t, killOptions.options(), deliverTo(f, 10))
			s.checkTables(t)
			delivered := map[string]bool{}
			text, err := os.ReadFile(f.Name())
			require.NoError(t, err)
			for name := range strings.Lines(string(text)) {
				delivered[strings.TrimSpace(name)] = true
			}
			committed := s.names(t, `SELECT name FROM committed`)
			for _, name := range committed {
				require.True(t, delivered[name], "%q is in the copy and was not delivered", name)
			}
			s.inOrder(t, committed, strings.Split(string(text), "\n"))
			t.Logf("%d messages in the copy, %d delivered", len(committed), len(delivered))
		})
	}
}

// crashAndRestore returns the site of the copy. It is behind by what was not
// replicated, which the deliveries of before may know nevertheless.
func crashAndRestore(t *testing.T, s *site, generation int) *site {
	replica := t.TempDir()
	l := start(t, orders{Site: *s, Litestream: replica})
	l.hear(t, 1, saidReplicated)
	worker := start(t, orders{Site: *s, Options: killOptions, Drain: true, Add: true, Fail: 10, Publish: -1})
	worker.hear(t, 50+rand.IntN(200), "")
	l.hear(t, 2+rand.IntN(5), saidReplicated)
	if generation%2 == 0 {
		l.kill()
		worker.hear(t, 20, "") // nobody replicates this
	}
	worker.kill()
	l.kill()
	require.Positive(t, s.count(t, `SELECT count(*) FROM committed`))

	path := filepath.Join(t.TempDir(), "copy.db")
	restore(t, replica, path)
	copied := &site{Kind: s.Kind, DSN: dsn(path), Folder: s.Folder}
	copied.reopen(t)
	return copied
}

// inOrder requires that the first deliveries of the messages of the copy are in
// the order of their versions.
func (s *site) inOrder(t *testing.T, committed, deliveries []string) {
	known, last := map[string]bool{}, map[string]int{}
	for _, name := range committed {
		known[name] = true
	}
	for _, name := range deliveries {
		if !known[name] || strings.HasPrefix(name, "-") {
			continue
		}
		known[name] = false // a repetition has no order
		var key string
		var version int
		_, err := fmt.Sscan(name, &key, &version)
		require.NoError(t, err)
		require.Equal(t, last[key]+1, version, "key %s", key)
		last[key] = version
	}
}
