package outboxtest

import (
	"strconv"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// leasesLeft returns the owners of the leases, in order, and the time they have.
func (t *statementTest) leasesLeft() (owners []string, left []time.Duration) {
	t.Helper()
	var epoch, last, us int64
	var owner string
	t.each(dialect.Statement{Text: t.sql.Leases}, []any{&epoch, &owner, &us}, func() {
		require.Greater(t, epoch, last)
		last = epoch
		owners, left = append(owners, owner), append(left, time.Duration(us)*time.Microsecond)
	})
	return owners, left
}

func (t *statementTest) owners() map[int]int64 {
	t.Helper()
	out := map[int]int64{}
	var bucket int
	var epoch int64
	t.each(dialect.Statement{Text: t.sql.Owners}, []any{&bucket, &epoch}, func() { out[bucket] = epoch })
	require.Len(t, out, t.sql.Buckets)
	return out
}

func (t *statementTest) held(epoch int64) (there bool) {
	t.Helper()
	var one int
	t.each(dialect.Statement{Text: t.sql.Held, Args: []any{epoch}}, []any{&one}, func() {
		require.Equal(t, 1, one)
		there = true
	})
	return there
}

func leases(t *statementTest) {
	newest, archive, since := t.state()
	require.Equal(t, []int64{0, 0}, []int64{newest, int64(archive)})
	require.Less(t, since.Abs(), time.Hour)
	owners, _ := t.leasesLeft()
	require.Empty(t, owners)
	for bucket, epoch := range t.owners() {
		require.Zero(t, epoch, bucket)
		require.Less(t, bucket, t.sql.Buckets)
	}

	first, second := t.lease("host/1"), t.lease("hôst/2 ")
	require.Greater(t, second, first)
	t.exec(t.sql.LockState, 0)
	newest, _, _ = t.state()
	require.Equal(t, second, newest)
	owners, left := t.leasesLeft()
	require.Equal(t, []string{"host/1", "hôst/2 "}, owners)
	require.InDelta(t, time.Hour, left[0], float64(time.Minute))
	require.True(t, t.held(first) && t.held(second))
	require.False(t, t.held(second+1))

	last := t.sql.Buckets - 1
	require.Equal(t, 1, t.exec(t.sql.Assign, second, last))
	require.Equal(t, second, t.owners()[last])
	require.Zero(t, t.exec(t.sql.Free), "its lease is there")
	require.Equal(t, second, t.owners()[last])

	// Renewing affects a row each time, however often within a microsecond.
	for range 200 {
		require.Equal(t, 1, t.exec(t.sql.Renew, 2*hour, first))
	}
	_, left = t.leasesLeft()
	require.InDelta(t, 2*time.Hour, left[0], float64(time.Minute))
	require.InDelta(t, time.Hour, left[1], float64(time.Minute))
	require.Zero(t, t.exec(t.sql.Renew, hour, second+1))

	require.Equal(t, 1, t.exec(t.sql.Leave, second))
	require.Zero(t, t.exec(t.sql.Leave, second))
	require.Zero(t, t.exec(t.sql.Renew, hour, second))
	require.False(t, t.held(second))
	require.Equal(t, 1, t.exec(t.sql.Free))
	require.Zero(t, t.owners()[last])
}

func leaseExpires(t *statementTest) {
	first, second := t.lease("a"), t.lease("b")
	require.Zero(t, t.exec(t.sql.Expire))
	t.exec(`UPDATE outbox_leases SET until_at = 1 WHERE epoch = ` + strconv.FormatInt(first, 10))
	_, left := t.leasesLeft()
	require.Len(t, left, 2, "it has ended and is there")
	require.Less(t, left[0], -time.Hour)
	require.True(t, t.held(first))
	t.insertKeys("k")
	require.Len(t, t.fetch(all(first)), 1, "nobody has taken over")
	require.Equal(t, 1, t.exec(t.sql.Renew, 0, first), "so it may go on")
	require.Equal(t, 1, t.exec(t.sql.Expire), "at once, with a lease of no time")
	owners, _ := t.leasesLeft()
	require.Equal(t, []string{"b"}, owners)
	require.Empty(t, t.fetch(all(first)))
	require.Len(t, t.fetch(all(second)), 1)
	require.Zero(t, t.exec(t.sql.Renew, hour, first))
}

type topicCount struct {
	topic              string
	ready, waits, dead int64
	paused             bool
}

func statsAndTopics(t *statementTest) {
	counts := func(bound int) (n [4]int64, oldest int64) {
		t.Helper()
		require.NoError(t, t.db.QueryRowContext(t.Context(), t.sql.Stats(bound)).Scan(&n[0], &n[1], &n[2], &n[3], &oldest))
		return n, oldest
	}
	topics := func(bound int) (out []topicCount) {
		t.Helper()
		var c topicCount
		t.each(dialect.Statement{Text: t.sql.TopicStats(bound)}, []any{&c.topic, &c.ready, &c.waits, &c.dead, &c.paused}, func() { out = append(out, c) })
		return out
	}
	n, oldest := counts(10)
	require.Zero(t, n)
	require.LessOrEqual(t, oldest, int64(0))
	require.Empty(t, topics(10))

	later := time.Now().UnixMicro() + hour
	id := t.insert(dialect.Row{Topic: "a"}, dialect.Row{Topic: "b", DeliverAt: later}, dialect.Row{Topic: "a"}, dialect.Row{Topic: "a"}, dialect.Row{Topic: "c", DeliverAt: later})
	t.hold(later, id[4])
	t.hold(1, id[3])
	t.exec(t.sql.BuryReady, jsonList(object{"id": id[2], "attempt": 1, "error": ""}))
	t.exec(t.sql.DeleteReady, jsonList(id[2]))
	t.exec(t.sql.Park, jsonList(object{"topic": "a", "key": "k", "bucket": 0, "in": hour}))
	t.exec(t.sql.Pause, "b", 1)
	t.exec(t.sql.Pause, "z", 1)
	t.exec(t.sql.Pause, "a", 0)
	n, oldest = counts(10)
	require.Equal(t, [4]int64{2, 2, 1, 1}, n)
	require.InDelta(t, 0, oldest, float64(time.Minute.Microseconds()))
	want := []topicCount{{"a", 1, 1, 1, false}, {"b", 1, 0, 0, true}, {"c", 0, 1, 0, false}, {"z", 0, 0, 0, true}}
	require.Equal(t, want, topics(10))

	n, _ = counts(1)
	require.Equal(t, [4]int64{1, 1, 1, 1}, n)
	require.Equal(t, topicCount{"a", 1, 1, 1, false}, topics(1)[0])

	t.exec(`UPDATE outbox_messages SET created_at = created_at - ` + strconv.FormatInt(2*hour, 10))
	_, oldest = counts(10)
	require.InDelta(t, 2*hour, oldest, float64(time.Minute.Microseconds()), "the one that is due")
	t.exec(`DELETE FROM outbox_messages WHERE deliver_at = 0`)
	t.exec(`DELETE FROM outbox_waiting WHERE deliver_at = 0`)
	_, oldest = counts(10)
	require.LessOrEqual(t, oldest, int64(0), "what is not due is not old")
}

func archivePurged(t *statementTest) {
	id := t.insertKeys("a", "", "b")
	t.hold(3, id...)
	require.Equal(t, 2, t.exec(t.sql.ArchiveWaiting(0), jsonList(id[0], id[1], 1<<40)))
	require.Equal(t, 1, t.exec(t.sql.ArchiveWaiting(2), jsonList(id[2])))
	require.EqualValues(t, 3, t.number(`SELECT count(*) FROM outbox_waiting`), "they are copies")
	require.Zero(t, t.exec(t.sql.PurgeArchive, hour, 10))
	t.exec(`UPDATE outbox_archive_0 SET delivered_at = delivered_at - ` + strconv.FormatInt(2*hour, 10))
	require.Zero(t, t.exec(t.sql.PurgeArchive, 3*hour, 10))
	require.Equal(t, 1, t.exec(t.sql.PurgeArchive, hour, 1))
	require.Equal(t, 1, t.exec(t.sql.PurgeArchive, hour, 10))
	require.EqualValues(t, 1, t.number(`SELECT count(*) FROM outbox_archive_2`))
}

func archiveRotated(t *statementTest) {
	epoch := t.lease("me")
	for archive := range 3 {
		t.execAll(t.sql.Ack(dialect.Ack{Epoch: epoch, IDs: t.insertKeys("a", "b"), Archive: archive}))
	}
	t.execAll([]dialect.Statement{{Text: t.sql.LockState, Args: []any{0}}, {Text: t.sql.Rotate(1)}})
	for archive, want := range []int64{2, 0, 2} {
		require.Equal(t, want, t.number(`SELECT count(*) FROM outbox_archive_`+strconv.Itoa(archive)))
	}
	t.exec(`UPDATE outbox_state SET rotated_at = rotated_at - ` + strconv.FormatInt(2*hour, 10))
	_, archive, since := t.state()
	require.Zero(t, archive)
	require.InDelta(t, 2*time.Hour, since, float64(time.Minute))
	require.Zero(t, t.exec(t.sql.Rotated, 2, 1), "somebody was faster")
	require.Equal(t, 1, t.exec(t.sql.Rotated, 1, 0))
	newest, archive, since := t.state()
	require.Equal(t, []int64{epoch, 1}, []int64{newest, int64(archive)})
	require.InDelta(t, 0, since, float64(time.Minute))
}

func watermarkReads(t *statementTest) {
	if t.sql.Watermark == "" {
		t.Skip("this dialect has none")
	}
	var why string
	require.NoError(t, t.db.QueryRowContext(t.Context(), t.sql.Markable).Scan(&why))
	require.Empty(t, why)
	id := t.insertKeys("a", "b")
	var newest int64
	var holders string
	require.NoError(t, t.db.QueryRowContext(t.Context(), t.sql.Watermark).Scan(&newest, &holders))
	require.GreaterOrEqual(t, newest, id[1])
	require.Empty(t, holders)

	tx, err := t.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback() }()
	st := t.sql.Insert([]dialect.Row{{Topic: "t", Payload: []byte{}}})
	_, err = tx.ExecContext(t.Context(), st.Text, st.Args...)
	require.NoError(t, err)
	require.NoError(t, t.db.QueryRowContext(t.Context(), t.sql.Watermark).Scan(&newest, &holders))
	require.GreaterOrEqual(t, newest, id[1])
	require.NotEmpty(t, holders)
	require.NotContains(t, holders, ",")
}
