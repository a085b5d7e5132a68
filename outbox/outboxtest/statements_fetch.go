package outboxtest

import (
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

func insertAndFetch(t *statementTest) {
	epoch := t.lease("me")
	last := t.sql.Buckets - 1
	in := []dialect.Row{
		{Topic: "orders", Key: "order/42", Type: "paid", Bucket: last, Payload: everyByte(), Header: `{"a":"ü \\ ' \""}`, DeliverAt: 1},
		{Topic: "'; DROP TABLE outbox_messages; --", Key: "\u2028<&>", Payload: []byte(`\0'"`), DeliverAt: 253402300799999999},
		{Topic: strings.Repeat("é", 127) + "x", Key: strings.Repeat("k", 255), Type: strings.Repeat("😀", 63) + "xyz", Payload: make([]byte, 1<<20)},
	}
	id := t.insert(in...)
	got := t.fetch(all(epoch))
	require.Equal(t, id, ids(got))
	for i, r := range got {
		require.Equal(t, in[i].Topic, r.topic)
		require.Equal(t, in[i].Key, r.key)
		require.Equal(t, in[i].Type, r.typ)
		require.Equal(t, in[i].Payload, r.payload)
		require.Equal(t, in[i].Header, r.header)
		require.Equal(t, in[i].Bucket, r.bucket)
		require.Equal(t, in[i].DeliverAt, r.deliverAt)
		require.WithinRange(t, time.UnixMicro(r.createdAt), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	}
	require.Equal(t, []int{0, 2, 0}, states(got))

	many := make([]dialect.Row, t.sql.MaxRows)
	require.Len(t, t.insert(many...), len(many))

	// An id is not used again when the newest message is gone.
	t.exec(`DELETE FROM outbox_messages`)
	require.Greater(t, t.insertKeys("")[0], id[2]+int64(len(many)))
}

func fetchFilters(t *statementTest) {
	epoch := t.lease("me")
	last := t.sql.Buckets - 1 // the same as bucket 0 where there is one
	id := t.insert(
		dialect.Row{Topic: "a"}, dialect.Row{Topic: "b", Bucket: last}, dialect.Row{Topic: "c"},
		dialect.Row{Topic: "a", Bucket: last}, dialect.Row{Topic: "b"}, dialect.Row{Topic: "a"},
	)
	both := []int{0, last}
	if last == 0 {
		both = []int{0}
	}
	for name, c := range map[string]struct {
		f    dialect.Fetch
		want []int // indexes of id
	}{
		"all":                  {dialect.Fetch{Not: true}, []int{0, 1, 2, 3, 4, 5}},
		"limit":                {dialect.Fetch{Not: true, Limit: 2}, []int{0, 1}},
		"after":                {dialect.Fetch{Not: true, After: id[2]}, []int{3, 4, 5}},
		"except":               {dialect.Fetch{Not: true, Except: []int64{id[0], id[4], 1 << 40}}, []int{1, 2, 3, 5}},
		"except and limit":     {dialect.Fetch{Not: true, Except: []int64{id[0], id[1]}, Limit: 2}, []int{2, 3}},
		"topics":               {dialect.Fetch{Topics: []string{"a"}}, []int{0, 3, 5}},
		"several topics":       {dialect.Fetch{Topics: []string{"b", "c", "x"}, Limit: 2}, []int{1, 2}},
		"no topic":             {dialect.Fetch{}, nil},
		"not a topic":          {dialect.Fetch{Topics: []string{"a"}, Not: true}, []int{1, 2, 4}},
		"not topics":           {dialect.Fetch{Topics: []string{"a", "b"}, Not: true}, []int{2}},
		"everything":           {dialect.Fetch{Topics: []string{"a", "b"}, After: id[0], Except: []int64{id[3]}, Limit: 2}, []int{1, 4}},
		"no bucket":            {dialect.Fetch{Not: true, Buckets: []int{}}, nil},
		"all buckets by name":  {dialect.Fetch{Not: true, Buckets: both, Limit: 5}, []int{0, 1, 2, 3, 4}},
		"buckets, everything":  {dialect.Fetch{Buckets: both, Topics: []string{"a", "b"}, After: id[0], Except: []int64{id[3]}, Limit: 2}, []int{1, 4}},
		"buckets, not a topic": {dialect.Fetch{Buckets: both, Topics: []string{"a"}, Not: true}, []int{1, 2, 4}},
	} {
		c.f.Epoch = epoch
		if c.f.Limit == 0 {
			c.f.Limit = 100
		}
		want := make([]int64, 0, len(c.want))
		for _, i := range c.want {
			want = append(want, id[i])
		}
		for _, c.f.Parked = range []bool{false, true} {
			require.ElementsMatch(t, want, ids(t.fetch(c.f)), name)
			require.IsIncreasing(t, append([]int64{0}, ids(t.fetch(c.f))...), name)
		}
		c.f.Epoch++
		require.Empty(t, t.fetch(c.f), "%s: the lease is not there", name)
	}
	if last == 0 {
		return
	}
	f := all(epoch)
	f.Buckets = []int{0}
	require.Equal(t, []int64{id[0], id[2], id[4], id[5]}, ids(t.fetch(f)))
	f.Buckets = t.most()
	require.Equal(t, []int64{id[0], id[2], id[4], id[5]}, ids(t.fetch(f)))
	f.Buckets = []int{1, last}
	require.Equal(t, []int64{id[1], id[3]}, ids(t.fetch(f)))
	f.Except, f.Limit = []int64{id[0], id[1]}, 1
	require.Equal(t, []int64{id[3]}, ids(t.fetch(f)))
}

func fetchStates(t *statementTest) {
	epoch := t.lease("me")
	soon := time.Now().Add(time.Hour).UnixMicro()
	t.insert(
		dialect.Row{Key: "k"}, dialect.Row{Key: "other"}, dialect.Row{Topic: "u", Key: "k"}, dialect.Row{},
		dialect.Row{Key: "k", DeliverAt: soon}, dialect.Row{DeliverAt: soon}, dialect.Row{Key: "k", DeliverAt: 1},
	)
	require.Equal(t, []int{0, 0, 0, 0, 2, 2, 0}, states(t.fetch(all(epoch))))
	t.exec(t.sql.Park, jsonList(object{"topic": "t", "key": "k", "bucket": 0, "in": 0}))
	require.Equal(t, []int{1, 0, 0, 0, 2, 2, 1}, states(t.fetch(all(epoch))))
	f := all(epoch)
	f.Buckets = []int{0}
	require.Equal(t, []int{1, 0, 0, 0, 2, 2, 1}, states(t.fetch(f)))
	f = all(epoch)
	f.Parked = false
	for i, state := range states(t.fetch(f)) {
		require.Equal(t, i == 4 || i == 5, state == 2, "whether a message is early is always told")
	}
}

func ackIsFenced(t *statementTest) {
	epoch := t.lease("me")
	other := t.lease("other")
	id := t.insertKeys("a", "b", "c", "d")
	t.exec(t.sql.Leave, other)
	require.Zero(t, t.execAll(t.sql.Ack(dialect.Ack{Epoch: other, IDs: id, Archive: -1})), "the lease is gone")
	require.Zero(t, t.execAll(t.sql.Ack(dialect.Ack{Epoch: other, IDs: id, Archive: 1})), "the lease is gone")
	require.Len(t, t.fetch(all(epoch)), 4)
	require.Zero(t, t.number(`SELECT count(*) FROM outbox_archive_1`))

	require.Equal(t, 2, t.execAll(t.sql.Ack(dialect.Ack{Epoch: epoch, IDs: []int64{id[2], id[0], 1 << 40}, Archive: -1})))
	require.Equal(t, []int64{id[1], id[3]}, ids(t.fetch(all(epoch))))
	require.Zero(t, t.execAll(t.sql.Ack(dialect.Ack{Epoch: epoch, IDs: []int64{id[2], id[0]}, Archive: -1})), "done before")
	for i := range 3 {
		require.Zero(t, t.number(`SELECT count(*) FROM outbox_archive_`+string(rune('0'+i))))
	}
}

func ackArchives(t *statementTest) {
	epoch := t.lease("me")
	in := dialect.Row{Topic: "t", Key: "k ", Type: "ty", Payload: everyByte(), Header: `{"a":"b"}`, DeliverAt: 5, Bucket: t.sql.Buckets - 1}
	for archive := range 3 {
		id := t.insert(in, in)
		before := t.fetch(all(epoch))
		require.Equal(t, 2, t.execAll(t.sql.Ack(dialect.Ack{Epoch: epoch, IDs: id, Archive: archive})))
		require.Empty(t, t.fetch(all(epoch)))
		var r row
		var delivered int64
		n := 0
		t.each(
			dialect.Statement{Text: `SELECT id, topic, message_key, type, payload, header, created_at, deliver_at, bucket, delivered_at FROM outbox_archive_` + string(rune('0'+archive)) + ` ORDER BY id`},
			append(r.head(), &r.bucket, &delivered), func() {
				require.Equal(t, id[n], r.id)
				require.Equal(t, before[n].createdAt, r.createdAt)
				n++
				require.Equal(t, in, dialect.Row{Topic: r.topic, Key: r.key, Type: r.typ, Payload: r.payload, Header: r.header, DeliverAt: r.deliverAt, Bucket: r.bucket})
				require.WithinRange(t, time.UnixMicro(delivered), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
			})
		require.Equal(t, 2, n)
	}
}

func ackFetch(t *statementTest) {
	if t.sql.AckFetch == nil {
		t.Skip("this dialect takes two statements")
	}
	epoch := t.lease("me")
	id := t.insertKeys("a", "b", "c", "d", "e")
	f := all(epoch + 1)
	f.Limit, f.Except = 2, id[:2]
	require.Empty(t, t.fetched(t.sql.AckFetch(dialect.Ack{Epoch: epoch + 1, IDs: id[:2], Archive: -1}, f)), "the lease is not there")
	require.Len(t, t.fetch(all(epoch)), 5)

	f.Epoch = epoch
	require.Equal(t, id[2:4], ids(t.fetched(t.sql.AckFetch(dialect.Ack{Epoch: epoch, IDs: id[:2], Archive: -1}, f))))
	require.Equal(t, id[2:], ids(t.fetch(all(epoch))))

	f.Except, f.Buckets, f.Topics, f.Not = id[2:4], []int{0}, []string{"t"}, false
	require.Equal(t, id[4:], ids(t.fetched(t.sql.AckFetch(dialect.Ack{Epoch: epoch, IDs: id[2:3], Archive: 2}, f))))
	require.Equal(t, id[3:], ids(t.fetch(all(epoch))))
	require.EqualValues(t, 1, t.number(`SELECT count(*) FROM outbox_archive_2`))
}

// namesAreBytes has names that some collation or other takes for the same.
func namesAreBytes(t *statementTest) {
	epoch := t.lease("me")
	names := []string{
		"k", "K", "k ", "k  ", "k\t", " k", "ß", "ss", "é", "e\u0301", "e", "ａ", "a", "\u2028<&>'\"\\", "\x01", "\x7f",
		strings.Repeat("k", 255), strings.Repeat("k", 254) + "K", strings.Repeat("😀", 63) + "k  ", strings.Repeat("😀", 63) + "k K",
	}
	for i, name := range names {
		t.exec(`DELETE FROM outbox_messages`)
		t.exec(`DELETE FROM outbox_parked`)
		t.exec(`DELETE FROM outbox_topics`)
		rows := make([]dialect.Row, len(names))
		for j := range names {
			rows[j] = dialect.Row{Topic: names[j], Key: names[(j+1)%len(names)]}
		}
		id := t.insert(rows...)
		require.Equal(t, id[i:i+1], ids(t.fetch(dialect.Fetch{Epoch: epoch, Topics: []string{name}, Limit: 100})), "%q", name)
		require.Len(t, t.fetch(dialect.Fetch{Epoch: epoch, Topics: []string{name}, Not: true, Limit: 100}), len(names)-1, "%q", name)

		next := names[(i+1)%len(names)]
		t.exec(t.sql.Park, jsonList(object{"topic": name, "key": next, "bucket": 0, "in": 0}))
		blocked := t.fetch(all(epoch))
		for j := range blocked {
			require.Equal(t, i == j, blocked[j].state == 1, "%q parked, %q looked at", names[i], names[j])
		}
		for _, other := range names {
			if other != next {
				t.exec(t.sql.Unpark, jsonList(object{"topic": name, "key": other}))
			}
			if other != name {
				t.exec(t.sql.Unpark, jsonList(object{"topic": other, "key": next}))
			}
		}
		require.EqualValues(t, 1, t.number(`SELECT count(*) FROM outbox_parked`), "%q", name)

		t.exec(t.sql.Pause, name, 1)
		var paused []string
		var topic string
		t.each(dialect.Statement{Text: t.sql.Paused}, []any{&topic}, func() { paused = append(paused, topic) })
		require.Equal(t, []string{name}, paused)
	}
	t.exec(`DELETE FROM outbox_parked`)
	for _, name := range names {
		t.exec(t.sql.Pause, name, 1)
		t.exec(t.sql.Park, jsonList(object{"topic": name, "key": "x", "bucket": 0, "in": 0}, object{"topic": "x", "key": name, "bucket": 0, "in": 0}))
	}
	require.EqualValues(t, len(names), t.number(`SELECT count(*) FROM outbox_topics`))
	require.EqualValues(t, 2*len(names), t.number(`SELECT count(*) FROM outbox_parked`))
}
