package outboxtest

import (
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

const hour = int64(time.Hour / time.Microsecond)

// hold moves messages that were just added to outbox_waiting, with a time of
// their own, or, if at is negative, to wait for their key.
func (t *statementTest) hold(at int64, id ...int64) {
	t.Helper()
	held := make([]object, len(id))
	for i := range id {
		held[i] = object{"id": id[i], "attempt": 0, "in": nil, "at": at, "error": ""}
		if at < 0 {
			held[i]["at"] = nil
		}
	}
	require.Equal(t, len(id), t.exec(t.sql.HoldReady, jsonList(held...)))
	require.Equal(t, len(id), t.exec(t.sql.DeleteReady, jsonList(id...)))
}

// park parks keys of topic t that were due at a time.
func (t *statementTest) park(at int64, bucket int, keys ...string) {
	t.Helper()
	for _, key := range keys {
		t.exec(t.sql.Park, jsonList(object{"topic": "t", "key": key, "bucket": bucket, "in": 0}))
		require.Equal(t, 1, t.exec(`UPDATE outbox_parked SET due_at = `+strconv.FormatInt(at, 10)+` WHERE topic = 't' AND message_key = '`+key+`'`))
	}
}

func places(rows []row) (out []int) {
	for i := range rows {
		out = append(out, rows[i].place)
	}
	return out
}

// waitingOrder: longest due first, whether by a time of its own or by that of
// the key, and for one key in order of id, whatever the limit.
func waitingOrder(t *statementTest) {
	epoch := t.lease("me")
	const behind = 150
	var long []dialect.Row
	for range behind {
		long = append(long, dialect.Row{Key: "b"}, dialect.Row{Key: "a"})
	}
	id := t.insert(long...)
	rand.Shuffle(len(id), func(i, j int) { id[i], id[j] = id[j], id[i] }) // whatever the order of arrival
	t.hold(-1, id...)
	own := t.insertKeys("", "b", "")
	t.hold(20, own[0])
	t.hold(5, own[1])
	t.hold(40, own[2])
	t.park(30, 0, "b")
	t.park(10, 0, "a")

	var a, b []int64
	var r row
	t.each(dialect.Statement{Text: `SELECT id, message_key FROM outbox_waiting WHERE due_at IS NULL ORDER BY id`}, []any{&r.id, &r.key}, func() {
		if r.key == "a" {
			a = append(a, r.id)
		} else {
			b = append(b, r.id)
		}
	})
	want := append([]int64{own[1]}, a...)
	want = append(append(append(want, own[0]), b...), own[2])
	for _, limit := range []int{1, 2, 40, behind + 1, behind + 50, 2*behind + 3, 1000} {
		for _, buckets := range [][]int{nil, {0}, t.most()} {
			f := all(epoch)
			f.Limit, f.Buckets = limit, buckets
			require.Equal(t, want[:min(limit, len(want))], ids(t.waiting(f)), "limit %d, buckets %v", limit, buckets)
		}
	}
	got := t.waiting(all(epoch))
	require.Equal(t, []int{1, 2, 2}, places(got)[:3])
	require.Equal(t, []int{1, 0, 0}, states(got)[:3], "the key of the first is parked")
	require.Equal(t, 0, got[len(got)-1].state)
	require.Equal(t, "a", got[1].key)
}

func waitingFilters(t *statementTest) {
	epoch := t.lease("me")
	last := t.sql.Buckets - 1
	in := dialect.Row{Topic: "t", Key: "k", Type: "ty", Payload: everyByte(), Header: `{"a":"b"}`, DeliverAt: 7, Bucket: last}
	id := t.insert(in, in, dialect.Row{Topic: "t", Bucket: last}, dialect.Row{Topic: "x"}, dialect.Row{Topic: "u", Key: "k"}, dialect.Row{Key: "later"})
	created := t.fetch(all(epoch))[0].createdAt
	t.hold(-1, id[0], id[1], id[4])
	t.hold(5, id[2], id[3])
	t.hold(time.Now().UnixMicro()+hour, id[5])
	t.park(5, last, "k")
	t.exec(t.sql.Park, jsonList(object{"topic": "u", "key": "k", "bucket": 0, "in": hour}))

	got := t.waiting(all(epoch))
	require.Equal(t, id[:4], ids(got), "those that are due")
	require.Equal(t, in, dialect.Row{
		Topic: got[0].topic, Key: got[0].key, Type: got[0].typ, Payload: got[0].payload, Header: got[0].header,
		DeliverAt: got[0].deliverAt, Bucket: got[0].bucket,
	})
	require.Equal(t, created, got[0].createdAt)

	f := all(epoch)
	f.Except = []int64{id[0], id[3]}
	require.Equal(t, id[1:3], ids(t.waiting(f)))
	f.Limit = 1
	require.Equal(t, id[1:2], ids(t.waiting(f)))
	f = all(epoch)
	f.After, f.Parked = 1<<40, false
	require.Equal(t, id[:4], ids(t.waiting(f)), "After and Parked do not matter")
	f.Topics = []string{"x", "y"}
	require.Equal(t, id[:3], ids(t.waiting(f)), "not these")
	f.Not = false
	require.Equal(t, id[3:4], ids(t.waiting(f)), "only these")
	f.Topics = []string{"t"}
	require.Equal(t, id[:3], ids(t.waiting(f)), "only these")
	f.Topics = nil
	require.Empty(t, t.waiting(f))
	f.Not = true
	f.Epoch++
	require.Empty(t, t.waiting(f), "the lease is not there")
	f = all(epoch)
	f.Buckets = []int{}
	require.Empty(t, t.waiting(f))
	if last > 0 {
		f.Buckets = []int{last}
		require.Equal(t, id[:3], ids(t.waiting(f)))
		f.Buckets = []int{0}
		require.Equal(t, id[3:4], ids(t.waiting(f)))
		f.Buckets, f.Except = []int{0, 1, last}, id[:1]
		require.Equal(t, id[1:4], ids(t.waiting(f)))
		f.Buckets, f.Except = t.most(), id[3:4]
		require.Empty(t, t.waiting(f), "all but the last")
		f.Except = nil
		require.Equal(t, id[3:4], ids(t.waiting(f)), "all but the last")
	}
	t.exec(`UPDATE outbox_parked SET due_at = 0`)
	require.ElementsMatch(t, id[:5], ids(t.waiting(all(epoch))))
}

func hold(t *statementTest) {
	epoch := t.lease("me")
	id := t.insertKeys("a", "b", "c", "d", "e")
	text := "it's \"bad\"\n\t\\ é😀 \u2028<&>"
	require.Equal(t, 4, t.exec(t.sql.HoldReady, jsonList(
		object{"id": id[0], "attempt": 3, "in": 0, "at": nil, "error": text},
		object{"id": id[1], "attempt": 1, "in": nil, "at": 1234567, "error": ""},
		object{"id": id[2], "attempt": 0, "in": nil, "at": nil, "error": ""},
		object{"id": id[3], "attempt": 2, "in": int64(dialect.Never), "at": nil, "error": ""},
		object{"id": 1 << 40, "attempt": 2, "in": 0, "at": nil, "error": ""},
	)))
	due := func(i int) int64 {
		return t.number(`SELECT coalesce(due_at, -1) FROM outbox_waiting WHERE id = ` + strconv.FormatInt(id[i], 10))
	}
	require.InDelta(t, time.Now().UnixMicro(), due(0), float64(hour))
	require.EqualValues(t, 1234567, due(1))
	require.EqualValues(t, -1, due(2))
	require.EqualValues(t, dialect.Never, due(3))
	require.Len(t, t.fetch(all(epoch)), 5, "they are copies")
	got := t.waiting(all(epoch))
	require.Equal(t, []int64{id[1], id[0]}, ids(got))
	require.Equal(t, 3, got[1].attempt)
	require.Equal(t, text, got[1].error)

	require.Equal(t, 2, t.exec(t.sql.HoldWaiting, jsonList(
		object{"id": id[1], "attempt": 9, "in": hour, "at": nil, "error": text + text},
		object{"id": id[2], "attempt": 8, "in": nil, "at": 7, "error": ""},
	)))
	require.InDelta(t, time.Now().UnixMicro()+hour, due(1), float64(hour/2))
	require.EqualValues(t, 7, due(2))
	t.exec(t.sql.HoldWaiting, jsonList(object{"id": id[0], "attempt": 4, "in": nil, "at": nil, "error": ""}))
	require.EqualValues(t, -1, due(0))
	t.exec(`UPDATE outbox_waiting SET due_at = 8 WHERE id = ` + strconv.FormatInt(id[1], 10))
	got = t.waiting(all(epoch))
	require.Equal(t, []int64{id[2], id[1]}, ids(got))
	require.Equal(t, []int{8, 9}, []int{got[0].attempt, got[1].attempt})
	require.Equal(t, text+text, got[1].error)

	require.Equal(t, 2, t.exec(t.sql.DeleteWaiting, jsonList(id[1], id[2], 1<<40)))
	require.EqualValues(t, 2, t.number(`SELECT count(*) FROM outbox_waiting`))
	require.Equal(t, 3, t.exec(t.sql.DeleteReady, jsonList(id[0], id[1], id[4])))
	require.Equal(t, id[2:4], ids(t.fetch(all(epoch))))
}

func parkDueUnpark(t *statementTest) {
	require.Zero(t, t.number(t.sql.AnyParked))
	last := t.sql.Buckets - 1
	due := func(key string) int64 {
		return t.number(`SELECT coalesce(max(due_at), -1) FROM outbox_parked WHERE topic = 't' AND message_key = '` + key + `'`)
	}
	t.exec(t.sql.Park, jsonList(
		object{"topic": "t", "key": "a", "bucket": last, "in": hour},
		object{"topic": "t", "key": "b", "bucket": 0, "in": int64(dialect.Never)},
		object{"topic": "u", "key": "a", "bucket": 0, "in": 0},
	))
	require.EqualValues(t, 1, t.number(t.sql.AnyParked))
	require.EqualValues(t, last, t.number(`SELECT bucket FROM outbox_parked WHERE topic = 't' AND message_key = 'a'`))
	require.InDelta(t, time.Now().UnixMicro()+hour, due("a"), float64(hour/2))
	require.EqualValues(t, dialect.Never, due("b"))
	t.exec(t.sql.Park, jsonList(object{"topic": "t", "key": "a", "bucket": last, "in": 3 * hour}, object{"topic": "t", "key": "c", "bucket": 0, "in": hour}))
	require.InDelta(t, time.Now().UnixMicro()+3*hour, due("a"), float64(hour/2), "it may be parked already")
	require.EqualValues(t, 4, t.number(`SELECT count(*) FROM outbox_parked`))

	t.exec(t.sql.Due, jsonList(object{"topic": "t", "key": "a"}, object{"topic": "t", "key": "not there"}))
	require.InDelta(t, time.Now().UnixMicro(), due("a"), float64(hour/2))
	require.EqualValues(t, dialect.Never, due("b"))

	id := t.insertKeys("a", "c")
	t.hold(-1, id[0]) // waits for its key
	t.hold(9, id[1])  // does not
	t.exec(t.sql.Unpark, jsonList(object{"topic": "t", "key": "a"}, object{"topic": "t", "key": "c"}, object{"topic": "u", "key": "a"}))
	require.Equal(t, []bool{true, true, false}, []bool{due("a") >= 0, due("b") >= 0, due("c") >= 0})
	require.EqualValues(t, 2, t.number(`SELECT count(*) FROM outbox_parked`))
	t.exec(t.sql.DeleteWaiting, jsonList(id[0]))
	t.exec(t.sql.Unpark, jsonList(object{"topic": "t", "key": "a"}, object{"topic": "t", "key": "b"}))
	require.Zero(t, t.number(t.sql.AnyParked))
}

func buryReplayPurge(t *statementTest) {
	epoch := t.lease("me")
	in := dialect.Row{Topic: "t", Key: "k ", Type: "ty", Payload: everyByte(), Header: `{"a":"b"}`, DeliverAt: 5, Bucket: t.sql.Buckets - 1}
	id := t.insert(in, in, in)
	created := t.fetch(all(epoch))[0].createdAt
	require.Equal(t, 1, t.exec(t.sql.BuryReady, jsonList(object{"id": id[0], "attempt": 7, "in": nil, "at": nil, "error": "é\n"})))
	t.hold(3, id[1])
	require.Equal(t, 1, t.exec(t.sql.BuryWaiting, jsonList(object{"id": id[1], "attempt": 8, "error": ""}, object{"id": id[2], "attempt": 8, "error": ""})))
	got := t.dead(0, 10)
	require.Equal(t, id[:2], ids(got))
	require.Equal(t, in, dialect.Row{
		Topic: got[0].topic, Key: got[0].key, Type: got[0].typ, Payload: got[0].payload, Header: got[0].header,
		DeliverAt: got[0].deliverAt, Bucket: in.Bucket,
	})
	require.Equal(t, created, got[0].createdAt)
	require.Equal(t, 7, got[0].attempt)
	require.Equal(t, "é\n", got[0].error)
	require.Equal(t, id[:1], ids(t.dead(0, 1)))
	require.Equal(t, id[1:2], ids(t.dead(id[0], 10)))

	t.exec(t.sql.DeleteWaiting, jsonList(id[1]))
	require.Equal(t, 2, t.exec(t.sql.Replay, jsonList(id[0], id[1], 1<<40)))
	got = t.waiting(all(epoch))
	require.Equal(t, id[:2], ids(got))
	require.Equal(t, in.Bucket, got[0].bucket)
	require.Equal(t, in.Payload, got[0].payload)
	require.Zero(t, got[0].attempt)
	require.Empty(t, got[0].error)
	require.Equal(t, 1, t.exec(t.sql.Forget, jsonList(id[0], 1<<40)))
	require.Equal(t, id[1:2], ids(t.dead(0, 10)))

	require.Zero(t, t.exec(t.sql.Purge, time.Now().UnixMicro()-hour))
	require.Equal(t, 1, t.exec(t.sql.Purge, time.Now().UnixMicro()+hour))
	require.Empty(t, t.dead(0, 10))
}

func pauseResume(t *statementTest) {
	paused := func() (out []string) {
		var topic string
		t.each(dialect.Statement{Text: t.sql.Paused}, []any{&topic}, func() { out = append(out, topic) })
		return out
	}
	require.Empty(t, paused())
	t.exec(t.sql.Pause, "b", 1)
	t.exec(t.sql.Pause, "a", 1)
	t.exec(t.sql.Pause, "a", 1)
	t.exec(t.sql.Pause, "c", 0)
	require.ElementsMatch(t, []string{"a", "b"}, paused())
	t.exec(t.sql.Pause, "a", 0)
	require.Equal(t, []string{"b"}, paused())

	never := int64(dialect.Never)
	id := t.insert(dialect.Row{Topic: "a"}, dialect.Row{Topic: "b"}, dialect.Row{Topic: "a"}, dialect.Row{Topic: "a ", Key: "k"})
	t.hold(never, id[0], id[1])
	t.hold(7, id[2])
	t.hold(-1, id[3])
	t.exec(t.sql.Park, jsonList(
		object{"topic": "a", "key": "x", "bucket": 0, "in": never}, object{"topic": "a", "key": "y", "bucket": 0, "in": hour},
		object{"topic": "b", "key": "x", "bucket": 0, "in": never}, object{"topic": "a ", "key": "k", "bucket": 0, "in": never},
	))
	waits := func(table string) int64 {
		return t.number(`SELECT count(*) FROM ` + table + ` WHERE due_at >= ` + strconv.FormatInt(never, 10))
	}
	t.exec(t.sql.ResumeKeys, jsonList("b", "a", "a "))
	t.exec(t.sql.ResumeMessages, jsonList("b", "a", "a "))
	require.Equal(t, []int64{3, 2}, []int64{waits("outbox_parked"), waits("outbox_waiting")})
	t.exec(t.sql.ResumeKeys, jsonList("b", "a "))
	t.exec(t.sql.ResumeMessages, jsonList("b", "x"))
	require.Equal(t, []int64{2, 1}, []int64{waits("outbox_parked"), waits("outbox_waiting")})
	require.EqualValues(t, 1, t.number(`SELECT count(*) FROM outbox_parked WHERE message_key = 'y' AND due_at > `+strconv.FormatInt(time.Now().UnixMicro()+hour/2, 10)), "not what waits for something else")
	t.exec(t.sql.ResumeKeys, jsonList[string]())
	t.exec(t.sql.ResumeMessages, jsonList[string]())
	require.Equal(t, []int64{0, 0}, []int64{waits("outbox_parked"), waits("outbox_waiting")})
	require.EqualValues(t, 7, t.number(`SELECT due_at FROM outbox_waiting WHERE id = `+strconv.FormatInt(id[2], 10)))
	require.EqualValues(t, 1, t.number(`SELECT count(*) FROM outbox_waiting WHERE due_at IS NULL`))
}
