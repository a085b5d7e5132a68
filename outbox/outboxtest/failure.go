package outboxtest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

func failureParksItsKeyOnly(t *testing.T, d Database) {
	for _, batch := range []int{1, 2, 100} {
		t.Run(fmt.Sprintf("batch=%d", batch), func(t *testing.T) {
			db, box := setUp(t, d, outbox.Options{Batch: batch})
			p := &recorder{fail: failing("a/1", "b/2")}
			add(t, db, box, msg("a", "a/1"), msg("b", "b/1"), msg("a", "a/2"), msg("c", "c/1"), msg("b", "b/2"), msg("b", "b/3"), msg("c", "c/2"))
			drain(t, db, box, p)
			require.ElementsMatch(t, []string{"b/1", "c/1", "c/2"}, p.take())

			// What is added later waits too, whoever drains.
			add(t, db, box, msg("a", "a/3"), msg("c", "c/3"))
			box = newOutbox(t, d, outbox.Options{Batch: batch})
			drain(t, db, box, p)
			require.Equal(t, []string{"c/3"}, p.take())

			// The first try again fails for one of them.
			makeDue(t, db)
			p.fail = failing("b/2")
			drain(t, db, box, p)
			require.Equal(t, []string{"a/1", "a/2", "a/3"}, p.take())

			add(t, db, box, msg("b", "b/4"), msg("a", "a/4"))
			makeDue(t, db)
			p.fail = nil
			drain(t, db, box, p)
			got := p.take()
			require.Len(t, got, 4)
			got = slices.DeleteFunc(got, func(s string) bool { return s == "a/4" })
			require.Equal(t, []string{"b/2", "b/3", "b/4"}, got)
			require.Zero(t, count(t, db, `SELECT count(*) FROM outbox_parked`))
		})
	}
}

func attemptsSurviveRestart(t *testing.T, d Database) {
	o := outbox.Options{MaxAttempts: 4}
	db, box := setUp(t, d, o)
	add(t, db, box, msg("k", "bad"), msg("", "bad too"), msg("k", "good"))
	var attempts, attemptsToo []int
	var last string
	p := &recorder{fail: func(m outbox.Message) error {
		switch string(m.Payload) {
		case "bad":
			attempts = append(attempts, m.Attempt)
			last = m.LastError
		case "bad too":
			attemptsToo = append(attemptsToo, m.Attempt)
		default:
			return nil
		}
		return outbox.RetryAfter(fmt.Errorf("attempt %d failed", m.Attempt), time.Hour)
	}}
	for range 4 {
		makeDue(t, db)
		drain(t, db, newOutbox(t, d, o), p)
	}
	require.Equal(t, []int{1, 2, 3, 4}, attempts)
	require.Equal(t, []int{1, 2, 3, 4}, attemptsToo)
	require.Contains(t, last, "attempt 3 failed")
	require.Equal(t, []string{"good"}, p.take(), "the key goes on after the death")
	require.Equal(t, []string{"bad", "bad too"}, names(t, db, "outbox_dead"))

	// Never means never.
	o.MaxAttempts = -1
	box = newOutbox(t, d, o)
	add(t, db, box, msg("x", "bad"))
	for range 5 {
		makeDue(t, db)
		drain(t, db, box, p)
	}
	require.Equal(t, 5, attempts[len(attempts)-1])
	require.Equal(t, 2, count(t, db, `SELECT count(*) FROM outbox_dead`))
}

func withoutKey(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{})
	p := &recorder{fail: failing("1", "3")}
	add(t, db, box, msg("", "1"), msg("", "2"), msg("", "3"), msg("", "4"))
	drain(t, db, box, p)
	require.Equal(t, []string{"2", "4"}, p.take())
	p.fail = nil
	makeDue(t, db)
	drain(t, db, box, p)
	require.Equal(t, []string{"1", "3"}, p.take())
}

// longQueueBehindAFailure has more messages behind a failed one than a batch
// holds, and as many of another key that is failing too.
func longQueueBehindAFailure(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{Batch: 10})
	var msgs []outbox.Message
	for i := range 100 {
		msgs = append(msgs, msg("a", version("a", i)), msg("b", version("b", i)), msg("c", version("c", i)))
	}
	add(t, db, box, msgs...)
	p := &recorder{fail: failing("a/0", "b/0")}
	drain(t, db, box, p)
	require.Len(t, p.take(), 100)
	st, err := box.Stats(t.Context(), db)
	require.NoError(t, err)
	require.EqualValues(t, 2, st.ParkedKeys)
	require.EqualValues(t, 200, st.Waiting)
	require.Zero(t, st.Ready)

	tries := 0
	p.fail = func(m outbox.Message) error {
		if string(m.Payload) == "b/55" { // in the middle of a batch
			tries++
			return errDown
		}
		return nil
	}
	add(t, db, box, msg("a", version("a", 100)))
	makeDue(t, db)
	drain(t, db, box, p)
	require.Equal(t, 1, tries, "what was delivered before it does not make its key due")
	got := map[string]int{}
	for i, name := range p.take() {
		key := keyOf(name)
		require.Equal(t, version(key, got[key]), name)
		require.False(t, i == 40 && len(got) == 1, "one key after the other: the second waits for the long queue of the first")
		got[key]++
	}
	require.Equal(t, map[string]int{"a": 101, "b": 55}, got)
}

