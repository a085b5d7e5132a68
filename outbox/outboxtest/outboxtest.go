// Package outboxtest is the conformance suite of package outbox: what a dialect
// must do on a real database. It is for tests only.
//
//	func TestOutbox(t *testing.T) {
//		outboxtest.Exercise(t, outboxtest.Database{
//			Dialect: sqlite.Dialect{},
//			Open:    func(t testing.TB) *sql.DB { … },
//			Writers: 1,
//		})
//	}
package outboxtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// A Database is what the suite runs on.
type Database struct {
	// Dialect is the dialect under test.
	Dialect outbox.Dialect
	// Open returns a new and empty database, and closes it when t ends.
	Open func(t testing.TB) *sql.DB
	// Writers is how many transactions that have written may be open at once:
	// 1 for SQLite, more for a server.
	Writers int
}

// Exercise runs the whole suite, each part as a parallel subtest on a database of
// its own. It needs no time of its own to pass: where time matters it sets the
// times in the tables.
func Exercise(t *testing.T, d Database) {
	for _, part := range []struct {
		name string
		f    func(*testing.T, Database)
	}{
		{"MigrateTwice", migrateTwice},
		{"MigrateConcurrently", migrateConcurrently},
		{"MigrateRefusesNewer", migrateRefusesNewer},
		{"MigrateByHand", migrateByHand},
		{"AddKeepsEverything", addKeepsEverything},
		{"AddManyInOneTransaction", addMany},
		{"AddInvalidLeavesTransactionUsable", addInvalid},
		{"RollbackDeliversNothing", rollbackDeliversNothing},
		{"DelayedMessagesWait", delayedMessagesWait},
		{"BatchRespectsCountAndBytes", batchRespectsLimits},
		{"PublisherMayUseTheOnlyConnection", publisherMayUseTheOnlyConnection},
		{"FailureParksItsKeyOnly", failureParksItsKeyOnly},
		{"AttemptsSurviveRestart", attemptsSurviveRestart},
		{"MessageWithoutKeyHoldsUpNobody", withoutKey},
		{"LongQueueBehindAFailure", longQueueBehindAFailure},
		{"RetryAfterAndPermanent", retryAfterAndPermanent},
		{"DeadReplayPurge", deadReplayPurge},
		{"DeadIsPaged", deadIsPaged},
		{"DeadAreReadInSmallPages", deadAreReadInSmallPages},
		{"PayloadsBelongToThePublisher", payloadsBelongToThePublisher},
		{"BadPublisherLosesNothing", badPublisher},
		{"GoexitInPublisherLosesNothing", goexitInPublisher},
		{"ShutdownAcknowledgesWhatSucceeded", shutdownAcknowledges},
		{"DrainRefusesWhileLeased", drainRefusesWhileLeased},
		{"FencedDrainerChangesNothing", fencedDrainer},
		{"FencedDrainerMovesNothing", fencedDrainerMovesNothing},
		{"WritersAndDrainersConcurrently", writersAndDrainers},
		{"WakeReachesRun", wakeReachesRun},
		{"Stats", stats},
		{"OrderIsPerTopicAndKey", orderIsPerTopicAndKey},
		{"TopicsAreDeclared", topicsAreDeclared},
		{"TopicsTakeTurnsByWeight", topicsTakeTurnsByWeight},
		{"SlowTopicDelaysNobody", slowTopicDelaysNobody},
		{"PausedTopicWaits", pausedTopicWaits},
		{"PauseReachesRun", pauseReachesRun},
		{"CallsRunAtOnce", callsRunAtOnce},
		{"DrainersShareBuckets", drainersShareBuckets},
		{"ArchiveKeepsWhatWasDelivered", archiveKeepsWhatWasDelivered},
		{"RotationEmptiesTheOldest", rotationEmptiesTheOldest},
		{"HeadersComeFromTheContext", headersComeFromTheContext},
		{"PayloadsHaveALimit", payloadsHaveALimit},
		{"Statements", statements},
		{"Machine", machine},
	} {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			part.f(t, d)
		})
	}
}

// setUp returns an empty, migrated outbox.
func setUp(t testing.TB, d Database, o outbox.Options) (*sql.DB, *outbox.Outbox) {
	db := d.Open(t)
	box := newOutbox(t, d, o)
	require.NoError(t, box.Migrate(t.Context(), db))
	return db, box
}

func newOutbox(t require.TestingT, d Database, o outbox.Options) *outbox.Outbox {
	box, err := outbox.New(d.Dialect, o)
	require.NoError(t, err)
	return box
}

// add commits messages in one transaction.
func add(t require.TestingT, db *sql.DB, box *outbox.Outbox, msgs ...outbox.Message) {
	tx, err := db.BeginTx(context.Background(), nil)
	require.NoError(t, err)
	require.NoError(t, box.Add(context.Background(), tx, msgs...))
	require.NoError(t, tx.Commit())
}

// msg returns a message of a key whose payload is its name.
func msg(key, name string) outbox.Message {
	return outbox.Message{Topic: "test", Key: key, Payload: []byte(name)}
}

