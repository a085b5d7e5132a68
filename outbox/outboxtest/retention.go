package outboxtest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// archiveKeepsWhatWasDelivered, from either table, and deletes it when its time
// has come.
func archiveKeepsWhatWasDelivered(t *testing.T, d Database) {
	o := outbox.Options{Retention: outbox.Archive, Keep: time.Hour, MaxAttempts: 2}
	db, box := setUp(t, d, o)
	p := &recorder{fail: failing("late", "dies")}
	add(t, db, box, msg("k", "at once"), msg("l", "late"), msg("m", "dies"), msg("", "free"))
	drain(t, db, box, p)
	require.Equal(t, []string{"at once", "free"}, names(t, db, "outbox_archive_0"))
	makeDue(t, db)
	p.fail = failing("dies")
	drain(t, db, box, p)
	require.Equal(t, []string{"at once", "late", "free"}, names(t, db, "outbox_archive_0"))
	require.Equal(t, []string{"dies"}, names(t, db, "outbox_dead"))

	execute(t, db, `UPDATE outbox_archive_0 SET delivered_at = delivered_at - 7200000000 WHERE message_key = 'k'`)
	ctx, stop := context.WithTimeout(t.Context(), timeout)
	defer stop()
	o.PollMin, o.PollMax = time.Millisecond, time.Millisecond
	done := make(chan error, 1)
	go func() { done <- newOutbox(t, d, o).Run(ctx, db, p) }()
	await(t, func() bool { return len(names(t, db, "outbox_archive_0")) == 2 })
	stop()
	require.NoError(t, <-done)
	require.Equal(t, []string{"late", "free"}, names(t, db, "outbox_archive_0"))
}

// rotationEmptiesTheOldest: three archives take turns, and what was delivered
// last is always there.
func rotationEmptiesTheOldest(t *testing.T, d Database) {
	o := outbox.Options{Retention: outbox.Rotate, Keep: time.Hour, PollMin: time.Millisecond, PollMax: time.Millisecond}
	db, box := setUp(t, d, o)
	ctx, stop := context.WithTimeout(t.Context(), timeout)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- box.Run(ctx, db, &recorder{}) }()
	archived := func() string {
		return strings.Join(names(t, db, "outbox_archive_0", "outbox_archive_1", "outbox_archive_2"), " ")
	}
	current := 0
	for turn := range 7 {
		name := fmt.Sprint("turn/", turn)
		add(t, db, box, msg("k", name))
		box.Wake()
		await(t, func() bool { return strings.Contains(archived(), name) })
		if turn >= 1 {
			require.Contains(t, archived(), fmt.Sprint("turn/", turn-1), "what was delivered lately is there")
		}
		if turn >= 3 {
			require.NotContains(t, archived(), fmt.Sprint("turn/", turn-3), "and what is old is not")
		}
		execute(t, db, `UPDATE outbox_state SET rotated_at = rotated_at - 3600000000`) // an hour passes
		await(t, func() bool { return count(t, db, `SELECT archive FROM outbox_state`) != current })
		current = count(t, db, `SELECT archive FROM outbox_state`)
		require.Equal(t, (turn+1)%3, current)
	}
	stop()
	require.NoError(t, <-done)
}

// headersComeFromTheContext: those of the message win.
func headersComeFromTheContext(t *testing.T, d Database) {
	type key struct{}
	db, box := setUp(t, d, outbox.Options{Headers: func(ctx context.Context) map[string]string {
		return map[string]string{"traceparent": ctx.Value(key{}).(string), "x": "common"}
	}})
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	ctx := context.WithValue(t.Context(), key{}, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	own := map[string]string{"x": "own"}
	require.NoError(t, box.Add(ctx, tx, outbox.Message{Topic: "t", Header: own}, outbox.Message{Topic: "t"}))
	bad := context.WithValue(t.Context(), key{}, "\xff")
	require.ErrorIs(t, box.Add(bad, tx, outbox.Message{Topic: "t"}), outbox.ErrInvalid)
	require.NoError(t, tx.Commit())
	require.Equal(t, map[string]string{"x": "own"}, own, "the caller's map is not changed")
	p := &recorder{}
	require.Equal(t, 2, drain(t, db, box, p))
	require.Equal(t, map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x": "own"}, p.messages[0].Header)
	require.Equal(t, "common", p.messages[1].Header["x"])
}

// payloadsHaveALimit, and many large ones take several statements.
func payloadsHaveALimit(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{MaxPayload: 1 << 20})
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	err = box.Add(t.Context(), tx, outbox.Message{Topic: "t", Payload: make([]byte, 1<<20+1)})
	require.ErrorIs(t, err, outbox.ErrInvalid)
	require.ErrorContains(t, err, "Payload has 1048577 bytes, want at most 1048576 (Options.MaxPayload)")
	var large []outbox.Message
	for range 20 {
		large = append(large, outbox.Message{Topic: "t", Payload: make([]byte, 1<<20)})
	}
	require.NoError(t, box.Add(t.Context(), tx, large...), "more than a statement may have")
	require.NoError(t, tx.Commit())
	require.Equal(t, 20, drain(t, db, box, &recorder{}))
}
