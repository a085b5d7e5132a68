package outbox_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// TestSeveralRunsAgreeWithTheTables lets drainers come, go, pause and fail at
// random, in virtual time, and checks what a consumer sees.
func TestSeveralRunsAgreeWithTheTables(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, severalRuns) })
}

func severalRuns(t *rapid.T) {
	f := outbox.NewFake(rapid.IntRange(1, 6).Draw(t, "buckets"))
	seen := map[string]bool{}
	var mu sync.Mutex
	var wrong []string
	version := map[string]int{} // the newest that was seen of a key
	p := publisher(func(ctx context.Context, batch []outbox.Message) []error {
		errs := make([]error, len(batch))
		for i, m := range batch {
			mu.Lock()
			switch {
			case m.Payload[0]%5 == byte(m.Attempt):
				errs[i] = errDown
			default:
				if !seen[m.Key+string(m.Payload)] {
					seen[m.Key+string(m.Payload)] = true
					if int(m.Payload[0]) != version[m.Key]+1 {
						wrong = append(wrong, m.Key)
					}
					version[m.Key]++
				}
			}
			mu.Unlock()
		}
		if batch[0].ID%3 == 0 {
			time.Sleep(2 * time.Second) // longer than the lease
		}
		return errs
	})
	hangs := rapid.SliceOfN(rapid.Bool(), 0, 60).Draw(t, "renewals that hang")
	f.Fail = func(ctx context.Context, op string) error {
		if op != "renew" {
			return nil
		}
		mu.Lock()
		hang := len(hangs) > 0 && hangs[0]
		hangs = hangs[min(1, len(hangs)):]
		mu.Unlock()
		if hang {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 3 {
		box := newOutbox(t, outbox.Options{
			Batch: rapid.IntRange(1, 5).Draw(t, "batch"), Lease: time.Second, PollMin: 100 * time.Millisecond, PollMax: 2 * time.Second,
			RetryBase: time.Second, RetryMax: time.Second, MaxAttempts: -1,
		})
		wg.Go(func() {
			if err := box.RunOn(ctx, f, p); err != nil {
				panic(err)
			}
		})
	}
	added := map[string]int{}
	for range rapid.IntRange(1, 30).Draw(t, "messages") {
		key := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key")
		added[key]++
		f.Add(msg(key, string(byte(added[key]))))
		time.Sleep(time.Duration(rapid.IntRange(0, 2000).Draw(t, "pause")) * time.Millisecond)
	}
	time.Sleep(5 * time.Minute)
	cancel()
	wg.Wait()
	require.Empty(t, wrong, "first deliveries out of order")
	require.Equal(t, added, version, "everything was delivered")
	require.Empty(t, f.Table("ready"))
	require.Empty(t, f.Table("waiting"))
	require.Empty(t, f.Table("dead"))
}