// A recorder is a Publisher that notes what it accepted, and fails as told.
type recorder struct {
	mu       sync.Mutex
	accepted []string // payloads
	messages []outbox.Message
	batches  [][]outbox.Message
	// fail, if set, says what is wrong with a message.
	fail func(outbox.Message) error
}

func (r *recorder) Publish(_ context.Context, batch []outbox.Message) []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches = append(r.batches, batch)
	errs := make([]error, len(batch))
	for i, m := range batch {
		if r.fail != nil {
			errs[i] = r.fail(m)
		}
		if errs[i] == nil {
			r.accepted = append(r.accepted, string(m.Payload))
			r.messages = append(r.messages, m)
		}
	}
	return errs
}

// take returns what was accepted since the last take.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.accepted
	r.accepted, r.messages, r.batches = nil, nil, nil
	return a
}

// errDown keeps a message waiting until makeDue.
var errDown = outbox.RetryAfter(errors.New("destination is down"), time.Hour)

// failing fails the messages with one of the payloads.
func failing(names ...string) func(outbox.Message) error {
	return func(m outbox.Message) error {
		if slices.Contains(names, string(m.Payload)) {
			return errDown
		}
		return nil
	}
}

func drain(t testing.TB, db *sql.DB, box *outbox.Outbox, p outbox.Publisher) int {
	n, err := box.Drain(t.Context(), db, p)
	require.NoError(t, err)
	checkTables(t, db)
	return n
}

// The tables and these columns have the same names in every dialect.

// makeDue lets time pass for whatever waits.
func makeDue(t require.TestingT, db *sql.DB) {
	execute(t, db, `UPDATE outbox_waiting SET due_at = 0 WHERE due_at IS NOT NULL`)
	execute(t, db, `UPDATE outbox_parked SET due_at = 0`)
}

// expireLease lets time pass for the lease.
func expireLease(t require.TestingT, db *sql.DB) {
	execute(t, db, `UPDATE outbox_leases SET until_at = 0`)
}

func execute(t require.TestingT, db *sql.DB, query string) {
	_, err := db.ExecContext(context.Background(), query)
	require.NoError(t, err, query)
}

func count(t require.TestingT, db *sql.DB, query string) (n int) {
	require.NoError(t, db.QueryRowContext(context.Background(), query).Scan(&n), query)
	return n
}

// names returns the payloads in tables, in order of table and id.
func names(t require.TestingT, db *sql.DB, tables ...string) (out []string) {
	var query strings.Builder
	for i, table := range tables {
		fmt.Fprintf(&query, "%s SELECT payload, id, %d AS place FROM %s", []string{"", " UNION ALL"}[min(i, 1)], i, table)
	}
	rows, err := db.QueryContext(context.Background(), query.String()+` ORDER BY place, id`)
	require.NoError(t, err)
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var payload []byte
		var id, place int64
		require.NoError(t, rows.Scan(&payload, &id, &place))
		out = append(out, string(payload))
	}
	require.NoError(t, rows.Err())
	return out
}

// rules are queries that find nothing whenever nobody is in the middle of a
// transaction.
var rules = []struct{ broken, query string }{
	{"a message waits for a key that is not parked, so for ever", `SELECT id FROM outbox_waiting w WHERE w.due_at IS NULL
		AND NOT EXISTS (SELECT 1 FROM outbox_parked p WHERE p.topic = w.topic AND p.message_key = w.message_key)`},
	{"a key is parked although nothing waits for it, so for ever", `SELECT 1 FROM outbox_parked p WHERE
		NOT EXISTS (SELECT 1 FROM outbox_waiting w WHERE w.topic = p.topic AND w.message_key = p.message_key AND w.due_at IS NULL)`},
	{"a message without a key waits for its key", `SELECT id FROM outbox_waiting WHERE message_key = '' AND due_at IS NULL`},
	{"the empty key is parked", `SELECT 1 FROM outbox_parked WHERE message_key = ''`},
	{"a message is in two tables", `SELECT id FROM (SELECT id FROM outbox_messages
		UNION ALL SELECT id FROM outbox_waiting UNION ALL SELECT id FROM outbox_dead) ids GROUP BY id HAVING count(*) > 1`},
}

// checkTables checks the rules, all in one statement.
func checkTables(t require.TestingT, db *sql.DB) {
	var query strings.Builder
	counts, dest := make([]int, len(rules)), make([]any, len(rules))
	for i, rule := range rules {
		fmt.Fprintf(&query, "%s (SELECT count(*) FROM (%s) r%d)", []string{"SELECT", ","}[min(i, 1)], rule.query, i)
		dest[i] = &counts[i]
	}
	require.NoError(t, db.QueryRowContext(context.Background(), query.String()).Scan(dest...))
	for i, n := range counts {
		require.Zero(t, n, rules[i].broken)
	}
}

// version names the n-th message of a key.
func version(key string, n int) string { return fmt.Sprintf("%s/%d", key, n) }

func keyOf(name string) string {
	key, _, _ := strings.Cut(name, "/")
	return key
}

// timeout bounds the parts that wait for another goroutine. It is no measure of
// anything: a run that reaches it hangs.
const timeout = time.Minute
