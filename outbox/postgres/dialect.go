package postgres

import (
	"strconv"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// Dialect is the PostgreSQL dialect, to be given to outbox.New. The zero value
// is ready. A Dialect is safe for concurrent use by multiple goroutines.
type Dialect struct{}

// SQL returns the statements of the dialect, for package outbox.
func (Dialect) SQL() *dialect.SQL { return &statements }

// now is the clock of the database in microseconds: the time at which it is
// evaluated, and not that of the transaction's beginning. A double holds it with
// a quarter of a microsecond to spare.
const now = `(date_part('epoch', clock_timestamp()) * 1000000)::bigint`

// never is dialect.Never.
const never = `4611686018427387904`

// bounded is true, and lets the server end the session if its transaction, which
// now has a lock that others wait for, is idle for five seconds: its process
// hangs, and nobody could take over from it. It holds until the transaction ends.
const bounded = `set_config('idle_in_transaction_session_timeout', '5000', true) <> ''`

var statements = dialect.SQL{
	Name:       "postgres",
	Buckets:    64,
	Versions:   versions,
	Bootstrap:  bootstrap,
	LockSchema: `LOCK TABLE outbox_schema IN SHARE ROW EXCLUSIVE MODE`,
	Installed:  `SELECT CASE WHEN to_regclass('outbox_schema') IS NULL THEN 0 ELSE 1 END`,
	Version:    `SELECT coalesce(max(version), 0) FROM outbox_schema`,

	MaxRows: 500,
	Insert:  insert,

	Fetch:    fetch,
	Ack:      ack,
	AckFetch: ackFetch,
	Held:     `SELECT 1 FROM outbox_leases WHERE epoch = $1`,
	Waiting:  waiting,

	Park: `INSERT INTO outbox_parked (due_at, bucket, topic, message_key)
SELECT DISTINCT ON (topic, key) ` + due + `, bucket, topic, key
FROM ROWS FROM (json_to_recordset($1::text::json) AS (topic text, key text, bucket smallint, "in" bigint)) WITH ORDINALITY
	AS j (topic, key, bucket, delay, n)
ORDER BY topic, key, n DESC
ON CONFLICT (topic, message_key) DO UPDATE SET due_at = excluded.due_at, bucket = excluded.bucket`,
	HoldReady: `INSERT INTO outbox_waiting (` + carried + `, attempt, due_at, error)
SELECT m.*, j.attempt, coalesce(j.at, ` + due + `), j.error
FROM ` + holdings + fromReady,
	HoldWaiting: `WITH j AS MATERIALIZED (SELECT * FROM ` + holdings + `)
UPDATE outbox_waiting w SET attempt = j.attempt, due_at = coalesce(j.at, ` + due + `), error = j.error
FROM j WHERE w.id = j.id AND w.id = ANY (ARRAY(SELECT id FROM j))`,
	BuryReady:   bury + fromReady,
	BuryWaiting: bury + fromWaiting,
	ArchiveWaiting: func(n int) string {
		return `INSERT INTO ` + archive(n) + ` (` + carried + `, delivered_at)
SELECT ` + carried + `, (SELECT ` + now + `) FROM outbox_waiting WHERE id` + listed
	},
	DeleteReady:   `DELETE FROM outbox_messages WHERE id` + listed,
	DeleteWaiting: `DELETE FROM outbox_waiting WHERE id` + listed,

	Due: keys + `UPDATE outbox_parked p SET due_at = ` + now + ` FROM j
WHERE p.message_key = ANY (ARRAY(SELECT key FROM j)) AND p.topic = j.topic AND p.message_key = j.key`,
	Unpark: keys + `DELETE FROM outbox_parked p USING j
WHERE p.message_key = ANY (ARRAY(SELECT key FROM j)) AND p.topic = j.topic AND p.message_key = j.key
AND NOT EXISTS (SELECT FROM outbox_waiting w WHERE w.topic = p.topic AND w.message_key = p.message_key AND w.due_at IS NULL OFFSET 0)`,
	ResumeKeys:     `UPDATE outbox_parked SET due_at = ` + now + ` WHERE due_at >= ` + never + ` AND topic` + notListed,
	ResumeMessages: `UPDATE outbox_waiting SET due_at = ` + now + ` WHERE due_at >= ` + never + ` AND topic` + notListed,
	AnyParked:      `SELECT count(*) FROM (SELECT FROM outbox_parked` + ` ORDER BY due_at LIMIT 1) p`,

	LockState: `UPDATE outbox_state SET epoch = epoch + $1 WHERE ` + bounded,
	State:     `SELECT epoch, archive, ` + now + ` - rotated_at FROM outbox_state`,
	Join:      `INSERT INTO outbox_leases (epoch, owner, until_at) VALUES ($1, $2, ` + now + ` + $3)`,
	Leave:     `DELETE FROM outbox_leases WHERE epoch = $1`,
	Renew:     `UPDATE outbox_leases SET until_at = ` + now + ` + $1 WHERE epoch = $2 AND ` + bounded,
	Expire:    `DELETE FROM outbox_leases WHERE until_at <= ` + now,
	Free:      `UPDATE outbox_buckets SET epoch = 0 WHERE epoch <> 0 AND epoch NOT IN (SELECT epoch FROM outbox_leases)`,
	Leases:    `SELECT epoch, owner, until_at - ` + now + ` FROM outbox_leases ORDER BY epoch`,
	Owners:    `SELECT bucket, epoch FROM outbox_buckets ORDER BY bucket`,
	Assign:    `UPDATE outbox_buckets SET epoch = $1 WHERE bucket = $2`,

	Pause: `INSERT INTO outbox_topics (topic, paused) VALUES ($1, $2)
ON CONFLICT (topic) DO UPDATE SET paused = excluded.paused`,
	Paused: `SELECT topic FROM outbox_topics WHERE paused = 1 ORDER BY topic`,

	Watermark: watermark,
	Markable:  markable,

	Dead: `SELECT id, topic, message_key, type, payload, header, created_at, deliver_at, attempt, error FROM outbox_dead WHERE id > $1 ORDER BY id LIMIT $2`,
	Replay: `INSERT INTO outbox_waiting (` + carried + `, attempt, due_at, error)
SELECT ` + carried + `, 0, 0, '' FROM outbox_dead WHERE id` + listed,
	Forget: `DELETE FROM outbox_dead WHERE id` + listed,
	Purge:  `DELETE FROM outbox_dead WHERE died_at < $1`,

	PurgeArchive: `DELETE FROM outbox_archive_0 WHERE ctid = ANY (ARRAY(
	SELECT ctid FROM outbox_archive_0 WHERE delivered_at < ` + now + ` - $1 ORDER BY delivered_at, id LIMIT $2))`,
	Rotate:  rotate,
	Rotated: `UPDATE outbox_state SET archive = $1, rotated_at = ` + now + ` WHERE archive = $2`,

	Stats:      stats,
	TopicStats: topicStats,

	Busy:    busy,
	Explain: explain,
}

const (
	// holdings are a list of what becomes of messages, keys one of keys.
	holdings = `ROWS FROM (json_to_recordset($1::text::json) AS (id bigint, attempt integer, "in" bigint, at bigint, error text))
	AS j (id, attempt, delay, at, error)`
	keys = `WITH j AS MATERIALIZED (SELECT * FROM json_to_recordset($1::text::json) AS j (topic text, key text))
`
	// listed unfolds a list of ids, notListed one of topics.
	listed    = ` = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text($1::text::json)))`
	notListed = ` <> ALL (ARRAY(SELECT value FROM json_array_elements_text($1::text::json)))`
	// due is the time of what is due after a delay.
	due = `CASE WHEN delay >= ` + never + ` THEN ` + never + ` ELSE (SELECT ` + now + `) + delay END`
	// fromReady and fromWaiting find the messages of a list one by one, with
	// the primary key: without the OFFSET a plan might read the whole table.
	fromReady   = ` CROSS JOIN LATERAL (SELECT ` + carried + ` FROM outbox_messages WHERE id = j.id OFFSET 0) m`
	fromWaiting = ` CROSS JOIN LATERAL (SELECT ` + carried + ` FROM outbox_waiting WHERE id = j.id OFFSET 0) m`
	bury        = `INSERT INTO outbox_dead (` + carried + `, attempt, error, died_at)
SELECT m.*, j.attempt, j.error, (SELECT ` + now + `) FROM ` + holdings
)

// rotate gives up at once where somebody reads the archive: a TRUNCATE that
// waits holds up everybody who comes after it.
func rotate(n int) string {
	return `DO $$ BEGIN
	LOCK TABLE ` + archive(n) + ` IN ACCESS EXCLUSIVE MODE NOWAIT;
	TRUNCATE ` + archive(n) + `;
END $$`
}

// stats looks at the bound's number of messages and no further. A message that
// waits for a time of its own in the future is not old.
func stats(bound int) string {
	limit := ` LIMIT ` + strconv.Itoa(bound)
	count := func(table, order string) string {
		return `(SELECT count(*) FROM (SELECT FROM ` + table + inOrder + ` ORDER BY ` + order + limit + `) t)`
	}
	since := func(table string) string {
		return `SELECT greatest(created_at, deliver_at) AS since FROM (SELECT created_at, deliver_at FROM ` + table + inOrder + ` ORDER BY id` + limit + `) t`
	}
	return `SELECT ` + count(`outbox_messages`, `id`) + `, ` + count(`outbox_waiting`, `id`) + `, ` + count(`outbox_parked`, `due_at`) + `, ` + count(`outbox_dead`, `id`) + `,
	coalesce((SELECT max(now.us - since) FROM (` + since(`outbox_messages`) + ` UNION ALL ` + since(`outbox_waiting`) + `) t WHERE since <= now.us), 0)
FROM (SELECT ` + now + ` AS us) now`
}

func topicStats(bound int) string {
	count := func(table, counts string) string {
		return `SELECT topic, ` + counts + ` FROM (SELECT topic FROM ` + table + inOrder + ` ORDER BY id LIMIT ` + strconv.Itoa(bound) + `) t GROUP BY topic`
	}
	return `SELECT topic, sum(ready)::bigint, sum(waiting)::bigint, sum(dead)::bigint, max(paused) FROM (
	` + count(`outbox_messages`, `count(*) AS ready, 0 AS waiting, 0 AS dead, 0 AS paused`) + `
	UNION ALL ` + count(`outbox_waiting`, `0, count(*), 0, 0`) + `
	UNION ALL ` + count(`outbox_dead`, `0, 0, count(*), 0`) + `
	UNION ALL SELECT topic, 0, 0, 0, 1 FROM outbox_topics WHERE paused = 1
) t GROUP BY topic ORDER BY topic`
}
