package outbox_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// The tests of this file run the real drainer on a database in memory, in a
// bubble where time is virtual: they are exact, and a goroutine that is left
// behind fails them.

// A log is what a publisher accepted, and when.
type log struct {
	mu    sync.Mutex
	names []string
	times []time.Time
}

func (l *log) note(m outbox.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names = append(l.names, string(m.Payload))
	l.times = append(l.times, time.Now())
}

func (l *log) take() ([]string, []time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	names, times := l.names, l.times
	l.names, l.times = nil, nil
	return names, times
}

func (l *log) publisher(fail func(ctx context.Context, m outbox.Message) error) outbox.Publisher {
	return outbox.PublisherFunc(func(ctx context.Context, m outbox.Message) error {
		if fail != nil {
			if err := fail(ctx, m); err != nil {
				return err
			}
		}
		l.note(m)
		return nil
	})
}

func msg(key, name string) outbox.Message {
	return outbox.Message{Topic: "t", Key: key, Payload: []byte(name)}
}

// running starts Run and returns a function that ends it and wants nil.
func running(t *testing.T, box *outbox.Outbox, f *outbox.Fake, p outbox.Publisher) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- box.RunOn(ctx, f, p) }()
	return func() {
		cancel()
		require.NoError(t, <-done)
	}
}

func TestWakeDeliversAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, f, l := newOutbox(t, outbox.Options{PollMin: time.Hour, PollMax: time.Hour}), outbox.NewFake(1), new(log)
		busy := make(chan struct{})
		stop := running(t, box, f, l.publisher(func(context.Context, outbox.Message) error { <-busy; return nil }))
		synctest.Wait() // idle
		f.Add(msg("k", "1"), msg("k", "2"))
		start := time.Now()
		box.Wake()
		synctest.Wait() // publishing
		for range 1000 {
			box.Wake() // never blocks, and is one: nobody can take it before the publisher is done
		}
		close(busy)
		synctest.Wait()
		names, times := l.take()
		require.Equal(t, []string{"1", "2"}, names)
		require.Equal(t, []time.Time{start, start}, times)
		require.LessOrEqual(t, f.Calls("fetch"), 5)
		stop()
	})
}

// TestWakeIsForTheOneThatDrains: one standing by would swallow it.
func TestWakeIsForTheOneThatDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, f, l := newOutbox(t, outbox.Options{PollMin: time.Hour, PollMax: time.Hour, Lease: time.Hour}), outbox.NewFake(1), new(log)
		var stops []func()
		for range 5 {
			stops = append(stops, running(t, box, f, l.publisher(nil)))
		}
		for range 20 {
			synctest.Wait()
			f.Add(msg("k", "1"))
			box.Wake()
			synctest.Wait()
			names, _ := l.take()
			require.Equal(t, []string{"1"}, names)
		}
		for _, stop := range stops {
			stop()
		}
	})
}

func TestIdlePollingSlowsDownAndWakesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, f, l := newOutbox(t, outbox.Options{PollMin: 10 * time.Millisecond, PollMax: time.Second, Lease: time.Hour}), outbox.NewFake(1), new(log)
		stop := running(t, box, f, l.publisher(nil))
		synctest.Wait()
		first := f.Calls("fetch")
		time.Sleep(100 * time.Millisecond)
		fast := f.Calls("fetch") - first
		require.GreaterOrEqual(t, fast, 3, "10, 20, 40 ms at most")
		require.LessOrEqual(t, fast, 5, "5, 10, 20, 40 ms at least")
		time.Sleep(time.Minute)
		before := f.Calls("fetch")
		time.Sleep(time.Minute)
		require.GreaterOrEqual(t, f.Calls("fetch")-before, 60)
		require.LessOrEqual(t, f.Calls("fetch")-before, 120)
		require.LessOrEqual(t, f.Calls("waiting"), f.Calls("fetch"))

		// Without a Wake, a message waits for PollMax at most.
		f.Add(msg("k", "1"))
		start := time.Now()
		time.Sleep(time.Second)
		names, times := l.take()
		require.Equal(t, []string{"1"}, names)
		require.LessOrEqual(t, times[0].Sub(start), time.Second)

		// After it, the outbox is polled often again.
		time.Sleep(time.Until(times[0]) + 2*time.Minute)
		f.Add(msg("k", "2"))
		time.Sleep(time.Second)
		_, times = l.take()
		f.Add(msg("k", "3"))
		start = time.Now()
		time.Sleep(time.Second)
		_, again := l.take()
		require.LessOrEqual(t, again[0].Sub(start), max(20*time.Millisecond, 2*start.Sub(times[0])))
		stop()
	})
}

func TestRetriesComeWithinTheirBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const base, limit, poll = time.Second, 10 * time.Second, 50 * time.Millisecond
		box := newOutbox(t, outbox.Options{RetryBase: base, RetryMax: limit, PollMin: poll, PollMax: poll, MaxAttempts: 12})
		f, l := outbox.NewFake(1), new(log)
		var tries []time.Time
		stop := running(t, box, f, l.publisher(func(_ context.Context, m outbox.Message) error {
			if string(m.Payload) != "bad" {
				return nil
			}
			tries = append(tries, time.Now())
			require.Equal(t, len(tries), m.Attempt)
			return errDown
		}))
		f.Add(msg("k", "bad"), msg("other", "other"), msg("k", "behind"))
		time.Sleep(5 * time.Minute)
		stop()
		require.Len(t, tries, 12)
		for i := range len(tries) - 1 {
			require.LessOrEqual(t, tries[i+1].Sub(tries[i]), min(base<<i, limit)+poll)
		}
		require.Equal(t, []string{"bad"}, f.Table("dead"))
		names, times := l.take()
		require.Equal(t, []string{"other", "behind"}, names)
		require.False(t, times[1].Before(tries[11]), "the key goes on when its head is dead")
	})
}

func TestRetryAfterAndDeliverAtAreExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const poll = time.Second
		box, f, l := newOutbox(t, outbox.Options{PollMin: poll, PollMax: poll}), outbox.NewFake(1), new(log)
		start := time.Now()
		delayed := msg("k", "delayed")
		delayed.DeliverAt = start.Add(30 * time.Minute)
		f.Add(delayed, msg("k", "now"), msg("r", "retry"))
		stop := running(t, box, f, l.publisher(func(_ context.Context, m outbox.Message) error {
			if string(m.Payload) == "retry" && m.Attempt == 1 {
				return outbox.RetryAfter(errDown, time.Hour)
			}
			return nil
		}))
		time.Sleep(2 * time.Hour)
		stop()
		names, times := l.take()
		require.Equal(t, []string{"now", "delayed", "retry"}, names)
		require.WithinRange(t, times[1], start.Add(30*time.Minute), start.Add(30*time.Minute+poll))
		require.WithinRange(t, times[2], start.Add(time.Hour), start.Add(time.Hour+poll))
	})
}

func TestLeaseIsKeptWhilePublishing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := outbox.Options{Lease: time.Minute, PollMin: 10 * time.Millisecond}
		f, l, standby := outbox.NewFake(1), new(log), new(log)
		f.Add(msg("k", "1"))
		stop := running(t, newOutbox(t, o), f, l.publisher(func(context.Context, outbox.Message) error {
			time.Sleep(time.Hour)
			return nil
		}))
		synctest.Wait()
		stopStandby := running(t, newOutbox(t, o), f, standby.publisher(nil))
		time.Sleep(time.Hour + time.Second)
		names, _ := l.take()
		require.Equal(t, []string{"1"}, names)
		names, _ = standby.take()
		require.Empty(t, names)
		shares, _ := f.Shares()
		require.Equal(t, map[int64]int{1: 1, 2: 0}, shares)

		// A graceful end hands over within a poll.
		stop()
		ended := time.Now()
		f.Add(msg("k", "2"))
		time.Sleep(2 * time.Second)
		names, times := standby.take()
		require.Equal(t, []string{"2"}, names)
		require.LessOrEqual(t, times[0].Sub(ended), time.Second)
		stopStandby()
	})
}

type isZombie struct{}

// TestPausedDrainerIsFenced: the process sleeps for longer than its lease, in the
// middle of publishing, and cannot renew meanwhile.
func TestPausedDrainerIsFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := outbox.Options{Lease: time.Second, PollMin: 10 * time.Millisecond, PollMax: 10 * time.Millisecond, RetryBase: time.Hour, RetryMax: time.Hour}
		f := outbox.NewFake(1)
		paused := make(chan struct{})
		f.Fail = func(ctx context.Context, op string) error {
			if op == "renew" && ctx.Value(isZombie{}) != nil {
				<-paused
			}
			return nil
		}
		f.Add(msg("k", "1"), msg("k", "2"))
		zombie, heir := new(log), new(log)
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), isZombie{}, true))
		done := make(chan error, 1)
		go func() {
			done <- newOutbox(t, o).RunOn(ctx, f, zombie.publisher(func(context.Context, outbox.Message) error {
				<-paused
				return errDown
			}))
		}()
		synctest.Wait()
		began := time.Now()
		stop := running(t, newOutbox(t, o), f, heir.publisher(nil))
		time.Sleep(10 * time.Second)
		names, times := heir.take()
		require.Equal(t, []string{"1", "2"}, names)
		require.LessOrEqual(t, times[0].Sub(began), time.Second+10*time.Millisecond, "takes over within the lease")

		close(paused) // it comes back from the dead and reports a failure
		synctest.Wait()
		require.Equal(t, []string{"1", "2"}, f.Table("gone"))
		require.Equal(t, 0, f.Attempts("1"), "the failure was not written down")
		shares, _ := f.Shares()
		require.Equal(t, map[int64]int{2: 1, 3: 0}, shares)

		// It stands by, and takes over when its heir ends.
		stop()
		time.Sleep(time.Second)
		shares, _ = f.Shares()
		require.Equal(t, map[int64]int{3: 1}, shares)
		cancel()
		require.NoError(t, <-done)
	})
}