func retryAfterAndPermanent(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{})
	p := &recorder{fail: func(m outbox.Message) error {
		switch string(m.Payload) {
		case "hour", "hour, no key":
			return fmt.Errorf("wrapped: %w", outbox.RetryAfter(errDown, time.Hour))
		case "now":
			if m.Attempt < 3 {
				return outbox.RetryAfter(errDown, 0)
			}
		case "never", "never, no key":
			return fmt.Errorf("wrapped: %w", outbox.Permanent(errDown))
		}
		return nil
	}}
	add(t, db, box, msg("h", "hour"), msg("", "hour, no key"), msg("n", "now"), msg("p", "never"), msg("", "never, no key"),
		msg("h", "behind hour"), msg("n", "behind now"), msg("p", "behind never"))
	drain(t, db, box, p)
	require.ElementsMatch(t, []string{"now", "behind now", "behind never"}, p.take())
	require.Equal(t, []string{"never", "never, no key"}, names(t, db, "outbox_dead"))
	require.Equal(t, []string{"hour", "hour, no key", "behind hour"}, names(t, db, "outbox_waiting"))

	// The message is parked by the clock of the database.
	require.Zero(t, drain(t, db, box, p))
	p.fail = nil
	makeDue(t, db)
	drain(t, db, box, p)
	require.ElementsMatch(t, []string{"hour", "hour, no key", "behind hour"}, p.take())
}

func deadReplayPurge(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{MaxAttempts: 1})
	in := outbox.Message{Topic: "t", Key: "k", Type: "ty", Payload: []byte("2"), Header: map[string]string{"a": "b"}, DeliverAt: time.Unix(1, 0).UTC()}
	add(t, db, box, msg("k", "1"), in, msg("k", "3"), msg("", "4"))
	p := &recorder{fail: failing("1", "2", "4")}
	require.Equal(t, 1, drain(t, db, box, p))
	require.Equal(t, []string{"3"}, p.take())

	var ids []int64
	for m, err := range box.Dead(t.Context(), db) {
		require.NoError(t, err)
		require.Equal(t, 1, m.Attempt)
		require.Equal(t, errDown.Error(), m.LastError)
		require.False(t, m.CreatedAt.IsZero())
		ids = append(ids, m.ID)
		if string(m.Payload) == "2" {
			in.ID, in.CreatedAt, in.Attempt, in.LastError = m.ID, m.CreatedAt, m.Attempt, m.LastError
			require.Equal(t, in, m)
		}
	}
	require.Len(t, ids, 3)

	n, err := box.Replay(t.Context(), db)
	require.NoError(t, err)
	require.Zero(t, n, "none means none")
	n, err = box.Replay(t.Context(), db, ids[1], ids[0], 1<<40)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	n, err = box.Replay(t.Context(), db, ids[0])
	require.NoError(t, err)
	require.Zero(t, n, "it is not dead any more")
	checkTables(t, db)

	p.fail = nil
	require.Equal(t, 2, drain(t, db, box, p))
	require.Equal(t, ids[0], p.messages[0].ID)
	require.Equal(t, 1, p.messages[0].Attempt, "attempts begin anew")
	require.Empty(t, p.messages[0].LastError)
	require.Equal(t, []string{"1", "2"}, p.take())

	n, err = box.Purge(t.Context(), db, time.Now().Add(-time.Hour))
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = box.Purge(t.Context(), db, time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.Zero(t, count(t, db, `SELECT count(*) FROM outbox_dead`))
}

