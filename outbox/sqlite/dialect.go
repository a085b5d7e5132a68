package sqlite

import (
	"strconv"
	"strings"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// Dialect is the SQLite dialect, to be given to outbox.New. The zero value is
// ready. A Dialect is safe for concurrent use by multiple goroutines.
type Dialect struct{}

// SQL returns the statements of the dialect, for package outbox.
func (Dialect) SQL() *dialect.SQL { return &statements }

// now is the clock of the database in microseconds. SQLite keeps milliseconds;
// the unit is that of the other dialects.
const now = `CAST(unixepoch('subsec') * 1000000 AS INTEGER)`

// never is dialect.Never.
const never = `4611686018427387904`

// body are the columns that a message carries from table to table.
const body = `id, bucket, topic, message_key, type, payload, header, deliver_at, created_at`

// listed unfolds a list parameter of numbers.
const listed = ` IN (SELECT value FROM json_each(?))`

// keys unfolds a list parameter of keys.
const keys = ` (topic, message_key) IN (SELECT value ->> 'topic', value ->> 'key' FROM json_each(?))`

var statements = dialect.SQL{
	Name:    "sqlite",
	Buckets: 1, // one writer at a time, so more drainers than one only wait for each other
	Ordered: true,

	Versions:   versions,
	Bootstrap:  bootstrap,
	LockSchema: `UPDATE outbox_schema SET version = version WHERE version < 0`,
	Installed:  `SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'outbox_schema'`,
	Version:    `SELECT coalesce(max(version), 0) FROM outbox_schema`,

	MaxRows: 500, // longer statements cost more to parse than they save
	Insert:  insert,

	Fetch:   fetch,
	Ack:     ack,
	Held:    `SELECT 1 FROM outbox_leases WHERE epoch = ?`,
	Waiting: waiting,

	Park: `INSERT INTO outbox_parked (topic, message_key, bucket, due_at)
SELECT j.value ->> 'topic', j.value ->> 'key', j.value ->> 'bucket', min(` + now + ` + (j.value ->> 'in'), ` + never + `) FROM json_each(?) j WHERE true
ON CONFLICT (topic, message_key) DO UPDATE SET bucket = excluded.bucket, due_at = excluded.due_at`,

	HoldReady: `INSERT INTO outbox_waiting (` + body + `, attempt, due_at, error)
SELECT ` + of("m", body) + `, j.value ->> 'attempt', ` + due + `, j.value ->> 'error'
FROM json_each(?) j CROSS JOIN outbox_messages m ON m.id = j.value ->> 'id'`,
	HoldWaiting: `UPDATE outbox_waiting SET attempt = j.value ->> 'attempt', due_at = ` + due + `, error = j.value ->> 'error'
FROM json_each(?) j WHERE outbox_waiting.id = j.value ->> 'id'`,

	BuryReady:      bury(`outbox_messages`),
	BuryWaiting:    bury(`outbox_waiting`),
	ArchiveWaiting: func(archive int) string { return archiving(archive, `outbox_waiting`) + ` WHERE id` + listed },

	DeleteReady:   `DELETE FROM outbox_messages WHERE id` + listed,
	DeleteWaiting: `DELETE FROM outbox_waiting WHERE id` + listed,

	Due: `UPDATE outbox_parked SET due_at = ` + now + ` WHERE` + keys,
	Unpark: `DELETE FROM outbox_parked WHERE` + keys + `
AND NOT EXISTS (SELECT 1 FROM outbox_waiting w
	WHERE w.topic = outbox_parked.topic AND w.message_key = outbox_parked.message_key AND w.due_at IS NULL)`,
	ResumeKeys:     resume(`outbox_parked`),
	ResumeMessages: resume(`outbox_waiting`),
	AnyParked:      `SELECT EXISTS (SELECT 1 FROM outbox_parked)`,

	LockState: `UPDATE outbox_state SET epoch = epoch + ?`,
	State:     `SELECT epoch, archive, ` + now + ` - rotated_at FROM outbox_state`,
	Join:      `INSERT INTO outbox_leases (epoch, owner, until_at) VALUES (?, ?, ` + now + ` + ?)`,
	Leave:     `DELETE FROM outbox_leases WHERE epoch = ?`,
	Renew:     `UPDATE outbox_leases SET until_at = ` + now + ` + ? WHERE epoch = ?`,
	Expire:    `DELETE FROM outbox_leases WHERE until_at <= ` + now,
	Free:      `UPDATE outbox_buckets SET epoch = 0 WHERE epoch <> 0 AND epoch NOT IN (SELECT epoch FROM outbox_leases)`,
	Leases:    `SELECT epoch, owner, until_at - ` + now + ` FROM outbox_leases ORDER BY epoch`,
	Owners:    `SELECT bucket, epoch FROM outbox_buckets`,
	Assign:    `UPDATE outbox_buckets SET epoch = ? WHERE bucket = ?`,

	Pause:  `INSERT INTO outbox_topics (topic, paused) VALUES (?, ?) ON CONFLICT (topic) DO UPDATE SET paused = excluded.paused`,
	Paused: `SELECT topic FROM outbox_topics WHERE paused = 1 ORDER BY topic`,

	Dead: `SELECT ` + head + `, attempt, error FROM outbox_dead WHERE id > ? ORDER BY id LIMIT ?`,
	Replay: `INSERT INTO outbox_waiting (` + body + `, attempt, due_at, error)
SELECT ` + body + `, 0, 0, '' FROM outbox_dead WHERE id` + listed,
	Forget: `DELETE FROM outbox_dead WHERE id` + listed,
	Purge:  `DELETE FROM outbox_dead WHERE died_at < ?`,

	PurgeArchive: `DELETE FROM outbox_archive_0 WHERE id IN
(SELECT id FROM outbox_archive_0 WHERE delivered_at < ` + now + ` - ?1 ORDER BY delivered_at LIMIT ?2)`,
	// Without a condition SQLite drops the pages of the table as a whole.
	Rotate:  func(archive int) string { return `DELETE FROM outbox_archive_` + strconv.Itoa(archive) },
	Rotated: `UPDATE outbox_state SET archive = ?, rotated_at = ` + now + ` WHERE archive = ?`,

	Stats:      stats,
	TopicStats: topicStats,

	Busy:    busy,
	Explain: explain,
}

// head are the columns that every list of messages begins with.
const head = `id, topic, message_key, type, payload, header, created_at, deliver_at`

// of puts the name of a table before each of the columns.
func of(table, columns string) string {
	return table + "." + strings.ReplaceAll(columns, ", ", ", "+table+".")
}

// due is the time of an element of a list of holdings.
const due = `coalesce(j.value ->> 'at', min(` + now + ` + (j.value ->> 'in'), ` + never + `))`

func bury(table string) string {
	return `INSERT INTO outbox_dead (` + body + `, attempt, error, died_at)
SELECT ` + of("m", body) + `, j.value ->> 'attempt', j.value ->> 'error', ` + now + `
FROM json_each(?) j CROSS JOIN ` + table + ` m ON m.id = j.value ->> 'id'`
}

func archiving(archive int, table string) string {
	return `INSERT INTO outbox_archive_` + strconv.Itoa(archive) + ` (` + body + `, delivered_at)
SELECT ` + body + `, ` + now + ` FROM ` + table
}

func resume(table string) string {
	return `UPDATE ` + table + ` SET due_at = ` + now + ` WHERE due_at >= ` + never + ` AND topic NOT IN (SELECT value FROM json_each(?))`
}
