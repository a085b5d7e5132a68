package mysql

import (
	"slices"
	"strconv"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// fewBuckets is up to how many waiting looks into each by itself.
const fewBuckets = buckets / 8

// waiting has two halves, which each stop at the limit by themselves, walking an
// index for ids. Place 1 is a message by its own time, 2 is one by the time of
// its key.
//
// The second half is ordered by columns of outbox_parked only, so that it needs
// no sorting and stops at the limit: a key may have a million messages. For each
// key the messages come in order of id nevertheless, since that is the order of
// the index that they are found by.
//
// Each of a few buckets has walks of its own. Of many, one walk for all finds
// enough soon, and planning a hundred walks would take milliseconds, also where
// nothing waits.
func waiting(f dialect.Fetch) dialect.Statement {
	limit := ` LIMIT ` + strconv.Itoa(f.Limit)
	var walks []string
	ofTopics, args := topics(`d`, f)
	walk := func(index, filter string) {
		where := ` WHERE d.due_at <= ` + now + filter + ofTopics
		walks = append(walks,
			`SELECT d.id, d.due_at AS due, 1 AS place FROM outbox_waiting d FORCE INDEX (`+index+`)`+
				where+except("d.id", f.Except)+` ORDER BY d.due_at, d.id`+limit,
			`SELECT w.id, d.due_at AS due, 2 AS place FROM outbox_parked d FORCE INDEX (`+index+`)
STRAIGHT_JOIN outbox_waiting w FORCE INDEX (waits) ON w.topic = d.topic AND w.message_key = d.message_key AND w.due_at IS NULL`+
				where+except("w.id", f.Except)+` ORDER BY d.due_at, d.topic, d.message_key`+limit)
	}
	switch n := len(f.Buckets); {
	case f.Buckets == nil:
		walk(`due`, ``)
	case n == 0:
		walk(`due`, ` AND FALSE`)
	case n > fewBuckets:
		walk(`due`, ` AND d.bucket IN (`+numbers(f.Buckets)+`)`)
	default:
		for _, bucket := range f.Buckets {
			walk(`bucket`, ` AND d.bucket = `+strconv.Itoa(bucket))
		}
	}
	return dialect.Statement{Text: `SELECT ` + of("m", head) + `, m.bucket, CASE WHEN i.place = 1 AND ` + parked + ` THEN 1 ELSE 0 END, m.attempt, m.error, i.place
FROM outbox_leases l STRAIGHT_JOIN (SELECT u.id, u.due, u.place FROM (` + union(walks) + `) u ORDER BY u.due, u.id` + limit + `) i
STRAIGHT_JOIN outbox_waiting m FORCE INDEX (PRIMARY) ON m.id = i.id
WHERE l.epoch = ` + strconv.FormatInt(f.Epoch, 10) + ` ORDER BY i.due, i.id`, Args: slices.Repeat(args, len(walks))}
}
