package mysql

import (
	"database/sql"
	"strconv"
	"strings"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// Dialect is the dialect of MySQL and MariaDB, to be given to outbox.New. The
// zero value is ready. A Dialect is safe for concurrent use by multiple
// goroutines.
type Dialect struct{}

// SQL returns the statements of the dialect, for package outbox.
func (Dialect) SQL() *dialect.SQL { return &statements }

// now is the clock of the database in microseconds: the time at which the
// statement began. UNIX_TIMESTAMP would go through the local time of the
// session, which has one hour a year twice.
const now = `TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))`

// never is dialect.Never.
const never = `4611686018427387904`

// body are the columns that a message carries from table to table, and head
// those that every list of messages begins with.
const (
	body = `id, bucket, topic, message_key, type, payload, header, deliver_at, created_at`
	head = `id, topic, message_key, type, payload, header, created_at, deliver_at`
)

// A list parameter is unfolded into a table j. What is joined to it names its
// index, for two reasons: a small table is otherwise read as a whole, and a
// statement that changes a table locks all that it reads, also rows that other
// transactions have just added, and waits for them. STRAIGHT_JOIN keeps the list
// the outer table.
const (
	listOfIDs     = `JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) j`
	listOfTopics  = `JSON_TABLE(?, '$[*]' COLUMNS (topic ` + name + ` PATH '$')) j`
	listOfKeys    = `JSON_TABLE(?, '$[*]' COLUMNS (topic ` + name + ` PATH '$.topic', message_key ` + name + ` PATH '$.key')) j`
	listOfParking = `JSON_TABLE(?, '$[*]' COLUMNS (topic ` + name + ` PATH '$.topic', message_key ` + name + ` PATH '$.key',
	bucket INT PATH '$.bucket', wait BIGINT PATH '$.in')) j`
	listOfHoldings = `JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$.id', attempt INT PATH '$.attempt',
	wait BIGINT PATH '$.in', at BIGINT PATH '$.at', error VARCHAR(4000) CHARACTER SET utf8mb4 PATH '$.error')) j`

	name = `VARCHAR(255) CHARACTER SET utf8mb4`
)

// Text of JSON has a character set, and with it an opinion about case and
// trailing spaces. The bytes have not.
const onKey = ` FORCE INDEX (PRIMARY) ON p.topic = CAST(j.topic AS BINARY) AND p.message_key = CAST(j.message_key AS BINARY)`

var statements = dialect.SQL{
	Name:      "mysql",
	Buckets:   buckets,
	Isolation: sql.LevelReadCommitted,

	Versions:  versions,
	Bootstrap: bootstrap,
	// No lock would last: the first CREATE TABLE commits. The statements of a
	// version may be run by several at once instead, and again after a failure.
	LockSchema: `DO 0`,
	Installed:  `SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'outbox_schema'`,
	Version:    `SELECT COALESCE(MAX(version), 0) FROM outbox_schema`,

	MaxRows: 500, // longer statements cost more to parse than they save
	Insert:  insert,

	Fetch:   fetch,
	Ack:     ack,
	Held:    `SELECT 1 FROM outbox_leases WHERE epoch = ?`,
	Waiting: waiting,

	Park: `REPLACE INTO outbox_parked (topic, message_key, bucket, due_at)
SELECT j.topic, j.message_key, j.bucket, LEAST(` + now + ` + j.wait, ` + never + `) FROM ` + listOfParking,

	HoldReady: `INSERT INTO outbox_waiting (` + body + `, attempt, due_at, error)
SELECT ` + of("m", body) + `, j.attempt, ` + due + `, j.error
FROM ` + listOfHoldings + ` STRAIGHT_JOIN outbox_messages m FORCE INDEX (PRIMARY) ON m.id = j.id`,
	HoldWaiting: `UPDATE ` + listOfHoldings + ` STRAIGHT_JOIN outbox_waiting m FORCE INDEX (PRIMARY) ON m.id = j.id
SET m.attempt = j.attempt, m.due_at = ` + due + `, m.error = j.error`,

	BuryReady:      bury(`outbox_messages`),
	BuryWaiting:    bury(`outbox_waiting`),
	ArchiveWaiting: archiveWaiting,

	DeleteReady:   deleteListed(`outbox_messages`),
	DeleteWaiting: deleteListed(`outbox_waiting`),

	Due: `UPDATE ` + listOfKeys + ` STRAIGHT_JOIN outbox_parked p` + onKey + ` SET p.due_at = ` + now,
	Unpark: `DELETE p FROM ` + listOfKeys + ` STRAIGHT_JOIN outbox_parked p` + onKey + `
LEFT JOIN outbox_waiting w FORCE INDEX (waits) ON w.topic = p.topic AND w.message_key = p.message_key AND w.due_at IS NULL
WHERE w.id IS NULL`,
	ResumeKeys:     resume(`outbox_parked`),
	ResumeMessages: resume(`outbox_waiting`),
	AnyParked:      `SELECT EXISTS (SELECT 1 FROM outbox_parked)`,

	LockState: `UPDATE outbox_state SET epoch = epoch + ? WHERE id = 1`,
	State:     `SELECT epoch, archive, ` + now + ` - rotated_at FROM outbox_state WHERE id = 1`,
	Join:      `INSERT INTO outbox_leases (epoch, owner, until_at) VALUES (?, ?, ` + now + ` + ?)`,
	Leave:     `DELETE FROM outbox_leases WHERE epoch = ?`,
	Renew:     renew,
	Expire:    expire,
	// A subquery, not a join, because it takes no locks.
	Free: `UPDATE outbox_buckets SET epoch = 0 WHERE epoch <> 0
AND NOT EXISTS (SELECT 1 FROM outbox_leases l WHERE l.epoch = outbox_buckets.epoch)`,
	Leases: `SELECT epoch, owner, until_at - ` + now + ` FROM outbox_leases ORDER BY epoch`,
	Owners: `SELECT bucket, epoch FROM outbox_buckets ORDER BY bucket`,
	Assign: `UPDATE outbox_buckets SET epoch = ? WHERE bucket = ?`,

	Pause:  `REPLACE INTO outbox_topics (topic, paused) VALUES (?, ?)`,
	Paused: `SELECT topic FROM outbox_topics WHERE paused = 1 ORDER BY topic`,

	Dead: `SELECT ` + head + `, attempt, error FROM outbox_dead WHERE id > ? ORDER BY id LIMIT ?`,
	Replay: `INSERT INTO outbox_waiting (` + body + `, attempt, due_at, error)
SELECT ` + of("m", body) + `, 0, 0, '' FROM ` + listOfIDs + ` STRAIGHT_JOIN outbox_dead m FORCE INDEX (PRIMARY) ON m.id = j.id`,
	Forget: deleteListed(`outbox_dead`),
	Purge:  `DELETE FROM outbox_dead WHERE died_at < ?`,

	PurgeArchive: `DELETE FROM outbox_archive_0 WHERE delivered_at < ` + now + ` - ? ORDER BY delivered_at LIMIT ?`,
	Rotate:       func(archive int) string { return `TRUNCATE TABLE outbox_archive_` + strconv.Itoa(archive) },
	Rotated:      `UPDATE outbox_state SET archive = ?, rotated_at = ` + now + ` WHERE id = 1 AND archive = ?`,

	Stats:      stats,
	TopicStats: topicStats,

	Busy:    busy,
	Explain: explain,
}

// of puts the name of a table before each of the columns.
func of(table, columns string) string {
	return table + "." + strings.ReplaceAll(columns, ", ", ", "+table+".")
}

// due is the time of an element of a list of holdings.
const due = `COALESCE(j.at, LEAST(` + now + ` + j.wait, ` + never + `))`

// renew always changes the row, the last bit at least: the server counts as
// affected only rows that changed, and none would mean that the lease is gone.
const renew = `UPDATE outbox_leases SET until_at = (` + now + ` + ?) DIV 2 * 2 + 1 - until_at % 2 WHERE epoch = ?`

// expire leaves alone a lease whose row is locked. Its drainer is in the middle
// of a transaction, perhaps because its process hangs, and waiting for it would
// hold up everybody who wants to share the buckets anew. The LIMIT keeps the
// subquery from being merged into the statement.
const expire = `DELETE l FROM (SELECT epoch FROM outbox_leases WHERE until_at <= ` + now + ` LIMIT 1000 FOR UPDATE SKIP LOCKED) e
STRAIGHT_JOIN outbox_leases l FORCE INDEX (PRIMARY) ON l.epoch = e.epoch`

func bury(table string) string {
	return `INSERT INTO outbox_dead (` + body + `, attempt, error, died_at)
SELECT ` + of("m", body) + `, j.attempt, j.error, ` + now + `
FROM ` + listOfHoldings + ` STRAIGHT_JOIN ` + table + ` m FORCE INDEX (PRIMARY) ON m.id = j.id`
}

func archiveWaiting(archive int) string {
	return archiving(archive) + listOfIDs + ` STRAIGHT_JOIN outbox_waiting m FORCE INDEX (PRIMARY) ON m.id = j.id`
}

func archiving(archive int) string {
	return `INSERT INTO outbox_archive_` + strconv.Itoa(archive) + ` (` + body + `, delivered_at)
SELECT ` + of("m", body) + `, ` + now + ` FROM `
}

func deleteListed(table string) string {
	return `DELETE m FROM ` + listOfIDs + ` STRAIGHT_JOIN ` + table + ` m FORCE INDEX (PRIMARY) ON m.id = j.id`
}

func resume(table string) string {
	return `UPDATE ` + table + ` m FORCE INDEX (due) LEFT JOIN ` + listOfTopics + ` ON m.topic = CAST(j.topic AS BINARY)
SET m.due_at = ` + now + ` WHERE m.due_at = ` + never + ` AND j.topic IS NULL`
}