// TestLostLeaseEndsPublishing: the publisher's context ends with the lease, so
// that two drainers publish at the same time as briefly as possible.
func TestLostLeaseEndsPublishing(t *testing.T) {
	for _, why := range []string{"fenced", "database down"} {
		t.Run(why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := outbox.NewFake(1)
				f.Add(msg("k", "1"))
				down := why == "database down"
				f.Fail = func(_ context.Context, op string) error {
					if op == "renew" && down {
						return outbox.ErrDatabase
					}
					return nil
				}
				box := newOutbox(t, outbox.Options{Lease: 3 * time.Second})
				start := time.Now()
				var ended time.Duration
				var cause error
				stop := running(t, box, f, outbox.PublisherFunc(func(ctx context.Context, m outbox.Message) error {
					if !down {
						f.Steal()
					}
					<-ctx.Done()
					if ended == 0 {
						ended, cause = time.Since(start), context.Cause(ctx)
					}
					return ctx.Err()
				}))
				time.Sleep(4 * time.Second)
				synctest.Wait()
				require.ErrorContains(t, cause, "lease")
				if down {
					require.ErrorIs(t, cause, outbox.ErrDatabase)
					require.Equal(t, 3*time.Second, ended, "as long as the lease lasts")
				} else {
					require.Equal(t, time.Second, ended, "at the next renewal")
				}
				require.Equal(t, []string{"1"}, f.Table("ready"), "no attempt was counted")
				stop()
			})
		})
	}
}

func TestRunSurvivesItsDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := outbox.NewFake(1), new(log)
		var mu sync.Mutex
		down := map[string]bool{"join": true}
		set := func(op string, is bool) {
			mu.Lock()
			defer mu.Unlock()
			down[op] = is
		}
		f.Fail = func(_ context.Context, op string) error {
			mu.Lock()
			defer mu.Unlock()
			if down[op] {
				return outbox.ErrDatabase
			}
			return nil
		}
		logged := new(strings.Builder)
		box := newOutbox(t, outbox.Options{Lease: time.Minute, Logger: slog.New(slog.NewTextHandler(logged, nil))})
		stop := running(t, box, f, l.publisher(nil))
		time.Sleep(time.Minute)
		set("join", false)
		for i, op := range []string{"fetch", "waiting", "ack", "renew"} {
			set(op, true)
			name := string(rune('a' + i))
			f.Add(msg("k", name))
			time.Sleep(30 * time.Second)
			set(op, false)
			time.Sleep(30 * time.Second)
			names, _ := l.take()
			require.Equal(t, []string{name}, names, "%s failed: delivered once, when the database was back", op)
			require.Empty(t, f.Table("ready"), op)
		}
		stop()
		require.Contains(t, logged.String(), "database is down")
		require.Less(t, f.Calls("join"), 100, "it does not hammer")
	})
}

func TestRunReturnsWhatKeepsItFromStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := outbox.NewFake(1)
		f.Fail = func(_ context.Context, op string) error {
			if op == "check" {
				return outbox.ErrSchema
			}
			return nil
		}
		box := newOutbox(t, outbox.Options{})
		require.ErrorIs(t, box.RunOn(t.Context(), f, nil), outbox.ErrSchema)
		_, err := box.DrainOn(t.Context(), f, nil)
		require.ErrorIs(t, err, outbox.ErrSchema)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, box.RunOn(ctx, f, nil), "a context that has ended is no error")
		require.Zero(t, f.Calls("join"))
	})
}

