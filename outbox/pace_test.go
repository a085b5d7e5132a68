package outbox_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// TestRetriesAreNoticedWithinPollMax, also where every poll is as long as the
// first: not every second one.
func TestRetriesAreNoticedWithinPollMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const poll = time.Second
		box, f, l := newOutbox(t, outbox.Options{PollMin: poll, PollMax: poll}), outbox.NewFake(1), new(log)
		stop := running(t, box, f, l.publisher(nil))
		for range 100 {
			at := time.Now().Add(10 * time.Second)
			m := msg("k", "later")
			m.DeliverAt = at
			f.Add(m)
			time.Sleep(20 * time.Second)
			_, times := l.take()
			require.Len(t, times, 1)
			require.WithinRange(t, times[0], at, at.Add(poll))
		}
		stop()
	})
}

// TestWakeDuringAStepIsNotLost: what a step has read may be older than a Pause,
// Resume or Replay of which this process was told meanwhile.
func TestWakeDuringAStepIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, f, l := newOutbox(t, outbox.Options{PollMin: time.Hour, PollMax: time.Hour, Lease: time.Hour}), outbox.NewFake(1), new(log)
		reading, goOn := make(chan struct{}), make(chan struct{})
		var slow atomic.Bool
		f.Fail = func(_ context.Context, op string) error {
			if op == "fetch" && slow.CompareAndSwap(true, false) { // after the look
				close(reading)
				<-goOn
			}
			return nil
		}
		stop := running(t, box, f, l.publisher(nil))
		synctest.Wait()
		slow.Store(true)
		f.Pause("t", true)
		f.Add(msg("k", "1"))
		box.WakeAll()
		<-reading
		f.Pause("t", false)
		box.WakeAll()
		synctest.Wait()
		close(goOn)
		synctest.Wait()
		names, _ := l.take()
		require.Equal(t, []string{"1"}, names, "an hour too late")
		stop()
	})
}

// TestErrorOfTheDatabaseDoesNotSwallowAWake: the message need not wait for a poll.
func TestErrorOfTheDatabaseDoesNotSwallowAWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, f, l := newOutbox(t, outbox.Options{PollMin: time.Hour, PollMax: time.Hour, Lease: time.Hour}), outbox.NewFake(1), new(log)
		var fail atomic.Bool
		f.Fail = func(_ context.Context, op string) error {
			if op == "fetch" && fail.CompareAndSwap(true, false) {
				return outbox.ErrDatabase
			}
			return nil
		}
		stop := running(t, box, f, l.publisher(nil))
		synctest.Wait()
		f.Add(msg("k", "1"))
		fail.Store(true)
		box.Wake()
		time.Sleep(time.Second)
		names, _ := l.take()
		require.Equal(t, []string{"1"}, names)
		stop()
	})
}

// TestFullQueueIsNoBusyLoop: while the Publisher takes its time and there is no
// room to read, nothing is asked again and again.
func TestFullQueueIsNoBusyLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, f := newOutbox(t, outbox.Options{Batch: 2}), outbox.NewFake(1)
		for range 10 {
			f.Add(msg("", "1"))
		}
		f.Fail = func(ctx context.Context, op string) error {
			if op == "waiting" && f.Calls(op) > 1000 {
				<-ctx.Done() // enough
			}
			return nil
		}
		stop := running(t, box, f, publisher(func(ctx context.Context, batch []outbox.Message) []error {
			<-ctx.Done()
			return nil
		}))
		time.Sleep(time.Minute)
		require.LessOrEqual(t, f.Calls("waiting"), 130, "two in PollMax")
		stop()
	})
}

// TestReplayPauseAndResumeWakeTheirProcess: they need not wait for a poll.
func TestReplayPauseAndResumeWakeTheirProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, f, l := newOutbox(t, outbox.Options{PollMin: time.Hour, PollMax: time.Hour, Lease: time.Hour, MaxAttempts: 1}), outbox.NewFake(1), new(log)
		fail := true
		stop := running(t, box, f, l.publisher(func(context.Context, outbox.Message) error {
			if fail {
				return errDown
			}
			return nil
		}))
		f.Add(msg("k", "1"))
		box.Wake()
		synctest.Wait()
		require.Equal(t, []string{"1"}, f.Table("dead"))
		fail = false
		f.Replay()
		box.WakeAll()
		synctest.Wait()
		names, _ := l.take()
		require.Equal(t, []string{"1"}, names)

		f.Pause("t", true)
		box.WakeAll()
		synctest.Wait()
		f.Add(msg("k", "2"))
		box.Wake()
		synctest.Wait()
		names, _ = l.take()
		require.Empty(t, names)
		f.Pause("t", false)
		box.WakeAll()
		synctest.Wait()
		names, _ = l.take()
		require.Equal(t, []string{"2"}, names)
		stop()
	})
}

// TestResumeAfterAnOutageIsNotLost: the first step after it looks at what is paused,
// and resumes what was not before the outage.
func TestResumeAfterAnOutageIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, f, l := newOutbox(t, outbox.Options{}), outbox.NewFake(1), new(log)
		var down, began atomic.Bool
		f.Fail = func(_ context.Context, op string) error {
			if op == "look" && began.Load() && down.Load() {
				return outbox.ErrDatabase
			}
			if op == "resume" && down.Load() {
				began.Store(true)
				return outbox.ErrDatabase
			}
			return nil
		}
		stop := running(t, box, f, l.publisher(nil))
		time.Sleep(time.Minute)
		f.Pause("t", true)
		time.Sleep(time.Minute)
		f.Add(msg("k", "1"))
		time.Sleep(time.Minute) // set aside
		down.Store(true)
		f.Pause("another", true)
		time.Sleep(time.Minute) // it was noticed, and then the database went away
		f.Pause("t", false)
		down.Store(false)
		time.Sleep(time.Hour)
		names, _ := l.take()
		require.Equal(t, []string{"1"}, names)
		stop()
	})
}
