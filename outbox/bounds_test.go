package outbox_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// TestSlowTopicDelaysNoRetryOfOthers: what waits has room for each topic, too.
func TestSlowTopicDelaysNoRetryOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := newOutbox(t, outbox.Options{Batch: 2, Topics: map[string]outbox.Topic{"slow": {}, "t": {}}})
		f, l := outbox.NewFake(1), new(log)
		due := time.Now().Add(time.Minute)
		for range 20 {
			f.Add(outbox.Message{Topic: "slow", DeliverAt: due})
		}
		other := msg("k", "other")
		other.DeliverAt = due.Add(time.Second)
		f.Add(other)
		stop := running(t, box, f, l.publisher(func(ctx context.Context, m outbox.Message) error {
			if m.Topic == "slow" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}))
		time.Sleep(5 * time.Minute)
		names, _ := l.take()
		require.Equal(t, []string{"other"}, names)
		stop()
	})
}

// TestWaitingMessagesInMemoryAreBoundedByBytes: they are not read one large one
// after the other while the Publisher takes its time.
func TestWaitingMessagesInMemoryAreBoundedByBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, f := newOutbox(t, outbox.Options{BatchBytes: 10}), outbox.NewFake(1)
		for range 50 {
			m := msg("", "a large message")
			m.DeliverAt = time.Now().Add(time.Minute)
			f.Add(m)
		}
		stop := running(t, box, f, publisher(func(ctx context.Context, batch []outbox.Message) []error {
			<-ctx.Done()
			return nil
		}))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.LessOrEqual(t, f.Read("waiting"), 3)
		stop()
	})
}

// TestDefaultConcurrencyHasRoomForEachTopic, also if one may have several calls.
func TestDefaultConcurrencyHasRoomForEachTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := newOutbox(t, outbox.Options{Batch: 1, Topics: map[string]outbox.Topic{"slow": {Concurrency: 2}, "t": {}}})
		f, l := outbox.NewFake(1), new(log)
		f.Add(outbox.Message{Topic: "slow"}, outbox.Message{Topic: "slow"})
		stop := running(t, box, f, l.publisher(func(ctx context.Context, m outbox.Message) error {
			if m.Topic == "slow" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}))
		time.Sleep(time.Minute)
		f.Add(msg("k", "1"))
		time.Sleep(time.Minute)
		names, _ := l.take()
		require.Equal(t, []string{"1"}, names)
		stop()
	})
}

// TestLimitsThatMeanNoneDeliver: the greatest number is how people write "no
// limit".
func TestLimitsThatMeanNoneDeliver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := outbox.New(sqlite.Dialect{}, outbox.Options{Batch: math.MaxInt})
		require.ErrorIs(t, err, outbox.ErrInvalid)
		require.ErrorContains(t, err, "Batch")
		f := outbox.NewFake(1)
		box := newOutbox(t, outbox.Options{BatchBytes: math.MaxInt, Concurrency: math.MaxInt, Lease: math.MaxInt64, PollMin: math.MaxInt64, PollMax: math.MaxInt64})
		for range 300 {
			f.Add(msg("", "ten bytes."))
		}
		n, err := box.DrainOn(t.Context(), f, new(log).publisher(nil))
		require.NoError(t, err)
		require.Equal(t, 300, n)
		require.Less(t, f.Calls("fetch")+f.Calls("ack"), 10)
	})
}

// TestUpkeepKeepsUp: as much is deleted from an archive as comes in.
func TestUpkeepKeepsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := outbox.NewFake(1)
		f.Upkeep = 50 // steps of it are due
		stop := running(t, newOutbox(t, outbox.Options{Retention: outbox.Archive, Lease: time.Hour}), f, new(log).publisher(nil))
		time.Sleep(10 * time.Second)
		require.GreaterOrEqual(t, f.Calls("upkeep"), 50)
		require.LessOrEqual(t, f.Calls("upkeep"), 75, "and then one in PollMax/2")
		stop()
	})
}
