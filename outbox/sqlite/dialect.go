package sqlite

import (
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

// body are the columns that a message carries from table to table.
const body = `id, topic, message_key, type, payload, header, deliver_at, created_at`

// listed unfolds a list parameter.
const listed = ` IN (SELECT value FROM json_each(?))`

var statements = dialect.SQL{
	Name:       "sqlite",
	Versions:   versions,
	Bootstrap:  bootstrap,
	LockSchema: `UPDATE outbox_schema SET version = version WHERE version < 0`,
	Installed:  `SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'outbox_schema'`,
	Version:    `SELECT coalesce(max(version), 0) FROM outbox_schema`,

	MaxParams: 32766, // SQLITE_MAX_VARIABLE_NUMBER, https://sqlite.org/limits.html
	Insert:    insert,

	Lease:   `SELECT epoch, until_at - ` + now + ` FROM outbox_leases WHERE bucket = 0`,
	Acquire: `UPDATE outbox_leases SET owner = ?, epoch = epoch + 1, until_at = ` + now + ` + ? WHERE bucket = 0 AND epoch = ? AND until_at <= ` + now,
	Renew:   `UPDATE outbox_leases SET until_at = ` + now + ` + ? WHERE bucket = 0 AND epoch = ?`,
	Release: `UPDATE outbox_leases SET owner = '', until_at = 0 WHERE bucket = 0 AND epoch = ?`,

	// State 1 is blocked (its key is parked), 2 is early (its time has not
	// come), 0 is neither. Place 0 is outbox_messages, 1 is outbox_waiting by
	// its own time, 2 is outbox_waiting by the time of its key.
	Ready: `SELECT id, topic, message_key, type, payload, header, created_at, deliver_at,
	CASE WHEN deliver_at > ` + now + ` THEN 2
	WHEN message_key <> '' AND EXISTS (SELECT 1 FROM outbox_parked p WHERE p.message_key = m.message_key) THEN 1
	ELSE 0 END
FROM outbox_messages m ORDER BY id LIMIT ?`,

	// Each half stops at the limit by itself, walking an index. CROSS JOIN
	// keeps SQLite from walking outbox_waiting first.
	Waiting: `SELECT id, topic, message_key, type, payload, header, created_at, deliver_at, attempt, error, place, state FROM (
	SELECT * FROM (SELECT ` + body + `, attempt, error, 1 AS place,
		message_key <> '' AND EXISTS (SELECT 1 FROM outbox_parked p WHERE p.message_key = w.message_key) AS state, due_at AS due
		FROM outbox_waiting w WHERE due_at <= ` + now + ` ORDER BY due_at, id LIMIT ?1)
	UNION ALL
	SELECT * FROM (SELECT w.id, w.topic, w.message_key, w.type, w.payload, w.header, w.deliver_at, w.created_at, w.attempt, w.error, 2 AS place,
		0 AS state, p.due_at AS due
		FROM outbox_parked p CROSS JOIN outbox_waiting w ON w.message_key = p.message_key AND w.due_at IS NULL
		WHERE p.due_at <= ` + now + ` ORDER BY p.due_at, p.message_key, w.id LIMIT ?1)
) ORDER BY due, id LIMIT ?1`,

	Park: `INSERT INTO outbox_parked (message_key, due_at)
SELECT j.value ->> 'key', ` + now + ` + (j.value ->> 'in') FROM json_each(?) j WHERE true
ON CONFLICT (message_key) DO UPDATE SET due_at = excluded.due_at`,

	HoldReady: `INSERT INTO outbox_waiting (` + body + `, attempt, due_at, error)
SELECT m.id, m.topic, m.message_key, m.type, m.payload, m.header, m.deliver_at, m.created_at,
	j.value ->> 'attempt', coalesce(j.value ->> 'at', ` + now + ` + (j.value ->> 'in')), j.value ->> 'error'
FROM json_each(?) j CROSS JOIN outbox_messages m ON m.id = j.value ->> 'id'`,
	HoldWaiting: `UPDATE outbox_waiting SET attempt = j.value ->> 'attempt',
	due_at = coalesce(j.value ->> 'at', ` + now + ` + (j.value ->> 'in')), error = j.value ->> 'error'
FROM json_each(?) j WHERE outbox_waiting.id = j.value ->> 'id'`,

	BuryReady:   bury(`outbox_messages`),
	BuryWaiting: bury(`outbox_waiting`),

	DeleteReady:   `DELETE FROM outbox_messages WHERE id` + listed,
	DeleteWaiting: `DELETE FROM outbox_waiting WHERE id` + listed,

	Due: `UPDATE outbox_parked SET due_at = ` + now + ` WHERE message_key` + listed,
	Unpark: `DELETE FROM outbox_parked WHERE message_key` + listed + `
AND NOT EXISTS (SELECT 1 FROM outbox_waiting w WHERE w.message_key = outbox_parked.message_key AND w.due_at IS NULL)`,

	Dead: `SELECT id, topic, message_key, type, payload, header, created_at, deliver_at, attempt, error
FROM outbox_dead WHERE id > ? ORDER BY id LIMIT ?`,
	Replay: `INSERT INTO outbox_waiting (` + body + `, attempt, due_at, error)
SELECT ` + body + `, 0, 0, '' FROM outbox_dead WHERE id` + listed,
	Forget: `DELETE FROM outbox_dead WHERE id` + listed,
	Purge:  `DELETE FROM outbox_dead WHERE died_at < ?`,

	// A message that waits for a time of its own in the future is not old.
	Stats: `SELECT
	(SELECT count(*) FROM (SELECT 1 FROM outbox_messages LIMIT ?1)),
	(SELECT count(*) FROM (SELECT 1 FROM outbox_waiting LIMIT ?1)),
	(SELECT count(*) FROM (SELECT 1 FROM outbox_parked LIMIT ?1)),
	(SELECT count(*) FROM (SELECT 1 FROM outbox_dead LIMIT ?1)),
	` + now + ` - coalesce((SELECT min(since) FROM (
		SELECT max(created_at, deliver_at) AS since FROM (SELECT created_at, deliver_at FROM outbox_messages ORDER BY id LIMIT ?1)
		UNION ALL
		SELECT max(created_at, deliver_at) FROM (SELECT created_at, deliver_at FROM outbox_waiting ORDER BY id LIMIT ?1)
	) WHERE since <= ` + now + `), ` + now + `),
	CASE WHEN until_at > ` + now + ` THEN owner ELSE '' END, epoch
FROM outbox_leases WHERE bucket = 0`,

	Busy: busy,
}

func bury(table string) string {
	return `INSERT INTO outbox_dead (` + body + `, attempt, error, died_at)
SELECT m.id, m.topic, m.message_key, m.type, m.payload, m.header, m.deliver_at, m.created_at,
	j.value ->> 'attempt', j.value ->> 'error', ` + now + `
FROM json_each(?) j CROSS JOIN ` + table + ` m ON m.id = j.value ->> 'id'`
}

const (
	insertHead = `INSERT INTO outbox_messages (topic, message_key, type, payload, header, deliver_at) VALUES `
	insertRow  = `(?, ?, ?, ?, ?, ?)`
)

func insert(rows int) string {
	if rows == 1 {
		return insertHead + insertRow
	}
	return insertHead + insertRow + strings.Repeat(`, `+insertRow, rows-1)
}