func deadIsPaged(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{})
	var msgs []outbox.Message
	for i := range 250 {
		msgs = append(msgs, msg("", strconv.Itoa(i)))
	}
	add(t, db, box, msgs...)
	drain(t, db, box, &recorder{fail: func(outbox.Message) error { return outbox.Permanent(errDown) }})
	db.SetMaxOpenConns(1)
	i := 0
	for m, err := range box.Dead(t.Context(), db) {
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(i), string(m.Payload))
		i++
		n, err := box.Replay(t.Context(), db, m.ID) // no statement is open
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
	}
	require.Equal(t, 250, i)
	drain(t, db, box, &recorder{fail: func(outbox.Message) error { return outbox.Permanent(errDown) }})
	var ids []int64
	for m, err := range box.Dead(t.Context(), db) {
		require.NoError(t, err)
		ids = append(ids, m.ID)
	}
	for m, err := range box.DeadAfter(t.Context(), db, ids[200]) {
		require.NoError(t, err)
		require.Equal(t, ids[201], m.ID)
		break
	}
	for range box.DeadAfter(t.Context(), db, ids[249]) {
		t.Fatal("that was the last")
	}
	_, err := box.Replay(t.Context(), db, ids...)
	require.NoError(t, err)
	for range box.Dead(t.Context(), db) {
		t.Fatal("all were replayed")
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	errs := 0
	for _, err := range box.Dead(ctx, db) {
		require.ErrorIs(t, err, context.Canceled)
		errs++
	}
	require.Equal(t, 1, errs)
}

// deadAreReadInSmallPages: whoever looks at dead messages does not hold all of
// their payloads at once.
func deadAreReadInSmallPages(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{})
	var msgs []outbox.Message
	for i := range 9 {
		msgs = append(msgs, outbox.Message{Topic: "t", Type: strconv.Itoa(i), Payload: make([]byte, 400<<10)})
	}
	add(t, db, box, msgs...)
	drain(t, db, box, &recorder{fail: func(outbox.Message) error { return outbox.Permanent(errDown) }})
	i := 0
	for m, err := range box.Dead(t.Context(), db) {
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(i), m.Type)
		i++
	}
	require.Equal(t, 9, i)
}

// payloadsBelongToThePublisher, which may keep them while others are read.
func payloadsBelongToThePublisher(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{Batch: 7})
	var msgs []outbox.Message
	for i := range 100 {
		msgs = append(msgs, outbox.Message{Topic: "t", Payload: fmt.Append(nil, "payload ", i)})
	}
	add(t, db, box, msgs...)
	p := &recorder{}
	require.Equal(t, 100, drain(t, db, box, p))
	for i, m := range p.messages {
		require.Equal(t, fmt.Sprint("payload ", i), string(m.Payload))
		_ = append(m.Payload, "overwrites nobody"...)
	}
	for i, m := range p.messages {
		require.Equal(t, fmt.Sprint("payload ", i), string(m.Payload))
	}
}

type publisher func(ctx context.Context, batch []outbox.Message) []error

func (p publisher) Publish(ctx context.Context, batch []outbox.Message) []error {
	return p(ctx, batch)
}

func badPublisher(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{RetryBase: time.Hour, RetryMax: time.Hour})
	add(t, db, box, msg("a", "a/1"), msg("a", "a/2"), msg("", "b"))
	for name, p := range map[string]publisher{
		"too few":  func(context.Context, []outbox.Message) []error { return []error{nil} },
		"too many": func(_ context.Context, b []outbox.Message) []error { return make([]error, len(b)+1) },
		"empty":    func(context.Context, []outbox.Message) []error { return []error{} },
		"panic":    func(context.Context, []outbox.Message) []error { panic("oops") },
	} {
		makeDue(t, db)
		require.Zero(t, drain(t, db, box, p), name)
		require.Equal(t, []string{"a/1", "a/2", "b"}, names(t, db, "outbox_waiting"), name)
	}
	makeDue(t, db)
	p := &recorder{}
	require.Equal(t, 3, drain(t, db, box, p))
	for _, m := range p.messages {
		if string(m.Payload) != "a/2" {
			require.Equal(t, 5, m.Attempt)
			require.NotEmpty(t, m.LastError)
		}
	}

	// A function that panics for one message has not failed for the others.
	add(t, db, box, msg("a", "1"), msg("b", "2"), msg("c", "3"))
	n := drain(t, db, box, outbox.PublisherFunc(func(_ context.Context, m outbox.Message) error {
		if m.Key == "b" {
			panic(errDown)
		}
		return nil
	}))
	require.Equal(t, 2, n)
	require.Equal(t, []string{"2"}, names(t, db, "outbox_waiting"))
}

// goexitInPublisher ends the goroutine, as t.FailNow does.
func goexitInPublisher(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{})
	add(t, db, box, msg("k", "1"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = box.Drain(t.Context(), db, publisher(func(context.Context, []outbox.Message) []error {
			runtime.Goexit()
			return nil
		}))
	}()
	<-done
	p := &recorder{}
	require.Equal(t, 1, drain(t, db, box, p), "the lease was given back and the message is there")
	require.Zero(t, count(t, db, `SELECT count(*) FROM outbox_leases`))
}
