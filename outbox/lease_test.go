package outbox_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// TestLeasedIsToldOfChangesOnly: one that stands by has nothing to tell.
func TestLeasedIsToldOfChangesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := outbox.NewFake(1)
		stop := running(t, newOutbox(t, outbox.Options{}), f, new(log).publisher(nil))
		synctest.Wait()
		var told []int
		box := newOutbox(t, outbox.Options{Trace: &outbox.Trace{Leased: func(_ int64, buckets, _ int) { told = append(told, buckets) }}})
		standby := running(t, box, f, new(log).publisher(nil))
		time.Sleep(time.Hour)
		stop()
		time.Sleep(time.Hour)
		standby()
		require.Equal(t, []int{0, 1, 0}, told)
	})
}

// TestLeaseThatIsLostAgainAndAgainIsNoBusyLoop: where leases are shorter than the
// database takes, for example.
func TestLeaseThatIsLostAgainAndAgainIsNoBusyLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := outbox.NewFake(1)
		f.Fail = func(ctx context.Context, op string) error {
			if op == "look" {
				f.Steal()
				if f.Calls("join") > 1000 {
					<-ctx.Done() // enough
				}
			}
			return nil
		}
		stop := running(t, newOutbox(t, outbox.Options{}), f, new(log).publisher(nil))
		time.Sleep(time.Minute)
		stop()
		require.Less(t, f.Calls("join"), 100)
	})
}

// TestLostAnswerOfJoinLeavesNoLease: it would have half of the buckets for as long
// as it lasts.
func TestLostAnswerOfJoinLeavesNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := outbox.NewFake(4)
		lost := true
		f.Lost = func(op string) error {
			if op == "join" && lost {
				lost = false
				return outbox.ErrDatabase
			}
			return nil
		}
		stop := running(t, newOutbox(t, outbox.Options{Lease: time.Hour}), f, new(log).publisher(nil))
		time.Sleep(time.Minute)
		shares, _ := f.Shares()
		require.Equal(t, map[int64]int{2: 4}, shares)
		stop()
	})
}

// TestRebalanceDoesNotWaitForACallForEver: a destination that hangs would keep
// buckets from a drainer that came, and everybody else's messages with them.
func TestRebalanceDoesNotWaitForACallForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := outbox.Options{Topics: map[string]outbox.Topic{"hangs": {}, "t": {}}}
		f, l := outbox.NewFake(64), new(log)
		p := l.publisher(func(ctx context.Context, m outbox.Message) error {
			if m.Topic == "hangs" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		stop := running(t, newOutbox(t, o), f, p)
		f.Add(outbox.Message{Topic: "hangs"})
		time.Sleep(time.Minute)
		stopOther := running(t, newOutbox(t, o), f, p)
		time.Sleep(time.Minute)
		for _, key := range []string{"a", "b", "c", "d"} {
			f.Add(msg(key, key))
		}
		time.Sleep(time.Minute)
		names, _ := l.take()
		require.Len(t, names, 4)
		shares, _ := f.Shares()
		require.Equal(t, map[int64]int{1: 32, 2: 32}, shares)
		require.Zero(t, f.Attempts(""), "no attempt was counted")
		stop()
		stopOther()
	})
}
