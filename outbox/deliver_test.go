package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/outbox"
)

type publisher func(ctx context.Context, batch []outbox.Message) []error

func (p publisher) Publish(ctx context.Context, batch []outbox.Message) []error {
	return p(ctx, batch)
}

var errDown = errors.New("destination is down")

// TestDeliverAgreesWithModel compares rounds of a batch with taking one key
// after the other.
func TestDeliverAgreesWithModel(t *testing.T) {
	rapid.Check(t, deliverAgreesWithModel)
}

func FuzzDeliverAgreesWithModel(f *testing.F) { f.Fuzz(rapid.MakeFuzz(deliverAgreesWithModel)) }

func deliverAgreesWithModel(t *rapid.T) {
	const maxAttempts = 3
	box := newOutbox(t, outbox.Options{MaxAttempts: maxAttempts, RetryBase: time.Second, RetryMax: 8 * time.Second})
	results := []error{nil, nil, nil, errDown, outbox.RetryAfter(errDown, time.Hour), outbox.Permanent(errDown)}
	var msgs []outbox.Message
	blocked, early := map[int64]bool{}, map[int64]bool{}
	result := map[int64]error{}
	for id := range int64(rapid.IntRange(0, 12).Draw(t, "n")) {
		m := outbox.Message{
			ID: id, Topic: "t", Key: rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "key"),
			Attempt: rapid.IntRange(1, maxAttempts).Draw(t, "attempt"), LastError: "before",
		}
		switch rapid.IntRange(0, 9).Draw(t, "state") {
		case 0:
			blocked[id] = true
		case 1:
			early[id] = true
		}
		result[id] = rapid.SampledFrom(results).Draw(t, "result")
		msgs = append(msgs, m)
	}

	// The model: a key goes on until something is not accepted.
	want := map[int64]outbox.Decision{}
	var published []int64
	stop := map[string]string{}
	for _, m := range msgs {
		d := outbox.Decision{ID: m.ID, Attempts: m.Attempt - 1, Reason: "before", Verdict: outbox.Untouched}
		err := result[m.ID]
		switch {
		case blocked[m.ID]:
			d.Verdict = outbox.Held
		case early[m.ID]:
			d.Verdict = outbox.Delayed
		case m.Key != "" && stop[m.Key] == "failed":
			d.Verdict = outbox.Held
		case m.Key != "" && stop[m.Key] == "dead":
		case err == nil:
			d.Verdict = outbox.Acked
			published = append(published, m.ID)
		default:
			published = append(published, m.ID)
			d.Attempts, d.Reason = m.Attempt, err.Error()
			stop[m.Key] = "failed"
			d.Verdict = outbox.Failed
			if errors.Is(err, errDown) && err != errDown && err.Error()[0] == 'p' || m.Attempt == maxAttempts {
				stop[m.Key] = "dead"
				d.Verdict = outbox.Dead
			}
		}
		want[m.ID] = d
	}

	var got []int64
	shuffled := rapid.Permutation(msgs).Draw(t, "read order")
	decisions := box.Deliver(context.Background(), publisher(func(_ context.Context, batch []outbox.Message) []error {
		keys := map[string]bool{}
		errs := make([]error, len(batch))
		require.NotEmpty(t, batch)
		for i, m := range batch {
			require.False(t, m.Key != "" && keys[m.Key], "two of a key in one call")
			require.True(t, i == 0 || batch[i-1].ID < m.ID, "oldest first")
			keys[m.Key] = true
			errs[i] = result[m.ID]
			got = append(got, m.ID)
		}
		if !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
			return nil
		}
		return errs
	}), shuffled, blocked, early)

	require.ElementsMatch(t, published, got)
	require.Len(t, decisions, len(msgs))
	for i, d := range decisions {
		require.EqualValues(t, i, d.ID, "in order of ID")
		switch {
		case d.Verdict != outbox.Failed:
			require.Zero(t, d.Delay)
		case result[d.ID] == errDown:
			require.LessOrEqual(t, d.Delay, time.Second<<(d.Attempts-1))
		default:
			require.Equal(t, time.Hour, d.Delay)
		}
		d.Delay = 0
		require.Equal(t, want[d.ID], d, "%+v", msgs[i])
	}
}

func TestDeliverUsesOneCallForDistinctKeys(t *testing.T) {
	box := newOutbox(t, outbox.Options{})
	var msgs []outbox.Message
	for i := range 100 {
		key := ""
		if i%2 == 0 {
			key = fmt.Sprint(i)
		}
		msgs = append(msgs, outbox.Message{ID: int64(i), Key: key})
	}
	calls := 0
	p := publisher(func(_ context.Context, batch []outbox.Message) []error {
		calls++
		return nil
	})
	box.Deliver(t.Context(), p, msgs, nil, nil)
	require.Equal(t, 1, calls)
	msgs[50].Key = msgs[0].Key
	box.Deliver(t.Context(), p, msgs, nil, nil)
	require.Equal(t, 3, calls)
}

// TestDeliverDoesNotCountItsOwnCancellation: an error after the end of the
// context says nothing about the message.
func TestDeliverDoesNotCountItsOwnCancellation(t *testing.T) {
	box := newOutbox(t, outbox.Options{MaxAttempts: 1})
	ctx, cancel := context.WithCancel(t.Context())
	decisions := box.Deliver(ctx, publisher(func(context.Context, []outbox.Message) []error {
		cancel()
		return []error{nil, errDown, outbox.Permanent(errDown)}
	}), []outbox.Message{{ID: 1, Key: "a"}, {ID: 2, Key: "b"}, {ID: 3, Key: "c"}, {ID: 4, Key: "a"}, {ID: 5, Key: "b"}}, nil, nil)
	var got []any
	for _, d := range decisions {
		got = append(got, d.Verdict)
	}
	require.Equal(t, []any{outbox.Acked, outbox.Untouched, outbox.Dead, outbox.Untouched, outbox.Untouched}, got)
}

func TestPublisherFuncStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	n := 0
	errs := outbox.PublisherFunc(func(context.Context, outbox.Message) error {
		if n++; n == 2 {
			cancel(cause)
		}
		return nil
	}).Publish(ctx, make([]outbox.Message, 4))
	require.Equal(t, []error{nil, nil, cause, cause}, errs)
	require.Equal(t, 2, n)
}