func TestShutdownWaitsForPublisherAndAcknowledges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := outbox.NewFake(1)
		f.Add(msg("a", "sent"), msg("b", "not sent"), msg("a", "next round"))
		settled := false
		f.Fail = func(ctx context.Context, op string) error {
			if op == "settle" {
				require.NoError(t, ctx.Err(), "the end of Run is not the end of acknowledging")
				if !settled { // the first try fails
					settled = true
					return outbox.ErrDatabase
				}
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- newOutbox(t, outbox.Options{}).RunOn(ctx, f, publisher(func(ctx context.Context, batch []outbox.Message) []error {
				<-ctx.Done()
				time.Sleep(time.Minute) // it takes its time
				return []error{nil, ctx.Err()}
			}))
		}()
		synctest.Wait()
		cancel()
		require.NoError(t, <-done)
		require.Equal(t, []string{"sent"}, f.Table("gone"))
		require.Equal(t, []string{"not sent", "next round"}, f.Table("ready"))
		require.Zero(t, f.Attempts("not sent"))
		shares, _ := f.Shares()
		require.Empty(t, shares, "the lease is given back")
	})
}

func TestShutdownIsBoundedWhenTheDatabaseIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := outbox.NewFake(1)
		f.Add(msg("a", "1"))
		ctx, cancel := context.WithCancel(t.Context())
		f.Fail = func(ctx context.Context, op string) error {
			if op == "settle" || op == "leave" {
				<-ctx.Done() // hangs
				return ctx.Err()
			}
			return nil
		}
		done := make(chan error, 1)
		go func() {
			done <- newOutbox(t, outbox.Options{Lease: 5 * time.Second}).RunOn(ctx, f, publisher(func(context.Context, []outbox.Message) []error {
				cancel()
				return nil
			}))
		}()
		start := time.Now()
		require.NoError(t, <-done)
		require.LessOrEqual(t, time.Since(start), 10*time.Second)
	})
}

func TestPanicIsLoggedWithItsStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := outbox.NewFake(1)
		f.Add(msg("a", "1"), msg("b", "2"))
		logged := new(strings.Builder)
		box := newOutbox(t, outbox.Options{Logger: slog.New(slog.NewTextHandler(logged, nil)), RetryBase: time.Hour})
		n, err := box.DrainOn(t.Context(), f, publisher(func(context.Context, []outbox.Message) []error { panic("oops") }))
		require.NoError(t, err)
		require.Zero(t, n)
		require.Contains(t, logged.String(), "oops")
		require.Contains(t, logged.String(), "TestPanicIsLoggedWithItsStack")
		require.Equal(t, 1, strings.Count(logged.String(), "stack="), "once a call")
		require.Equal(t, []string{"1", "2"}, f.Table("waiting"))
		require.Equal(t, 1, f.Attempts("1"))
	})
}

func TestWaitingAndReadyMessagesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, batch := range []int{1, 3} {
			box, f := newOutbox(t, outbox.Options{Batch: batch, PollMin: time.Millisecond}), outbox.NewFake(1)
			for range 100 {
				f.Add(msg("", "retry"))
			}
			_, err := box.DrainOn(t.Context(), f, publisher(func(_ context.Context, batch []outbox.Message) []error {
				errs := make([]error, len(batch))
				for i := range errs {
					errs[i] = outbox.RetryAfter(errDown, time.Minute)
				}
				return errs
			}))
			require.NoError(t, err)
			time.Sleep(time.Minute)
			for range 100 {
				f.Add(msg("", "new"))
			}
			var order []string
			_, err = box.DrainOn(t.Context(), f, outbox.PublisherFunc(func(_ context.Context, m outbox.Message) error {
				order = append(order, string(m.Payload))
				return nil
			}))
			require.NoError(t, err)
			require.Len(t, order, 200)
			streak, last := 0, ""
			for _, name := range order[:120] { // there are some of both
				if name != last {
					streak, last = 0, name
				}
				streak++
				require.LessOrEqual(t, streak, 4*batch, "neither starves: %v", order)
			}
		}
	})
}

func TestDrainSaysWhoIsInTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := outbox.NewFake(1)
		stop := running(t, newOutbox(t, outbox.Options{}), f, new(log).publisher(nil))
		synctest.Wait()
		box := newOutbox(t, outbox.Options{})
		_, err := box.DrainOn(t.Context(), f, nil)
		require.ErrorIs(t, err, outbox.ErrLeased)
		stop()
		f.Add(msg("k", "1"), msg("k", "2"))
		n, err := box.DrainOn(t.Context(), f, outbox.PublisherFunc(func(context.Context, outbox.Message) error {
			f.Steal()
			return nil
		}))
		require.ErrorIs(t, err, outbox.ErrLeased)
		require.Zero(t, n)
		require.Empty(t, f.Table("gone"))
	})
}
