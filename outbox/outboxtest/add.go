package outboxtest

import (
	"bytes"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

func addKeepsEverything(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{})
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	in := []outbox.Message{
		{
			Topic: "orders", Key: "order/42", Type: "order.paid", Payload: every,
			Header:    map[string]string{"content-type": "application/octet-stream", "x-note": `"quoted", 'single', ünïcode, \u0041`},
			DeliverAt: time.Date(2001, 2, 3, 4, 5, 6, 7000, time.UTC),
		},
		{Topic: "'; DROP TABLE outbox_messages; --", Key: `quo"te'd`, Payload: nil},
		{Topic: "t", Payload: bytes.Repeat([]byte("x"), 1<<20)},
		{Topic: "t", Payload: []byte(`not json {`), ID: 99, Attempt: 7, CreatedAt: time.Unix(1, 0), LastError: "ignored"},
	}
	unchanged := slices.Clone(in)
	add(t, db, box, in...)
	require.Equal(t, unchanged, in)

	p := &recorder{}
	require.Equal(t, len(in), drain(t, db, box, p))
	require.Len(t, p.messages, len(in))
	for i, got := range p.messages {
		require.Equal(t, in[i].Topic, got.Topic)
		require.Equal(t, in[i].Key, got.Key)
		require.Equal(t, in[i].Type, got.Type)
		require.True(t, bytes.Equal(in[i].Payload, got.Payload), "payload %d", i)
		require.Equal(t, in[i].Header, got.Header)
		require.True(t, in[i].DeliverAt.Equal(got.DeliverAt), "%v", got.DeliverAt)
		require.Equal(t, 1, got.Attempt)
		require.Empty(t, got.LastError)
		require.WithinRange(t, got.CreatedAt, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
		if i > 0 {
			require.Greater(t, got.ID, p.messages[i-1].ID)
		}
	}

	// An id is never used twice, also after the newest message is gone.
	last := p.messages[len(in)-1].ID
	p.take()
	add(t, db, box, msg("", "next"))
	drain(t, db, box, p)
	require.Greater(t, p.messages[0].ID, last)
}

func addMany(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{Batch: 1000})
	msgs := make([]outbox.Message, 6_000) // more than one statement may have parameters for
	want := make([]string, len(msgs))
	for i := range msgs {
		want[i] = strconv.Itoa(i)
		msgs[i] = msg("", want[i])
	}
	add(t, db, box, msgs...)
	add(t, db, box) // none is fine
	p := &recorder{}
	require.Equal(t, len(msgs), drain(t, db, box, p))
	require.Equal(t, want, p.take())
}

func addInvalid(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{})
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, box.Add(t.Context(), tx, msg("k", "before")))
	err = box.Add(t.Context(), tx, msg("k", "not written"), outbox.Message{Key: "no topic"})
	require.ErrorIs(t, err, outbox.ErrInvalid)
	require.ErrorContains(t, err, "message 2 of 2: Topic is empty")
	require.NoError(t, box.Add(t.Context(), tx, msg("k", "after")))
	require.NoError(t, tx.Commit())
	p := &recorder{}
	drain(t, db, box, p)
	require.Equal(t, []string{"before", "after"}, p.take())
}

func rollbackDeliversNothing(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{})
	p := &recorder{}

	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, box.Add(t.Context(), tx, msg("k", "rolled back")))
	require.NoError(t, tx.Rollback())
	require.Zero(t, drain(t, db, box, p))

	tx, err = db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, box.Add(t.Context(), tx, msg("k", "1")))
	_, err = tx.ExecContext(t.Context(), `SAVEPOINT here`)
	require.NoError(t, err)
	require.NoError(t, box.Add(t.Context(), tx, msg("k", "behind the savepoint")))
	_, err = tx.ExecContext(t.Context(), `ROLLBACK TO SAVEPOINT here`)
	require.NoError(t, err)
	require.NoError(t, box.Add(t.Context(), tx, msg("k", "2")))
	require.NoError(t, tx.Commit())
	drain(t, db, box, p)
	require.Equal(t, []string{"1", "2"}, p.take())
}

func delayedMessagesWait(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{Batch: 2})
	later := msg("k", "later")
	later.DeliverAt = time.Now().Add(time.Hour)
	past := msg("k", "past")
	past.DeliverAt = time.Now().Add(-time.Hour)
	add(t, db, box, later, past, msg("k", "now"))
	p := &recorder{}
	require.Equal(t, 2, drain(t, db, box, p))
	require.Equal(t, []string{"past", "now"}, p.take(), "later ones of the key do not wait")
	require.Zero(t, drain(t, db, box, p))
	st, err := box.Stats(t.Context(), db)
	require.NoError(t, err)
	require.EqualValues(t, 1, st.Waiting)
	require.Zero(t, st.Oldest, "a message that is not due is not old")

	makeDue(t, db)
	drain(t, db, box, p)
	require.Equal(t, []string{"later"}, p.take())

	// One that becomes due while its key is parked waits for the key.
	p.fail = failing("bad")
	add(t, db, box, later, msg("k", "bad"))
	drain(t, db, box, p)
	execute(t, db, `UPDATE outbox_waiting SET due_at = 0 WHERE due_at IS NOT NULL`)
	require.Zero(t, drain(t, db, box, p))
	require.Empty(t, p.take())
	p.fail = nil
	makeDue(t, db)
	drain(t, db, box, p)
	require.ElementsMatch(t, []string{"later", "bad"}, p.take())
}

func batchRespectsLimits(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{Batch: 10, BatchBytes: 2500})
	msgs := make([]outbox.Message, 0, 40)
	for range 20 {
		msgs = append(msgs, outbox.Message{Topic: "t", Payload: make([]byte, 1000)})
	}
	for range 20 {
		msgs = append(msgs, outbox.Message{Topic: "t"})
	}
	msgs = append(msgs, outbox.Message{Topic: "t", Payload: make([]byte, 1<<16)}) // larger than BatchBytes
	add(t, db, box, msgs...)
	check := func() {
		p := &recorder{}
		n := drain(t, db, box, p)
		require.Equal(t, len(msgs), n)
		for _, batch := range p.batches {
			require.LessOrEqual(t, len(batch), 10)
			size := 0
			for _, m := range batch[:len(batch)-1] {
				size += len(m.Payload)
			}
			require.Less(t, size, 2500, "the batch ends with the message that reaches the limit")
		}
		require.LessOrEqual(t, len(p.batches), 20, "not many more than there have to be")
	}
	p := &recorder{fail: func(outbox.Message) error { return errDown }}
	drain(t, db, box, p)
	makeDue(t, db)
	check() // those that waited
	add(t, db, box, msgs...)
	check() // those that did not
}

func publisherMayUseTheOnlyConnection(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{})
	add(t, db, box, msg("", "a"), msg("", "b"))
	db.SetMaxOpenConns(1)
	p := &recorder{}
	p.fail = func(m outbox.Message) error {
		if string(m.Payload) == "a" {
			add(t, db, box, msg("", "c")) // would wait for ever if a transaction were open
		}
		return nil
	}
	require.Equal(t, 3, drain(t, db, box, p))
	require.Equal(t, []string{"a", "b", "c"}, p.take())
}
