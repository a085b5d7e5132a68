package sqlite

import "strconv"

// stats counts up to a bound. A message that waits for a time of its own in the
// future is not old.
func stats(bound int) string {
	limit := ` LIMIT ` + strconv.Itoa(bound)
	count := func(table string) string { return `(SELECT count(*) FROM (SELECT 1 FROM ` + table + limit + `))` }
	oldest := func(table string) string {
		return `SELECT max(created_at, deliver_at) AS since FROM (SELECT created_at, deliver_at FROM ` + table + ` ORDER BY id` + limit + `)`
	}
	return `SELECT ` + count(`outbox_messages`) + `, ` + count(`outbox_waiting`) + `, ` + count(`outbox_parked`) + `, ` + count(`outbox_dead`) + `,
	` + now + ` - coalesce((SELECT min(since) FROM (` + oldest(`outbox_messages`) + ` UNION ALL ` + oldest(`outbox_waiting`) + `)
		WHERE since <= ` + now + `), ` + now + `)`
}

func topicStats(bound int) string {
	rows := func(table, columns string) string {
		return `SELECT topic, ` + columns + ` FROM (SELECT topic FROM ` + table + ` ORDER BY id LIMIT ` + strconv.Itoa(bound) + `)`
	}
	return `SELECT topic, sum(ready), sum(waiting), sum(dead), max(paused) FROM (
	` + rows(`outbox_messages`, `1 AS ready, 0 AS waiting, 0 AS dead, 0 AS paused`) + `
	UNION ALL ` + rows(`outbox_waiting`, `0, 1, 0, 0`) + `
	UNION ALL ` + rows(`outbox_dead`, `0, 0, 1, 0`) + `
	UNION ALL SELECT topic, 0, 0, 0, 1 FROM outbox_topics WHERE paused = 1
) GROUP BY topic ORDER BY topic`
}
