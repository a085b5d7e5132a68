package benchmarks

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/httprate"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/stretchr/testify/require"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	"golang.org/x/time/rate"

	ours "github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/httplimit"
)

// The defects of peers that the research page names, each beside what this library does.
// The peers' verdicts are asserted too: a test fails when a peer has mended its own.
//
//	cd benchmarks && GOWORK=off go test -count=1 -v -run RateLimitDefects .

func tell(t *testing.T, what string, peer, we any) {
	t.Helper()
	t.Logf("%-60s peer %-10v evenkeel %v", what, peer, we)
}

func limiterOf(t testing.TB, limit ours.Limit) *ours.Limiter {
	l, err := ours.NewLimiter(limit)
	require.NoError(t, err)
	return l
}

func keyedOf(t testing.TB, limit ours.Limit, capacity int) *ours.Keyed[string] {
	k, err := ours.NewKeyed[string](limit, ours.KeyedOptions{Capacity: capacity})
	require.NoError(t, err)
	return k
}

func TestRateLimitDefects(t *testing.T) {
	t.Run("a clock that jumps back", clockThatJumps)
	t.Run("contention", contention)
	t.Run("a late reading clears a window", lateWindow)
	t.Run("two windows at a boundary", boundary)
	t.Run("spraying keys", spraying)
	t.Run("rates that are no whole nanoseconds", wholeNanoseconds)
	t.Run("Retry-After", retryAfter)
	t.Run("cancelling", cancelling)
	t.Run("a chain of limits", chain)
}

// x/time/rate sets its last reading back with the clock, and mints tokens on its way
// forward again (golang/go#65508).
func clockThatJumps(t *testing.T) {
	peer, we := rate.NewLimiter(1, 10), limiterOf(t, ours.Per(1, time.Second).Burst(10))
	now := time.Now()
	admitted := [2]int{}
	for i := range 2000 {
		at := now.Add(time.Duration(10*(1-i%2)) * time.Second)
		if peer.AllowN(at, 1) {
			admitted[0]++
		}
		if we.TakeAt(at, 1).Allowed {
			admitted[1]++
		}
	}
	tell(t, "1/s burst 10, readings 10 s apart: at most 20", admitted[0], admitted[1])
	require.Greater(t, admitted[0], 20)
	require.LessOrEqual(t, admitted[1], 20)
}

// The same on the real clock: goroutines that read it before they get the lock.
func contention(t *testing.T) {
	const perSecond, burst = 100_000, 1000
	hammer := func(allow func() bool) float64 {
		var admitted atomic.Int64
		var wg sync.WaitGroup
		started := time.Now()
		for range 2000 {
			wg.Go(func() {
				for time.Since(started) < time.Second {
					if allow() {
						admitted.Add(1)
					}
				}
			})
		}
		wg.Wait()
		bound := burst + perSecond*time.Since(started).Seconds()
		return float64(admitted.Load()) / bound
	}
	peer := hammer(rate.NewLimiter(perSecond, burst).Allow)
	we := hammer(limiterOf(t, ours.Per(perSecond, time.Second).Burst(burst)).Allow)
	tell(t, "2000 goroutines, part of the bound that was admitted", fmt.Sprintf("%.3f", peer), fmt.Sprintf("%.3f", we))
	require.LessOrEqual(t, we, 1.0, "never one above the bound")
	require.Greater(t, we, 0.5)
}

// httprate's counter starts a new window whenever the window of a call is another one:
// also when it is an earlier one, read just before the boundary.
func lateWindow(t *testing.T) {
	counter := httprate.NewLocalLimitCounter(time.Minute)
	window := time.Now().UTC().Truncate(time.Minute)
	for range 100 {
		require.NoError(t, counter.Increment("ann", window))
	}
	require.NoError(t, counter.Increment("bob", window.Add(-time.Minute)))
	left, _, err := counter.Get("ann", window, window.Add(-time.Minute))
	require.NoError(t, err)

	we := keyedOf(t, ours.Per(100, time.Minute), 100)
	now := time.Now()
	require.True(t, we.TakeAt("ann", now, 100).Allowed)
	we.TakeAt("bob", now.Add(-time.Minute), 1)
	counted := 100 - we.TakeAt("ann", now, 0).Remaining
	tell(t, "100 counted, then a call of the window before: still counted", left, counted)
	require.Zero(t, left)
	require.Equal(t, int64(100), counted)
}

// go-limiter counts in windows that begin with the first call. It reads a clock of its own,
// which synctest does not have.
func boundary(t *testing.T) {
	const interval = 300 * time.Millisecond
	for range 10 { // a busy machine may sleep through the boundary
		began := time.Now()
		store, err := memorystore.New(&memorystore.Config{Tokens: 100, Interval: interval})
		require.NoError(t, err)
		we := keyedOf(t, ours.Per(100, interval), 100)
		theirs, mine := 0, 0
		ask := func() {
			if _, _, _, ok, err := store.Take(t.Context(), "ann"); ok && err == nil {
				theirs++
			}
			if we.Allow("ann") {
				mine++
			}
		}
		ask()
		<-time.After(interval * 9 / 10)
		theirs, mine = 0, 0
		started := time.Now()
		for time.Since(began) < interval*11/10 {
			ask()
		}
		bound := 100 + int(100*time.Since(started)/interval)
		require.LessOrEqual(t, mine, bound)
		require.NoError(t, store.Close(t.Context()))
		if theirs > bound {
			tell(t, fmt.Sprintf("100 per 300 ms, over a boundary: at most %d", bound), theirs, mine)
			return
		}
	}
	require.Fail(t, "the peer keeps its limit over a boundary")
}

// An LRU forgets the oldest key, which then has a fresh burst.
func spraying(t *testing.T) {
	store, err := memstore.NewCtx(1000)
	require.NoError(t, err)
	peer, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{MaxRate: throttled.PerHour(10), MaxBurst: 9})
	require.NoError(t, err)
	we := keyedOf(t, ours.Per(10, time.Hour), 1000)
	admitted := [2]int{}
	ask := func(key string, count bool) {
		limited, _, err := peer.RateLimitCtx(t.Context(), key, 1)
		require.NoError(t, err)
		ok := we.Allow(key)
		if count && !limited {
			admitted[0]++
		}
		if count && ok {
			admitted[1]++
		}
	}
	for round := range 20 {
		for range 10 {
			ask("victim", true)
		}
		for i := range 1001 {
			ask(strconv.Itoa(round*1001+i), false)
		}
	}
	tell(t, "10/h, 1001 other keys between the rounds: at most 10", admitted[0], admitted[1])
	require.Equal(t, 200, admitted[0])
	require.LessOrEqual(t, admitted[1], 10)
}

// An interval of whole nanoseconds that is rounded down is a rate that is rounded up.
func wholeNanoseconds(t *testing.T) {
	for _, perSecond := range []int{600_000, 3_000_000, 700_000_000} {
		store, err := memstore.New(10)
		require.NoError(t, err)
		now := time.Now()
		store.SetTimeNow(func() time.Time { return now })
		peer, err := throttled.NewGCRARateLimiterCtx(throttled.WrapStoreWithContext(store), throttled.RateQuota{MaxRate: throttled.PerSec(perSecond), MaxBurst: perSecond})
		require.NoError(t, err)
		we := limiterOf(t, ours.Per(int64(perSecond), time.Second).Burst(int64(perSecond)))
		limited, _, err := peer.RateLimitCtx(t.Context(), "a", perSecond)
		require.NoError(t, err)
		require.False(t, limited)
		require.True(t, we.TakeAt(now, int64(perSecond)).Allowed)
		now = now.Add(time.Second / 2)
		_, result, err := peer.RateLimitCtx(t.Context(), "a", 0)
		require.NoError(t, err)
		flown := float64(result.Remaining) / float64(perSecond/2)
		ourFlow := float64(we.TakeAt(now, 0).Remaining) / float64(perSecond/2)
		tell(t, fmt.Sprintf("%d/s: what flows in, as a part of it", perSecond), fmt.Sprintf("%.5f", flown), fmt.Sprintf("%.5f", ourFlow))
		require.Greater(t, flown, 1.0001)
		require.LessOrEqual(t, ourFlow, 1.0)
		require.Greater(t, ourFlow, 0.999)
	}
}

// httprate sends the length of the window as Retry-After, whatever the wait is.
func retryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
		key := func(*http.Request) (string, error) { return "ann", nil }
		peer := httprate.LimitBy(60, time.Hour, key)(ok)
		wrap, err := httplimit.New(keyedOf(t, ours.Per(60, time.Hour), 10), httplimit.Options{Key: key})
		require.NoError(t, err)
		we := wrap(ok)
		refused := func(h http.Handler) string {
			for {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
				if w.Code != http.StatusOK {
					return w.Header().Get("Retry-After")
				}
			}
		}
		a, b := refused(peer), refused(we)
		tell(t, "60/h, the next is there after 60 s: Retry-After", a, b)
		require.Equal(t, "3600", a)
		require.Equal(t, "60", b)
	})
}

// x/time/rate gives nothing back for a reservation whose time has come.
func cancelling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer, we := rate.NewLimiter(1, 10), limiterOf(t, ours.Per(1, time.Second).Burst(10))
		theirs := peer.ReserveN(time.Now(), 5)
		mine, err := we.Reserve(5, 0)
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		theirs.Cancel()
		mine.Cancel()
		tell(t, "5 of 10 reserved and cancelled after 1 ns: what is left", int(peer.Tokens()), we.Peek(0).Remaining)
		require.Equal(t, 5, int(peer.Tokens()))
		require.Equal(t, int64(10), we.Peek(0).Remaining)
	})
}

// Limits that are asked one after the other have charged the first when the second
// refuses: all peers.
func chain(t *testing.T) {
	hourTheirs, minuteTheirs := rate.NewLimiter(rate.Every(36*time.Second), 100), rate.NewLimiter(rate.Every(time.Minute), 1)
	hour, minute := limiterOf(t, ours.Per(100, time.Hour)), limiterOf(t, ours.Per(1, time.Minute))
	for range 50 {
		_ = hourTheirs.Allow() && minuteTheirs.Allow()
		ours.All(hour.Want(1), minute.Want(1))
	}
	tell(t, "50 asked, 1 admitted: left of 100 an hour", int(hourTheirs.Tokens()), hour.Peek(0).Remaining)
	require.Less(t, int(hourTheirs.Tokens()), 60)
	require.GreaterOrEqual(t, hour.Peek(0).Remaining, int64(99))
}
